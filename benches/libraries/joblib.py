"""Parallel loops on loky's workers."""

from typing import Any

from harness import Library


class Pool:
    """``joblib.Parallel`` with the methods of a Pool that the cases use; one set of workers serves them all."""

    def __init__(self, joblib: Any, processes: int) -> None:
        self.joblib = joblib
        self.processes = processes

    def __enter__(self) -> "Pool":
        return self

    def __exit__(self, *exception: object) -> None:
        self.join()

    def run(self, function: Any, items: Any, **options: Any) -> Any:
        """Call for each tuple of arguments."""
        parallel = self.joblib.Parallel(n_jobs=self.processes, **options)
        return parallel(self.joblib.delayed(function)(*item) for item in items)

    def map(self, function: Any, iterable: Any, chunksize: int | None = None) -> Any:
        """Return a list of results; without ``chunksize`` joblib finds a size of its own."""
        return self.run(function, ((item,) for item in iterable), batch_size=chunksize or "auto")

    def starmap(self, function: Any, iterable: Any) -> Any:
        """Return a list of results of calls with several arguments."""
        return self.run(function, iterable)

    def imap(self, function: Any, iterable: Any) -> Any:
        """Give results in order."""
        return self.run(function, ((item,) for item in iterable), batch_size=1, return_as="generator")

    def imap_unordered(self, function: Any, iterable: Any) -> Any:
        """Give results as they come."""
        return self.run(function, ((item,) for item in iterable), batch_size=1, return_as="generator_unordered")

    def apply(self, function: Any, args: Any = ()) -> Any:
        """Call in a worker and wait."""
        return self.run(function, [args])[0]

    def close(self) -> None:
        """Do nothing: `join` ends the workers."""

    def join(self) -> None:
        """End the workers and wait for them."""
        self.joblib.externals.loky.get_reusable_executor().shutdown(wait=True)


class Adapter(Library):
    """``joblib.Parallel``, which has nothing like `apply_async` and starts workers as loky does."""

    name = module = "joblib"
    offers = frozenset({"pool map", "pool starmap", "pool imap", "pool imap_unordered", "pool apply", "pool spawn"})

    def pool(self, processes: int, method: str = "fork") -> Any:
        """Return what stands for a pool."""
        return Pool(self.load(), processes)
