"""What tools replace, on the standard modules or, where rsmp stands in for them, on rsmp's, is what processes go by."""

import os
import posix
import subprocess
import sys
import threading

import pytest
from process_helpers import do_nothing, started

from under_test import mp as library
from under_test import submodule


@pytest.fixture(params=["multiprocessing", "under test"])
def module(request):
    """Return a function that gives a submodule of the standard package, or of the library under test."""
    if request.param == "under test":
        return submodule

    def standard(name):
        __import__(f"multiprocessing.{name}")
        return sys.modules[f"multiprocessing.{name}"]

    return standard


def test_waitpid_replaced(mp, monkeypatch):
    """As gevent does: its event loop reaps the children."""
    calls = []

    def waitpid(pid, options):
        calls.append(pid)
        return posix.waitpid(pid, options)

    monkeypatch.setattr(os, "waitpid", waitpid)
    process = started(mp.get_context("fork"), sys.exit, 3)
    process.join()
    assert process.exitcode == 3 and process.pid in calls
    process.close()


def test_fork_replaced(mp, monkeypatch):
    """As gevent and debuggers do."""
    calls = []

    def fork():
        calls.append(os.getpid())
        return posix.fork()

    monkeypatch.setattr(os, "fork", fork)
    process = started(mp.get_context("fork"), do_nothing)
    process.join()
    assert calls == [os.getpid()] and process.exitcode == 0
    process.close()


def test_poll_replaced(mp, module, monkeypatch):
    """As gipc does."""
    process = started(mp.get_context("fork"), sys.exit, 4)
    with monkeypatch.context() as patch:
        patch.setattr(module("popen_fork").Popen, "poll", lambda self, flag=1: None)
        assert process.exitcode is None
    process.join()
    assert process.exitcode == 4
    process.close()


def test_fork_exec_replaced(mp, monkeypatch):
    """As debuggers do, to see the command line."""
    import _posixsubprocess

    lines = []
    original = _posixsubprocess.fork_exec

    def fork_exec(args, *rest):
        lines.append(args)
        return original(args, *rest)

    monkeypatch.setattr(_posixsubprocess, "fork_exec", fork_exec)
    process = started(mp.get_context("spawn"), do_nothing)
    process.join()
    assert process.exitcode == 0
    assert lines[-1][-1] == "--multiprocessing-fork" and "spawn_main(" in lines[-1][-2] and lines[-1][-3] == "-c"
    process.close()


def test_spawnv_passfds_replaced(mp, module, monkeypatch):
    """As viztracer does, to put itself in front."""
    util = module("util")
    original = util.spawnv_passfds
    calls = []

    def spawnv_passfds(path, args, passfds):
        calls.append(args)
        return original(path, args, passfds)

    monkeypatch.setattr(util, "spawnv_passfds", spawnv_passfds)
    process = started(mp.get_context("spawn"), do_nothing)
    process.join()
    assert process.exitcode == 0 and calls[-1][0] == submodule("spawn").get_executable()
    process.close()


def send_marks(sender):
    sender.send((getattr(sys, "mark_of_data", None), getattr(sys, "mark_of_bootstrap", None)))


PATCH = """
import sys
from multiprocessing.process import BaseProcess
sys.mark_of_data = 42
def bootstrap(self, *args, original=BaseProcess._bootstrap, **kwargs):
    sys.mark_of_bootstrap = True
    return original(self, *args, **kwargs)
BaseProcess._bootstrap = bootstrap
"""


class Stowaway:
    """Comes along in the preparation data and patches the child, as coverage's does."""

    def __reduce__(self):
        # The child cannot import this file yet.
        return exec, (PATCH,)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_preparation_data_and_bootstrap_replaced(mp, module, method, monkeypatch):
    """As coverage does."""
    spawn = module("spawn")
    original = spawn.get_preparation_data

    def get_preparation_data(name):
        return {**original(name), "stowaway": Stowaway()}

    monkeypatch.setattr(spawn, "get_preparation_data", get_preparation_data)
    ctx = mp.get_context(method)
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = started(ctx, send_marks, sender)
        assert receiver.recv() == (42, True)
        process.join()
    assert process.exitcode == 0
    process.close()


