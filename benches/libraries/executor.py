"""The standard library's other pool."""

from concurrent.futures import ProcessPoolExecutor
from typing import Any

from harness import POOL, Library


class Methods:
    """The methods of a Pool that the cases use, for an executor."""

    def apply(self, function: Any, args: Any = ()) -> Any:
        """Call in a worker and wait."""
        return self.submit(function, *args).result()  # type: ignore[attr-defined]

    def apply_async(self, function: Any, args: Any = ()) -> Any:
        """Call in a worker; the result has ``get``."""
        future = self.submit(function, *args)  # type: ignore[attr-defined]
        future.get = future.result
        return future

    def imap(self, function: Any, iterable: Any, chunksize: int = 1) -> Any:
        """Give results in order."""
        return super().map(function, iterable, chunksize=chunksize)  # type: ignore[misc]

    def map(self, function: Any, iterable: Any, chunksize: int | None = None) -> Any:
        """Return a list of results, in chunks as large as a Pool's."""
        items = list(iterable)
        return list(self.imap(function, items, chunksize or -(-len(items) // 8)))

    def starmap(self, function: Any, iterable: Any) -> Any:
        """Return a list of results of calls with several arguments."""
        items = list(iterable)
        return list(super().map(function, *zip(*items, strict=True), chunksize=-(-len(items) // 8)))  # type: ignore[misc]

    def close(self) -> None:
        """Do nothing: `join` ends the workers."""

    def join(self) -> None:
        """End the workers and wait for them."""
        self.shutdown()  # type: ignore[attr-defined]


class Pool(Methods, ProcessPoolExecutor):
    """``concurrent.futures.ProcessPoolExecutor``."""


class Adapter(Library):
    """``concurrent.futures.ProcessPoolExecutor``. It cannot give results out of order by itself."""

    name = "executor"
    module = "concurrent.futures"
    offers = POOL - {"pool imap_unordered"} | {"pool fork", "pool spawn"}

    def pool(self, processes: int, method: str = "fork") -> Any:
        """Return an executor."""
        return Pool(processes, mp_context=self.context(method))
