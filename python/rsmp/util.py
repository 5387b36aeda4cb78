"""Finalizers, logging, after-fork hooks: the standard library's own."""

from __future__ import annotations

from rsmp import _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


_stdlib.unannotate(__name__)
