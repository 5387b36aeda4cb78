"""Connections between threads."""

from __future__ import annotations

from typing import Any

from rsmp import _stdlib

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


_stdlib.unannotate(__name__)
