"""What children run in the cases of starting. Imports nothing, so that a child's start is the library's alone."""


def nothing() -> None:
    """Return at once."""


def square(x: int) -> int:
    """Do next to nothing with a number."""
    return x * x


def add(x: int, y: int) -> int:
    """Do next to nothing with two."""
    return x + y


def total(array):  # type: ignore[no-untyped-def]
    """Look at both ends of an array."""
    return float(array[0] + array[-1])


def scale(array):  # type: ignore[no-untyped-def]
    """Return an array as long as the one given."""
    return array * 2
