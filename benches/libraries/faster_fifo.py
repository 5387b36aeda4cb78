"""A queue with a byte ring of fixed size in shared memory."""

from typing import Any

from harness import Library


class Adapter(Library):
    """``faster_fifo.Queue``: `put` and `get` as in the standard queue, `put_many` and `get_many` for batches."""

    name = module = "faster_fifo"
    offers = frozenset({"queue", "bytes queue", "batches"})

    def queue(self, largest: int = 64) -> Any:
        """Return a queue with room for some of the largest messages; `put` waits while it is full."""
        return self.load().Queue(max_size_bytes=max(1_000_000, 4 * largest))
