"""Processes beyond the contract: exit codes, the ends of parents and children, what they hold while they live."""

import atexit
import contextlib
import errno
import os
import resource
import signal
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import pytest
from process_helpers import do_nothing, started

from under_test import mp as library
from under_test import submodule

rsmp_only = pytest.mark.rsmp_only
LONG = 60.0


def sleep_long():
    time.sleep(LONG)


def exit_with(code):
    sys.exit(code)


def gone(pid, timeout=5.0):
    """Whether process ``pid`` ends, to the point of being a zombie, within ``timeout`` seconds."""
    deadline = time.monotonic() + timeout
    while time.monotonic() < deadline:
        try:
            if Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX":
                return True
        except FileNotFoundError:
            return True
        time.sleep(0.005)
    return False


@rsmp_only("the standard sentinel is the end of a pipe")
def test_the_sentinel_is_a_process_descriptor(ctx):
    process = started(ctx, do_nothing)
    assert "pidfd" in os.readlink(f"/proc/self/fd/{process.sentinel}")
    process.join()
    process.close()


@rsmp_only("one thread gets the exit code, the others None or 255")
def test_many_threads_join_one_process(ctx):
    process = started(ctx, exit_with, 7)
    codes = []

    def join():
        process.join()
        codes.append(process.exitcode)

    threads = [threading.Thread(target=join) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert codes == [7] * 8
    process.close()


def test_many_threads_start_and_join(ctx):
    codes = []

    def start_and_join(code):
        process = started(ctx, exit_with, code)
        process.join()
        codes.append(process.exitcode)
        process.close()

    threads = [threading.Thread(target=start_and_join, args=(code,)) for code in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(LONG)
    assert sorted(codes) == list(range(6))


@rsmp_only("the exit code stays None for ever in the standard library")
@pytest.mark.parametrize("method", ["fork", "spawn"])
def test_the_exit_code_of_a_child_that_somebody_else_reaped(mp, method):
    process = started(mp.get_context(method), exit_with, 5)
    os.waitpid(process.pid, 0)
    process.join()
    # Kernels before 6.15 do not keep the code.
    assert process.exitcode in (5, 255) and not process.is_alive()
    process.close()


@rsmp_only("the exit code stays None for ever in the standard library")
def test_children_are_joined_although_sigchld_is_ignored(mp):
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = started(mp.get_context("fork"), exit_with, 5)
        process.join(LONG)
        assert process.exitcode in (5, 255)
    finally:
        signal.signal(signal.SIGCHLD, before)
    process.close()


@rsmp_only("the exit code stays None for ever in the standard library")
def test_a_child_that_is_gone_before_anybody_can_look(mp, monkeypatch):
    fork = os.fork

    def fork_and_linger():
        pid = fork()
        while pid and os.path.exists(f"/proc/{pid}"):
            time.sleep(0.001)
        return pid

    monkeypatch.setattr(os, "fork", fork_and_linger)
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        process = started(mp.get_context("fork"), exit_with, 5)
        process.terminate()
        assert submodule("connection").wait([process.sentinel], LONG) == [process.sentinel]
        process.join(LONG)
        assert process.exitcode == 255
    finally:
        signal.signal(signal.SIGCHLD, before)
    process.close()


@rsmp_only("a standard child goes on in its parent's program")
def test_an_exit_code_that_is_too_large(ctx):
    process = started(ctx, exit_with, 2**70 + 3)
    process.join()
    assert process.exitcode in (3, 255)  # the interpreter's own end, after a spawn, knows no better
    process.close()


def test_a_copy_of_the_object_in_a_fork_knows_nothing(mp):
    ctx = mp.get_context("fork")
    process = started(ctx, sleep_long)

    def look():
        sys.exit(0 if process._popen.poll() is None and "unknown" in repr(process) else 1)

    other = started(ctx, look)
    other.join()
    assert other.exitcode == 0
    process.kill()
    process.join()
    process.close()
    other.close()


@pytest.mark.parametrize("timeout", [0, -1, 0.01])
def test_join_gives_up(ctx, timeout):
    process = started(ctx, sleep_long)
    start = time.monotonic()
    assert process.join(timeout) is None and process.exitcode is None
    assert time.monotonic() - start < 5
    process.terminate()
    process.join()
    assert process.exitcode == -signal.SIGTERM
    process.terminate()  # without effect
    process.close()


def test_a_signal_handler_runs_while_joining(mp):
    process = started(mp.get_context("fork"), sleep_long)
    caught = []
    before = signal.signal(signal.SIGALRM, lambda *_: (caught.append(True), process.kill()))
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        process.join(LONG)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert caught and process.exitcode == -signal.SIGKILL
    process.close()


def test_an_exception_from_a_signal_handler_ends_the_join(mp):
    process = started(mp.get_context("fork"), sleep_long)

    def handler(*_):
        raise ZeroDivisionError("on purpose")

    before = signal.signal(signal.SIGALRM, handler)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.1)
        with pytest.raises(ZeroDivisionError):
            process.join(LONG)
    finally:
        signal.signal(signal.SIGALRM, before)
        process.kill()
        process.join()
    process.close()


def catch_interrupt(sender):
    try:
        sender.send("ready")
        # A signal that comes right before a sleep does not cut it short.
        for _ in range(int(LONG * 100)):
            time.sleep(0.01)
    except KeyboardInterrupt:
        sender.send("interrupted")


@pytest.mark.skipif(
    library.__name__ == "multiprocessing" and sys.version_info < (3, 14),
    reason="the standard Process.interrupt came with Python 3.14; rsmp has it on every version",
)
def test_interrupt(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = started(ctx, catch_interrupt, sender)
        assert receiver.recv() == "ready"
        process.interrupt()
        assert receiver.recv() == "interrupted"
        process.join()
    assert process.exitcode == 0
    process.close()


def leave_traces(path):
    file = open(path, "a", buffering=1)  # noqa: SIM115
    util = submodule("util")
    util.Finalize(None, file.write, args=("finalizer\n",), exitpriority=5)
    atexit.register(file.write, "exit handler\n")
    thread = threading.Thread(target=lambda: (time.sleep(0.2), file.write("thread\n")))
    thread.start()
    file.write("target\n")


@pytest.mark.skipif(
    library.__name__ == "multiprocessing" and sys.version_info < (3, 13),
    reason="before Python 3.13 standard children run no exit handlers; rsmp's do on every version",
)
def test_what_runs_at_the_end_of_a_child(ctx, tmp_path):
    path = tmp_path / "traces"
    process = started(ctx, leave_traces, path)
    process.join()
    assert path.read_text().split("\n")[:-1] == ["target", "thread", "exit handler", "finalizer"]
    process.close()


def test_exit_handlers_of_the_parent_do_not_run_in_a_child(mp, tmp_path):
    path = tmp_path / "traces"
    handler = atexit.register(lambda: path.write_text("ran"))
    process = started(mp.get_context("fork"), do_nothing)
    process.join()
    atexit.unregister(handler)
    assert not path.exists()
    process.close()


PARENT = """
import os, sys, threading, time
from under_test import mp
def child(path):
    open(path, "w").write(str(os.getpid()))
    time.sleep(60)
def start(method, daemon, path):
    mp.get_context(method).Process(target=child, args=(path,), daemon=daemon).start()
if __name__ == "__main__":
    method, daemon, by, path = sys.argv[1:]
    if by == "thread":
        thread = threading.Thread(target=start, args=(method, daemon == "daemon", path))
        thread.start()
        thread.join()
    else:
        start(method, daemon == "daemon", path)
    if by == "fork":
        # The lifeline is not the fork's to hold.
        if os.fork() == 0:
            time.sleep(60)
    time.sleep(60)
"""


@pytest.fixture
def orphan(tmp_path):
    """Return a function that starts a child from a program, kills the program and gives the child's pid."""
    script = tmp_path / "parent.py"
    script.write_text(PARENT)
    path = tmp_path / "pid"
    group = []

    def make(*arguments):
        environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
        parent = subprocess.Popen(
            [sys.executable, script, *arguments, path],
            env=environment,
            start_new_session=True,
            stdin=subprocess.DEVNULL,
        )
        group.append(parent.pid)
        deadline = time.monotonic() + LONG
        while not (path.exists() and path.read_text()) and time.monotonic() < deadline:
            time.sleep(0.01)
        time.sleep(0.1)
        parent.kill()
        parent.wait()
        return int(path.read_text())

    yield make
    for leader in group:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(leader, signal.SIGKILL)


@rsmp_only("a standard daemon outlives a parent that is killed")
@pytest.mark.parametrize("by", ["main", "thread", "fork"])
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_daemon_dies_with_its_parent(orphan, method, by):
    assert gone(orphan(method, "daemon", by), timeout=1.0)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_process_that_is_no_daemon_lives_on(orphan, method):
    pid = orphan(method, "not", "main")
    assert not gone(pid, timeout=0.3)
    os.kill(pid, signal.SIGKILL)


def report_parent(sender):
    parent = library.parent_process()
    sender.send((parent.pid, parent.is_alive(), parent.sentinel))
    parent.join()
    sender.send(parent.is_alive())


def start_and_sleep(method, sender):
    started(library.get_context(method), report_parent, sender)
    time.sleep(LONG)


def test_a_child_notices_the_end_of_its_parent(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = started(ctx, start_and_sleep, ctx.get_start_method(), sender)
        pid, alive, sentinel = receiver.recv()
        assert (pid, alive) == (process.pid, True) and isinstance(sentinel, int)
        process.kill()
        process.join()
        assert receiver.recv() is False
    process.close()


def report_defaults(sender):
    stdin = sys.stdin.read()
    sender.send((stdin, sys.stdin.fileno() == 0 or os.readlink(f"/proc/self/fd/{sys.stdin.fileno()}")))


def test_children_have_an_empty_standard_input(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = started(ctx, report_defaults, sender)
        assert receiver.recv()[0] == ""
        process.join()
    process.close()


@rsmp_only("the standard library leaves the child behind")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_without_descriptors_nothing_is_started(mp, method):
    ctx = mp.get_context(method)
    warm = started(ctx, do_nothing)
    warm.join()
    warm.close()
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(map(int, os.listdir("/proc/self/fd"))) + 20, hard))
    held = []
    failures = 0
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open(os.devnull, os.O_RDONLY))
        for _ in range(12):
            process = ctx.Process(target=do_nothing)
            try:
                process.start()
            except OSError as error:
                assert error.errno == errno.EMFILE
                failures += 1
            else:
                process.join()
                assert process.exitcode == 0
                process.close()
            os.close(held.pop())
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for descriptor in held:
            os.close(descriptor)
    assert 0 < failures < 12


def test_descriptors_do_not_pile_up(ctx):
    def one():
        process = started(ctx, do_nothing)
        process.join()

    one()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        one()
    assert len(os.listdir("/proc/self/fd")) <= before + 1


def test_a_program_that_uses_all_start_methods_at_once_leaves_nothing(tmp_path):
    script = tmp_path / "all.py"
    script.write_text(
        textwrap.dedent("""
        from under_test import mp
        def child(): pass
        if __name__ == "__main__":
            processes = [mp.get_context(m).Process(target=child) for m in ("fork", "spawn", "forkserver") * 2]
            for process in processes: process.start()
            for process in processes: process.join()
            print([process.exitcode for process in processes])
        """)
    )
    environment = {**os.environ, "PYTHONPATH": os.path.dirname(os.path.dirname(__file__))}
    ran = subprocess.run([sys.executable, script], env=environment, capture_output=True, text=True, timeout=LONG)
    assert (ran.stdout.strip(), ran.stderr, ran.returncode) == ("[0, 0, 0, 0, 0, 0]", "", 0)
