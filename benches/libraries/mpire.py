"""Pools with worker state and progress bars."""

from typing import Any

from harness import POOL, Library


class Pool:
    """A worker pool with a Pool's names."""

    def __init__(self, pool: Any) -> None:
        self.pool = pool
        self.apply, self.apply_async, self.join = pool.apply, pool.apply_async, pool.stop_and_join

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.pool.terminate()

    def map(self, function: Any, iterable: Any, chunksize: int | None = None) -> Any:
        """Return a list of results."""
        return self.pool.map(function, iterable, chunk_size=chunksize, concatenate_numpy_output=False)

    def starmap(self, function: Any, iterable: Any) -> Any:
        """Return a list of results of calls with several arguments: what its `map` makes of tuples."""
        return self.pool.map(function, iterable)

    def imap(self, function: Any, iterable: Any) -> Any:
        """Give results in order."""
        return self.pool.imap(function, iterable, chunk_size=1)

    def close(self) -> None:
        """Do nothing: `join` ends the workers."""


class Adapter(Library):
    """``mpire.WorkerPool``, its workers kept between calls.

    Its `imap_unordered` fails on workers that have served `map`.
    """

    name = module = "mpire"
    offers = POOL - {"pool imap_unordered"} | {"pool fork", "pool spawn"}

    def pool(self, processes: int, method: str = "fork") -> Any:
        """Return a worker pool."""
        return Pool(self.load().WorkerPool(processes, start_method=method, keep_alive=True))
