"""The fork server, the spawned child's start, and what is shared with the standard library while starting."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from under_test import mp as library
from under_test import submodule

rsmp_only = pytest.mark.rsmp_only
LONG = 60.0
TESTS = os.path.dirname(os.path.dirname(__file__))
OLDER = 2.1
"""Seconds by which a program's file is older than the process where children get its code."""


def run_program(tmp_path, text, *arguments, options=(), age=0.0):
    """Run a program whose file has been there for ``age`` seconds; it finds modules in the file's folder as well."""
    script = tmp_path / "program.py"
    script.write_text(text)
    time.sleep(age)
    environment = {**os.environ, "PYTHONPATH": f"{tmp_path}:{TESTS}"}
    return subprocess.run(
        [sys.executable, *options, script, *arguments],
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        stdin=subprocess.DEVNULL,
    )


def alive(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except FileNotFoundError:
        return False


def wait_until_gone(pid, timeout=3.0):
    deadline = time.monotonic() + timeout
    while alive(pid):
        assert time.monotonic() < deadline, f"process {pid} is still there"
        time.sleep(0.005)


def do_nothing():
    pass


def sleep_long():
    time.sleep(LONG)


def length(data):
    sys.exit(len(data) % 251)


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
@pytest.mark.parametrize("size", [0, 40_000, 50_000, 100_000, 5_000_000])
def test_arguments_of_any_size(mp, method, size):
    process = mp.get_context(method).Process(target=length, args=(bytes(size),))
    process.start()
    process.join()
    assert process.exitcode == size % 251
    process.close()


def report_start_method(sender):
    sender.send((library.get_start_method(), sys.flags.optimize, sys.warnoptions[-1:], os.getcwd(), sys.argv[:]))


def test_the_child_is_set_up_like_its_parent(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender:
        process = ctx.Process(target=report_start_method, args=(sender,))
        process.start()
        method, optimize, warnings, directory, arguments = receiver.recv()
        assert method == ctx.get_start_method() and optimize == sys.flags.optimize
        assert (warnings, directory, arguments) == (sys.warnoptions[-1:], os.getcwd(), sys.argv)
        process.join()
    process.close()


MAIN = """
import os, sys
from under_test import mp
count = int(os.environ.get("COUNT", "0")) + 1
print("imported as", __name__, flush=True)
def show():
    print("main", sys.modules["__main__"] is sys.modules["__mp_main__"], sys.modules["__main__"].__name__, sys.argv[1:])
    print("file", os.path.basename(sys.modules["__main__"].__file__), flush=True)
if __name__ == "__main__":
    ctx = mp.get_context(sys.argv[1])
    for _ in range(2):
        process = ctx.Process(target=show)
        process.start()
        process.join()
        assert process.exitcode == 0
"""


def test_spawn_imports_the_main_module_in_each_child(tmp_path):
    ran = run_program(tmp_path, MAIN, "spawn")
    child = ["imported as __mp_main__", "main True __mp_main__ ['spawn']", "file program.py"]
    assert (ran.stderr, ran.stdout.splitlines()) == ("", ["imported as __main__", *child, *child])


@rsmp_only("before Python 3.13.8 each child imports it")
def test_the_fork_server_imports_the_main_module_once(tmp_path):
    ran = run_program(tmp_path, MAIN, "forkserver")
    child = ["main True __mp_main__ ['forkserver']", "file program.py"]
    assert (ran.stderr, ran.stdout.splitlines()) == (
        "",
        ["imported as __main__", "imported as __mp_main__", *child, *child],
    )


UNGUARDED = """
import sys
from under_test import mp
def child(): pass
process = mp.get_context(sys.argv[1]).Process(target=child)
process.start()
process.join()
sys.exit(process.exitcode)
"""


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_main_module_without_its_guard(tmp_path, method):
    ran = run_program(tmp_path, UNGUARDED, method)
    assert ran.returncode == 1 and "freeze_support()" in ran.stderr and "RuntimeError" in ran.stderr


@pytest.mark.parametrize("method", ["spawn", "forkserver"])
def test_a_target_that_cannot_be_pickled(mp, method):
    process = mp.get_context(method).Process(target=lambda: None)
    with pytest.raises(Exception, match="pickle"):
        process.start()
    assert process not in mp.active_children()
    process = mp.get_context(method).Process(target=do_nothing)
    process.start()
    process.join()
    process.close()


# The fork server


@pytest.fixture
def server(mp):
    module = submodule("forkserver")
    module.ensure_running()
    return module._forkserver


@pytest.fixture
def forking(mp):
    return mp.get_context("forkserver")


@rsmp_only("the standard library reports the children of a dead server as ended")
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_a_killed_fork_server_is_started_again(forking, server, number):
    first = server._forkserver_pid
    orphan = forking.Process(target=sleep_long)
    orphan.start()
    os.kill(first, number)
    time.sleep(0.2)
    process = forking.Process(target=do_nothing)
    process.start()
    process.join()
    assert process.exitcode == 0 and server._forkserver_pid != first
    # Its children live on; nobody can say any more how they end.
    assert orphan.is_alive()
    orphan.kill()
    orphan.join()
    assert orphan.exitcode == 255
    process.close()
    orphan.close()


def test_a_fork_server_that_stops_answering_to_ctrl_c(forking, server):
    pid = server._forkserver_pid
    os.kill(pid, signal.SIGINT)
    process = forking.Process(target=do_nothing)
    process.start()
    process.join()
    assert process.exitcode == 0 and server._forkserver_pid == pid
    process.close()


def report_server(sender):
    sender.send(os.getppid())


def start_another(sender):
    process = library.get_context("forkserver").Process(target=report_server, args=(sender,))
    process.start()
    process.join()
    sender.send((os.getppid(), process.exitcode))


@rsmp_only("every child that starts children starts a server of its own")
def test_children_of_children_share_the_fork_server(forking, server):
    receiver, sender = forking.Pipe(duplex=False)
    with receiver, sender:
        process = forking.Process(target=start_another, args=(sender,))
        process.start()
        grandparent = receiver.recv()
        assert grandparent == server._forkserver_pid and receiver.recv() == (grandparent, 0)
        process.join()
    process.close()


SERVED = """
import os, sys, time
from under_test import mp, submodule
def child(): pass
if __name__ == "__main__":
    process = mp.get_context("forkserver").Process(target=child)
    process.start()
    process.join()
    print(submodule("forkserver")._forkserver._forkserver_pid, flush=True)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), 9)
"""


@pytest.mark.parametrize("end", ["return", "kill"])
def test_the_fork_server_ends_with_its_last_client(tmp_path, end):
    ran = run_program(tmp_path, SERVED, end)
    wait_until_gone(int(ran.stdout))


def test_the_names_that_ask_for_a_process(forking, server):
    module = submodule("forkserver")
    with pytest.raises((ValueError, OSError)):
        module.connect_to_new_process([0] * 300)
    reader, writer = module.connect_to_new_process([])
    os.close(writer)  # nothing to unpickle: the child fails
    assert alive(module.read_signed(reader)) in (True, False)
    assert module.read_signed(reader) == 1
    os.close(reader)


def use_inherited(stand_in):
    descriptor = stand_in.detach()
    os.write(descriptor, b"x")
    assert descriptor in submodule("forkserver").get_inherited_fds()


class Inheriting:
    """Registers a descriptor while its process object is pickled."""

    def __init__(self, descriptor):
        self.descriptor = descriptor

    def __reduce__(self):
        return Received, (submodule("reduction").DupFd(self.descriptor),)


class Received:
    def __init__(self, stand_in):
        self.stand_in = stand_in

    def __call__(self):
        use_inherited(self.stand_in)


def test_descriptors_are_inherited_through_the_fork_server(forking):
    reader, writer = os.pipe()
    process = forking.Process(target=Inheriting(writer))
    process.start()
    process.join()
    assert process.exitcode == 0 and os.read(reader, 2) == b"x"
    os.close(reader)
    os.close(writer)
    process.close()


PRELOADED = """
import sys
from under_test import mp
def child():
    print("this" in sys.modules, flush=True)
if __name__ == "__main__":
    mp.set_forkserver_preload(["colorsys", "no_such_module"])
    process = mp.get_context("forkserver").Process(target=child)
    process.start()
    process.join()
"""


def test_modules_are_preloaded(tmp_path):
    ran = run_program(tmp_path, PRELOADED.replace('"this"', '"colorsys"'))
    assert (ran.stdout, ran.stderr) == ("True\n", "")


def test_flags_reach_children_of_children(tmp_path):
    program = """
import sys
from under_test import mp
def child(method, depth):
    print(sys.flags.optimize, sys.warnoptions, sys.flags.dev_mode, flush=True)
    if depth:
        process = mp.get_context(method).Process(target=child, args=(method, depth - 1))
        process.start()
        process.join()
if __name__ == "__main__":
    child(sys.argv[1], 2)
"""
    for method in ("fork", "spawn", "forkserver"):
        ran = run_program(tmp_path, program, method, options=["-O", "-W", "error::BytesWarning", "-X", "dev"])
        assert ran.stderr == "" and ran.stdout == "1 ['default', 'error::BytesWarning'] True\n" * 3


@pytest.mark.rsmp_only("the standard child imports all of these")
def test_a_lean_child(tmp_path):
    """What a spawned child with nothing to do does not import."""
    program = """
import sys
import rsmp
def child():
    heavy = {"socket", "subprocess", "selectors", "pickle", "runpy", "typing", "tempfile", "re", "importlib", "enum"}
    print(sorted(heavy & set(sys.modules)), [name for name in sys.modules if name.startswith("multiprocessing.")])
if __name__ == "__main__":
    process = rsmp.get_context("spawn").Process(target=child)
    process.start()
    process.join()
"""
    ran = run_program(tmp_path, program)
    names = ["process", "reduction", "context", "resource_tracker"]
    assert ran.stderr == ""
    heavy, _, loaded = ran.stdout.partition("] ")
    assert heavy == "["
    assert sorted(eval(loaded)) == sorted(f"multiprocessing.{name}" for name in names)


@pytest.mark.rsmp_only("the standard worker imports all of these")
def test_a_lean_worker(tmp_path):
    """What a spawned worker does not import to run functions of plain values."""
    program = """
import sys
import rsmp
def heavy(_):
    return [name for name in ("socket", "subprocess", "selectors", "pickle", "tempfile", "re") if name in sys.modules]
def registered(number):
    rsmp.reduction.ForkingPickler.register(complex, lambda value: (complex, (value.real, 9)))
    return complex(number)
if __name__ == "__main__":
    with rsmp.get_context("spawn").Pool(1) as pool:
        print(pool.map(heavy, range(3)), pool.map(registered, [1]), pool.apply(heavy, [0]))
"""
    ran = run_program(tmp_path, program)
    assert (ran.stdout, ran.stderr) == ("[[], [], []] [(1+9j)] []\n", "")


@rsmp_only("from 3.14 on a standard child leaves the cycle as it is")
def test_what_lives_to_the_end_of_a_spawned_child_is_finalized(tmp_path):
    """Files that nobody closed are written out, cycles of objects are taken apart, as in any program that ends."""
    program = """
import sys
import MODULE as multiprocessing
class Noted:
    def __init__(self, text):
        self.text, self.own = text, self
    def __del__(self):
        sys.stdout.write(self.text)
if __name__ != "__main__":
    file = open("PATH", "w")
    noted = Noted("cycle\\n")
def child():
    file.write("buffered")
if __name__ == "__main__":
    process = multiprocessing.get_context("spawn").Process(target=child)
    process.start()
    process.join()
"""
    written = tmp_path / "written"
    ran = run_program(tmp_path, program.replace("MODULE", library.__name__).replace("PATH", str(written)))
    assert (written.read_text(), ran.stdout, ran.stderr) == ("buffered", "cycle\n", "")


@rsmp_only("the standard package imports signal when it is imported")
def test_signal_is_complete_when_it_is_used(tmp_path):
    """The package is imported without `signal`'s enumerations, which nobody can tell."""
    program = """
import sys
import rsmp
assert "enum" not in sys.modules
import signal
print(rsmp.process.signal is signal, sys.modules["signal"] is signal, signal.Signals(15).name, "enum" in sys.modules)
assert signal.SIGTERM is signal.Signals.SIGTERM and type(signal.getsignal(15)) is signal.Handlers
process = rsmp.get_context("fork").Process(target=lambda: signal.raise_signal(signal.SIGTERM))
process.start()
process.join()
print(process)
"""
    ran = run_program(tmp_path, program)
    assert ran.stderr == ""
    lines = ran.stdout.splitlines()
    assert lines[0] == "True True SIGTERM True" and "stopped exitcode=-SIGTERM" in lines[1]


KEEPS_ITS_CODE = """
import os, sys, time
def work(turn):
    print(turn, __file__ == sys.argv[0], work.__code__.co_filename == __file__, VALUE, flush=True)
VALUE = "as it was"
if __name__ == "__main__":
    import under_test
    context = under_test.mp.get_context("spawn")
    def start(turn):
        process = context.Process(target=work, args=(turn,))
        process.start()
        process.join()
        assert process.exitcode == 0
    start("first")
    start("second")
    pid = os.fork()
    if pid == 0:
        start("of a forked one")
        os._exit(0)
    os.waitpid(pid, 0)
    with open(__file__) as file:
        text = file.read()
    with open(__file__, "w") as file:
        file.write(text.replace("as it was", "changed", 1))
    start("third")
"""
SEES_COMPILED = """
import os, sys
def audit(event, arguments):
    if event == "compile" and str(arguments[1]).endswith("program.py"):
        os.write(1, b"compiled ")
if "--multiprocessing-fork" in sys.argv or "-c" in sys.orig_argv:
    sys.addaudithook(audit)
"""


@rsmp_only("the standard library compiles the main module in each child")
def test_a_child_compiles_the_main_module_only_if_the_parent_may_have_another_one(tmp_path):
    (tmp_path / "sitecustomize.py").write_text(SEES_COMPILED)
    done = run_program(tmp_path, KEEPS_ITS_CODE, age=OLDER)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [
        "first True True as it was",
        "second True True as it was",
        "compiled of a forked one True True as it was",
        "compiled third True True changed",
    ]


@rsmp_only("the standard library compiles the main module in each child")
def test_a_child_of_another_interpreter_compiles_the_main_module(tmp_path):
    from rsmp import _child

    script = tmp_path / "program.py"
    script.write_text("answer = 42\n")
    wrong = b"another" + b"\0" * 100
    names = {}
    exec(_child._unpacked(str(script), wrong), names)
    assert names["answer"] == 42


HAS_CODE_THAT_CANNOT_BE_SENT = """
import sys
def work():
    print("worked", flush=True)
if __name__ == "__main__":
    if "again" not in globals():
        again = True
        with open(__file__) as file:
            code = compile(file.read(), __file__, "exec")
        exec(code.replace(co_consts=(*code.co_consts, object())), globals())
    else:
        import under_test
        process = under_test.mp.get_context("spawn").Process(target=work)
        process.start()
        process.join()
        sys.exit(process.exitcode)
"""


def test_a_main_module_whose_code_cannot_be_marshalled_starts_children(tmp_path):
    done = run_program(tmp_path, HAS_CODE_THAT_CANNOT_BE_SENT, age=OLDER)
    assert (done.returncode, done.stdout) == (0, "worked\n"), done.stderr
