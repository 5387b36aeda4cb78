"""What later standard versions added, on every supported version."""

import atexit
import importlib
import inspect
import os
import pickle
import signal
import subprocess
import sys
import time
import typing

import pytest

pytestmark = pytest.mark.rsmp_only("the standard library has these from 3.12, 3.13 or 3.14 on only")


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_queue_types_are_subscriptable(mp, ctx, name):
    for make in (getattr(mp, name), getattr(ctx, name)):
        alias = make[int]
        assert typing.get_args(alias) == (int,)
        assert inspect.isclass(typing.get_origin(alias))
        queue = alias()
        assert isinstance(queue, typing.get_origin(alias))
        queue.close()
    assert inspect.ismethod(inspect.unwrap(getattr(mp, name)))


@pytest.mark.parametrize("name", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_the_queue_classes_are_subscriptable(mp, name):
    kind = getattr(importlib.import_module(f"{mp.__name__}.queues"), name)
    assert typing.get_origin(kind[int]) is kind


def test_shared_memory_need_not_be_tracked(mp):
    shared_memory = importlib.import_module(f"{mp.__name__}.shared_memory")
    memory = shared_memory.SharedMemory(create=True, size=10, track=False)
    other = shared_memory.SharedMemory(memory.name, track=False)
    other.close()
    memory.close()
    memory.unlink()
    with pytest.raises(TypeError):
        shared_memory.SharedMemory(None, True, 10, False)


def sleep_long(sender):
    try:
        sender.send("ready")
        time.sleep(60)
    except KeyboardInterrupt:
        sender.send("interrupted")


def test_a_process_can_be_interrupted(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=sleep_long, args=(sender,))
    process.start()
    assert receiver.recv() == "ready"
    process.interrupt()
    assert receiver.recv() == "interrupted"
    process.join()
    assert process.exitcode == 0
    process.close()
    with pytest.raises(ValueError, match="process object is closed"):
        process.interrupt()
    receiver.close()
    sender.close()


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_locks_say_whether_they_are_held(ctx, name):
    lock = getattr(ctx, name)()
    assert lock.locked() is False
    with lock:
        assert lock.locked() is True
    assert lock.locked() is False


def test_managers_have_sets(ctx):
    with ctx.Manager() as manager:
        shared = manager.set({1, 2})
        shared.add(3)
        shared.discard(1)
        assert 3 in shared and len(shared) == 2 and set(shared) == {2, 3}
        assert shared | {9} == {2, 3, 9}
        assert isinstance(manager.Lock().locked(), bool)


def leave_handler(path):
    atexit.register(path.write_text, "written at exit")


def test_exit_handlers_run_in_children(ctx, tmp_path):
    path = tmp_path / "written"
    process = ctx.Process(target=leave_handler, args=(path,))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert path.read_text() == "written at exit"
    process.close()


class Holder:
    """Something of a user's that holds what cannot be pickled."""

    def __init__(self):
        self.fine = 1
        self.callback = lambda: 1


def test_a_pickling_error_says_which_attribute(ctx):
    queue = ctx.Queue()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)) as caught:
        queue.put({"key": [0, Holder()]})
    notes = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
    for part in ("callback", "Holder", "'key'", "lambda"):
        assert part in notes
    queue.close()


def test_a_pickling_error_of_a_process_says_which_argument(mp):
    for method in ("spawn", "forkserver"):
        process = mp.get_context(method).Process(target=print, args=(1, Holder()))
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError)) as caught:
            process.start()
        notes = "\n".join([str(caught.value), *getattr(caught.value, "__notes__", [])])
        assert "callback" in notes and "lambda" in notes


def be_interrupted():
    os.kill(os.getpid(), signal.SIGINT)
    time.sleep(10)


def test_an_interrupted_child_ends_as_the_standard_ones_do(ctx):
    process = ctx.Process(target=be_interrupted)
    process.start()
    process.join(20)
    assert process.exitcode == 1
    process.close()


PRELOADING = """
import sys, {library} as mp
if __name__ == "__main__":
    context = mp.get_context("forkserver")
    context.set_forkserver_preload(["no_such_module"], on_error="{on_error}")
    process = context.Process(target=print, args=("ran",))
    try:
        process.start()
        process.join()
    except EOFError:
        print("failed")
"""


@pytest.mark.parametrize(
    ("on_error", "printed", "told"),
    [
        ("ignore", "ran", ""),
        ("warn", "ran", "ImportWarning: Failed to preload module 'no_such_module': No module named 'no_such_module'"),
        ("fail", "failed", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_modules_that_cannot_be_preloaded(mp, tmp_path, on_error, printed, told):
    program = tmp_path / "program.py"
    program.write_text(PRELOADING.format(library=mp.__name__, on_error=on_error))
    command = [sys.executable, "-W", "always::ImportWarning", program]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert ran.stdout == f"{printed}\n"
    assert told in ran.stderr if told else not ran.stderr
    with pytest.raises(ValueError, match="on_error must be"):
        mp.set_forkserver_preload([], on_error="shrug")
