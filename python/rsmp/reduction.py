"""Pickling for other processes and passing descriptors.

- Descriptors go over Unix sockets in Rust, and arrive closed on exec.
- `ForkingPickler` and its reducers are the standard ones: whoever registers one registers it for both libraries.
"""

from __future__ import annotations

from rsmp import _rsmp, _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def sendfds(sock: Any, fds: Any) -> None:
    """Send the descriptors ``fds`` over the Unix socket ``sock``."""
    _rsmp.send_descriptors(sock.fileno(), list(fds))


def recvfds(sock: Any, size: int) -> list[int]:
    """Return up to ``size`` descriptors received over the Unix socket ``sock``.

    Raises EOFError at the end of the stream, RuntimeError when something else than descriptors came.
    """
    return _rsmp.receive_descriptors(sock.fileno(), size)


def send_handle(conn: Any, handle: int, destination_pid: int | None) -> None:
    """Send the descriptor ``handle`` over ``conn``."""
    _rsmp.send_descriptors(conn.fileno(), [handle])


def recv_handle(conn: Any) -> int:
    """Return a descriptor received over ``conn``."""
    return _rsmp.receive_descriptors(conn.fileno(), 1)[0]


def DupFd(fd: int) -> Any:
    """Return a picklable stand-in for ``fd``; its ``detach()`` gives the descriptor where it was unpickled."""
    from rsmp import resource_sharer

    popen = _stdlib.load("context").get_spawning_popen()
    if popen is not None:
        return popen.DupFd(popen.duplicate_for_child(fd))
    return resource_sharer.DupFd(fd)


def share_descriptor(descriptor: int) -> Any:
    """Return a picklable stand-in whose ``detach()`` gives the descriptor in the process that unpickles it.

    To a process that is being started, each descriptor goes once however many objects share it (one arena holds every
    lock), and ``detach()`` then gives the same number each time: the receiver keeps track of what it owns.
    """
    popen = _stdlib.load("context").get_spawning_popen()
    if popen is None:
        return DupFd(descriptor)
    shared: dict[int, Any] = popen.__dict__.setdefault("_shared_descriptors", {})
    if descriptor not in shared:
        shared[descriptor] = DupFd(descriptor)
    return shared[descriptor]


_stdlib.unannotate(__name__)
