"""Who holds which lock, who waits for what: read from the memory that the processes share, without asking them.

A thread writes down what it waits for when it does not get it at once, in a page of its process's own
(``src/core/shm/waits.rs``); locks name their holder themselves. What is taken without waiting is written down
nowhere and costs nothing.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from rsmp import _rsmp

__all__ = ["Holder", "LockState", "Waiter", "inspect_locks"]


@dataclass(frozen=True)
class Holder:
    """The thread that holds a lock."""

    pid: int
    thread_id: int
    """As `threading.get_native_id` gives it; it may have ended."""
    process_name: str | None
    """None when it is not known: a process tells its name when it first waits for something."""
    alive: bool
    """Whether the process lives."""
    seen_for: float | None
    """For how many seconds those who wait have found it with this holder, looking twice a second or more often.

    None when nobody waits: who gets a lock at once writes down no time.
    """


@dataclass(frozen=True)
class Waiter:
    """A thread that waits."""

    pid: int
    thread_id: int
    """As `threading.get_native_id` gives it."""
    process_name: str | None
    waits_for: float
    """For how many seconds, to a few milliseconds."""
    timed: bool
    """Whether it gives up at some time."""


@dataclass(frozen=True)
class LockState:
    """A lock, semaphore, condition, event or barrier at one moment."""

    kind: str
    """"Lock", "RLock", "Semaphore" (bounded or not), "Condition", "Event" or "Barrier"."""
    name: str
    """The arena and the offset in it: the same in every process."""
    handle: int | None
    """The address in this process, ``lock.handle`` of locks and semaphores; None if this process cannot reach it."""
    value: int
    """Lock, RLock: how often it is held. Semaphore: its value. Event: 1 when set. Barrier: arrivals. Condition: 0."""
    maximum: int | None
    """The bound of a bounded semaphore."""
    holder: Holder | None
    """Who has the Lock or RLock."""
    waiters: tuple[Waiter, ...]
    """Who waits, the longest first."""


def inspect_locks() -> list[LockState]:
    """Return the state of every lock and its like that this process and those it shares locks with have.

    These are the locks, semaphores, conditions, events and barriers in use anywhere among the processes that may hold
    one in common with this process, parents, children and siblings alike. Those whose maker let go of them appear only
    while they are held or waited for. Each is read at its own moment, and nothing is stopped for it: what changes in
    between appears as it was met. At most 62 waiting threads of one process are known.

    Processes that may not be looked at (those of another user) are left out.
    """
    survey = Survey.of(_rsmp.family())
    waiters: dict[Place, list[Wait]] = {}
    for wait in survey.waits:
        waiters.setdefault((wait.first, wait.second), []).append(wait)
    found = []
    for place, lock in sorted(survey.locks.items()):
        waiting = [wait for wait in waiters.get(place, ()) if wait.kind == lock.kind]
        waiting.sort(key=lambda wait: -wait.seconds)
        if lock.orphaned and lock.holder is None and not waiting:
            continue
        found.append(
            LockState(
                kind=lock.kind,
                name=lock.name,
                handle=_rsmp.address_here(*place),
                value=lock.value,
                maximum=lock.maximum,
                holder=survey.holder(lock, waiting),
                waiters=tuple(
                    Waiter(wait.pid, wait.tid, survey.names.get(wait.pid), wait.seconds, wait.timed) for wait in waiting
                ),
            )
        )
    return found


Place = tuple[int, int]
"""An arena's id and an offset in it."""


@dataclass(frozen=True)
class Wait:
    """A thread that waits, for whatever it is."""

    pid: int
    tid: int
    kind: str
    first: int
    second: int
    timed: bool
    seconds: float
    holder: tuple[int, int, bool] | None
    seen: float

    @property
    def place(self) -> Place | None:
        """Where what it waits for is, if that is in an arena."""
        return (self.first, self.second) if self.kind in IN_ARENAS else None


IN_ARENAS = {"Lock", "RLock", "Semaphore", "Condition", "Event", "Barrier"}


@dataclass(frozen=True)
class Lock:
    """What lies in a cell of an arena."""

    kind: str
    place: Place
    orphaned: bool
    value: int
    maximum: int | None
    holder: tuple[int, int, bool] | None

    @property
    def name(self) -> str:
        """How it is called in what users read."""
        return name_of(self.place)


def name_of(place: Place) -> str:
    """Write a place in an arena so that it is the same in every process."""
    return f"{place[0] >> 48:04x}:{place[1]:#x}"


@dataclass(frozen=True)
class Queue:
    """A queue, by its memory file."""

    items: int
    bytes: int
    limit: int
    unfinished: int


@dataclass
class Survey:
    """What the shared memory of some processes says."""

    names: dict[int, str] = field(default_factory=dict)
    waits: list[Wait] = field(default_factory=list)
    locks: dict[Place, Lock] = field(default_factory=dict)
    queues: dict[int, Queue] = field(default_factory=dict)
    open_in: dict[int, set[int]] = field(default_factory=dict)
    """The processes that have a file open: an arena by its id, anything else by its file's identity."""

    @classmethod
    def of(cls, pids: Iterable[int]) -> Survey:
        """Read what ``pids`` have open. What is gone or not permitted is left out."""
        survey = cls()
        arenas: dict[int, int | None] = {}
        # Waits first: a lock read before would name a holder of an earlier time.
        files = {pid: _files(pid) for pid in pids}
        for pid, opened in files.items():
            for descriptor, name, _ in opened:
                if name == "rsmp-waits":
                    survey._read_waits(pid, descriptor)
        for pid, opened in files.items():
            for descriptor, name, identity in opened:
                key: int | None = identity
                if name == "rsmp-arena":
                    if identity not in arenas:
                        arenas[identity] = survey._read_locks(pid, descriptor)
                    key = arenas[identity]
                elif name == "rsmp-queue" and identity not in survey.queues:
                    survey._read_queue(pid, descriptor, identity)
                if key is not None:
                    survey.open_in.setdefault(key, set()).add(pid)
        return survey

    def _read_waits(self, pid: int, descriptor: int) -> None:
        try:
            page = _rsmp.read_waits(pid, descriptor)
        except OSError:
            return
        if page is not None:
            name, waiting = page
            if name:
                self.names[pid] = name
            self.waits += [Wait(pid, *words) for words in waiting]

    def _read_locks(self, pid: int, descriptor: int) -> int | None:
        try:
            arena = _rsmp.read_locks(pid, descriptor)
        except OSError:
            return None
        if arena is None:
            return None
        arena_id, owner_lives, objects = arena
        for kind, offset, dropped, value, maximum, holder in objects:
            place = (arena_id, offset)
            self.locks[place] = Lock(kind, place, dropped or not owner_lives, value, maximum, holder)
        return arena_id

    def _read_queue(self, pid: int, descriptor: int, identity: int) -> None:
        try:
            depth = _rsmp.read_queue(pid, descriptor)
        except OSError:
            return
        if depth is not None:
            self.queues[identity] = Queue(*depth)

    def holder(self, lock: Lock, waiting: Iterable[Wait]) -> Holder | None:
        """Say who has ``lock``, for which ``waiting`` wait."""
        if lock.holder is None:
            return None
        pid, tid, alive = lock.holder
        # The one who looked latest may have met a new term of the same holder.
        seen = [wait.seen for wait in waiting if wait.holder is not None and wait.holder[:2] == (pid, tid)]
        return Holder(pid, tid, self.names.get(pid), alive, min(seen) if seen else None)


def _files(pid: int) -> list[tuple[int, str, int]]:
    try:
        return _rsmp.memory_files(pid)
    except OSError:
        return []
