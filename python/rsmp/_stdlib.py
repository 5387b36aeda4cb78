"""What rsmp borrows from the standard ``multiprocessing``: state, types and names. The only file that imports it.

Libraries keep importing ``multiprocessing`` while the program imports rsmp, so the state of both is one: the current
process, its children, the start method, the reducers, the finalizers, the resource tracker. Each rsmp module mirrors
the standard module of the same name: a name that rsmp does not define itself is read from, written to and deleted
from the standard module, so that a patch made on one side is seen on the other.
"""

from __future__ import annotations

import sys
from _frozen_importlib import module_from_spec
from _frozen_importlib_external import PathFinder
from types import FunctionType, ModuleType

from rsmp import _deferred, _stand_ins

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

__all__ = ["import_main", "load", "loaded", "mirror", "package", "replaced", "unannotate", "when_loaded"]


def _import_package() -> ModuleType:
    """Import the standard package without what brings half of the time it takes (see `_deferred`)."""
    import multiprocessing.context

    return multiprocessing


package: Any = _deferred.sparing(_import_package)

_loaded: dict[str, ModuleType] = {
    "": package,
    "context": package.context,
    "process": package.process,
    "reduction": package.reduction,
}


def _know_sockets(reduction: Any) -> None:
    """Register the class of sockets as soon as there is one; until then the reducers have that of the C module."""
    import _socket

    reducers: dict[type, Any] = reduction.ForkingPickler._extra_reducers

    def register(socket: Any) -> None:
        reducer = reducers.pop(_socket.socket, None)
        if reducer is not None:
            reducers[socket.socket] = reducer

    if _socket.socket in reducers:
        _stand_ins.when_imported("socket", register)


_deferred.when_executed(package.reduction, _know_sockets)


def loaded(name: str) -> ModuleType | None:
    """Return the standard submodule ``name`` if anything has used it."""
    module = _loaded.get(name)
    if module is None and sys.modules.get("multiprocessing") is package:
        module = sys.modules.get(f"multiprocessing.{name}")
    return None if type(module) is _deferred.Deferred else module


def when_loaded(name: str, action: Callable[[ModuleType], object]) -> None:
    """Call ``action`` with the standard submodule ``name``: now, or when something in it is first used."""
    full = f"multiprocessing.{name}"
    module = loaded(name) or _deferred.defer(full, package.__path__) or load(name)
    if type(module) is not _deferred.Deferred:
        action(module)
        return
    _deferred.when_executed(module, action)
    _loaded[name] = module
    package.__dict__[name] = module
    if sys.modules.get("multiprocessing") is package:
        sys.modules[full] = module


def load(name: str) -> ModuleType:
    """Return the standard submodule ``name`` ("queues"), importing it when first asked for.

    While rsmp stands in for ``multiprocessing`` (`rsmp.install`), ``sys.modules`` holds rsmp's modules under the
    standard names; the standard ones are then loaded from their own files and kept here.
    """
    module = _loaded.get(name)
    if module is not None:
        return module
    full = "multiprocessing." + name
    if sys.modules.get("multiprocessing") is package:
        _deferred.sparing(__import__, full)
        return _loaded.setdefault(name, sys.modules[full])
    existing = sys.modules.get(full)
    if existing is not None and not existing.__name__.startswith("rsmp"):
        return _loaded.setdefault(name, existing)
    parent, _, _ = name.rpartition(".")
    spec = PathFinder.find_spec(full, load(parent).__path__)
    if spec is None or spec.loader is None:
        raise ModuleNotFoundError(f"No module named {full!r}", name=full)
    module = module_from_spec(spec)
    _loaded[name] = module
    try:
        _deferred.sparing(spec.loader.exec_module, module)
    except BaseException:
        del _loaded[name]
        raise
    return module


def import_main(name: str) -> str:
    """Return the statement by which another process imports ``main`` of the standard submodule ``name``."""
    return f"from multiprocessing.{name} import main"


class _Mirror(ModuleType):
    """A module whose unknown names are those of the standard module it mirrors."""

    def __setattr__(self, name: str, value: Any) -> None:
        submodule = isinstance(value, ModuleType) and value.__name__.startswith(self.__name__ + ".")
        if name in self.__dict__ or name.startswith("__") or submodule:
            super().__setattr__(name, value)
        else:
            standard = self.__dict__["_standard"]
            if hasattr(standard, name):
                self.__dict__["_replaced"].setdefault(name, getattr(standard, name))
            setattr(standard, name, value)

    def __delattr__(self, name: str) -> None:
        if name in self.__dict__:
            super().__delattr__(name)
        elif name in self.__dict__["_replaced"]:
            # What patched a name that is not in the module's own dictionary undoes it by deleting the name.
            setattr(self.__dict__["_standard"], name, self.__dict__["_replaced"].pop(name))
        else:
            delattr(self.__dict__["_standard"], name)

    def __dir__(self) -> list[str]:
        return sorted({*self.__dict__, *dir(self.__dict__["_standard"])})


def replaced(module: ModuleType, function: Any) -> bool:
    """Whether ``function``, found where ``module`` defines one, is somebody else's."""
    return getattr(function, "__globals__", None) is not vars(module)


def mirror(name: str) -> ModuleType:
    """Make the rsmp module ``name`` mirror the standard one, which is returned."""
    module = sys.modules[name]
    standard = load(name.partition(".")[2])
    module.__dict__.update(_standard=standard, _replaced={})
    if hasattr(standard, "__all__"):
        module.__dict__["__all__"] = standard.__all__[:]
    module.__class__ = _Mirror
    return standard


def unannotate(name: str) -> None:
    """Show the functions and methods of module ``name`` with the standard signatures; its last line calls this.

    The annotations are there for the reader and the checker of rsmp itself. At run time ``inspect.signature`` gives
    what it gives for the standard function; users' checkers read the stubs.
    """
    for value in list(vars(sys.modules[name]).values()):
        if not isinstance(value, ModuleType) and getattr(value, "__module__", None) == name:
            for member in list(vars(value).values()) if isinstance(value, type) else [value]:
                _unannotate(member)


def _unannotate(member: Any) -> None:
    if isinstance(member, property):
        for accessor in (member.fget, member.fset, member.fdel):
            _unannotate(accessor)
    function = getattr(member, "__func__", getattr(member, "__wrapped__", member))
    if isinstance(function, FunctionType):
        function.__annotations__ = {}
