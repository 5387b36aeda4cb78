"""Modules that the standard package imports before its first line, and rsmp when they are first used."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

import rsmp

pytestmark = pytest.mark.rsmp_only("the standard package executes them at once")

DEFERRED = ("pickle", "secrets", "signal", "socket", "subprocess", "tempfile", "traceback")


def run(program, *arguments):
    """Run ``program`` in an interpreter of its own and return what it prints."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


EXECUTED = """
import sys
from rsmp import _deferred
def executed():
    return [name for name in sys.argv[1:] if _deferred.executed(name) is not None]
"""


def test_importing_everything_that_programs_use_executes_none_of_them():
    program = EXECUTED + "import rsmp.queues, rsmp.pool, rsmp.synchronize\nprint(*executed())"
    assert run(program, *DEFERRED) == []


def test_a_process_a_queue_and_a_lock_need_none_of_them():
    program = EXECUTED + (
        "import rsmp\n"
        "context = rsmp.get_context('fork')\n"
        "queue = context.Queue()\n"
        "def work():\n"
        "    with lock:\n"
        "        queue.put((executed(), range(3)))\n"
        "lock = context.Lock()\n"
        "process = context.Process(target=work)\n"
        "process.start()\n"
        "print(*queue.get()[0], *executed())\n"
        "process.join()\n"
    )
    assert run(program, *DEFERRED) == []


@pytest.mark.parametrize("name", DEFERRED)
def test_what_the_program_imports_is_the_module_itself(name):
    program = (
        "import sys, types, importlib, rsmp.queues, rsmp.pool, rsmp.synchronize\n"
        "module = importlib.import_module(sys.argv[1])\n"
        "assert module is sys.modules[sys.argv[1]]\n"
        "assert module.__file__ == module.__spec__.origin\n"
        "assert type(module) is types.ModuleType\n"
        "assert module.__loader__ is module.__spec__.loader\n"
        "assert importlib.reload(module) is module\n"
    )
    run(program, name)


def test_names_are_those_of_the_modules_as_soon_as_somebody_else_asks():
    run(
        "import rsmp.queues, rsmp.pool, rsmp.synchronize, multiprocessing.util, multiprocessing.pool\n"
        "import _socket, multiprocessing.connection\n"
        "from socket import socket\n"
        "assert socket is not _socket.socket\n"
        "reader, writer = rsmp.Pipe()\n"
        "writer.send(1)\n"
        "assert multiprocessing.pool.wait([reader], timeout=0) == [reader]\n"
        "names = {next(multiprocessing.synchronize.SemLock._rand) for _ in range(100)}\n"
        "assert len(names) == 100 and {len(name) for name in names} == {8}\n"
    )


OPTIONS = ["", "-B", "-bb", "-d", "-E", "-i", "-I", "-O", "-OO", "-P", "-q", "-R", "-s", "-S", "-u", "-v", "-W error"]
OPTIONS += ["-W ignore -B", "-x", "-X dev", "-X int_max_str_digits=0", "-X utf8"]


@pytest.mark.parametrize("options", OPTIONS)
def test_children_get_the_options_that_subprocess_would_give_them(options, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "#\nimport sys\nsys.path[:0] = sys.argv[1:]\n"
        "import rsmp.util, multiprocessing.util, rsmp._deferred\n"
        "given = multiprocessing.util._args_from_interpreter_flags()\n"
        "import subprocess\n"
        "print(rsmp._deferred.executed('subprocess') is not None)\n"
        "assert given == subprocess._args_from_interpreter_flags(), given\n"
    )
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    done = subprocess.run(
        [sys.executable, *options.split(), program, Path(rsmp.__file__).parents[1]],
        capture_output=True,
        text=True,
        timeout=60,
        stdin=subprocess.DEVNULL,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert options or done.stdout == "False\n"


@pytest.mark.parametrize("first", ["import rsmp.reduction", "import socket"])
def test_sockets_are_pickled_by_the_reducer_whichever_is_used_first(first):
    run(
        f"import rsmp.queues\n{first}\n"
        "rsmp.reduction.ForkingPickler\n"
        "import socket, _socket\n"
        "reducers = rsmp.reduction.ForkingPickler._extra_reducers\n"
        "assert reducers[socket.socket] is rsmp.reduction._reduce_socket\n"
        "assert _socket.socket not in reducers\n"
    )


def test_threads_that_use_one_at_once_execute_it_once():
    run(
        "import rsmp.queues, rsmp.pool, sys, threading\n"
        "import traceback, subprocess, pickle\n"
        "ready = threading.Barrier(8)\n"
        "seen = []\n"
        "def use():\n"
        "    ready.wait()\n"
        "    seen.append((traceback.TracebackException, subprocess.Popen, pickle.Unpickler))\n"
        "threads = [threading.Thread(target=use) for _ in range(8)]\n"
        "for thread in threads: thread.start()\n"
        "for thread in threads: thread.join()\n"
        "assert len(set(seen)) == 1 and len(seen) == 8\n"
    )


def test_a_child_forked_while_a_thread_executes_one_executes_it_itself():
    run(
        "import rsmp.queues, rsmp.pool, sys, threading, os, time\n"
        "import traceback, linecache\n"
        "from importlib.machinery import SourceFileLoader\n"
        "begun, go_on = threading.Event(), threading.Event()\n"
        "class Slow(SourceFileLoader):\n"
        "    def exec_module(self, module):\n"
        "        if os.getpid() == parent:\n"
        "            begun.set(); go_on.wait(30)\n"
        "        super().exec_module(module)\n"
        "parent = os.getpid()\n"
        "spec = traceback.__spec__\n"
        "spec.loader = Slow(spec.name, spec.origin)\n"
        "thread = threading.Thread(target=lambda: traceback.format_exc)\n"
        "thread.start(); begun.wait(30)\n"
        "pid = os.fork()\n"
        "if pid == 0:\n"
        "    traceback.format_exc(); os._exit(7)\n"
        "end = time.monotonic() + 20\n"
        "while (status := os.waitpid(pid, os.WNOHANG))[0] == 0 and time.monotonic() < end: time.sleep(0.01)\n"
        "if status[0] == 0: os.kill(pid, 9); os.waitpid(pid, 0)\n"
        "go_on.set(); thread.join()\n"
        "assert os.waitstatus_to_exitcode(status[1]) == 7, status\n"
        "traceback.format_exc()\n"
    )


def test_one_that_could_not_be_read_is_executed_at_the_next_use():
    run(
        "import rsmp.queues, os, resource, traceback\n"
        "limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))\n"
        "import subprocess\n"
        "try:\n"
        "    subprocess.Popen\n"
        "except OSError as error:\n"
        "    assert error.errno == 24\n"
        "else:\n"
        "    raise AssertionError('read without a descriptor')\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, limits)\n"
        "assert subprocess.run(['true']).returncode == 0\n"
    )


def test_a_task_that_uses_up_the_descriptors_fails_with_its_own_error():
    run(
        "import rsmp, resource, os\n"
        "def exhaust():\n"
        "    resource.setrlimit(resource.RLIMIT_NOFILE, (3, 4096))\n"
        "    raise KeyError('the task')\n"
        "with rsmp.get_context('fork').Pool(1) as pool:\n"
        "    result = pool.apply_async(exhaust)\n"
        "    try:\n"
        "        result.get(30)\n"
        "    except KeyError as error:\n"
        "        assert error.args == ('the task',)\n"
        "    else:\n"
        "        raise AssertionError('no error')\n"
    )
