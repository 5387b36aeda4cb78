"""SharedMemory and ShareableList."""

from harness import Library, case, timed


@case("create + unlink, 4 KiB", count=1_000, needs="shared memory")
def create(library: Library, count: int) -> float:
    kind = library.load("shared_memory").SharedMemory

    def work() -> None:
        for _ in range(count):
            memory = kind(create=True, size=4096)
            memory.buf[0] = 1
            memory.close()
            memory.unlink()

    return timed(work)


@case("ShareableList item", count=50_000, needs="shared memory")
def item(library: Library, count: int) -> float:
    shared = library.load("shared_memory").ShareableList([1, 2.5, "text", None])

    def work() -> None:
        for _ in range(count):
            assert shared[1] == 2.5

    seconds = timed(work)
    shared.shm.close()
    shared.shm.unlink()
    return seconds
