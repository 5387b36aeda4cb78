"""A program imports rsmp while its libraries import ``multiprocessing``: both see one state.

Each case runs for the three start methods. The functions below run in child processes.
"""

import copyreg
import logging
import multiprocessing
import multiprocessing.connection
import multiprocessing.context
import multiprocessing.managers
import multiprocessing.pool
import multiprocessing.process
import multiprocessing.queues
import multiprocessing.reduction
import multiprocessing.shared_memory
import multiprocessing.sharedctypes
import multiprocessing.synchronize
import multiprocessing.util
import os
import subprocess
import sys

import pytest

import rsmp
import rsmp.connection
import rsmp.managers
import rsmp.pool
import rsmp.queues
import rsmp.shared_memory
import rsmp.sharedctypes
import rsmp.synchronize
import rsmp.util

METHODS = ["fork", "spawn", "forkserver"]
LIBRARIES = {"rsmp": rsmp, "multiprocessing": multiprocessing}


@pytest.fixture(params=METHODS)
def method(request):
    return request.param


@pytest.fixture(params=["rsmp object, standard process", "standard object, rsmp process"])
def pair(request, method):
    """The context that makes the object and the one that makes the process."""
    ours, standard = rsmp.get_context(method), multiprocessing.get_context(method)
    return (ours, standard) if request.param.startswith("rsmp") else (standard, ours)


def run(ctx, target, *args, **options):
    process = ctx.Process(target=target, args=args, **options)
    process.start()
    return process


def finish(process):
    process.join(30)
    assert process.exitcode == 0
    process.close()


def describe(sender):
    record = logging.LogRecord("name", logging.INFO, "path", 1, "message", (), None)
    found = []
    for library in LIBRARIES.values():
        process, parent = library.current_process(), library.parent_process()
        found.append((process.name, process.pid, process.daemon, parent.pid, library.active_children()))
    sender.send((found, record.processName))


def fill(queue, items):
    for item in items:
        queue.put(item)


def talk(connection):
    connection.send(("got", connection.recv()))
    connection.close()


def add(lock, value, times):
    for _ in range(times):
        with lock:
            value.value += 1


def set_event(event):
    event.set()


def notify(condition):
    with condition:
        condition.notify_all()


def meet(barrier):
    barrier.wait(30)


class Reduced:
    """Pickled by a reducer that only the standard library was told of."""

    def __init__(self, value):
        self.value = value


def rebuild(value):
    return Reduced(f"reduced {value}")


def reduce(item):
    return rebuild, (item.value,)


def send_back(source, target):
    target.put(source.get().value)


def name_of(_):
    return multiprocessing.current_process().name


def test_a_child_is_the_current_process_of_both(method):
    ctx = rsmp.get_context(method)
    receiver, sender = ctx.Pipe(duplex=False)
    process = run(ctx, describe, sender, name="worker 7", daemon=True)
    found, process_name = receiver.recv()
    assert found == [("worker 7", process.pid, True, os.getpid(), [])] * 2
    assert process_name == "worker 7"
    finish(process)
    receiver.close()
    sender.close()


def test_children_are_those_of_both(method):
    ours, theirs = rsmp.Pipe()
    process = run(rsmp.get_context(method), talk, theirs)
    other = run(multiprocessing.get_context(method), talk, theirs)
    for library in LIBRARIES.values():
        assert {process, other} <= set(library.active_children())
    for each in (process, other):
        each.kill()
        each.join()
        each.close()
    ours.close()
    theirs.close()


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_queues_cross(pair, kind):
    maker, starter = pair
    queue = getattr(maker, kind)()
    process = run(starter, fill, queue, [1, "two", b"3" * 100_000])
    assert [queue.get() for _ in range(3)] == [1, "two", b"3" * 100_000]
    finish(process)
    queue.close()


def test_connections_cross(pair):
    maker, starter = pair
    ours, theirs = maker.Pipe()
    process = run(starter, talk, theirs)
    theirs.close()
    ours.send("hello")
    assert ours.recv() == ("got", "hello")
    finish(process)
    ours.close()


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition"])
def test_locks_and_values_cross(pair, kind):
    maker, starter = pair
    lock, value = getattr(maker, kind)(), maker.Value("i", 0)
    process = run(starter, add, lock, value, 200)
    add(lock, value, 200)
    finish(process)
    assert value.value == 400


