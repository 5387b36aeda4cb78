"""Stand-ins for general modules in the standard package (see `rsmp._deferred`).

A stand-in is what ``multiprocessing.connection.socket`` is until somebody imports `socket`, or the standard package
uses it: then the module takes its place. What the standard modules ask of it while they are imported themselves is
answered from the C module that the name comes from, or by something that does the same later (`ANSWERS`).
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import os
import sys
from _thread import RLock
from time import monotonic
from types import FunctionType, ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from importlib.machinery import ModuleSpec
    from types import FrameType
    from typing import Any

    Answer = Callable[[Any, dict[str, Any]], Any]

__all__ = [
    "ANSWERS",
    "AT_HAND",
    "Arrival",
    "StandIn",
    "Substitute",
    "live",
    "module_code",
    "until_imported",
    "wait",
    "when_imported",
    "withdraw",
]

AT_HAND = {"__cached__", "__class__", "__file__", "__loader__", "__name__", "__package__", "__spec__"}
"""What a module has before it is executed."""
_OPTIMIZED = 0x1  # inspect.CO_OPTIMIZED: the code of a function


class StandIn(ModuleType):
    """What the standard package has in the place of a general module."""

    def __getattribute__(self, name: str) -> Any:
        if name in AT_HAND:
            if name == "__spec__":
                # An import statement asks for it: the module is to take our place there.
                namespaces = ModuleType.__getattribute__(self, "__dict__").setdefault("namespaces", [])
                namespaces.append(_names(1))
            return ModuleType.__getattribute__(self, name)
        if name == "__path__":
            # Asked by an import statement that takes a name from the module.
            raise AttributeError(f"module {self.__name__!r} has no attribute '__path__'")
        answers = ANSWERS[self.__name__]
        if name in answers:
            frame = sys._getframe(1)
            if module_code(frame) is not None:
                return answers[name](self, frame.f_globals)
        return getattr(_true(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in AT_HAND:
            ModuleType.__setattr__(self, name, value)
        else:
            setattr(_true(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_true(self), name)


def module_code(frame: FrameType) -> dict[str, Any] | None:
    """Return the names of the standard module whose own code, not that of its functions, is in ``frame``."""
    names = frame.f_globals
    standard = str(names.get("__name__")).startswith("multiprocessing.")
    return names if standard and not frame.f_code.co_flags & _OPTIMIZED else None


def _names(depth: int) -> dict[str, Any]:
    try:
        return sys._getframe(depth + 1).f_globals
    except ValueError:  # the interpreter itself
        return {}


def when_imported(name: str, action: Callable[[Any], object]) -> None:
    """Call ``action`` with the module ``name``: now, or when it takes the place of its stand-in."""
    stand_in = live.get(name)
    if stand_in is None:
        action(sys.modules[name])
    else:
        ModuleType.__getattribute__(stand_in, "__dict__").setdefault("afterwards", []).append(action)


live: dict[str, StandIn] = {}
"""The stand-ins whose modules nobody has imported."""

# They lead to what the standard package knows, and so to the program's modules, which are to be finalized before that.
atexit.register(live.clear)

_locks: dict[int, RLock] = {}


def withdraw(name: str | None = None) -> None:
    """Take stand-ins out of ``sys.modules``, where importlib put them for the standard modules that were imported."""
    # For each process: that of the parent may have been held by another thread when this one was forked.
    with _locks.setdefault(os.getpid(), RLock()):
        for each in [name] if name else list(live):
            if type(sys.modules.get(each)) is StandIn:
                del sys.modules[each]


def _true(stand_in: StandIn) -> ModuleType:
    """Import the module, if nobody has, and return it."""
    name = stand_in.__name__
    if type(sys.modules.get(name)) is StandIn:
        withdraw(name)
    module = __import__(name)
    _replace(stand_in, module)
    return module


def _replace(stand_in: StandIn, module: ModuleType) -> None:
    """Put the module wherever the stand-in was imported to."""
    name = stand_in.__name__
    state = ModuleType.__getattribute__(stand_in, "__dict__")
    namespaces, afterwards = state.get("namespaces", []), state.get("afterwards", [])
    while afterwards:
        afterwards[0](module)
        del afterwards[0]
    for names in namespaces:
        if names.get(name) is stand_in:
            names[name] = module
    live.pop(name, None)


class Substitute:
    """Makes a stand-in, of which there is one for each module."""

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return live.get(spec.name)

    def exec_module(self, module: Any) -> None:
        module.__class__ = StandIn
        live[module.__name__] = module
        # The import statement that this is for.
        frame: FrameType | None = sys._getframe(1)
        while frame is not None and module_code(frame) is None:
            frame = frame.f_back
        if frame is not None:
            ModuleType.__getattribute__(module, "__dict__").setdefault("namespaces", []).append(frame.f_globals)


class Arrival:
    """The loader of a module for which there is a stand-in; in all else it is the loader that others have found."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def __getattr__(self, name: str) -> Any:
        return getattr(self.loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self.loader.create_module(spec)
        return created

    def exec_module(self, module: Any) -> None:
        name: str = module.__name__
        module.__spec__.loader = module.__loader__ = self.loader
        busy = (os.getpid(), RLock())
        with busy[1]:
            _busy.append(busy)
            try:
                self.loader.exec_module(module)
            finally:
                _busy.remove(busy)
        stand_in, known = live.get(name), sys.modules.get(name)
        # Some make a module of their own from the spec.
        if stand_in is not None and known is not None and known is module:
            _replace(stand_in, module)


_busy: list[tuple[int, RLock]] = []
"""Processes that execute a module, and what is locked meanwhile."""

_PATIENCE = 1.0
"""Seconds that a fork waits for other threads: those may be waiting, in an import, for the thread that forks."""


def _finish() -> None:
    """Wait for what other threads import: it would stay locked in a forked child, and the standard package has it."""
    end = monotonic() + _PATIENCE
    for process, lock in list(_busy):
        if process == os.getpid() and lock.acquire(timeout=max(0.0, end - monotonic())):
            lock.release()


def _before_fork() -> None:
    stand_ins = sys.modules.get("rsmp._stand_ins")
    if stand_ins is not None:
        stand_ins._finish()


# With names of its own: what the interpreter has registered lives until after the program's modules are cleared, and
# those of this module lead to them.
os.register_at_fork(before=FunctionType(_before_fork.__code__, {"sys": sys}))


def _of(extension: str, *names: str) -> dict[str, Answer]:
    """Names that a module takes as they are from a module in C, or that only their presence is asked of."""

    def answer(name: str) -> Answer:
        return lambda module, asking: getattr(__import__(extension), name)

    return {name: answer(name) for name in names}


def until_imported(make: Callable[[Any], Callable[..., Any]]) -> Answer:
    """A function that ``make`` makes for the module; where it was imported to, the module's own takes its place."""

    def answer(module: Any, asking: dict[str, Any]) -> Any:
        function = make(module)
        name = function.__qualname__ = function.__name__

        def replace(module: ModuleType) -> None:
            if asking.get(name) is function:
                asking[name] = getattr(module, name)

        if type(module) is StandIn:
            when_imported(module.__name__, replace)
        else:
            module.__spec__.loader_state.afterwards.append(replace)
        return function

    return answer


def wait(module: Any) -> Callable[..., Any]:
    """Make what does as `multiprocessing.connection.wait`."""

    def wait(object_list: Any, timeout: float | None = None) -> Any:
        return module.wait(object_list, timeout)

    return wait


def _interpreter_options(module: Any) -> Callable[..., Any]:
    def _args_from_interpreter_flags() -> Any:
        return module._args_from_interpreter_flags()

    return _args_from_interpreter_flags


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
    "pickle": _of("_pickle", "Pickler", "loads"),
    "secrets": {},
    "signal": {"__dict__": lambda module, asking: _signal.__dict__}
    | _of("_signal", "SIGINT", "SIGTERM", "pthread_sigmask"),
    "socket": _of("_socket", "AF_UNIX", "CMSG_LEN", "SCM_RIGHTS", "socket"),
    "subprocess": {"_args_from_interpreter_flags": until_imported(_interpreter_options)},
    "tempfile": {"_RandomNameSequence": lambda module, asking: _RandomNameSequence},
}
"""The modules that have stand-ins, and what modules of the standard package ask of each while they are imported."""
