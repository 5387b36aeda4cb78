"""The library under test, by the name that ``pytest --mp=`` was given, for code that runs in child processes too.

A test takes the fixtures `mp` and `ctx`; a function that a child runs has ``from under_test import mp``.
"""

import importlib
import os
from types import ModuleType

VARIABLE = "RSMP_UNDER_TEST"
"""The environment variable that carries the name to children."""

mp = importlib.import_module(os.environ.get(VARIABLE, "rsmp"))


def submodule(name: str) -> ModuleType:
    """Return the submodule ``name`` ("queues") of the library under test."""
    return importlib.import_module(f"{mp.__name__}.{name}")
