"""What Process promises, for each start method."""

import os
import signal
import sys
import time

import pytest
from process_helpers import started

from under_test import mp as library
from under_test import submodule


def ended(process, exitcode=0):
    process.join(30)
    assert process.exitcode == exitcode
    process.close()


def say_who(sender):
    process = library.current_process()
    parent = library.parent_process()
    sender.send((process.name, process.pid, os.getpid(), process.daemon, process._identity, parent.pid))


def send_arguments(sender, *args, **kwargs):
    sender.send((args, kwargs))


def do_nothing():
    pass


def exit_with(value):
    sys.exit(value)


def raise_error():
    raise ValueError("on purpose")


def kill_self(number):
    os.kill(os.getpid(), number)


def sleep_long():
    time.sleep(60)


def start_child(method, sender):
    child = library.get_context(method).Process(target=say_who, args=(sender,))
    child.start()
    child.join()
    sender.send(child.exitcode)


def write_and_return():
    sys.stdout.write("written without a newline")


def report_active(sender):
    sender.send((library.active_children(), "authkey" in library.current_process()._config))


def report_parent(sender):
    parent = library.parent_process()
    sender.send((parent.pid, parent.is_alive()))


class Greeter:
    """Stands for a user's class with state."""

    def __init__(self, name):
        self.name = name

    def greet(self, sender):
        sender.send(f"hello {self.name}")


@pytest.fixture
def written(ctx, capfd):
    """Return what children wrote to one of the standard streams, or None where it cannot be seen.

    The children of a fork server that runs already write where it did when it started.
    """

    def read(stream):
        return getattr(capfd.readouterr(), stream) if ctx.get_start_method() != "forkserver" else None

    return read


