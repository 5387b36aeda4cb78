"""Modules that the standard package imports before its first line, and rsmp when somebody uses them."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.rsmp_only("the standard package imports these modules when it is imported")

DEFERRED = ("pickle", "secrets", "signal", "socket", "subprocess", "tempfile")
BUT_FOR_LOCKS = ("queue", "threading")
"""Locks need them (one of them is a subclass of `threading.Barrier`); processes, pipes, queues and pools do not."""


def run(program, *arguments):
    """Run ``program`` in an interpreter of its own and return what it prints."""
    command = [sys.executable, "-c", program, *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


IMPORTED = """
import sys
def imported():
    return [name for name in sys.argv[1:] if name in sys.modules]
"""


def test_importing_everything_that_programs_use_imports_none_of_them():
    program = IMPORTED + "import rsmp.queues, rsmp.pool, rsmp.synchronize\nprint(*imported())"
    assert run(program, *DEFERRED) == []


def test_a_process_a_queue_and_a_lock_need_none_of_them():
    program = IMPORTED + (
        "import rsmp\n"
        "context = rsmp.get_context('fork')\n"
        "queue = context.Queue()\n"
        "def work():\n"
        "    with lock:\n"
        "        queue.put((imported(), range(3)))\n"
        "lock = context.Lock()\n"
        "process = context.Process(target=work)\n"
        "process.start()\n"
        "print(*queue.get()[0], *imported())\n"
        "process.join()\n"
    )
    assert run(program, *DEFERRED) == []


WORK = """
import os, sys, rsmp
def imported():
    return [name for name in sys.argv[2:] if name in sys.modules]
def work(queue=None, writer=None):
    if queue is not None:
        queue.put(b"put")
        writer.send(["sent"])
    print(*imported(), flush=True)
if __name__ == "__main__":
    rsmp.set_start_method(sys.argv[1])
    reader, writer = rsmp.Pipe()
    queue = rsmp.Queue()
    process = rsmp.Process(target=work, args=(queue, writer))
    process.start()
    assert (queue.get(), reader.recv()) == (b"put", ["sent"])
    process.join()
    with rsmp.Pool(2) as pool:
        assert pool.map(os.path.abspath, ["/"]) == ["/"]
        pool.apply(work)
    if rsmp.get_start_method() == "fork":
        work()
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_processes_pipes_queues_and_pools_need_no_threading_here_and_in_children(method, tmp_path):
    program = tmp_path / "program.py"
    program.write_text(WORK)
    command = [sys.executable, program, method, *BUT_FOR_LOCKS]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, stdin=subprocess.DEVNULL)
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []


def test_a_spawned_child_imports_no_collections_to_unpickle_its_process(tmp_path):
    program = tmp_path / "program.py"
    program.write_text(
        "import sys\n"
        "def work():\n"
        "    before = {'collections', 'functools'} & sys.modules.keys()\n"
        "    import multiprocessing.context\n"
        "    if hasattr(multiprocessing.context, 'functools'): before.clear()  # from Python 3.14 on\n"
        "    import functools, pickle\n"
        "    assert functools.lru_cache and type(functools) is type(sys)\n"
        "    assert pickle.loads(pickle.dumps(functools.partial(int, '7')))() == 7\n"
        "    print(*before, 'done')\n"
        "if __name__ == '__main__':\n"
        "    import functools, rsmp\n"
        "    for target in (work, functools.partial(print, 'partial')):\n"
        "        process = rsmp.get_context('spawn').Process(target=target)\n"
        "        process.start()\n"
        "        process.join()\n"
        "        assert process.exitcode == 0\n"
    )
    done = subprocess.run([sys.executable, program], capture_output=True, text=True, timeout=60)
    assert (done.returncode, done.stdout.split()) == (0, ["done", "partial"]), done.stderr


