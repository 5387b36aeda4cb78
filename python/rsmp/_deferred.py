"""Modules that are executed when a name in them is first used.

The standard package imports, before its first line runs, what it needs for a connection between machines, a traceback
or a new interpreter: pickle and re, socket and selectors, tempfile and random, subprocess. Most programs, and most
children, never use them. What a module's own code asks of them while it is imported is answered from the C modules that
they are made of, or by a stand-in that does the same later (`ANSWERS`).

Like the standard `importlib.util.LazyLoader`, with a lock for each module and without importing anything itself.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import sys
from _frozen_importlib_external import PathFinder
from _thread import RLock, get_ident
from types import ModuleType

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from importlib.machinery import ModuleSpec
    from typing import Any

__all__ = ["Deferred", "defer", "executed", "sparing", "when_executed"]


class Deferred(ModuleType):
    """A module that is executed when a name in it is first used."""

    def __getattribute__(self, name: str) -> Any:
        # Importing the module again looks at its spec, importing a name from it at its path.
        if name not in ("__class__", "__name__", "__spec__"):
            spec: Any = ModuleType.__getattribute__(self, "__spec__")
            if name == "__path__" and spec.submodule_search_locations is None:
                raise AttributeError(f"module {spec.name!r} has no attribute '__path__'")
            answers = _answers(spec.name, sys._getframe(1).f_globals)
            if name in answers:
                return answers[name](self)
            _execute(self)
        return ModuleType.__getattribute__(self, name)

    def __setattr__(self, name: str, value: Any) -> None:
        _execute(self)
        ModuleType.__setattr__(self, name, value)

    def __delattr__(self, name: str) -> None:
        _execute(self)
        ModuleType.__delattr__(self, name)


class _Loader:
    """Makes the module, and leaves it to `_execute` to run its code."""

    def __init__(self, loader: Any) -> None:
        self.loader = loader

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        created: ModuleType | None = self.loader.create_module(spec)
        return created

    def exec_module(self, module: Any) -> None:
        module.__spec__.loader = module.__loader__ = self.loader
        _locks[module.__name__] = RLock()
        module.__class__ = Deferred


class _Finder:
    """Finds the modules that one thread is to import deferred, until that is over."""

    def __init__(self, thread: int) -> None:
        self.thread = thread

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        if name not in ANSWERS or get_ident() != self.thread:
            return None
        package = name.rpartition(".")[0]
        if package and sys.modules[package].__name__ != package:
            return None
        return _found(name, path)


def _found(name: str, path: Sequence[str] | None) -> ModuleSpec | None:
    """Return the spec of a module to be deferred, or None if it is not found in the usual way (frozen programs)."""
    spec = PathFinder.find_spec(name, path)
    if spec is None or spec.loader is None:
        return None
    spec.loader = _Loader(spec.loader)  # type: ignore[assignment]
    return spec


_locks: dict[str, RLock] = {}
_executing: dict[str, int] = {}
"""The process that executes a module."""
_afterwards: dict[str, Callable[[ModuleType], object]] = {}
_sparing: set[int] = set()


def sparing(action: Callable[..., Any], *arguments: Any) -> Any:
    """Call ``action``, which imports or executes standard modules; those of `ANSWERS` are deferred meanwhile."""
    thread = get_ident()
    if thread in _sparing:
        return action(*arguments)
    finder: Any = _Finder(thread)
    _sparing.add(thread)
    sys.meta_path.insert(0, finder)
    try:
        return action(*arguments)
    finally:
        _sparing.discard(thread)
        if finder in sys.meta_path:
            sys.meta_path.remove(finder)


def defer(name: str, path: Any) -> ModuleType | None:
    """Return the module ``name``, deferred and not yet in ``sys.modules``, or None if it cannot be."""
    from _frozen_importlib import module_from_spec

    spec = _found(name, path)
    if spec is None:
        return None
    module = module_from_spec(spec)
    spec.loader.exec_module(module)  # type: ignore[union-attr]
    return module


def executed(name: str) -> ModuleType | None:
    """Return the module ``name`` of ``sys.modules``, or None while it is deferred or not imported."""
    module = sys.modules.get(name)
    return None if type(module) is Deferred else module


def when_executed(name: str, action: Callable[[ModuleType], object]) -> None:
    """Call ``action`` with the module when the deferred module ``name`` has been executed."""
    _afterwards[name] = action


def _execute(module: ModuleType) -> None:
    """Execute a deferred module once; other threads wait for it, and the module itself gets at its own names."""
    spec: Any = ModuleType.__getattribute__(module, "__spec__")
    process = os.getpid()
    if _executing.get(spec.name, process) != process:
        # Another thread did when this process was forked. Looked at here, as a hook of forks would keep alive what
        # this module refers to, up to the program's own module, while the interpreter ends.
        _locks[spec.name] = RLock()
        _executing.pop(spec.name, None)
    # A lock for each module: what one of them imports may be waiting for another of them, in another thread.
    with _locks[spec.name]:
        if type(module) is not Deferred or spec.name in _executing:
            return
        _executing[spec.name] = process
        try:
            sparing(spec.loader.exec_module, module)
            action = _afterwards.pop(spec.name, None)
            if action is not None:
                action(module)
            ModuleType.__setattr__(module, "__class__", ModuleType)
        finally:
            del _executing[spec.name]


def _answers(name: str, asking: Mapping[str, Any]) -> Mapping[str, Callable[[ModuleType], Any]]:
    """Return what of the module ``name`` is known to the code with the globals ``asking`` before it is executed."""
    standard = str(asking.get("__name__")).startswith("multiprocessing.")
    return ANSWERS.get(name, {}) if standard and get_ident() in _sparing else {}


def _of(extension: str, *names: str) -> dict[str, Callable[[ModuleType], Any]]:
    """Names that a module takes as they are from a module in C, or that only their presence is asked of."""

    def answer(name: str) -> Callable[[ModuleType], Any]:
        return lambda _: getattr(__import__(extension), name)

    return {name: answer(name) for name in names}


def _function(name: str) -> Callable[[ModuleType], Any]:
    """Return what answers with a function that calls the module's function ``name``."""

    def answer(module: ModuleType) -> Any:
        def function(*arguments: Any, **named: Any) -> Any:
            return getattr(module, name)(*arguments, **named)

        function.__name__ = function.__qualname__ = name
        function.__module__ = module.__name__
        return function

    return answer


def _interpreter_options(module: Any) -> Callable[[], list[str]]:
    """Return what answers for the function of `subprocess`, and asks it where the interpreter has options."""

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


ANSWERS: dict[str, dict[str, Callable[[ModuleType], Any]]] = {
    "multiprocessing.connection": {"wait": _function("wait")},
    "multiprocessing.reduction": {},
    "pickle": _of("_pickle", "Pickler", "loads"),
    "secrets": {},
    "signal": {"__dict__": lambda _: _signal.__dict__} | _of("_signal", "SIGINT", "SIGTERM", "pthread_sigmask"),
    "socket": _of("_socket", "AF_UNIX", "CMSG_LEN", "SCM_RIGHTS", "socket"),
    "subprocess": {"_args_from_interpreter_flags": _interpreter_options},
    "tempfile": {"_RandomNameSequence": lambda _: _RandomNameSequence},
    "traceback": {},
}
"""The modules that are deferred, and what modules of the standard package ask of each while they are imported."""