def test_events_conditions_and_barriers_cross(pair):
    maker, starter = pair
    event, condition, barrier = maker.Event(), maker.Condition(), maker.Barrier(2)
    process = run(starter, set_event, event)
    assert event.wait(30)
    finish(process)
    with condition:
        process = run(starter, notify, condition)
        assert condition.wait(30)
    finish(process)
    process = run(starter, meet, barrier)
    barrier.wait(30)
    finish(process)


def test_wait_takes_what_either_makes(pair, method):
    maker, starter = pair
    ours, theirs = maker.Pipe()
    process = run(starter, talk, theirs)
    ours.send(1)
    for library in LIBRARIES.values():
        assert library.connection.wait([ours, process.sentinel], timeout=30)
    ours.recv()
    finish(process)
    ours.close()
    theirs.close()


def test_a_reducer_registered_with_the_standard_library_is_used(method, monkeypatch):
    registered = multiprocessing.reduction.ForkingPickler._extra_reducers
    monkeypatch.setitem(registered, Reduced, reduce)
    assert Reduced not in copyreg.dispatch_table
    ctx = rsmp.get_context(method)
    there, back = ctx.Queue(), ctx.SimpleQueue()
    process = run(ctx, send_back, there, back)
    there.put(Reduced("x"))
    assert back.get() == "reduced x"
    finish(process)
    ours, theirs = ctx.Pipe()
    ours.send(Reduced("y"))
    assert theirs.recv().value == "reduced y"
    for each in (there, back, ours, theirs):
        each.close()


def test_a_reducer_registered_with_rsmp_is_the_standard_librarys_too(monkeypatch):
    monkeypatch.setattr(multiprocessing.reduction.ForkingPickler, "_extra_reducers", {})
    rsmp.reduction.register(Reduced, reduce)
    assert multiprocessing.reduction.ForkingPickler._extra_reducers == {Reduced: reduce}
    assert rsmp.reduction.ForkingPickler is multiprocessing.reduction.ForkingPickler


def test_the_start_method_is_one():
    code = (
        "import multiprocessing, rsmp\n"
        "first, second = (rsmp, multiprocessing) if {swap} else (multiprocessing, rsmp)\n"
        "assert first.get_start_method(allow_none=True) is None\n"
        "first.set_start_method('spawn')\n"
        "assert second.get_start_method() == 'spawn' == first.get_start_method()\n"
        "assert type(rsmp.get_context()).__module__ == 'rsmp.context'\n"
        "second.set_start_method('forkserver', force=True)\n"
        "assert first.get_start_method() == 'forkserver'\n"
        "try:\n"
        "    first.set_start_method('fork')\n"
        "except RuntimeError as error:\n"
        "    print(error)\n"
    )
    for swap in (True, False):
        ran = subprocess.run([sys.executable, "-c", code.format(swap=swap)], capture_output=True, text=True)
        assert (ran.stdout, ran.stderr) == ("context has already been set\n", "")


def test_the_exceptions_are_the_same_objects():
    for name in ("ProcessError", "BufferTooShort", "TimeoutError", "AuthenticationError"):
        assert getattr(rsmp, name) is getattr(multiprocessing, name)
        assert getattr(rsmp.context, name) is getattr(multiprocessing.context, name)
    with rsmp.pool.ThreadPool(1) as pool:
        release = rsmp.Event()
        result = pool.apply_async(release.wait, (30,))
        with pytest.raises(multiprocessing.TimeoutError):
            result.get(timeout=0.01)
        release.set()
        pool.close()
        pool.join()


def test_the_state_is_the_same_objects():
    assert rsmp.process._children is multiprocessing.process._children
    assert rsmp.process._process_counter is multiprocessing.process._process_counter
    assert rsmp.process.current_process() is multiprocessing.process.current_process()
    assert rsmp.util._finalizer_registry is multiprocessing.util._finalizer_registry
    assert rsmp.util._afterfork_registry is multiprocessing.util._afterfork_registry
    assert rsmp.get_logger() is multiprocessing.get_logger()
    assert rsmp.current_process().authkey == multiprocessing.current_process().authkey


def test_a_patch_on_either_side_is_seen_on_the_other(monkeypatch):
    monkeypatch.setattr(multiprocessing.process, "ORIGINAL_DIR", "patched")
    assert rsmp.process.ORIGINAL_DIR == "patched"
    monkeypatch.setattr(rsmp.process, "ORIGINAL_DIR", "again")
    assert multiprocessing.process.ORIGINAL_DIR == "again"


