"""Process: start and join, one after the other."""

from harness import Library, case, timed
from tasks import nothing


def start(library: Library, count: int, method: str) -> float:
    context = library.context(method)

    def work() -> None:
        for _ in range(count):
            process = context.Process(target=nothing)
            process.start()
            process.join()
            assert process.exitcode == 0

    return timed(work)


@case("fork", count=100, needs="start")
def fork(library: Library, count: int) -> float:
    return start(library, count, "fork")


@case("spawn", count=8, needs="start")
def spawn(library: Library, count: int) -> float:
    return start(library, count, "spawn")


@case("forkserver", count=30, needs="start", warm_up=2)
def forkserver(library: Library, count: int) -> float:
    return start(library, count, "forkserver")