def test_bootstrap_replaced_before_a_fork(mp, monkeypatch):
    process_module = submodule("process")
    original = process_module.BaseProcess._bootstrap

    def bootstrap(self, *args, **kwargs):
        return original(self, *args, **kwargs) + 10

    monkeypatch.setattr(process_module.BaseProcess, "_bootstrap", bootstrap)
    process = started(mp.get_context("fork"), sys.exit, 1)
    process.join()
    assert process.exitcode == 11
    process.close()


def test_command_line_replaced(mp, module, monkeypatch):
    """As viztracer does: the child is the standard library's to start, and runs the process all the same."""
    spawn = module("spawn")

    def get_command_line(**keywords):
        arguments = ", ".join(f"{name}={value!r}" for name, value in keywords.items())
        program = (
            f"import sys; sys.mark_of_data = 1; from multiprocessing.spawn import spawn_main; spawn_main({arguments})"
        )
        return [sys.executable, "-c", program, "--multiprocessing-fork"]

    monkeypatch.setattr(spawn, "get_command_line", get_command_line)
    ctx = mp.get_context("spawn")
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = started(ctx, send_marks, sender)
        assert receiver.recv() == (1, None)
        process.join()
        process.close()
        process = started(ctx, report_parent_alive, sender)
        assert receiver.recv() is True
        process.join()
    process.close()


def report_parent_alive(sender):
    sender.send(library.parent_process().is_alive())


def leave_a_mark(write, original, mark):
    def step(*arguments):
        os.write(write, mark)
        return original(*arguments)

    return step


@pytest.mark.parametrize(
    ("module", "name"),
    [(threading, "_shutdown"), (os, "_exit"), (submodule("util"), "_exit_function"), (os, "fork")],
    ids=["threading._shutdown", "os._exit", "util._exit_function", "os.fork"],
)
def test_a_replaced_step_is_taken_in_a_forked_child(mp, monkeypatch, module, name):
    """Tools replace what a child goes through; short cuts are for children that nobody watches."""
    read, write = os.pipe()
    monkeypatch.setattr(module, name, leave_a_mark(write, getattr(module, name), b"here"))
    process = mp.get_context("fork").Process(target=os.getpid)
    process.start()
    process.join()
    monkeypatch.undo()
    os.close(write)
    assert (process.exitcode, os.read(read, 10)) == (0, b"here")
    os.close(read)
    process.close()


def test_process_start_replaced(mp, module, monkeypatch):
    """As tools do that count processes: they see a pool's workers, too."""
    base, begun = module("process").BaseProcess, []
    start = base.start

    def counted(self):
        begun.append(self.name)
        return start(self)

    monkeypatch.setattr(base, "start", counted)
    with mp.get_context("fork").Pool(2) as pool:
        assert len(begun) == 2
        pool.close()
        pool.join()


def test_popen_of_a_process_class_replaced(mp, monkeypatch):
    made = []
    context = mp.get_context("fork")
    popen = context.Process._Popen

    def noted(process):
        made.append(process.name)
        return popen(process)

    monkeypatch.setattr(context.Process, "_Popen", staticmethod(noted))
    with context.Pool(2) as pool:
        assert len(made) == 2
        pool.close()
        pool.join()


class Persistent(library.get_context("fork").Process):
    """As in the recipes for workers that have children."""

    @property
    def daemon(self):
        return False

    @daemon.setter
    def daemon(self, value):
        pass


class PersistentContext(type(library.get_context("fork"))):
    Process = Persistent


def grandchild(_):
    process = library.get_context("fork").Process(target=do_nothing)
    process.start()
    process.join()
    return process.exitcode


def test_workers_that_are_no_daemons(mp):
    with PersistentContext().Pool(2) as pool:
        assert pool.map(grandchild, range(3)) == [0, 0, 0]
        pool.close()
        pool.join()


REPLACING = """
import {library} as mp, multiprocessing.reduction
standard = multiprocessing.reduction.ForkingPickler
class Mine:
    def __init__(self, *arguments): self.pickler = standard(*arguments)
    def dump(self, obj): return self.pickler.dump(obj)
    dumps = lambda obj, protocol=None: standard.dumps(("mine", obj), protocol)
    loads = standard.loads
multiprocessing.reduction.ForkingPickler = Mine
receiver, sender = mp.Pipe()
sender.send(3)
print(receiver.recv())
"""


def test_the_pickler_replaced_before_the_first_message(mp):
    program = REPLACING.format(library=mp.__name__)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("('mine', 3)\n", "")
