"""Every name, signature and ``__all__`` of the interpreter's own package is there, submodules included."""

import importlib
import multiprocessing
import pkgutil
from pathlib import Path

import pytest
import surface

MODULES = [
    "",
    *(
        info.name.partition(".")[2]
        for info in pkgutil.walk_packages(multiprocessing.__path__, "multiprocessing.")
        if not info.name.endswith("popen_spawn_win32")
    ),
]

# What rsmp takes beyond the standard signature of some version; docs/compat.md describes each.
ADDED = {
    *(f"pool.{kind}.{name}" for kind in ("Pool", "ThreadPool") for name in ("imap", "imap_unordered")),
    *(f"shared_memory.SharedMemory{end}" for end in ("", ".__init__")),
    *(f"synchronize.{name}{end}" for name in ("Lock", "RLock") for end in ("", ".__init__")),
    *(
        f"context.{kind}Context.{name}"
        for kind in ("Base", "Fork", "ForkServer", "Spawn")
        for name in ("Lock", "RLock", "Pool", "set_forkserver_preload")
    ),
    *(f"context.DefaultContext.{name}" for name in ("Lock", "RLock", "Pool", "set_forkserver_preload")),
    "forkserver.ForkServer.set_forkserver_preload",
    "forkserver.set_forkserver_preload",
    *(f"pool.Pool{end}" for end in ("", ".__init__")),
    "Lock",
    "RLock",
    "Pool",
    "set_forkserver_preload",
}


@pytest.mark.parametrize("name", MODULES, ids=[name or "package" for name in MODULES])
def test_nothing_is_missing(name):
    dotted = f".{name}" if name else ""
    standard = importlib.import_module(f"multiprocessing{dotted}")
    ours = importlib.import_module(f"rsmp{dotted}")
    found = surface.missing(standard, ours, ADDED)
    assert not found, "\n".join(found)


def test_the_comparison_finds_what_is_missing():
    class Standard:
        def put(self, obj, block=True):
            pass

    class Ours(Standard):
        def put(self, obj):
            pass

    def function(one, two=2):
        pass

    def renamed(uno, two=2):
        pass

    def more(one, two=2, *, three=3):
        pass

    assert surface.differences("Queue", Standard, object, set()) == [
        "Queue: <class 'object'> is no subclass of the standard class"
    ]
    assert "Queue.put(self, obj, block=True) became put(self, obj)" in surface.differences(
        "Queue", Standard, Ours, set()
    )
    assert surface.differences("f", function, renamed, {"f"})
    assert surface.differences("f", function, more, set())
    assert not surface.differences("f", function, more, {"f"})
    assert surface.differences("LIMIT", 1, 2, set())


def test_every_file_of_the_standard_package_has_its_counterpart():
    standard = {path.name for path in Path(multiprocessing.__file__).parent.glob("*.py")}
    ours = {path.name for path in Path(importlib.import_module("rsmp").__file__).parent.glob("*.py")}
    assert standard <= ours


def test_every_module_has_all():
    package = importlib.import_module("rsmp")
    for info in pkgutil.walk_packages(package.__path__, "rsmp."):
        if not info.name.endswith("_rsmp"):
            assert hasattr(importlib.import_module(info.name), "__all__"), info.name


def test_a_bare_import_loads_only_what_the_standard_one_loads():
    import subprocess
    import sys

    code = "import sys, rsmp; print(*(m for m in sys.modules if m.partition('.')[0] in ('rsmp', 'multiprocessing')))"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    ours = {name.partition(".")[2] for name in loaded if name.startswith("rsmp.")}
    assert ours <= {"context", "process", "reduction", "_deferred", "_install", "_stand_ins", "_stdlib", "_rsmp"}
    assert {name for name in loaded if name.startswith("multiprocessing.")} == {
        "multiprocessing.context",
        "multiprocessing.process",
        "multiprocessing.reduction",
    }