FULL = """
import resource, sys
import rsmp.queues, multiprocessing.queues as standard
def raised(function, *arguments):
    try:
        function(*arguments)
    except Exception as error:
        return type(error)
if sys.argv[1] == "found by another finder":
    from importlib.machinery import PathFinder
    class Hook:
        def find_spec(self, name, path, target=None):
            return PathFinder.find_spec(name, path, target) if name == "queue" else None
    sys.meta_path.insert(0, Hook())
full, empty = rsmp.Queue(1), rsmp.Queue()
full.put(1)
limits = resource.getrlimit(resource.RLIMIT_NOFILE)
resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))
assert raised(full.put_nowait, 2) is standard.Full
assert raised(empty.get_nowait) is standard.Empty
resource.setrlimit(resource.RLIMIT_NOFILE, limits)
assert "queue" not in sys.modules
import pickle, queue
own = queue.Queue(1)
own.put(1)
assert raised(full.put, 2, True, 0.01) is raised(own.put, 2, True, 0.01) is queue.Full
assert raised(empty.get_nowait) is queue.Empty is standard.Empty
if sys.argv[1] == "found by rsmp's":
    assert queue.Full is standard.Full is rsmp.queues.Full
    assert pickle.loads(pickle.dumps(standard.Full)) is queue.Full and queue.Full.__module__ == "queue"
"""


@pytest.mark.parametrize("how", ["found by rsmp's", "found by another finder"])
def test_a_full_queue_raises_what_queue_has_whoever_imports_it_and_when(how):
    run(FULL, how)


def test_others_who_import_functools_while_the_pickler_is_imported_get_all_of_it():
    run(
        "import sys, rsmp\n"
        "class Other:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        if name == '_compat_pickle':\n"
        "            import functools\n"
        "            from functools import lru_cache\n"
        "            seen.extend([functools, lru_cache])\n"
        "seen = []\n"
        "sys.meta_path.insert(0, Other())\n"
        "import rsmp.queues\n"
        "from functools import lru_cache, partial\n"
        "assert seen[1] is lru_cache and seen[0].wraps and seen[0].partial is partial\n"
        "assert '_pickle' in sys.modules\n"
    )


THREADS = """
import sys, rsmp
def work():
    import os, threading, time
    assert threading.main_thread() is threading.current_thread()
    assert threading.main_thread().native_id == os.getpid()
    def late():
        time.sleep(0.2)
        print(threading.current_thread().name, flush=True)
    threading.Thread(target=late, name="late").start()
context = rsmp.get_context("fork")
for turn in range(3):
    if turn == 1:
        import threading
    if turn == 2:
        threading._shutdown = lambda wait=threading._shutdown: (wait(), print("replaced", flush=True))
    assert ("threading" in sys.modules) == (turn > 0)
    process = context.Process(target=work)
    process.start()
    process.join()
    assert process.exitcode == 0, turn
"""


def test_a_forked_child_waits_for_its_threads_whoever_imports_threading():
    assert run(THREADS) == ["late", "late", "late", "replaced", "replaced"]


