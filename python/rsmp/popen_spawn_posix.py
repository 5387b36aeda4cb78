"""Children started as a fresh interpreter."""

from __future__ import annotations

import os

from rsmp import _child, _rsmp, _stdlib, popen_fork, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


# Where rsmp stands in for ``multiprocessing``, the standard class derives from `popen_fork.Popen` already.
_bases = (_standard.Popen,) if issubclass(_standard.Popen, popen_fork.Popen) else (popen_fork.Popen, _standard.Popen)


class Popen(*_bases):  # type: ignore[misc]
    """One child, a fresh interpreter that unpickles its process object."""

    method = "spawn"
    DupFd = _child.Inherited

    def _launch(self, process_obj: Any) -> None:
        tracker_fd = _stdlib.load("resource_tracker").getfd()
        to_close = [_rsmp.open_self()]
        try:
            lifeline = self._lifeline() if process_obj.daemon else None
            payload = spawn.pickled(self, process_obj, parent_sentinel=to_close[0], lifeline=lifeline)
            to_close.append(_rsmp.payload_file(payload))
            line = spawn.get_command_line(tracker_fd=tracker_fd, pipe_handle=to_close[1])
            self._fds += [tracker_fd, *to_close]
            if lifeline is not None:
                self._fds.append(lifeline)
            pid = _stdlib.load("util").spawnv_passfds(spawn.get_executable(), line, self._fds)
        finally:
            for descriptor in to_close:
                os.close(descriptor)
        self._take(pid)


_stdlib.unannotate(__name__)
