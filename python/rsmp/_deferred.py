"""Modules that the standard package imports and hardly any program uses, executed when somebody does.

The standard package imports, before its first line runs, what it needs for a connection between machines or a new
interpreter: pickle and re, socket and selectors, tempfile and random, subprocess. While rsmp imports a standard module,

- submodules that it imports in its turn (`SUBMODULES`) are made and executed when a name in them is first used, like
  modules of `importlib.util.LazyLoader`;
- in the place of a general module (`rsmp._stand_ins`) it gets a stand-in, which is not in ``sys.modules``: whoever
  imports that module imports it as ever.
"""

from __future__ import annotations

import os
import sys
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import SourceFileLoader, SourcelessFileLoader
from _thread import RLock, get_ident
from types import ModuleType

from rsmp import _stand_ins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from importlib.machinery import ModuleSpec
    from types import FrameType
    from typing import Any

__all__ = ["SUBMODULES", "Deferred", "defer", "executed", "sparing", "when_executed"]

SUBMODULES: dict[str, dict[str, _stand_ins.Answer]] = {
    "multiprocessing.connection": {"wait": _stand_ins.until_imported(_stand_ins.wait)},
    "multiprocessing.reduction": {},
}
"""What is deferred of the standard package, and what its other modules ask of each while they are imported."""


class Deferred(ModuleType):
    """A module that is executed when a name in it is first used."""

    def __getattribute__(self, name: str) -> Any:
        if name not in _stand_ins.AT_HAND:
            # An import statement that takes a name from the module looks whether it is a package.
            if name == "__path__":
                raise AttributeError(f"module {self.__name__!r} has no attribute '__path__'")
            answers = SUBMODULES.get(self.__name__, {})
            if name in answers:
                asking = _stand_ins.module_code(sys._getframe(1))
                if asking is not None:
                    spec: Any = self.__spec__
                    return answers[name](self, asking, spec.loader_state.afterwards.append)
            _execute(self)
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _execute(self)
        ModuleType.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _execute(self)
        ModuleType.__delattr__(self, name)


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
    """Finds what the standard package is to import deferred, and what takes a stand-in's place."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in SUBMODULES and name not in _stand_ins.ANSWERS:
            return None
        asking = _stand_ins.module_code(_importing()) if (os.getpid(), get_ident()) in _sparing else None
        if asking is None and name not in _stand_ins.live:
            return None
        spec: Any = _found(name, path, target)
        if spec is None or spec.loader is None:
            return None
        if asking is None:
            spec.loader = _stand_ins.Arrival(spec.loader)
        # Other loaders than these watch what is imported, or get it from elsewhere (frozen programs).
        elif type(spec.loader) in (SourceFileLoader, SourcelessFileLoader):
            spec.loader = _Loader(spec.loader) if name in SUBMODULES else _stand_ins.Substitute(asking)
        return spec  # type: ignore[no-any-return]


def _importing() -> FrameType:
    """Return the frame of the import statement that a finder works for."""
    frame = sys._getframe(2)
    while frame.f_back is not None and str(frame.f_globals.get("__name__")).startswith(("_frozen_imp", "importlib.")):
        frame = frame.f_back
    return frame


def _found(name: str, path: Any, target: ModuleType | None = None) -> ModuleSpec | None:
    """Return the spec as the other finders have it."""
    for finder in list(sys.meta_path):
        find: Any = None if isinstance(finder, _Finder) else getattr(finder, "find_spec", None)
        spec: ModuleSpec | None = None if find is None else find(name, path, target)
        if spec is not None:
            return spec
    return None


_sparing: set[tuple[int, int]] = set()
"""The processes and threads that import standard modules."""

# For good: importlib goes through the list while other threads import, and one that shrank would lack a finder.
sys.meta_path.insert(0, _Finder())


def sparing(action: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``action``, which imports or executes standard modules, and spare what can be spared meanwhile."""
    thread = (os.getpid(), get_ident())
    if thread in _sparing:
        return action(*arguments)
    _sparing.add(thread)
    try:
        return action(*arguments)
    finally:
        _sparing.discard(thread)
        _stand_ins.withdraw()


def defer(name: str, path: Any) -> ModuleType | None:
    """Return the module ``name``, deferred and not yet in ``sys.modules``, or None if it cannot be."""
    spec: Any = _found(name, path)
    if spec is None or type(spec.loader) not in (SourceFileLoader, SourcelessFileLoader):
        return None
    spec.loader = _Loader(spec.loader)
    module: ModuleType = module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def executed(name: str) -> ModuleType | None:
    """Return the module ``name`` of ``sys.modules``, or None while there is none that has been executed."""
    module = sys.modules.get(name)
    return None if type(module) in (Deferred, _stand_ins.StandIn) else module


def when_executed(module: ModuleType, action: Callable[[ModuleType], object]) -> None:
    """Call ``action`` with the module once it has been executed: now, or before others see it so."""
    if type(module) is Deferred:
        spec: Any = module.__spec__
        state: _State = spec.loader_state
        with state.lock():
            if type(module) is Deferred:
                state.afterwards.append(action)
                return
    action(module)


def _execute(module: ModuleType) -> None:
    """Execute a deferred module once; other threads wait for it, and the module itself gets at its own names."""
    spec: Any = ModuleType.__getattribute__(module, "__spec__")
    state: _State = spec.loader_state
    # A lock for each module: what one of them imports may be waiting for another of them, in another thread.
    with state.lock():
        if type(module) is not Deferred or state.executing == os.getpid():
            return
        state.executing = os.getpid()
        try:
            sparing(spec.loader.exec_module, module)
            while state.afterwards:
                state.afterwards[0](module)
                del state.afterwards[0]
            ModuleType.__setattr__(module, "__class__", ModuleType)
        finally:
            state.executing = 0
