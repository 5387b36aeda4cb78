"""The standard library: what everything is compared with."""

from harness import Library


class Adapter(Library):
    """``multiprocessing``."""

    name = "multiprocessing"
    offers = frozenset(
        {"queue", "simple queue", "pipe", "pool", "start", "locks", "values", "manager", "shared memory", "import"}
    )
