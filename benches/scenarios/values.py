"""Value and Array."""

from typing import Any

from harness import Library, case, peers, timed


def add(value: Any, count: int) -> None:
    lock = value.get_lock()
    for _ in range(count):
        with lock:
            value.value += 1


def add_beside(end: Any, value: Any, count: int) -> None:
    end.send("ready")
    end.recv()
    add(value, count)
    end.send("done")


@case("Value += under its lock", count=100_000, needs="values")
def alone(library: Library, count: int) -> float:
    value = library.context().Value("i", 0)
    seconds = timed(lambda: add(value, count))
    assert value.value == count
    return seconds


@case("the same, two processes", count=40_000, needs="values")
def contended(library: Library, count: int) -> float:
    context = library.context()
    value = context.Value("i", 0)
    with peers(context, add_beside, (value, count // 2)) as (end,):

        def work() -> None:
            end.send("go")
            add(value, count // 2)
            assert end.recv() == "done"

        seconds = timed(work)
    assert value.value == count // 2 * 2
    return seconds


@case("Value read", count=200_000, needs="values")
def read(library: Library, count: int) -> float:
    value = library.context().Value("i", 5)

    def work() -> None:
        for _ in range(count):
            assert value.value == 5

    return timed(work)


@case("Array item write", count=200_000, needs="values")
def write(library: Library, count: int) -> float:
    array = library.context().Array("i", 100)

    def work() -> None:
        for n in range(count):
            array[n % 100] = n

    seconds = timed(work)
    assert array[(count - 1) % 100] == count - 1
    return seconds


@case("Array slice of a million", count=10, needs="values")
def slices(library: Library, count: int) -> float:
    array = library.context().Array("i", range(1_000_000))

    def work() -> None:
        for _ in range(count):
            items = array[:]
            assert len(items) == 1_000_000
            assert items[-1] == 999_999

    return timed(work)
