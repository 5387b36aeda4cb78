"""The same API on threads: the standard module, with the thread pool of `rsmp.pool`."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from types import ModuleType
from typing import Any

from rsmp import _stdlib

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def Manager() -> ModuleType:
    """Return this module: threads share everything without one."""
    return sys.modules[__name__]


def Pool(
    processes: int | None = None, initializer: Callable[..., object] | None = None, initargs: Iterable[Any] = ()
) -> Any:
    """Return a pool of ``processes`` threads."""
    from rsmp.pool import ThreadPool

    return ThreadPool(processes, initializer, initargs)


_stdlib.unannotate(__name__)
