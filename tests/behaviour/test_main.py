"""``python -m rsmp``: a program finds what the plain interpreter would give it, in its children too."""

import os
import re
import subprocess
import sys
import zipfile

import pytest

from under_test import mp as library

pytestmark = pytest.mark.skipif(
    library.__name__ != "rsmp", reason="tests `python -m rsmp`, a command that no other library has"
)

LONG = 60.0

SHOW = '''
"""A docstring."""
import sys
for name in ("__name__", "__file__", "__cached__", "__package__", "__spec__", "__loader__", "__doc__"):
    print(name, repr(globals().get(name, "missing")))
print(sorted(name for name in globals() if name.startswith("__")))
print(sys.argv, sys.path[0], sys.modules["__main__"].__dict__ is globals(), sys.flags, sys.warnoptions)
'''
FILES = {
    "show.py": SHOW,
    "package/__init__.py": "",
    "package/__main__.py": SHOW,
    "package/show.py": SHOW,
    "directory/__main__.py": SHOW,
    "empty/nothing.txt": "",
    "failing.py": "def f():\n    1 / 0\ntry:\n    f()\nexcept Exception as e:\n    raise ValueError('x') from e\n",
    "syntax.py": "x = (\n",
    "interrupted.py": "import atexit\natexit.register(print, 'bye')\nraise KeyboardInterrupt\n",
    "killed.py": "import os, signal\nos.kill(os.getpid(), signal.SIGTERM)\n",
    "code.py": "import atexit, sys\natexit.register(print, 'bye')\nsys.exit(3)\n",
    "message.py": "import sys\nsys.exit('a message')\n",
    "hook.py": "import sys, traceback as t\nsys.excepthook = lambda *error: print(*t.extract_tb(error[2]))\n1 / 0\n",
    "last.py": "import sys, atexit\natexit.register(lambda: print(sys.last_traceback.tb_lineno))\n1 / 0\n",
    "thread.py": "import threading\nthreading.Thread(target=lambda: 1 / 0, name='T').start()\n",
    "latin.py": b"# -*- coding: latin-1 -*-\nprint(len('\xe9'))\n",
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("programs")
    for name, content in FILES.items():
        path = folder / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with zipfile.ZipFile(folder / "archive.zip", "w") as archive:
        archive.writestr("__main__.py", SHOW)
    (folder / "link.py").symlink_to(folder / "package" / "show.py")
    return folder


def outcome(folder, *arguments, **options):
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    ran = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LONG,
        **options,
    )
    return ran.returncode, *(re.sub(r" at 0x\w+", "", text) for text in (ran.stdout, ran.stderr))


COMMANDS = [
    ["show.py", "a", "-b"],
    ["./show.py"],
    ["package/show.py"],
    ["link.py"],
    ["directory", "x"],
    ["archive.zip", "-m"],
    ["-m", "show", "-q"],
    ["-mshow"],
    ["-m", "package"],
    ["-m", "package.show", "x"],
    ["-c", SHOW, "x"],
    ["-cimport sys; print(sys.argv)"],
    ["missing.py"],
    ["empty"],
    ["-m", "no_such_module"],
    ["failing.py"],
    ["-m", "failing"],
    ["syntax.py"],
    ["-m", "syntax"],
    ["interrupted.py"],
    ["-m", "interrupted"],
    ["killed.py"],
    ["code.py"],
    ["message.py"],
    ["hook.py"],
    ["last.py"],
    ["thread.py"],
    ["latin.py"],
]


@pytest.mark.parametrize("command", COMMANDS, ids=lambda command: " ".join(command)[:20].replace("\n", " "))
def test_as_the_plain_interpreter(programs, command):
    assert outcome(programs, "-m", "rsmp", *command) == outcome(programs, *command)


@pytest.mark.parametrize(
    "options", [["-O"], ["-W", "error::UserWarning"], ["-X", "dev"], ["-P"], ["-I"], ["-s"], ["-u"], ["-B"]]
)
def test_options_of_the_interpreter(programs, options):
    assert outcome(programs, *options, "-m", "rsmp", "show.py") == outcome(programs, *options, "show.py")


def test_a_program_from_the_standard_input(programs):
    assert outcome(programs, "-m", "rsmp", "-", "x", input=SHOW) == outcome(programs, "-", "x", input=SHOW)


def test_a_compiled_program(programs):
    import py_compile

    compiled = py_compile.compile(str(programs / "show.py"), cfile=str(programs / "compiled.pyc"))
    assert outcome(programs, "-m", "rsmp", compiled) == outcome(programs, compiled)


def test_usage(programs):
    code, out, err = outcome(programs, "-m", "rsmp")
    assert (code, err) == (0, "") and out.startswith("usage: python -m rsmp")
    code, out, err = outcome(programs, "-m", "rsmp", "--no-such-option")
    assert (code, out) == (2, "") and "usage:" in err
    assert outcome(programs, "-m", "rsmp", "-m")[0] == 2


CHILDREN = """
import sys
import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import current_process
def who():
    import multiprocessing.queues
    main = sys.modules["__main__"]
    return (multiprocessing.__name__, multiprocessing.queues.Queue.__module__, __name__, main.__name__,
            main is sys.modules["__mp_main__"], sys.argv[1:], sys.flags.optimize,
            current_process().name == "MainProcess")
def child(depth, queue):
    queue.put(who())
    if depth:
        process = multiprocessing.Process(target=child, args=(depth - 1, queue))
        process.start()
        process.join()
if __name__ == "__main__":
    multiprocessing.set_start_method(sys.argv[1])
    queue = multiprocessing.SimpleQueue()
    process = multiprocessing.Process(target=child, args=(1, queue))
    process.start()
    print(queue.get())
    print(queue.get())
    process.join()
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(sys.argv[1])) as pool:
        print(pool.submit(who).result())
    print(process.exitcode)
"""


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("kind", ["script", "module"])
def test_children_run_on_rsmp_too(tmp_path, method, kind):
    (tmp_path / "children.py").write_text(CHILDREN)
    program = ["children.py"] if kind == "script" else ["-m", "children"]
    code, out, err = outcome(tmp_path, "-O", "-m", "rsmp", *program, method)
    main = "__main__" if method == "fork" else "__mp_main__"
    line = str(("rsmp", "rsmp.queues", main, main, True, [method], 1, False))
    assert (code, err, out.splitlines()) == (0, "", [line, line, line, "0"])


def test_install_names_those_who_were_earlier(programs):
    code = "import concurrent.futures.process, rsmp; rsmp.install(); import multiprocessing as m; print(m.__name__)"
    status, out, err = outcome(programs, "-c", code)
    assert (status, out) == (0, "rsmp\n")
    assert "RuntimeWarning" in err and "concurrent.futures.process" in err


def test_install_in_time_is_silent(programs):
    code = (
        "import rsmp\nrsmp.install()\nrsmp.install()\nimport multiprocessing.pool, rsmp.pool\n"
        "print(multiprocessing.pool is rsmp.pool, multiprocessing.pool.Pool.__module__)"
    )
    assert outcome(programs, "-W", "error", "-c", code) == (0, "True rsmp.pool\n", "")
