"""Pools whose tasks can be cancelled and time out."""

from typing import Any

from harness import POOL, Library


class Adapter(Library):
    """``pebble.ProcessPool``. It cannot give results out of order by itself."""

    name = module = "pebble"
    offers = POOL - {"pool imap_unordered", "pool starmap"} | {"pool fork", "pool spawn"}

    def pool(self, processes: int, method: str = "fork") -> Any:
        """Return a process pool with a Pool's methods."""

        class Pool(self.load().ProcessPool):  # type: ignore[misc]
            def map(self, function: Any, iterable: Any, chunksize: int | None = None) -> Any:
                items = list(iterable)
                return list(super().map(function, items, chunksize=chunksize or -(-len(items) // 8)).result())

            def imap(self, function: Any, iterable: Any) -> Any:
                return super().map(function, iterable).result()

            def apply(self, function: Any, args: Any = ()) -> Any:
                return self.schedule(function, args=args).result()

            def apply_async(self, function: Any, args: Any = ()) -> Any:
                future = self.schedule(function, args=args)
                future.get = future.result
                return future

        return Pool(processes, context=self.context(method))
