"""Says what in an object could not be pickled, as Python 3.14 does by itself."""

from __future__ import annotations

import io
import pickle
import sys

from rsmp import _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_InPython: Any = pickle.__dict__["_Pickler"]

__all__ = ["explain"]

_NOTES_BY_ITSELF = (3, 14)
"""The version whose pickler adds the notes."""


class _Tracing(_InPython):  # type: ignore[misc]
    """Pickles once more, in Python, and remembers the way to what it is at."""

    def __init__(self, dispatch_table: Any) -> None:
        super().__init__(io.BytesIO())
        self.dispatch_table = dispatch_table
        self.way: list[Any] = []

    def save(self, obj: Any, save_persistent_id: bool = True) -> None:
        self.way.append(obj)
        super().save(obj, save_persistent_id)
        self.way.pop()


def explain(error: BaseException, obj: object) -> None:
    """Add notes to ``error``, which pickling ``obj`` raised: from the item that failed up to ``obj``."""
    if sys.version_info >= _NOTES_BY_ITSELF or getattr(error, "__notes__", None):
        return
    tracing = _Tracing(_stdlib.load("reduction").ForkingPickler(io.BytesIO()).dispatch_table)
    try:
        tracing.dump(obj)
    except Exception:
        way = tracing.way
    else:
        return
    for parent, child in zip(way[-2::-1], way[:0:-1], strict=True):
        error.add_note(f"when serializing {_part(parent, child)}")


def _part(parent: object, child: object) -> str:
    """Name the place of ``child`` in ``parent``."""
    if isinstance(parent, dict):
        for key, value in parent.items():
            if value is child:
                return f"dict item {key!r}"
    elif isinstance(parent, (list, tuple)):
        for index, value in enumerate(parent):
            if value is child:
                return f"{type(parent).__name__} item {index}"
    elif isinstance(parent, (set, frozenset)):
        return f"{type(parent).__name__} element"
    elif isinstance(child, dict):
        return f"{type(parent).__module__}.{type(parent).__qualname__} state"
    return f"{type(parent).__module__}.{type(parent).__qualname__} object"
