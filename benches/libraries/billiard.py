"""Celery's fork of the standard library."""

from libraries import multiprocessing


class Adapter(multiprocessing.Adapter):
    """The same programs with another module, which has no shared memory by name."""

    name = module = host = "billiard"
    offers = multiprocessing.Adapter.offers - {"shared memory"}
