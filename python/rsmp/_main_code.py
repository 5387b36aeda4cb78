"""The code of the main module, for spawned children: in the standard library each of them compiles the source again.

A child gets the code that the program itself runs, as long as the file has not been changed since the program started;
what is in a file that was changed is for the child to read, as ever.
"""

from __future__ import annotations

import os
import sys
import time
from marshal import dumps

from rsmp._child import code_version

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import CodeType, FrameType

__all__ = ["packed"]

_MARGIN = 2.0
"""Seconds by which a file must be older than the process: clocks of file systems are coarse."""
_FORKED = 0x40
"""The process runs no program of its own (PF_FORKNOEXEC, proc_pid_stat(5)): its main module is older than it."""

_packed: dict[str, bytes] = {}


def packed(path: str) -> bytes | None:
    """Return the main module's code and for which interpreter it is, if this thread runs it or did so before, or None.

    ``path`` is the file that children would compile.
    """
    if not path.endswith(".py"):
        # Children leave those to `runpy`.
        return None
    try:
        status = os.stat(path)
        if max(status.st_mtime, status.st_ctime) > _start() - _MARGIN:
            return None
        if path not in _packed:
            code = _running(path)
            if code is None:
                return None
            # Tools that write code objects may put constants into them that cannot be marshalled.
            _packed[path] = code_version() + dumps(code)
    except (OSError, ValueError, IndexError):
        return None
    return _packed[path]


def _running(path: str) -> CodeType | None:
    """Return the code that runs as the main module, further up in this thread."""
    names = getattr(sys.modules.get("__main__"), "__dict__", None)
    frame: FrameType | None = sys._getframe()
    while frame is not None:
        code = frame.f_code
        if frame.f_globals is names and code.co_name == "<module>" and code.co_filename == path:
            return code
        frame = frame.f_back
    return None


def _start() -> float:
    """Return when this process started its program, in seconds since the epoch; 0 if that was another process."""
    with open("/proc/self/stat", "rb") as file:
        # The command between parentheses may itself hold spaces and parentheses.
        fields = file.read().rpartition(b")")[2].split()
    if int(fields[6]) & _FORKED:
        return 0.0
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    return time.time() - age
