"""Being the module: rsmp under the name ``multiprocessing`` in ``sys.modules``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

from rsmp import _stdlib

__all__ = ["install", "installed"]


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
        name = "rsmp" + spec.name.removeprefix("multiprocessing")
        try:
            module = importlib.import_module(name)
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

    Call it before anything imports ``multiprocessing``: a module that already bound the standard one keeps it.
    """
    if installed():
        return
    for name, module in list(sys.modules.items()):
        if name.startswith("multiprocessing."):
            # Keep what is loaded for the mirrors, then let the alias answer for the name.
            _stdlib.load(name.partition(".")[2])
            del sys.modules[name]
            del module
    sys.modules["multiprocessing"] = sys.modules["rsmp"]
    finder: Any = _Alias()
    sys.meta_path.insert(0, finder)