def test_isinstance_of_the_standard_classes(method):
    ctx = rsmp.get_context(method)
    expected = [
        (ctx, multiprocessing.context.BaseContext),
        (ctx, type(multiprocessing.get_context(method))),
        (ctx.Process(), multiprocessing.process.BaseProcess),
        (ctx.Process(), multiprocessing.get_context(method).Process),
        (rsmp.Process(), multiprocessing.Process),
        (ctx.Queue(), multiprocessing.queues.Queue),
        (ctx.JoinableQueue(), multiprocessing.queues.JoinableQueue),
        (ctx.SimpleQueue(), multiprocessing.queues.SimpleQueue),
        (ctx.Lock(), multiprocessing.synchronize.Lock),
        (ctx.RLock(), multiprocessing.synchronize.RLock),
        (ctx.Semaphore(), multiprocessing.synchronize.Semaphore),
        (ctx.BoundedSemaphore(), multiprocessing.synchronize.BoundedSemaphore),
        (ctx.Condition(), multiprocessing.synchronize.Condition),
        (ctx.Event(), multiprocessing.synchronize.Event),
        (ctx.Barrier(1), multiprocessing.synchronize.Barrier),
        (ctx.Value("i"), multiprocessing.sharedctypes.Synchronized),
        (ctx.Array("i", 1), multiprocessing.sharedctypes.SynchronizedArray),
        (ctx.Array("c", 1), multiprocessing.sharedctypes.SynchronizedString),
        *((end, multiprocessing.connection.Connection) for end in ctx.Pipe()),
    ]
    for value, standard in expected:
        assert isinstance(value, standard), (value, standard)
        assert isinstance(value, rsmp_class(standard)), (value, standard)
    for value, _ in expected:
        if hasattr(value, "close") and not isinstance(value, multiprocessing.process.BaseProcess):
            value.close()


def rsmp_class(standard):
    """The rsmp class of the same name as a standard one."""
    module = sys.modules[standard.__module__.replace("multiprocessing", "rsmp", 1)]
    return getattr(module, standard.__name__)


def test_isinstance_of_pools_memory_and_managers():
    with rsmp.Pool(1) as pool:
        assert isinstance(pool, multiprocessing.pool.Pool)
        pool.close()
        pool.join()
    with rsmp.pool.ThreadPool(1) as pool:
        assert isinstance(pool, multiprocessing.pool.ThreadPool)
        pool.close()
        pool.join()
    memory = rsmp.shared_memory.SharedMemory(create=True, size=10)
    assert isinstance(memory, multiprocessing.shared_memory.SharedMemory)
    memory.close()
    memory.unlink()
    with rsmp.Manager() as manager:
        assert isinstance(manager, multiprocessing.managers.SyncManager)
        assert isinstance(manager.dict(), multiprocessing.managers.DictProxy)
        assert isinstance(manager.list(), multiprocessing.managers.ListProxy)


def test_shared_memory_is_found_by_name_from_either_side():
    for maker, other in ((rsmp, multiprocessing), (multiprocessing, rsmp)):
        made = maker.shared_memory.SharedMemory(create=True, size=100)
        made.buf[:5] = b"hello"
        found = other.shared_memory.SharedMemory(made.name)
        assert bytes(found.buf[:5]) == b"hello"
        found.buf[0] = ord("j")
        assert bytes(made.buf[:5]) == b"jello"
        found.close()
        made.close()
        made.unlink()


def test_finalizers_of_both_run_in_a_child(method, tmp_path):
    path = tmp_path / "written"
    finish(run(rsmp.get_context(method), leave_finalizers, path))
    assert sorted(path.read_text().split()) == ["rsmp", "standard"]


def leave_finalizers(path):
    for name, library in (("rsmp", rsmp), ("standard", multiprocessing)):
        library.util.Finalize(None, write_line, (path, name), exitpriority=1)


def write_line(path, line):
    with open(path, "a") as file:
        file.write(f"{line}\n")


def test_workers_of_a_pool_have_their_names_in_both(method):
    with rsmp.get_context(method).Pool(1) as pool:
        assert "PoolWorker" in pool.apply(name_of, (1,))
        pool.close()
        pool.join()
