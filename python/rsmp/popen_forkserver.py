"""Children forked by the fork server."""

from __future__ import annotations

from rsmp import _rsmp, _stdlib, forkserver, popen_fork, spawn

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


# Where rsmp stands in for ``multiprocessing``, the standard class derives from `popen_fork.Popen` already.
_bases = (_standard.Popen,) if issubclass(_standard.Popen, popen_fork.Popen) else (popen_fork.Popen, _standard.Popen)


class Popen(*_bases):  # type: ignore[misc]
    """One child. The server is its parent as far as the kernel goes, and relays the exit code."""

    method = "forkserver"

    def poll(self, flag: int = 1) -> int | None:
        """Return the exit code, or None while the child runs; waits for it only if ``flag`` is 0."""
        return _rsmp.Child.poll(self, flag)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait ``timeout`` seconds, for ever by default; return the exit code, or None while the child runs."""
        return _rsmp.Child.wait(self, timeout)

    def _launch(self, process_obj: Any) -> None:
        payload = spawn.pickled(self, process_obj)
        forkserver._forkserver.launch(self, payload, process_obj.daemon)


_stdlib.unannotate(__name__)
