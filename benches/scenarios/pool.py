"""Pool: tiny tasks in every way, large arguments, the life of a pool."""

from typing import Any

from harness import Library, case, timed
from tasks import add, scale, square, total


@case("map, chunksize 1", count=20_000, needs="pool map")
def map_one(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.map(square, range(count), chunksize=1)))
    assert results == [n * n for n in range(count)]
    return seconds


@case("imap, chunksize 1", count=10_000, needs="pool imap")
def imap(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.imap(square, range(count))))
    assert results == [n * n for n in range(count)]
    return seconds


@case("imap_unordered, chunksize 1", count=10_000, needs="pool imap_unordered")
def imap_unordered(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.imap_unordered(square, range(count))))
    assert sorted(results) == [n * n for n in range(count)]
    return seconds


@case("apply", count=3_000, needs="pool apply")
def apply(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))

        def work() -> None:
            for n in range(count):
                assert pool.apply(square, (n,)) == n * n

        return timed(work)


@case("apply_async", count=10_000, needs="pool apply_async")
def apply_async(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))

        def work() -> None:
            results = [pool.apply_async(square, (n,)) for n in range(count)]
            assert [result.get() for result in results] == [n * n for n in range(count)]

        return timed(work)


@case("map, default chunks", count=200_000, needs="pool map")
def map_default(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.map(square, range(count))))
    assert results == [n * n for n in range(count)]
    return seconds


@case("starmap, default chunks", count=200_000, needs="pool starmap")
def starmap(library: Library, count: int) -> float:
    pairs = [(n, 1) for n in range(count)]
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.starmap(add, pairs)))
    assert results == [n + 1 for n in range(count)]
    return seconds


@case("map, numpy 8 MiB arguments", count=20, needs="pool map", module="numpy", warm_up=4)
def map_arrays(library: Library, count: int) -> float:
    import numpy

    arrays = [numpy.full(2**20, n, dtype=float) for n in range(count)]
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[float] = []
        seconds = timed(lambda: results.extend(pool.map(total, arrays, chunksize=1)))
    assert results == [2.0 * n for n in range(count)]
    return seconds


@case("map, numpy 8 MiB and back", count=20, needs="pool map", module="numpy", warm_up=4)
def map_arrays_back(library: Library, count: int) -> float:
    import numpy

    arrays = [numpy.full(2**20, n, dtype=float) for n in range(count)]
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[Any] = []
        seconds = timed(lambda: results.extend(pool.map(scale, arrays, chunksize=1)))
    assert [float(result[-1]) for result in results] == [2.0 * n for n in range(count)]
    return seconds


def live(library: Library, count: int, method: str) -> float:
    def work() -> None:
        for _ in range(count):
            pool = library.pool(2, method)
            assert pool.map(square, range(4)) == [0, 1, 4, 9]
            pool.close()
            pool.join()

    return timed(work)


@case("create, use, close: fork", count=10, needs="pool fork")
def live_fork(library: Library, count: int) -> float:
    return live(library, count, "fork")


@case("create, use, close: spawn", count=3, needs="pool spawn", warm_up=1)
def live_spawn(library: Library, count: int) -> float:
    return live(library, count, "spawn")
