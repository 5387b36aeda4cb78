"""Process objects: the standard library's own, so that both libraries see one current process."""

from __future__ import annotations

from rsmp import _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

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


_stdlib.unannotate(__name__)
