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

    Action = Callable[[Any], object]
    # Of the module, the names of the module that asks, and what calls a function when the module is there.
    Answer = Callable[[Any, dict[str, Any], Callable[[Action], None]], Any]

__all__ = [
    "ANSWERS",
    "AT_HAND",
    "Arrival",
    "StandIn",
    "Substitute",
    "c_pickle",
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
                place, frame = live.get(self.__name__), sys._getframe().f_back
                if place is not None and frame is not None:
                    place.namespaces.append(frame.f_globals)
            return ModuleType.__getattribute__(self, name)
        if name == "__path__":
            # Asked by an import statement that takes a name from the module.
            raise AttributeError(f"module {self.__name__!r} has no attribute '__path__'")
        answers = ANSWERS[self.__name__]
        if name in answers:
            frame = sys._getframe(1)
            if module_code(frame) is not None or (name in ANY_TIME and _is_standard(frame)):
                return answers[name](self, frame.f_globals, lambda action: when_imported(self.__name__, action))
        return getattr(_true(self), name)

    def __setattr__(self, name: str, value: Any) -> None:
        if name in AT_HAND:
            ModuleType.__setattr__(self, name, value)
        else:
            setattr(_true(self), name, value)

    def __delattr__(self, name: str) -> None:
        delattr(_true(self), name)


def _is_standard(frame: FrameType) -> bool:
    return str(frame.f_globals.get("__name__")).startswith("multiprocessing.")


def module_code(frame: FrameType) -> dict[str, Any] | None:
    """Return the names of the standard module whose own code, not that of its functions, is in ``frame``."""
    return frame.f_globals if _is_standard(frame) and not frame.f_code.co_flags & _OPTIMIZED else None


class _Place:
    """A stand-in, the names of the modules that have it, and what is to happen when its module takes its place."""

    def __init__(self, stand_in: StandIn) -> None:
        self.stand_in = stand_in
        self.namespaces: list[dict[str, Any]] = []
        self.afterwards: list[Action] = []


live: dict[str, _Place] = {}
"""The stand-ins whose modules nobody has imported."""

# They lead to what the standard package knows, and so to the program's modules, which are to be finalized before that.
atexit.register(live.clear)


def when_imported(name: str, action: Action) -> None:
    """Call ``action`` with the module ``name``: now, or when it takes the place of its stand-in."""
    place = live.get(name)
    if place is None:
        action(sys.modules[name])
    else:
        place.afterwards.append(action)


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
    _replace(name, module)
    return module


def _replace(name: str, module: Any) -> None:
    """Put the module wherever its stand-in was imported to."""
    place = live.get(name)
    if place is None:
        return
    while place.afterwards:
        place.afterwards[0](module)
        del place.afterwards[0]
    for names in place.namespaces:
        if names.get(name) is place.stand_in:
            names[name] = module
    live.pop(name, None)


class Substitute:
    """Makes a stand-in, of which there is one for each module, for the module whose names are ``asking``."""

    def __init__(self, asking: dict[str, Any]) -> None:
        self.asking = asking

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        place = live.get(spec.name)
        return None if place is None else place.stand_in

    def exec_module(self, module: Any) -> None:
        module.__class__ = StandIn
        live.setdefault(module.__name__, _Place(module)).namespaces.append(self.asking)


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
        # Some make a module of their own from the spec.
        if sys.modules.get(name) is module:
            _replace(name, module)


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


def _extension(name: str) -> Any:
    return c_pickle() if name == "_pickle" else __import__(name)


def _of(extension: str, *names: str, **other_names: str) -> dict[str, Answer]:
    """Names that a module takes as they are from a module in C, or that only their presence is asked of.

    ``other_names`` have the names in C as their values.
    """

    def answer(name: str) -> Answer:
        return lambda module, asking, later: getattr(_extension(extension), name)

    return {name: answer(own) for name, own in ({name: name for name in names} | other_names).items()}


def until_imported(make: Callable[[Any], Callable[..., Any]]) -> Answer:
    """A function that ``make`` makes for the module; where it was imported to, the module's own takes its place."""

    def answer(module: Any, asking: dict[str, Any], later: Callable[[Action], None]) -> Any:
        function = make(module)
        name = function.__qualname__ = function.__name__

        def replace(module: ModuleType) -> None:
            if asking.get(name) is function:
                asking[name] = getattr(module, name)

        later(replace)
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


def _full(module: Any, asking: dict[str, Any], later: Callable[[Action], None]) -> Any:
    """Make the exception `queue.Full`, which the module is to have when somebody imports it."""
    global _made_full
    if _made_full is None:
        about = {"__module__": "queue", "__doc__": "Exception raised by Queue.put(block=0)/put_nowait()."}
        _made_full = type("Full", (Exception,), about)
    made = _made_full
    later(lambda queue: setattr(queue, "Full", made))
    return made


_made_full: type[Exception] | None = None


def c_pickle() -> Any:
    """Return `_pickle`, imported without functools.

    It takes one class from there, which is C's; the rest would bring collections with it.
    """
    known = sys.modules.get("functools")
    if "_pickle" not in sys.modules and (known is None or type(known) is StandIn):
        sys.modules["functools"] = part = _part_of_functools()
        try:
            import _pickle
        finally:
            if sys.modules.get("functools") is part:
                del sys.modules["functools"]
                if known is not None:
                    sys.modules["functools"] = known
    import _pickle

    return _pickle


def _part_of_functools() -> ModuleType:
    import _functools  # type: ignore[import-not-found]

    part: Any = ModuleType("functools")

    def of_all(name: str) -> Any:
        # Somebody else imports it just now.
        if sys.modules.get("functools") is part:
            del sys.modules["functools"]
        return getattr(__import__("functools"), name)

    part.partial, part.__getattr__ = _functools.partial, of_all
    return part  # type: ignore[no-any-return]


ANSWERS: dict[str, dict[str, Answer]] = {
    "functools": _of("_functools", "partial"),
    "pickle": _of("_pickle", "Pickler", "loads"),
    "queue": _of("_queue", "Empty") | {"Full": _full},
    "secrets": {},
    "signal": {"__dict__": lambda module, asking, later: _signal.__dict__}
    | _of("_signal", "SIGINT", "SIGTERM", "pthread_sigmask"),
    "socket": _of("_socket", "AF_UNIX", "CMSG_LEN", "SCM_RIGHTS", "socket"),
    "subprocess": {"_args_from_interpreter_flags": until_imported(_interpreter_options)},
    "tempfile": {"_RandomNameSequence": lambda module, asking, later: _RandomNameSequence},
    "threading": _of("_thread", "RLock", Lock="allocate_lock", local="_local"),
}
"""The modules that have stand-ins, and what modules of the standard package ask of each while they are imported."""
ANY_TIME = {"Lock", "RLock"}
"""What the standard package's functions get from there as well: some modules make an object while they are imported."""
