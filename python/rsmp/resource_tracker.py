"""The resource tracker: the standard library's own, one for both libraries.

Where rsmp starts it, its process is `_tracker`, which does the same with less to import and fewer wakes.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import contextlib
import os
import sys

from rsmp import _rsmp, _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)

_CALLS = ("register", "unregister")
_STEPS = ("_send", "ensure_running", "_ensure_running_and_write", "_launch", "_write")
"""What a call goes through, on one version or another."""


def _known() -> _rsmp.Tracker | None:
    """Return the standard tracker, if nobody has replaced anything that a call goes through."""
    tracker = _standard._resource_tracker
    steps = tuple(name for name in _STEPS if hasattr(tracker, name))
    functions = [getattr(_standard, name) for name in _CALLS] + [getattr(tracker, name) for name in steps]
    if any(_stdlib.replaced(_standard, function) for function in functions):
        return None
    return _rsmp.Tracker(_standard, _CALLS, steps)


_tracker = _known()


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def tell(call: str, name: str) -> None:
    """Call ``register`` or ``unregister`` of the resource tracker for the shared memory ``name``.

    The standard functions wake the tracker twice, first to see whether it is there. Where nobody has replaced them, one
    write does for both: it fails if nobody is there to read it.
    """
    if _tracker is not None:
        if _tracker.tell(call, name):
            return
        if _tracker.is_as_made():
            standard = _standard._resource_tracker
            if standard._fd is None:
                _start(standard)
            elif not _is_in_use(standard):
                # It is gone. What finds that out is lost to the next one on Python 3.14, so it is told here.
                standard.ensure_running()
            if _tracker.tell(call, name):
                return
    getattr(_standard, call)(name, "shared_memory")


def start() -> None:
    """Start the tracker unless there is one, or unless only the standard library can."""
    standard = _standard._resource_tracker
    if standard._fd is None and _tracker is not None and _tracker.is_as_made():
        _start(standard)


def _is_in_use(tracker: Any) -> bool:
    """Whether this is a finalizer that came in the middle of a call of this thread to the tracker."""
    return getattr(tracker._lock, "_recursion_count", int)() > 0


_PROGRAM = """\
import sys
sys.path[:] = [{folder!r}, *filter(None, sys.path)]
def standard():
    {standard}
    return main
try:
    from _tracker import run
except Exception:
    run = lambda descriptor, standard: standard()(descriptor)
del sys.path[0]
run({descriptor}, standard)
"""
"""Not from the current directory, where anything may lie."""


def _start(tracker: Any) -> None:
    """As `ensure_running` of the standard class does it, but it is `_tracker` that the process runs.

    Does nothing in a frozen program, where the standard command line is looked for, and in the middle of another call.
    """
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
            folder = os.path.dirname(os.path.abspath(__file__))
            standard = _stdlib.import_main("resource_tracker")
            program = _PROGRAM.format(folder=folder, standard=standard, descriptor=reader)
            line = [spawn.get_executable(), *util._args_from_interpreter_flags(), "-S", "-c", program]
            before = _signal.pthread_sigmask(_signal.SIG_BLOCK, ())
            try:
                # Until it ignores them: Ctrl-C is for the program. Handlers may run, and raise, in here.
                _signal.pthread_sigmask(_signal.SIG_BLOCK, {_signal.SIGINT, _signal.SIGTERM})
                pid = util.spawnv_passfds(spawn.get_executable(), line, passed)
            finally:
                _signal.pthread_sigmask(_signal.SIG_SETMASK, before)
        except BaseException:
            os.close(writer)
            raise
        finally:
            os.close(reader)
        tracker._fd, tracker._pid = writer, pid
    # From Python 3.14 on: what came in the middle, from a finalizer or a signal handler.
    if getattr(tracker, "_reentrant_messages", None):
        tracker.ensure_running()


_stdlib.unannotate(__name__)
