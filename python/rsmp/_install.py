"""Being the module: rsmp under the name ``multiprocessing`` in ``sys.modules``."""

from __future__ import annotations

import sys
from _frozen_importlib import ModuleSpec

from rsmp import _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import ModuleType
    from typing import Any

__all__ = ["install", "installed", "take_over"]


class _Alias:
    """Finds ``multiprocessing.x`` as the very module ``rsmp.x``."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if not fullname.startswith("multiprocessing."):
            return None
        loader: Any = self
        return ModuleSpec(fullname, loader)

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        from importlib import import_module

        name = "rsmp" + spec.name.removeprefix("multiprocessing")
        try:
            module = import_module(name)
        except ModuleNotFoundError as error:
            if error.name == name:
                raise ModuleNotFoundError(f"No module named {spec.name!r}", name=spec.name) from None
            raise
        spec.loader_state = module.__spec__
        return module

    def exec_module(self, module: ModuleType) -> None:
        # importlib has just given the module this alias's spec; relative imports go by the true one.
        spec: Any = module.__spec__
        module.__dict__["__spec__"] = spec.loader_state


def installed() -> bool:
    """Whether ``import multiprocessing`` means rsmp."""
    return sys.modules.get("multiprocessing") is sys.modules["rsmp"]


def install() -> None:
    """Make every later ``import multiprocessing``, here and in children, mean rsmp.

    Call it before anything imports ``multiprocessing``: a module that already holds the standard one keeps it, which
    works, but not on rsmp. A `RuntimeWarning` names such modules.
    """
    if installed():
        return
    holders = _holders()
    take_over()
    if holders:
        names = ", ".join(holders)
        import warnings

        warnings.warn(f"imported before rsmp.install(), and still on multiprocessing: {names}", RuntimeWarning, 2)


def take_over() -> None:
    """Do what `install` does, without a warning: for programs that could not have called it earlier."""
    if installed():
        return
    for name in [name for name in sys.modules if name.startswith("multiprocessing.")]:
        # Keep what is loaded for the mirrors, then let the alias answer for the name.
        _stdlib.load(name.partition(".")[2])
        del sys.modules[name]
    sys.modules["multiprocessing"] = sys.modules["rsmp"]
    finder: Any = _Alias()
    sys.meta_path.insert(0, finder)


def _holders() -> list[str]:
    """Return the modules, apart from both libraries, that hold a standard module under some name."""
    standard = {id(module) for name, module in sys.modules.items() if name.partition(".")[0] == "multiprocessing"}
    return sorted(
        name
        for name, module in list(sys.modules.items())
        if name.partition(".")[0] not in ("multiprocessing", "rsmp", "__mp_main__")
        and any(id(value) in standard for value in list(getattr(module, "__dict__", {}).values()))
    )
