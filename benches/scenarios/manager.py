"""Managers: calls through a proxy, the start of a server."""

from harness import Library, case, timed


@case("dict get", count=5_000, needs="manager")
def get(library: Library, count: int) -> float:
    with library.context().Manager() as manager:
        shared = manager.dict(key="value")

        def work() -> None:
            for _ in range(count):
                assert shared["key"] == "value"

        return timed(work)


@case("dict set", count=5_000, needs="manager")
def put(library: Library, count: int) -> float:
    with library.context().Manager() as manager:
        shared = manager.dict()

        def work() -> None:
            for n in range(count):
                shared["key"] = n

        seconds = timed(work)
        assert shared["key"] == count - 1
    return seconds


@case("start and shut down", count=10, needs="manager")
def start(library: Library, count: int) -> float:
    def work() -> None:
        for _ in range(count):
            with library.context().Manager() as manager:
                assert manager.address

    return timed(work)
