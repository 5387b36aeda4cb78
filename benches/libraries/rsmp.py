"""rsmp."""

from libraries import multiprocessing


class Adapter(multiprocessing.Adapter):
    """The same programs with another module."""

    name = module = host = "rsmp"
    offers = multiprocessing.Adapter.offers | {"batches"}
