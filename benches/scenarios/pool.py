"""Pool: tiny tasks in every way, large arguments, the life of a pool."""

from typing import Any

from harness import Library, case, timed


def square(x: int) -> int:
    return x * x


def add(x: int, y: int) -> int:
    return x + y


def total(array: Any) -> float:
    return float(array[0] + array[-1])


def scale(array: Any) -> Any:
    return array * 2


@case("map, chunksize 1", count=20_000, needs="pool", floor=8, aim=20)
def map_one(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.map(square, range(count), chunksize=1)))
    assert results == [n * n for n in range(count)]
    return seconds


@case("imap, chunksize 1", count=10_000, needs="pool", floor=8, aim=20)
def imap(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.imap(square, range(count))))
    assert results == [n * n for n in range(count)]
    return seconds


@case("imap_unordered, chunksize 1", count=10_000, needs="pool", floor=8, aim=20)
def imap_unordered(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.imap_unordered(square, range(count))))
    assert sorted(results) == [n * n for n in range(count)]
    return seconds


@case("apply", count=3_000, needs="pool", floor=5, aim=15)
def apply(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))

        def work() -> None:
            for n in range(count):
                assert pool.apply(square, (n,)) == n * n

        return timed(work)


@case("apply_async", count=10_000, needs="pool", floor=8, aim=20)
def apply_async(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))

        def work() -> None:
            results = [pool.apply_async(square, (n,)) for n in range(count)]
            assert [result.get() for result in results] == [n * n for n in range(count)]

        return timed(work)


@case("map, default chunks", count=200_000, needs="pool", floor=1.3, aim=2)
def map_default(library: Library, count: int) -> float:
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.map(square, range(count))))
    assert results == [n * n for n in range(count)]
    return seconds


@case("starmap, default chunks", count=200_000, needs="pool", floor=1.3, aim=2)
def starmap(library: Library, count: int) -> float:
    pairs = [(n, 1) for n in range(count)]
    with library.pool(2) as pool:
        if not hasattr(pool, "starmap"):
            return float("nan")
        pool.map(square, range(10))
        results: list[int] = []
        seconds = timed(lambda: results.extend(pool.starmap(add, pairs)))
    assert results == [n + 1 for n in range(count)]
    return seconds


@case("map, numpy 8 MiB arguments", count=30, needs="pool", floor=4, aim=10, module="numpy", warm_up=4)
def map_arrays(library: Library, count: int) -> float:
    import numpy

    arrays = [numpy.full(2**20, n, dtype=float) for n in range(count)]
    with library.pool(2) as pool:
        pool.map(square, range(10))
        results: list[float] = []
        seconds = timed(lambda: results.extend(pool.map(total, arrays, chunksize=1)))
    assert results == [2.0 * n for n in range(count)]
    return seconds


@case("map, numpy 8 MiB and back", count=30, needs="pool", floor=5, aim=12, module="numpy", warm_up=4)
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
            assert list(pool.map(square, range(4))) == [0, 1, 4, 9]
            pool.close()
            pool.join()

    return timed(work)


@case("create, use, close: fork", count=10, needs="pool", floor=2, aim=3)
def live_fork(library: Library, count: int) -> float:
    return live(library, count, "fork")


@case("create, use, close: spawn", count=3, needs="pool", floor=1.5, aim=2.5)
def live_spawn(library: Library, count: int) -> float:
    return live(library, count, "spawn")
