"""What the calls of a pool that do not wait return: results and iterators, see `rsmp.pool`.

The native halves (`rsmp._rsmp.PoolResult`, `PoolIterator`) collect; the classes here make them instances of the
standard ones.
"""

from __future__ import annotations

import types

from rsmp import _rsmp, _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from rsmp.pool import Pool

__all__ = ["ApplyResult", "AsyncResult", "IMapIterator", "IMapUnorderedIterator", "MapResult"]

_standard: Any = _stdlib.load("pool")


class _Event:
    """What packages use of the threading.Event in a standard result."""

    def __init__(self, result: ApplyResult) -> None:
        self._result = result

    def is_set(self) -> bool:
        return self._result.ready()

    def wait(self, timeout: float | None = None) -> bool:
        self._result.wait(timeout)
        return self._result.ready()


class ApplyResult(_rsmp.PoolResult, _standard.ApplyResult):  # type: ignore[misc]
    """The result of `Pool.apply_async`; see `multiprocessing.pool.ApplyResult`."""

    def __init__(self, pool: Pool, callback: Any, error_callback: Any) -> None:
        self._register()

    @property
    def _event(self) -> _Event:
        return _Event(self)

    __class_getitem__: Any = classmethod(types.GenericAlias)


AsyncResult = ApplyResult


class MapResult(ApplyResult, _standard.MapResult):  # type: ignore[misc]
    """The result of `Pool.map_async`."""

    def __new__(cls, pool: Pool, chunksize: int, length: int, callback: Any, error_callback: Any) -> MapResult:
        """Give the engine the shape of what it will collect."""
        return ApplyResult.__new__(cls, pool, callback, error_callback, (chunksize, length))

    def __init__(self, pool: Pool, chunksize: int, length: int, callback: Any, error_callback: Any) -> None:
        self._register()

    def _set(self, i: int, success_result: tuple[bool, Any]) -> None:
        ApplyResult._set(self, i, success_result)


class IMapIterator(_rsmp.PoolIterator, _standard.IMapIterator):  # type: ignore[misc]
    """The results of `Pool.imap`; see `multiprocessing.pool.IMapIterator`."""

    def __new__(cls, pool: Pool) -> IMapIterator:
        """Collect in the order of the items."""
        return _rsmp.PoolIterator.__new__(cls, pool, True)

    def __init__(self, pool: Pool) -> None:
        self._register()


class IMapUnorderedIterator(IMapIterator, _standard.IMapUnorderedIterator):  # type: ignore[misc]
    """The results of `Pool.imap_unordered`."""

    def __new__(cls, pool: Pool) -> IMapUnorderedIterator:
        """Collect in the order in which they come."""
        return _rsmp.PoolIterator.__new__(cls, pool, False)


_stdlib.unannotate(__name__)
