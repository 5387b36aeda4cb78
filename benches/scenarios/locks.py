"""Locks, semaphores and events: alone, and between two processes."""

from typing import Any

from harness import Library, case, peers, timed


def alternate(end: Any, there: Any, back: Any, count: int) -> None:
    end.send("ready")
    for _ in range(count):
        there.acquire()
        back.release()


def answer_events(end: Any, there: Any, back: Any, count: int) -> None:
    end.send("ready")
    for _ in range(count):
        there.wait()
        there.clear()
        back.set()


@case("Lock, acquire + release", count=300_000, needs="locks")
def lock(library: Library, count: int) -> float:
    made = library.context().Lock()
    acquire, release = made.acquire, made.release

    def work() -> None:
        for _ in range(count):
            acquire()
            release()

    seconds = timed(work)
    assert made.acquire(False)
    return seconds


def enter(made: Any, count: int) -> float:
    def work() -> None:
        for _ in range(count):
            with made:
                pass

    seconds = timed(work)
    assert made.acquire(False)
    return seconds


@case("with Lock", count=300_000, needs="locks")
def with_lock(library: Library, count: int) -> float:
    return enter(library.context().Lock(), count)


@case("with RLock", count=300_000, needs="locks")
def with_rlock(library: Library, count: int) -> float:
    return enter(library.context().RLock(), count)


@case("Semaphore, ping-pong", count=5_000, needs="locks")
def semaphore(library: Library, count: int) -> float:
    context = library.context()
    there, back = context.Semaphore(0), context.Semaphore(0)
    with peers(context, alternate, (there, back, count)):

        def work() -> None:
            for _ in range(count):
                there.release()
                back.acquire()

        seconds = timed(work)
    assert not there.acquire(False)
    assert not back.acquire(False)
    return seconds


@case("Event, ping-pong", count=3_000, needs="locks")
def event(library: Library, count: int) -> float:
    context = library.context()
    there, back = context.Event(), context.Event()
    with peers(context, answer_events, (there, back, count)):

        def work() -> None:
            for _ in range(count):
                there.set()
                assert back.wait()
                back.clear()

        return timed(work)


@case("Event.is_set", count=200_000, needs="locks")
def is_set(library: Library, count: int) -> float:
    made = library.context().Event()
    made.set()

    def work() -> None:
        for _ in range(count):
            assert made.is_set()

    return timed(work)


@case("create a Lock", count=3_000, needs="locks")
def create(library: Library, count: int) -> float:
    context = library.context()
    made: list[Any] = []
    seconds = timed(lambda: made.extend(context.Lock() for _ in range(count)))
    assert len(made) == count
    assert made[-1].acquire(False)
    return seconds
