"""Modules that the standard package imports and hardly any program uses, executed when somebody does.

The standard package imports, before its first line runs, what it needs for a connection between machines or a new
interpreter: pickle and re, socket and selectors, tempfile and random, subprocess. Here such a module is made and not
executed until the program imports it or somebody uses a name in it. What the standard package's own code asks of it
while that is imported is answered from the C module that the name comes from, or by a stand-in that does the same later
(`ANSWERS`).

A relative of the standard `importlib.util.LazyLoader`; that one defers what the program imports, too.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import SourceFileLoader, SourcelessFileLoader
from _thread import RLock, get_ident
from types import FunctionType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

    Answer = Callable[[ModuleType, dict[str, Any]], Any]

__all__ = ["Deferred", "defer", "executed", "sparing", "when_executed"]

_AT_HAND = {"__cached__", "__class__", "__file__", "__loader__", "__name__", "__package__"}
"""What a module has before it is executed."""


class Deferred(ModuleType):
    """A module that is executed when a name in it is first used, or when others than the standard package import it."""

    def __getattribute__(self, name: str) -> Any:
        if name not in _AT_HAND:
            spec: Any = ModuleType.__getattribute__(self, "__spec__")
            asking = _asking()
            if asking is not None:
                # An import statement looks at the spec, one that imports a name from the module at its path.
                if name == "__spec__":
                    return spec
                if name == "__path__" and spec.submodule_search_locations is None:
                    raise AttributeError(f"module {spec.name!r} has no attribute '__path__'")
                importing = get_ident() in _sparing and not asking["__name__"].startswith("rsmp")
                if name in ANSWERS.get(spec.name, ()) and (importing or name in _AT_ANY_TIME):
                    return ANSWERS[spec.name][name](self, asking)
            _execute(self)
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _execute(self)
        ModuleType.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _execute(self)
        ModuleType.__delattr__(self, name)


def _asking() -> dict[str, Any] | None:
    """Return the globals of the code that uses a deferred module, if it is the standard package's or ours."""
    try:
        names = sys._getframe(2).f_globals
    except ValueError:  # the interpreter itself
        return None
    package = str(names.get("__name__")).partition(".")[0]
    return names if package in ("multiprocessing", "rsmp") else None


class _State:
    """How far a deferred module is."""

    def __init__(self) -> None:
        # One for each process: that of the parent may have been held by another thread when this one was forked.
        self.locks: dict[int, RLock] = {}
        self.executing = 0
        self.afterwards: list[Callable[[ModuleType], object]] = []

    def lock(self) -> RLock:
        # `setdefault` as two threads may need it at once.
        return self.locks.setdefault(os.getpid(), RLock())


class _Loader:
    """Makes the module, and leaves it to `_execute` to run its code."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self.loader.create_module(spec)
        return created

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self.loader
        module.__spec__.loader_state = _State()
        module.__class__ = Deferred


class _Finder:
    """Finds the modules that a thread is to import deferred."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in ANSWERS or get_ident() not in _sparing:
            return None
        return _found(name, path, target)