@pytest.fixture
def pipe(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    yield receiver, sender
    receiver.close()
    sender.close()


def test_a_child_knows_itself_and_its_parent(ctx, pipe):
    receiver, sender = pipe
    process = started(ctx, say_who, sender, name="Bob")
    name, pid, own_pid, daemon, identity, parent = receiver.recv()
    assert (name, pid, own_pid, parent) == ("Bob", process.pid, process.pid, os.getpid())
    assert daemon is False and identity == process._identity
    ended(process)


def test_arguments_arrive(ctx, pipe):
    receiver, sender = pipe
    process = ctx.Process(target=send_arguments, args=(sender, 1, [2]), kwargs={"three": (3,)})
    process.start()
    assert receiver.recv() == ((1, [2]), {"three": (3,)})
    ended(process)


def test_a_bound_method_can_be_the_target(ctx, pipe):
    receiver, sender = pipe
    process = started(ctx, Greeter("Eve").greet, sender)
    assert receiver.recv() == "hello Eve"
    ended(process)


@pytest.mark.parametrize(
    ("value", "exitcode"), [(None, 0), (0, 0), (7, 7), (255, 255), (256, 0), (True, 1), ("an error message", 1)]
)
def test_exit_codes_of_sys_exit(mp, value, exitcode, capfd):
    # One start method shows each code: the child's part is the same in all three.
    ended(started(mp.get_context("fork"), exit_with, value), exitcode)
    assert capfd.readouterr().err == ("an error message\n" if isinstance(value, str) else "")


def test_exit_codes(ctx, written):
    ended(started(ctx, exit_with, 3), 3)
    ended(started(ctx, raise_error), 1)
    ended(started(ctx, kill_self, signal.SIGKILL), -signal.SIGKILL)
    error = written("err")
    assert error is None or ("Traceback (most recent call last):" in error and "ValueError: on purpose" in error)


@pytest.mark.parametrize(("stop", "number"), [("terminate", signal.SIGTERM), ("kill", signal.SIGKILL)])
def test_a_process_is_stopped(ctx, stop, number):
    process = started(ctx, sleep_long)
    assert process.is_alive() and process.exitcode is None
    getattr(process, stop)()
    ended(process, -number)


def test_the_sentinel_becomes_ready_when_the_process_ends(ctx):
    wait = submodule("connection").wait
    process = started(ctx, sleep_long)
    assert wait([process.sentinel], timeout=0) == []
    process.kill()
    assert wait([process.sentinel], timeout=30) == [process.sentinel]
    ended(process, -signal.SIGKILL)


def test_join_with_a_timeout_comes_back(ctx):
    process = started(ctx, sleep_long)
    begun = time.monotonic()
    process.join(0.1)
    assert 0.09 <= time.monotonic() - begun < 5
    assert process.is_alive()
    process.kill()
    ended(process, -signal.SIGKILL)


def test_active_children_are_those_that_run(ctx, mp):
    process = started(ctx, sleep_long)
    assert process in mp.active_children()
    process.kill()
    process.join()
    assert process not in mp.active_children()
    process.close()


def test_a_child_begins_without_children(ctx, pipe):
    receiver, sender = pipe
    sleeper = started(ctx, sleep_long)
    process = started(ctx, report_active, sender)
    assert receiver.recv() == ([], True)
    ended(process)
    sleeper.kill()
    ended(sleeper, -signal.SIGKILL)


def test_children_have_children(ctx, pipe):
    receiver, sender = pipe
    process = started(ctx, start_child, ctx.get_start_method(), sender)
    _, pid, _, _, identity, parent = receiver.recv()
    assert receiver.recv() == 0
    assert parent == process.pid and pid != process.pid
    assert len(identity) == 2
    ended(process)


def test_a_daemon_may_have_no_children(ctx, pipe, written):
    _, sender = pipe
    process = started(ctx, start_child, ctx.get_start_method(), sender, daemon=True)
    ended(process, 1)
    error = written("err")
    assert error is None or "daemonic processes are not allowed to have children" in error


def test_what_a_child_wrote_is_flushed(ctx, written):
    ended(started(ctx, write_and_return))
    assert written("out") in (None, "written without a newline")


def test_the_parent_process_is_known(ctx, pipe, mp):
    receiver, sender = pipe
    assert mp.parent_process() is None
    process = started(ctx, report_parent, sender)
    assert receiver.recv() == (os.getpid(), True)
    ended(process)


def test_a_process_starts_once(ctx):
    process = started(ctx, do_nothing)
    with pytest.raises(AssertionError, match="cannot start a process twice"):
        process.start()
    ended(process)


def test_misuse_is_told(ctx):
    process = ctx.Process(target=sleep_long)
    with pytest.raises(AssertionError, match="can only join a started process"):
        process.join()
    with pytest.raises(ValueError, match="process not started"):
        _ = process.sentinel
    assert process.exitcode is None and not process.is_alive() and process.pid is None
    process.start()
    with pytest.raises(ValueError, match="Cannot close a process while it is still running"):
        process.close()
    with pytest.raises(AssertionError, match="process has already started"):
        process.daemon = True
    process.kill()
    process.join()
    process.close()
    for use in (process.join, process.is_alive, process.terminate, process.kill):
        with pytest.raises(ValueError, match="process object is closed"):
            use()
    with pytest.raises(ValueError, match="process object is closed"):
        _ = process.exitcode
    process.close()


def test_representation(ctx):
    process = ctx.Process(target=do_nothing, name="worker")
    kind = type(process).__name__
    assert repr(process) == f"<{kind} name='worker' parent={os.getpid()} initial>"
    process.start()
    pid = process.pid
    process.join()
    assert repr(process) == f"<{kind} name='worker' pid={pid} parent={os.getpid()} stopped exitcode=0>"
    process.close()
    assert repr(process) == f"<{kind} name='worker' parent={os.getpid()} closed>"


def test_many_at_once(ctx):
    processes = [started(ctx, exit_with, n) for n in range(10)]
    for n, process in enumerate(processes):
        ended(process, n)


class Counter:
    """A process that sends a sum and ends with an exit code."""

    def __init__(self, sender, limit):
        super().__init__()
        self.sender, self.limit = sender, limit

    def run(self):
        self.sender.send(sum(range(self.limit)))
        sys.exit(self.limit - 1)


class ForkCounter(Counter, library.context.ForkProcess):
    pass


class SpawnCounter(Counter, library.context.SpawnProcess):
    pass


class ForkServerCounter(Counter, library.context.ForkServerProcess):
    pass


def test_a_subclass_overrides_run(ctx, pipe):
    receiver, sender = pipe
    kind = {"fork": ForkCounter, "spawn": SpawnCounter, "forkserver": ForkServerCounter}[ctx.get_start_method()]
    process = kind(sender, 5)
    process.start()
    assert receiver.recv() == 10
    ended(process, 4)
