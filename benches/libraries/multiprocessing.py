"""The standard library: what everything is compared with."""

from harness import POOL, Library


class Adapter(Library):
    """``multiprocessing``."""

    name = "multiprocessing"
    offers = POOL | {
        "queue",
        "bytes queue",
        "simple queue",
        "pipe",
        "pool fork",
        "pool spawn",
        "start",
        "locks",
        "values",
        "manager",
        "shared memory",
        "import",
    }