def _found(name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
    """Return the spec as the other finders have it, deferred if the module is an ordinary file."""
    for finder in list(sys.meta_path):
        if isinstance(finder, _Finder):
            continue
        find: Any = getattr(finder, "find_spec", None)
        spec = None if find is None else find(name, path, target)
        if spec is not None:
            # Others than these watch what is imported, or get it from elsewhere.
            if type(spec.loader) in (SourceFileLoader, SourcelessFileLoader):
                spec.loader = _Loader(spec.loader)
            return spec  # type: ignore[no-any-return]
    return None


_sparing: set[int] = set()
"""The threads that import standard modules."""

# For good: importlib goes through the list while other threads import, and one that shrank would lack a finder.
sys.meta_path.insert(0, _Finder())


def sparing(action: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``action``, which imports or executes standard modules; those of `ANSWERS` are deferred meanwhile."""
    thread = get_ident()
    if thread in _sparing:
        return action(*arguments)
    _sparing.add(thread)
    try:
        return action(*arguments)
    finally:
        _sparing.discard(thread)


def defer(name: str, path: Any) -> ModuleType | None:
    """Return the module ``name``, deferred and not yet in ``sys.modules``, or None if it cannot be."""
    spec: Any = _found(name, path)
    if spec is None or type(spec.loader) is not _Loader:
        return None
    module: ModuleType = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def executed(name: str) -> ModuleType | None:
    """Return the module ``name`` of ``sys.modules``, or None while it is deferred or not imported."""
    module = sys.modules.get(name)
    return None if type(module) is Deferred else module


def when_executed(module: ModuleType, action: Callable[[ModuleType], object]) -> None:
    """Call ``action`` with the module once it has been executed: now, or before others see it so."""
    spec: Any = ModuleType.__getattribute__(module, "__spec__")
    if type(module) is Deferred:
        state = spec.loader_state
        with state.lock():
            if type(module) is Deferred:
                state.afterwards.append(action)
                return
    action(module)


def _execute(module: ModuleType) -> None:
    """Execute a deferred module once; other threads wait for it, and the module itself gets at its own names."""
    spec: Any = ModuleType.__getattribute__(module, "__spec__")
    state = spec.loader_state
    # A lock for each module: what one of them imports may be waiting for another of them, in another thread.
    with state.lock():
        if type(module) is not Deferred or state.executing == os.getpid():
            return
        state.executing = os.getpid()
        _busy.append(state)
        try:
            sparing(spec.loader.exec_module, module)
            while state.afterwards:
                state.afterwards[0](module)
                del state.afterwards[0]
            ModuleType.__setattr__(module, "__class__", ModuleType)
        finally:
            _busy.remove(state)
            state.executing = 0


_busy: list[_State] = []

_PATIENCE = 1.0
"""Seconds that a fork waits for another thread: that one may be waiting, in an import, for the thread that forks."""


def _finish() -> None:
    """Wait for what other threads are executing: modules that those import would stay locked in a forked child."""
    for state in list(_busy):
        if state.executing == os.getpid() and state.lock().acquire(timeout=_PATIENCE):
            state.lock().release()


def _before_fork() -> None:
    deferred = sys.modules.get("rsmp._deferred")
    if deferred is not None:
        deferred._finish()


# With names of its own: what the interpreter has registered lives until after the program's modules are cleared, and
# those of this module lead to them.
os.register_at_fork(before=FunctionType(_before_fork.__code__, {"sys": sys}))


def _of(extension: str, *names: str) -> dict[str, Answer]:
    """Names that a module takes as they are from a module in C, or that only their presence is asked of."""

    def answer(name: str) -> Answer:
        return lambda module, asking: getattr(__import__(extension), name)

    return {name: answer(name) for name in names}


def _until_executed(make: Callable[[Any], Callable[..., Any]]) -> Answer:
    """A function that ``make`` makes for the module; where it was imported to, the module's own takes its place."""

    def answer(module: ModuleType, asking: dict[str, Any]) -> Any:
        function = make(module)
        name = function.__qualname__ = function.__name__

        def replace(module: ModuleType) -> None:
            if asking.get(name) is function:
                asking[name] = getattr(module, name)

        when_executed(module, replace)
        return function

    return answer


def _wait(module: Any) -> Callable[..., Any]:
    def wait(object_list: Any, timeout: float | None = None) -> Any:
        return module.wait(object_list, timeout)

    return wait


def _interpreter_options(module: Any) -> Callable[..., Any]:
    def _args_from_interpreter_flags() -> list[str]:
        flags = {name for name in dir(sys.flags) if name[0] != "_" and name not in _NO_OPTIONS}
        if sys.warnoptions or sys._xoptions or any(getattr(sys.flags, name) for name in flags):
            return module._args_from_interpreter_flags()  # type: ignore[no-any-return]
        return []

    return _args_from_interpreter_flags


_NO_OPTIONS = {"context_aware_warnings", "gil", "hash_randomization", "int_max_str_digits", "thread_inherit_context"}
_NO_OPTIONS |= {"count", "index", "n_fields", "n_sequence_fields", "n_unnamed_fields", "utf8_mode"}
"""Flags that children get by the environment or by an option -X, and what else there is in `sys.flags`."""


class _RandomNameSequence:
    """The names of `tempfile`, which brings random and shutil with it; from the first name on."""

    def __init__(self) -> None:
        self.names: Any = None

    def __iter__(self) -> _RandomNameSequence:
        return self

    def __next__(self) -> str:
        if self.names is None:
            import tempfile

            self.names = tempfile._RandomNameSequence()  # type: ignore[attr-defined]
        name: str = next(self.names)
        return name


ANSWERS: dict[str, dict[str, Answer]] = {
    "multiprocessing.connection": {"wait": _until_executed(_wait)},
    "multiprocessing.reduction": {},
    "pickle": _of("_pickle", "Pickler", "loads"),
    "secrets": {},
    "signal": {"__dict__": lambda module, asking: _signal.__dict__}
    | _of("_signal", "SIGINT", "SIGTERM", "pthread_sigmask"),
    "socket": _of("_socket", "AF_UNIX", "CMSG_LEN", "SCM_RIGHTS", "socket"),
    "subprocess": {
        "_USE_VFORK": lambda module, asking: True,
        "_args_from_interpreter_flags": _until_executed(_interpreter_options),
    },
    "tempfile": {"_RandomNameSequence": lambda module, asking: _RandomNameSequence},
}
"""The modules that are deferred, and what modules of the standard package ask of each while they are imported."""

_AT_ANY_TIME = {"_USE_VFORK"}
"""What they ask when they start a new interpreter."""
