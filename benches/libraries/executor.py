"""The standard library's other pool."""

from concurrent.futures import ProcessPoolExecutor
from typing import Any

from harness import Library


class Pool(ProcessPoolExecutor):
    """An executor with the methods of a Pool that the cases use."""

    def apply(self, function: Any, args: Any = ()) -> Any:
        """Call in a worker and wait."""
        return self.submit(function, *args).result()

    def apply_async(self, function: Any, args: Any = ()) -> Any:
        """Call in a worker; the result has ``get``."""
        future = self.submit(function, *args)
        future.get = future.result  # type: ignore[attr-defined]
        return future

    def imap(self, function: Any, iterable: Any, chunksize: int = 1) -> Any:
        """Give results in order."""
        return super().map(function, iterable, chunksize=chunksize)

    imap_unordered = imap

    def map(self, function: Any, iterable: Any, chunksize: int | None = None) -> Any:  # type: ignore[override]
        """Return a list of results."""
        items = list(iterable)
        return list(super().map(function, items, chunksize=chunksize or -(-len(items) // 8)))

    def close(self) -> None:
        """Do nothing: `join` ends the workers."""

    def join(self) -> None:
        """End the workers and wait for them."""
        self.shutdown()


class Adapter(Library):
    """``concurrent.futures.ProcessPoolExecutor``."""

    name = "executor"
    module = "concurrent.futures"
    offers = frozenset({"pool"})

    def pool(self, processes: int, method: str = "fork") -> Any:
        """Return an executor."""
        return Pool(processes, mp_context=self.context(method))
