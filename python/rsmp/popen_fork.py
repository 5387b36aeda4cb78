"""Children started by ``os.fork``, and what all ``Popen`` classes have in common.

The native half (`rsmp._rsmp.Child`) holds a process descriptor: it is the sentinel, and waiting, reaping and signalling
go through it. Where a program has replaced ``os.waitpid`` (gevent) or ``popen_fork.Popen.poll`` (gipc), the
inherited Python methods run instead and call the replacement.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import posix
import sys

from rsmp import _child, _rsmp, _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)
_standard_poll = _standard.Popen.poll
_state = _stdlib.load("process")


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


class Popen(_rsmp.Child, _standard.Popen):  # type: ignore[name-defined,misc]
    """One child of this process."""

    method = "fork"

    def poll(self, flag: int = os.WNOHANG) -> int | None:
        """Return the exit code, or None while the child runs; waits for it only if ``flag`` is 0."""
        if self._inherits():
            return _standard.Popen.poll(self, flag)  # type: ignore[no-any-return]
        return _rsmp.Child.poll(self, flag)

    def wait(self, timeout: float | None = None) -> int | None:
        """Wait ``timeout`` seconds, for ever by default; return the exit code, or None while the child runs."""
        if self._inherits():
            return _standard.Popen.wait(self, timeout)  # type: ignore[no-any-return]
        return _rsmp.Child.wait(self, timeout)

    def close(self) -> None:
        """Give the descriptors back."""
        _rsmp.Child.close(self)
        _standard.Popen.close(self)

    def _inherits(self) -> bool:
        return os.waitpid is not posix.waitpid or _standard.Popen.poll is not _standard_poll or self._foreign

    def _launch(self, process_obj: Any) -> None:
        daemon = process_obj.daemon
        held = daemon and _child.admits_interrupts()
        if held:
            _child.hold_interrupts()
        try:
            if not self._fork(process_obj, daemon, held):
                self._fork_by_steps(process_obj, daemon, held)
        finally:
            if held:
                self._admit_interrupts()

    def _fork_by_steps(self, process_obj: Any, daemon: bool, held: bool) -> None:
        """Do what `_fork` does where tools have replaced a function on the way: theirs are then called."""
        lifeline = self._lifeline() if daemon else None
        _child.prepare_fork()
        # Opened before the fork, so that no other process can have got the number of a parent that is gone already;
        # here its place is then taken by the child's.
        parent = _rsmp.open_self()
        try:
            pid = _fork()
            if pid == 0:
                _child.run_forked(_start, process_obj, parent, lifeline, held)
        finally:
            os.close(parent)
        _rsmp.forked(pid)
        self._take(pid)

    def _admit_interrupts(self) -> None:
        """Let Ctrl-C through. A start that it ends has started nothing."""
        try:
            _child.admit_interrupts()
        except BaseException:
            if self.pid is not None:
                self.kill()
                self.wait()
            raise

    def _take(self, pid: int) -> None:
        """Adopt the child, or end it if that is not possible (out of descriptors)."""
        try:
            self._adopt(pid)
        except BaseException:
            os.kill(pid, _signal.SIGKILL)
            os.waitpid(pid, 0)
            raise


def start_together(processes: list[Any]) -> bool:
    """Start daemons that were just made, one fork right after the other.

    What this process touches between two forks it has to copy twice. Returns False, and has done nothing, where
    somebody has replaced a step of `BaseProcess.start`. When a fork fails, the processes before it are started.
    """
    if not all(map(_starts_as_usual, processes)) or _state._current_process._config.get("daemon"):
        return False
    _state._cleanup()
    _standard.util._flush_std_streams()
    popens = [Popen.__new__(Popen) for _ in processes]
    for popen in popens:
        popen.finalizer = None
    held = _child.admits_interrupts()
    if held:
        _child.hold_interrupts()
    try:
        return _rsmp.fork_together(popens, processes, True, held)
    finally:
        for process, popen in zip(processes, popens, strict=True):
            if popen.pid is not None:
                process._popen, process._sentinel = popen, popen.sentinel
                del process._target, process._args, process._kwargs
                _state._children.add(process)
        if held:
            _child.admit_interrupts()


def _starts_as_usual(process: Any) -> bool:
    from rsmp import context

    cls, replaced = type(process), _stdlib.replaced
    return not (
        replaced(_state, cls.start)
        or replaced(context, cls._Popen)
        or replaced(sys.modules[__name__], Popen._launch)
        or replaced(_standard, Popen.__init__)
        # Some override it for workers that may have children.
        or not process.daemon
    )


def _fork() -> int:
    """Fork; the resource tracker, if there is one, is told that the child goes on using it (Python 3.14)."""
    tracker = _stdlib.loaded("resource_tracker")
    intent: Any = None if tracker is None else getattr(tracker, "_fork_intent", None)
    if intent is None:
        return os.fork()
    intent.preserve_fd = True
    try:
        return os.fork()
    finally:
        intent.preserve_fd = False


def _start(process_obj: Any, parent: int, lifeline: int | None, held: bool) -> int:
    if held:
        _child.starts_with_interrupts_held()
    if lifeline is not None:
        _rsmp.tie_to_lifeline(lifeline)
    return _child.bootstrap(process_obj, parent)


_stdlib.unannotate(__name__)
