"""The resource tracker: the standard library's own, one for both libraries.

Where rsmp starts it, it reads what it is told in batches: between two reads it naps for a few milliseconds, so that a
process that tells it of one name after the other does not wake it, which costs more than all the rest, for each.
"""

from __future__ import annotations

import contextlib
import io
import operator
import os
import sys
import time

from rsmp import _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)

_NAP = 0.005
"""Seconds between two reads."""
_BATCH = 1 << 16
"""Bytes of a read, as many as a pipe holds."""
_LONGEST = 200
"""Characters in a name that surely fits into a message to the resource tracker, which is written in one piece."""

_steps = operator.attrgetter(
    *(
        name
        for name in ("_send", "ensure_running", "_ensure_running_and_write", "_launch", "_write")
        if hasattr(_standard.ResourceTracker, name)
    )
)
"""What `register` and `unregister` of a tracker go through, on this version."""
_usual = (_standard.register, _standard.unregister, *_steps(_standard._resource_tracker))
_usual_steps = None if any(_stdlib.replaced(_standard, step) for step in _usual) else _usual[2:]


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def tell(call: str, name: str) -> None:
    """Call ``register`` or ``unregister`` of the resource tracker for the shared memory ``name``.

    The standard functions wake the tracker twice, first to see whether it is there. Where nobody has replaced them, one
    write does for both: it fails if nobody is there to read it.
    """
    function = getattr(_standard, call)
    tracker = _standard._resource_tracker
    plain = name.isascii() and name.isprintable() and ":" not in name and len(name) <= _LONGEST
    if plain and function == getattr(tracker, call) and _steps(tracker) == _usual_steps:
        if tracker._fd is None:
            _start(tracker)
        message = f"{call.upper()}:{name}:shared_memory\n".encode("ascii")
        if _write(tracker, message):
            return
        if tracker._fd is not None and not _is_in_use(tracker):
            # It is gone. What finds that out is lost to the next one on Python 3.14, so it is told here.
            tracker.ensure_running()
            if _write(tracker, message):
                return
    function(name, "shared_memory")


def start() -> None:
    """Start the tracker unless there is one, or unless only the standard library can."""
    tracker = _standard._resource_tracker
    if tracker._fd is None and _steps(tracker) == _usual_steps:
        _start(tracker)


def _write(tracker: Any, message: bytes) -> bool:
    descriptor = tracker._fd
    try:
        return descriptor is not None and os.write(descriptor, message) > 0
    except OSError:
        return False


def _is_in_use(tracker: Any) -> bool:
    """Whether this is a finalizer that came in the middle of a call of this thread to the tracker."""
    return getattr(tracker._lock, "_recursion_count", int)() > 0


_PROGRAM = """\
import sys
sys.path[:] = [*filter(None, sys.path), {root!r}]
try:
    from rsmp import _stdlib
    for name in ("spawn", "util"):
        _stdlib.when_loaded(name, id)
    from rsmp.resource_tracker import main
except Exception:
    {standard}
main({descriptor})
"""
"""Not from the current directory, where anything may lie, and at last from where the program has found this package.

What the tracker does not use is not loaded: as long as it starts, the program has one CPU less.
"""


def _start(tracker: Any) -> None:
    """As `ensure_running` of the standard class does it, but it is `main` below that the process runs.

    Does nothing in a frozen program, where the standard command line is looked for, and in the middle of another call.
    """
    import signal

    if getattr(sys, "frozen", False) or _is_in_use(tracker):
        return
    with tracker._lock:
        if tracker._fd is not None:
            return
        util, spawn = _stdlib.load("util"), _stdlib.load("spawn")
        reader, writer = os.pipe()
        try:
            passed = [reader]
            with contextlib.suppress(Exception):  # there may be none
                passed.append(sys.stderr.fileno())
            root = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))
            program = _PROGRAM.format(root=root, standard=_stdlib.import_main("resource_tracker"), descriptor=reader)
            line = [spawn.get_executable(), *util._args_from_interpreter_flags(), "-c", program]
            before = signal.pthread_sigmask(signal.SIG_BLOCK, ())
            try:
                # Until it ignores them: Ctrl-C is for the program. Handlers may run, and raise, in here.
                signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
                pid = util.spawnv_passfds(spawn.get_executable(), line, passed)
            finally:
                signal.pthread_sigmask(signal.SIG_SETMASK, before)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        tracker._fd, tracker._pid = writer, pid


class _Paced(io.RawIOBase):
    """What ``descriptor`` gives, in batches."""

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._nap = False

    def readable(self) -> bool:
        return True

    def readinto(self, space: Any) -> int:
        if self._nap:
            time.sleep(_NAP)
        count = os.readv(self._descriptor, [space])
        # Nobody is to wait for room in the pipe.
        self._nap = count < len(space) // 2
        return count


def main(fd: int) -> None:
    """Run the standard tracker over ``fd``, in the process that is the tracker."""
    _standard.__dict__["open"] = lambda fd, _mode: io.BufferedReader(_Paced(fd), _BATCH)
    _standard.main(fd)


_stdlib.unannotate(__name__)
