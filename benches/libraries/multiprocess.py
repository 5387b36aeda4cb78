"""The standard library's code with dill for pickle."""

from libraries import multiprocessing


class Adapter(multiprocessing.Adapter):
    """The same programs with another module."""

    name = module = host = "multiprocess"