@pytest.mark.parametrize("name", DEFERRED + BUT_FOR_LOCKS)
def test_what_the_program_imports_is_the_module_itself(name):
    program = (
        "import sys, types, importlib, rsmp.pool, rsmp.connection, rsmp.queues\n"
        f"if sys.argv[1] not in {BUT_FOR_LOCKS}: import rsmp.synchronize\n"
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


@pytest.mark.parametrize("options", [(), ("-O", "-W", "error", "-X", "dev")])
def test_children_get_the_options_that_subprocess_would_give_them(options):
    program = (
        "import rsmp.queues, multiprocessing.util\n"
        "given = multiprocessing.util._args_from_interpreter_flags()\n"
        "import subprocess\n"
        "if given != subprocess._args_from_interpreter_flags(): raise AssertionError(given)\n"
        "if multiprocessing.util._args_from_interpreter_flags is not subprocess._args_from_interpreter_flags:\n"
        "    raise AssertionError('the stand-in is still there')\n"
    )
    done = subprocess.run([sys.executable, *options, "-c", program], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr


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


def test_threads_that_use_one_at_once_have_one_module():
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


SLOW = """
import os, sys, threading, time
import rsmp.queues
from importlib.machinery import PathFinder, SourceFileLoader
class Slow(SourceFileLoader):
    def exec_module(self, module):
        if os.getpid() == parent:
            begun.set()
            go_on.wait(float(sys.argv[1]))
        super().exec_module(module)
class Hook:
    def find_spec(self, name, path, target=None):
        spec = PathFinder.find_spec(name, path, target) if name == "socket" else None
        if spec is not None:
            spec.loader = Slow(name, spec.origin)
        return spec
sys.meta_path.insert(1, Hook())
parent, begun, go_on = os.getpid(), threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: __import__("socket"))
thread.start()
begun.wait(30)
start = time.monotonic()
pid = os.fork()
if pid == 0:
    ready = hasattr(sys.modules["socket"], "socketpair")
    os._exit(7 if ready else 8)
status = os.waitpid(pid, 0)[1]
waited = time.monotonic() - start
go_on.set()
thread.join()
import socket
socket.socketpair()
print(os.waitstatus_to_exitcode(status), 0.1 < waited < 15)
"""


def test_a_fork_waits_for_a_thread_that_imports_one():
    assert run(SLOW, "0.3") == ["7", "True"]


def test_a_fork_does_not_wait_for_ever():
    """The thread may be waiting for what the forking one has locked."""
    assert run(SLOW, "30") == ["8", "True"]


@pytest.mark.parametrize("name", DEFERRED + BUT_FOR_LOCKS)
def test_a_program_that_imports_one_has_all_of_it_then_and_not_later(name):
    """Its files may be out of reach later, its descriptors used up, its interpreter at its end."""
    program = (
        IMPORTED + "import rsmp.queues, rsmp.pool, rsmp.shared_memory, rsmp.connection, importlib\n"
        f"if sys.argv[1] not in {BUT_FOR_LOCKS}: import rsmp.synchronize\n"
        "if sys.argv[2] == 'statement': exec('import ' + sys.argv[1])\n"
        "elif sys.argv[2] == 'names': exec('from ' + sys.argv[1] + ' import *')\n"
        "else: importlib.import_module(sys.argv[1])\n"
        "import types\n"
        "assert imported() == [sys.argv[1]] and type(sys.modules[sys.argv[1]]) is types.ModuleType\n"
    ).replace("sys.argv[1:]", "sys.argv[1:2]")
    for how in ("statement", "names", "function"):
        run(program, name, how)


def test_looking_through_all_modules_imports_none_of_them():
    program = (
        IMPORTED + "import rsmp.queues, rsmp.pool, rsmp.synchronize\n"
        "for module in sys.modules.values():\n"
        "    getattr(module, '__file__', None), getattr(module, '__package__', None), isinstance(module, object)\n"
        "print(*imported())\n"
    )
    assert run(program, *DEFERRED) == []


@pytest.mark.parametrize("loads", [False, True])
def test_import_hooks_are_asked_for_them(loads):
    run(
        "import sys\n"
        "from importlib.machinery import PathFinder, SourceFileLoader\n"
        "seen, executed = [], []\n"
        "class Loader(SourceFileLoader):\n"
        "    def exec_module(self, module):\n"
        "        executed.append(module.__name__)\n"
        "        super().exec_module(module)\n"
        "class Hook:\n"
        "    def find_spec(self, name, path, target=None):\n"
        "        seen.append(name)\n"
        "        if not loads or name not in ('socket', 'pickle'):\n"
        "            return None\n"
        "        spec = PathFinder.find_spec(name, path, target)\n"
        "        spec.loader = Loader(name, spec.origin)\n"
        "        return spec\n"
        "sys.meta_path.insert(0, Hook())\n"
        f"loads = {loads}\n"
        "import rsmp.queues\n"
        "assert {'socket', 'pickle', 'subprocess'} <= set(seen)\n"
        "assert sorted(executed) == (['pickle', 'socket'] if loads else [])\n"
    )


def test_the_list_of_finders_never_shrinks_while_others_import():
    run(
        "import sys, rsmp\n"
        "before = list(sys.meta_path)\n"
        "import rsmp.queues, rsmp.pool, socket, subprocess\n"
        "assert sys.meta_path == before\n"
    )


def test_an_error_that_nobody_catches_is_shown_as_ever():
    program = "import {} as mp\nmp.Queue\nfrom {} import queues, pool\nfor letter in 'a': letter.nonsense(1, 2)\n"
    shown = [
        subprocess.run([sys.executable, "-c", program.format(name, name)], capture_output=True, text=True, timeout=60)
        for name in ("rsmp", "multiprocessing")
    ]
    assert shown[0].stderr == shown[1].stderr and "nonsense" in shown[0].stderr


def test_one_that_could_not_be_read_is_imported_at_the_next_attempt():
    run(
        "import rsmp.queues, os, resource, multiprocessing.util\n"
        "limits = resource.getrlimit(resource.RLIMIT_NOFILE)\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, (3, limits[1]))\n"
        "for use in ('import subprocess', 'multiprocessing.util._args_from_interpreter_flags()'):\n"
        "    try:\n"
        "        exec(use)\n"
        "    except OSError as error:\n"
        "        assert error.errno == 24\n"
        "    else:\n"
        "        raise AssertionError('read without a descriptor')\n"
        "resource.setrlimit(resource.RLIMIT_NOFILE, limits)\n"
        "import subprocess\n"
        "assert subprocess.run(['true']).returncode == 0\n"
    )


def test_an_interrupt_in_the_middle_of_an_import_is_not_lost():
    program = (
        "import signal, sys, time, rsmp.queues\n"
        "def interrupt(number, frame): raise KeyboardInterrupt\n"
        "signal.signal(signal.SIGALRM, interrupt)\n"
        "signal.setitimer(signal.ITIMER_REAL, float(sys.argv[1]))\n"
        "try:\n"
        "    import socket, tempfile, subprocess\n"
        "    time.sleep(0.1)\n"
        "    print('lost')\n"
        "except KeyboardInterrupt: pass\n"
        "import socket, tempfile, subprocess\n"
        "assert socket.socketpair and tempfile.mkstemp and subprocess.run\n"
    )
    lost = [run(program, str(delay / 1000)) for delay in range(1, 13)]
    # In a callback of a weak reference, which importlib uses, an exception is not raised.
    assert lost.count(["lost"]) <= 2


def test_the_standard_modules_have_the_module_itself_once_anybody_imports_it():
    run(
        "import rsmp.queues, rsmp.synchronize, multiprocessing.reduction, sys\n"
        "assert not {'socket', 'pickle', 'tempfile'} & sys.modules.keys()\n"
        "import socket, pickle, tempfile, signal\n"
        "assert multiprocessing.reduction.socket is socket and multiprocessing.reduction.pickle is pickle\n"
        "assert multiprocessing.synchronize.tempfile is tempfile and multiprocessing.process.signal is signal\n"
        "assert rsmp.reduction.socket is socket and rsmp.process.signal is signal\n"
    )


def test_a_copy_that_a_program_makes_from_the_spec_is_its_own():
    run(
        "import importlib.util, rsmp.synchronize, multiprocessing.synchronize as standard\n"
        "spec = importlib.util.find_spec('tempfile')\n"
        "assert 'def mkstemp' in spec.loader.get_source('tempfile')\n"
        "copy = importlib.util.module_from_spec(spec)\n"
        "spec.loader.exec_module(copy)\n"
        "assert copy.mkstemp and standard.tempfile is not copy\n"
        "import tempfile\n"
        "assert standard.tempfile is tempfile is not copy\n"
    )


def test_the_standard_modules_import_one_when_they_use_it():
    run(
        "import rsmp.queues, rsmp.synchronize, multiprocessing.synchronize, sys\n"
        "assert 'tempfile' not in sys.modules\n"
        "assert multiprocessing.synchronize.tempfile.gettempdir()\n"
        "assert multiprocessing.synchronize.tempfile is sys.modules['tempfile']\n"
        "multiprocessing.reduction.socket.nonsense = 1\n"
        "import socket\n"
        "assert socket.nonsense == 1\n"
        "del multiprocessing.reduction.socket.nonsense\n"
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
