"""Children started as a fresh interpreter."""

from __future__ import annotations

import os

from rsmp import _child, _main_code, _rsmp, _stdlib, popen_fork, spawn

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
        tracker_fd = spawn.tracker_descriptor()
        parent = _rsmp.open_self()
        held = process_obj.daemon and _child.admits_interrupts()
        try:
            lifeline = self._lifeline() if process_obj.daemon else None
            payload = spawn.pickled(
                self, process_obj, _main_code.packed, parent_sentinel=parent, lifeline=lifeline, held=held
            )
            self._fds += [tracker_fd, parent] if lifeline is None else [tracker_fd, parent, lifeline]
            self._execute(payload, tracker_fd, held)
        finally:
            os.close(parent)

    def _execute(self, payload: bytes, tracker_fd: int, held: bool) -> None:
        """Start the interpreter and hand it the payload: in a file, which it finds complete however late it reads.

        ``held``: the child expects that its start puts off Ctrl-C.
        """
        file = _rsmp.payload_file(payload)
        try:
            line, own = spawn.command_line(tracker_fd=tracker_fd, pipe_handle=file)
            if own:
                self._spawn(line, file, held)
                return
        finally:
            os.close(file)
        # The standard `spawn_main` watches what it reads from to notice the end of its parent: that must be a pipe.
        reader, writer = os.pipe()
        self.finalizer = _stdlib.load("util").Finalize(self, os.close, (writer,))
        try:
            line, _ = spawn.command_line(tracker_fd=tracker_fd, pipe_handle=reader)
            self._spawn(line, reader)
        finally:
            os.close(reader)
        with open(writer, "wb", closefd=False) as pipe:
            pipe.write(payload)

    def _spawn(self, line: list[str], file: int, held: bool = False) -> None:
        if held:
            _child.hold_interrupts()
        try:
            pid = _stdlib.load("util").spawnv_passfds(spawn.get_executable(), line, [*self._fds, file])
            self._take(pid)
        finally:
            if held:
                self._admit_interrupts()


_stdlib.unannotate(__name__)
