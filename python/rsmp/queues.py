"""Queues in shared memory.

- ``put`` pickles before it returns and raises what pickling raises; the item is in the queue when it returns. There is
  no feeder thread, so `join_thread` and `cancel_join_thread` have nothing to do, and no child needs draining before a
  join.
- An unbounded queue grows in memory and gives it back once drained. `SimpleQueue.put` waits while 1 MiB is queued.
- ``_reader`` and ``_writer`` are made when first asked for. The reader's descriptor is an event descriptor, readable
  while there is something to get.
- A subclass that leaves ``__init__`` out and brings a pipe and semaphores of its own gets the standard methods.
"""

from __future__ import annotations

import types
from _thread import allocate_lock

from rsmp import _rsmp, _stdlib, reduction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_standard = _stdlib.mirror(__name__)

SEM_VALUE_MAX = 2**31 - 1
"""What the standard library takes for no limit."""

SIMPLE_QUEUE_BYTES = 1 << 20
"""Bytes of payload that a `SimpleQueue` holds before ``put`` waits."""


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


class _Lazy:
    """Attributes that are made when one of them is first asked for, into the queue's dictionary.

    Not ``__getattr__``: with one in its class, looking up any method takes twice as long.
    """

    def __init__(self, make: Callable[[Any], dict[str, Any]]) -> None:
        self._make = make

    def __set_name__(self, owner: type, name: str) -> None:
        self._name = name

    def __get__(self, queue: Any, owner: type) -> Any:
        if queue is None or not queue._is_native:
            kind = f"type object {owner.__name__!r}" if queue is None else f"{owner.__name__!r} object"
            message = f"{kind} has no attribute {self._name!r}"
            raise AttributeError(message, name=self._name, obj=owner if queue is None else queue)
        for name, value in self._make(queue).items():
            queue.__dict__.setdefault(name, value)
        return queue.__dict__[self._name]


def _make_ends(queue: Any) -> dict[str, Any]:
    return dict(zip(("_reader", "_writer"), queue._ends(), strict=True))


class _Shared:
    """What the queue classes have in common: their way to other processes, and the ends."""

    _reader = _Lazy(_make_ends)
    _writer = _Lazy(_make_ends)
    _poll = _Lazy(lambda queue: {"_poll": queue._reader.poll})
    _recv_bytes = _Lazy(lambda queue: {"_recv_bytes": queue._reader.recv_bytes})
    _send_bytes = _Lazy(lambda queue: {"_send_bytes": queue._writer.send_bytes})
    # The engine locks by itself; these serve subclasses that hold them around the methods above.
    _rlock = _Lazy(lambda _queue: {"_rlock": allocate_lock()})
    _wlock = _Lazy(lambda _queue: {"_wlock": allocate_lock()})

    def _shared_descriptors(self: Any) -> tuple[Any, Any]:
        file, event = self._descriptors
        return reduction.share_descriptor(file), reduction.share_descriptor(event)


class Queue(_rsmp.Queue, _Shared, _standard.Queue):  # type: ignore[name-defined,misc]
    """A queue of at most ``maxsize`` items; zero or less is unbounded. See `multiprocessing.Queue`."""

    _ignore_epipe = False

    def __init__(self, maxsize: int = 0, *, ctx: Any) -> None:
        self._maxsize = maxsize if maxsize > 0 else SEM_VALUE_MAX
        self._create(max(maxsize, 0), 0)

    def __getstate__(self) -> Any:
        if not self._is_native:
            return super().__getstate__()
        _standard.context.assert_spawning(self)
        return (self._ignore_epipe, self._maxsize, *self._shared_descriptors())

    def __setstate__(self, state: Any) -> None:
        ignore_epipe, self._maxsize, file, event = state
        if ignore_epipe:
            self._ignore_epipe = ignore_epipe
        self._open(file.detach(), event.detach())

    def join_thread(self) -> None:
        """Return at once: what was put is in the queue. Raises AssertionError if the queue is not closed."""
        if not self._is_native:
            super().join_thread()
        else:
            assert self._closed, f"Queue {self!r} not closed"

    def cancel_join_thread(self) -> None:
        """Do nothing: there is no thread that would be joined at exit."""
        if not self._is_native:
            super().cancel_join_thread()

    def _terminate_broken(self) -> None:
        if not self._is_native:
            super()._terminate_broken()
            return
        self._reader.close()
        self.close()
        self.join_thread()

    __class_getitem__: Any = classmethod(types.GenericAlias)


class JoinableQueue(Queue, _standard.JoinableQueue):  # type: ignore[name-defined,misc]
    """A queue that counts the items not yet done with; see `multiprocessing.JoinableQueue`."""

    def task_done(self) -> None:
        """Say that an item taken from the queue is done with.

        Raises ValueError when called more often than items were put.
        """
        if self._is_native:
            self._task_done()
        else:
            super().task_done()

    def join(self) -> None:
        """Wait until every item put into the queue is done with."""
        if self._is_native:
            self._join()
        else:
            super().join()


class SimpleQueue(_rsmp.SimpleQueue, _Shared, _standard.SimpleQueue):  # type: ignore[name-defined,misc]
    """A queue without item bounds or timeouts; see `multiprocessing.SimpleQueue`."""

    def __init__(self, *, ctx: Any) -> None:
        self._create(0, SIMPLE_QUEUE_BYTES)

    def __getstate__(self) -> Any:
        if not self._is_native:
            return super().__getstate__()
        _standard.context.assert_spawning(self)
        return self._shared_descriptors()

    def __setstate__(self, state: Any) -> None:
        file, event = state
        self._open(file.detach(), event.detach())

    __class_getitem__: Any = classmethod(types.GenericAlias)


_stdlib.unannotate(__name__)
