"""What threads wait for, in words, and which of them can never go on."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from rsmp._inspect import Lock, Survey, Wait, name_of

__all__ = ["Step", "Stuck", "Thread", "describe", "held", "items", "who"]

Thread = tuple[int, int]
"""Process and native thread id."""


@dataclass(frozen=True)
class Step:
    """A thread that cannot go on, and who keeps it."""

    thread: Thread
    what: str
    whom: Thread | None
    """None: nobody is left who could help it."""


class Stuck:
    """Which threads can never go on, however long they wait.

    All that wait without a timeout are suspected, and then each is cleared that somebody could help who is himself
    not suspected: the holder of its lock, the main thread of the process it joins, for anything else any thread of a
    process that has the queue or the arena open. A thread that does not wait in rsmp can help anybody.
    """

    def __init__(self, survey: Survey, threads: dict[int, Iterable[int]]) -> None:
        self.survey = survey
        self.threads = threads
        self.suspects: dict[Thread, Wait] = {
            (wait.pid, wait.tid): wait for wait in survey.waits if not wait.timed and wait.pid in threads
        }
        helpers = {thread: list(self._helpers(thread, wait)) for thread, wait in self.suspects.items()}
        while free := [
            thread for thread, those in helpers.items() if any(it is None or it not in helpers for it in those)
        ]:
            for thread in free:
                del helpers[thread]
        self.steps = {
            thread: Step(thread, describe(self.suspects[thread], survey), those[0] if those else None)
            for thread, those in helpers.items()
        }

    def keep(self, steps: dict[Thread, Step]) -> None:
        """Forget the threads that are not in the same way among ``steps``."""
        self.steps = {thread: step for thread, step in self.steps.items() if steps.get(thread) == step}

    def _helpers(self, thread: Thread, wait: Wait) -> Iterator[Thread | None]:
        """Yield who could let ``thread`` go on; None is somebody unknown."""
        if wait.kind in ("Lock", "RLock"):
            lock = self.survey.locks.get((wait.first, wait.second))
            if lock is None or lock.holder is None:
                # It was just let go of, or is out of reach.
                yield None
            elif lock.holder[2]:
                yield lock.holder[:2]
        elif wait.kind == "Process.join":
            # It has ended when it is no longer there: the wait is about to end.
            yield (wait.first, wait.first) if wait.first in self.threads else None
        elif wait.kind.startswith("Queue.") or wait.place is not None:
            key = wait.first
            for pid in sorted(self.survey.open_in.get(key, ())):
                yield from ((pid, tid) for tid in self.threads.get(pid, ()) if (pid, tid) != thread)
            if self.elsewhere.get(key):
                yield None
        else:
            yield None

    def cycles(self) -> list[list[Step]]:
        """Return the cycles among the stuck threads, each beginning with its lowest thread."""
        found: list[list[Step]] = []
        done: set[Thread] = set()
        for start in sorted(self.steps):
            path: list[Thread] = []
            thread: Thread | None = start
            while thread is not None and thread in self.steps and thread not in path and thread not in done:
                path.append(thread)
                thread = self.steps[thread].whom
            if thread in path:
                cycle = path[path.index(thread) :]
                lowest = cycle.index(min(cycle))
                found.append([self.steps[each] for each in cycle[lowest:] + cycle[:lowest]])
            done.update(path)
        return found

    @functools.cached_property
    def elsewhere(self) -> dict[int, set[int]]:
        """The processes outside the tree that have a queue or an arena open, as far as they may be looked at."""
        everybody = (int(entry) for entry in os.listdir("/proc") if entry.isdigit())
        return Survey.of(pid for pid in everybody if pid not in self.threads and pid != os.getpid()).open_in


def describe(wait: Wait, survey: Survey) -> str:
    """Say what a thread waits for, in words."""
    if wait.place is not None:
        lock = survey.locks.get(wait.place)
        return f"{wait.kind} {name_of(wait.place)}" + (f", {held(survey, lock)}" if lock and lock.holder else "")
    if wait.kind.startswith("Queue."):
        queue = survey.queues.get(wait.first)
        return f"{wait.kind}, queue {wait.first}" + (f" with {items(queue.items)}" if queue else "")
    if wait.kind == "Process.join":
        return f"the end of process {wait.first}" + _called(survey, wait.first)
    if wait.kind in ("Connection.recv", "Connection.send"):
        return f"{wait.kind}, descriptor {wait.first} ({_target(wait.pid, wait.first)})"
    if wait.kind == "connection.wait":
        return f"{wait.kind}, {wait.second} objects, the first of them descriptor {wait.first}"
    return {"Pool": "results of a pool", "Pool worker": "a task of its pool", "rsmp": "something in rsmp"}.get(
        wait.kind, wait.kind
    )


def held(survey: Survey, lock: Lock) -> str:
    """Say who holds ``lock``."""
    if lock.holder is None:
        return "held by nobody"
    pid, tid, alive = lock.holder
    return f"held by {who(survey, pid, tid)}" + ("" if alive else ", which is dead")


def items(count: int) -> str:
    """Write a number of items."""
    return f"{count} item" + ("" if count == 1 else "s")


def _called(survey: Survey, pid: int) -> str:
    return f" ({survey.names[pid]})" if pid in survey.names else ""


def who(survey: Survey, pid: int, tid: int) -> str:
    """Name a thread, the main thread of a process by that alone."""
    return f"process {pid}{_called(survey, pid)}" + (f", thread {tid}" if tid != pid else "")


def _target(pid: int, descriptor: int) -> str:
    try:
        return os.readlink(f"/proc/{pid}/fd/{descriptor}")
    except OSError:
        return "closed"
