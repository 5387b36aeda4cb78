"""The process that is the resource tracker. It is run by itself, with nothing of the package and nothing of the site.

It keeps the names of shared memory that it is told of, and removes at the end what nobody has removed. When there is
anything else to do, another message, or such names to report, it goes on as the standard tracker from where it is. Most
programs never come there, and while a process imports what that needs, the program has one CPU less.

It reads in batches: between two reads it naps for a few milliseconds, so that a process that tells it of one name after
the other does not wake it, which costs more than all the rest, for each.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import io
import itertools
import posix
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

__all__ = ["run"]

_NAP = 0.005
"""Seconds between two reads."""
_BATCH = 1 << 16
"""Bytes of a read, as many as a pipe holds."""


def run(descriptor: int, standard: Callable[[], Callable[[int], None]]) -> None:
    """Keep track of what comes from ``descriptor``, to its end; ``standard`` returns `main` of the standard tracker."""
    signals = (_signal.SIGINT, _signal.SIGTERM)
    for signal in signals:
        _signal.signal(signal, _signal.SIG_IGN)
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, signals)
    names: set[bytes] = set()
    removed: set[str] = set()
    lines = _lines(descriptor)
    try:
        rest = next(([line] for line in lines if not _note(names, line)), [])
        if not rest:
            # Before anything is imported: there may be no memory left for that.
            removed = _remove(names)
            if not names:
                return
        main = standard()
    except BaseException:
        for line in lines:
            _note(names, line)
        _remove(names)
        raise
    unlink = main.__globals__["_CLEANUP_FUNCS"]["shared_memory"]
    main.__globals__["_CLEANUP_FUNCS"]["shared_memory"] = lambda name: name in removed or unlink(name)
    known = (b"REGISTER:" + name + b":shared_memory" for name in names)
    main.__globals__["open"] = lambda _descriptor, _mode: _Lines(itertools.chain(known, rest, lines))
    main(descriptor)


def _remove(names: set[bytes]) -> set[str]:
    """Remove the memory with these ``names``, as `shm_unlink(3)` does; return those that there was."""
    removed = set()
    for name in names:
        try:
            posix.unlink(b"/dev/shm/" + name.lstrip(b"/"))
        except OSError:
            continue
        removed.add(name.decode("ascii"))
    return removed


def _lines(descriptor: int) -> Iterator[bytes]:
    rest = b""
    while data := posix.read(descriptor, _BATCH):
        *lines, rest = (rest + data).split(b"\n")
        yield from lines
        # Nobody is to wait for room in the pipe.
        if len(data) < _BATCH // 2:
            time.sleep(_NAP)
    if rest:
        yield rest


def _note(names: set[bytes], line: bytes) -> bool:
    """Do what ``line`` says; False, and nothing done, if that is not just a name that comes or goes."""
    call, _, rest = line.partition(b":")
    name, _, kind = rest.partition(b":")
    if kind != b"shared_memory" or not name.isascii():
        return line == b"PROBE:0:noop"
    if call == b"REGISTER":
        names.add(name)
    elif call == b"UNREGISTER" and name in names:
        names.remove(name)
    else:
        return False
    return True


class _Lines(io.IOBase):
    """Stands in for the file that the standard tracker reads."""

    def __init__(self, lines: Iterator[bytes]) -> None:
        self._lines = lines

    def readline(self, _size: int | None = -1) -> bytes:
        line = next(self._lines, None)
        return b"" if line is None else line + b"\n"
