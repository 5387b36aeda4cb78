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


class Forked:
    """What a forked child does before it runs."""

    @staticmethod
    def _after_fork() -> None:
        # As the standard class does it, but an import would copy many pages to do nothing.
        util: Any = _stdlib.load("util")
        util._finalizer_registry.clear()
        if util._afterfork_registry.data:
            util._run_after_forkers()


_stdlib.unannotate(__name__)
