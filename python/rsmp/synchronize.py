"""Locks, semaphores, conditions, events and barriers, as words in memory that processes share.

Each is a cell of a memory file that holds all those of a process: making one takes no descriptor, no name and no system
call, and nothing is left when every process is killed. What is free is taken without a system call either.

- A lock made under one start method may be given to a process started by another.
- `Condition.notify` and `Event.set` wait for nobody: a waiter that was killed does not hang them.
- `Event.wait` returns True when the event was set while it waited, cleared again or not.
- A process killed in a `Barrier` has arrived; one killed in its action breaks it.
"""

from __future__ import annotations

from rsmp import _rsmp, _stdlib, context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def _settle(ctx: Any) -> None:
    """Settle the start method as the standard library does when an object is made without a context."""
    if ctx is None:
        context._default_context.get_context()


class OwnerDiedError(context.ProcessError):  # type: ignore[misc]
    """The process ``pid`` died while it held a robust lock: what the lock protects may be in any state.

    ``Lock(robust=True)`` and ``RLock(robust=True)`` raise it once for each such death, to the next to acquire the lock:
    ``acquire`` then has the lock, to mend what it protects and release it; ``with`` leaves the lock free. The end of a
    thread alone is not noticed.
    """

    def __init__(self, message: str, pid: int) -> None:
        super().__init__(message, pid)
        self.pid = pid

    def __str__(self) -> str:
        return str(self.args[0])


class Lock(_rsmp.Lock, _standard.Lock):  # type: ignore[name-defined,misc]
    """A lock that any process or thread may release; ``robust`` as in `OwnerDiedError`."""

    def __init__(self, *, ctx: Any, robust: bool = False) -> None:
        if ctx is None:
            _settle(ctx)
        self._open(robust)

    def __getstate__(self) -> Any:
        return self._share()

    def __setstate__(self, state: Any) -> None:
        self._restore(state)


class RLock(_rsmp.RLock, _standard.RLock):  # type: ignore[name-defined,misc]
    """A lock that the thread that holds it may take again; ``robust`` as in `OwnerDiedError`."""

    def __init__(self, *, ctx: Any, robust: bool = False) -> None:
        if ctx is None:
            _settle(ctx)
        self._open(robust)

    def __getstate__(self) -> Any:
        return self._share()

    def __setstate__(self, state: Any) -> None:
        self._restore(state)


class Semaphore(_rsmp.Semaphore, _standard.Semaphore):  # type: ignore[name-defined,misc]
    """A counter that waits at zero; it starts at ``value``."""

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        if ctx is None:
            _settle(ctx)
        self._open(value, False)

    def __getstate__(self) -> Any:
        return self._share()

    def __setstate__(self, state: Any) -> None:
        self._restore(state)


class BoundedSemaphore(Semaphore, _standard.BoundedSemaphore):  # type: ignore[name-defined,misc]
    """A semaphore that never rises above the ``value`` it starts at."""

    def __init__(self, value: int = 1, *, ctx: Any) -> None:
        if ctx is None:
            _settle(ctx)
        self._open(value, True)


for _class in (Lock, RLock, Semaphore, BoundedSemaphore):
    _class._own_methods(_class)
del _class


class _Count:
    """What the standard conditions count with semaphores: here they are numbers for whoever looks."""

    __slots__ = ("_value",)

    def __init__(self, value: int) -> None:
        self._value = value

    @property
    def _semlock(self) -> _Count:
        return self

    def get_value(self) -> int:
        return self._value

    _get_value = get_value


class Condition(_rsmp.Condition, _standard.Condition):  # type: ignore[name-defined,misc]
    """A condition variable on ``lock``, a new RLock by default; a lock of the standard library will do."""

    def __init__(self, lock: Any = None, *, ctx: Any) -> None:
        self._open(lock or ctx.RLock())
        self._make_methods()

    def __getstate__(self) -> Any:
        return self._share(), self._lock

    def __setstate__(self, state: Any) -> None:
        self._restore(*state)
        self._make_methods()

    @property
    def _sleeping_count(self) -> _Count:
        return _Count(self._sleepers())

    @property
    def _woken_count(self) -> _Count:
        return _Count(0)

    @property
    def _wait_semaphore(self) -> _Count:
        return _Count(0)


class Event(_rsmp.Event, _standard.Event):  # type: ignore[name-defined,misc]
    """A flag to wait for; not set at first."""

    def __init__(self, *, ctx: Any) -> None:
        self._open()

    def __getstate__(self) -> Any:
        return self._share()

    def __setstate__(self, state: Any) -> None:
        self._restore(state)


class Barrier(_rsmp.Barrier, _standard.Barrier):  # type: ignore[name-defined,misc]
    """A meeting point of ``parties``; the last to arrive runs ``action``. ``timeout`` (seconds) is that of `wait`."""

    def __init__(self, parties: int, action: Any = None, timeout: float | None = None, *, ctx: Any) -> None:
        self._parties = parties
        self._action = action
        self._timeout = timeout
        self._open()

    def __getstate__(self) -> Any:
        return self._share(), self._parties, self._action, self._timeout

    def __setstate__(self, state: Any) -> None:
        shared, self._parties, self._action, self._timeout = state
        self._restore(shared)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the others, for ``timeout`` seconds at most; return which arrival this was, from 0.

        Raises threading.BrokenBarrierError when the barrier is broken or reset, and when time is up, which breaks it.
        """
        return self._meet(self._parties, self._action, self._timeout if timeout is None else timeout)


_lock_init, _rlock_init = Lock.__init__, RLock.__init__
_make_lock, _make_rlock = _rsmp.Lock._make, _rsmp.RLock._make
"""By these a context makes objects of classes that have those."""

_stdlib.unannotate(__name__)
