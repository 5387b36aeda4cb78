"""Process objects: the standard library's own, so that both libraries see one current process."""

from __future__ import annotations

from typing import Any

from rsmp import _stdlib

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


class Interruptible:
    """What Python 3.14 added to processes, for every version."""

    _check_closed: Any
    _popen: Any

    def interrupt(self) -> None:
        """Interrupt the process (SIGINT), as Ctrl-C does."""
        self._check_closed()
        self._popen.interrupt()
