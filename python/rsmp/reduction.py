"""Pickling for other processes and passing descriptors.

- Descriptors go over Unix sockets in Rust, and arrive closed on exec.
- `ForkingPickler` and its reducers are the standard ones: whoever registers one registers it for both libraries.
"""

from __future__ import annotations

import os

from rsmp import _rsmp, _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def _acknowledges() -> bool:
    """Return whether descriptors are acknowledged, as by the standard functions from Python 3.14 on."""
    return bool(getattr(_standard, "ACKNOWLEDGE", True))


def _acknowledged(answer: bytes) -> None:
    if answer != b"A":
        raise RuntimeError("did not receive acknowledgement of fd")


def sendfds(sock: Any, fds: Any) -> None:
    """Send the descriptors ``fds`` over the Unix socket ``sock``; from Python 3.14 on, wait until they are received."""
    _rsmp.send_descriptors(sock.fileno(), list(fds))
    if _acknowledges():
        _acknowledged(sock.recv(1))


def recvfds(sock: Any, size: int) -> list[int]:
    """Return up to ``size`` descriptors received over the Unix socket ``sock``.

    Raises EOFError at the end of the stream, RuntimeError when something else than descriptors came.
    """
    received = _rsmp.receive_descriptors(sock.fileno(), size)
    if _acknowledges():
        sock.send(b"A")
    return received


def send_handle(conn: Any, handle: int, destination_pid: int | None) -> None:
    """Send the descriptor ``handle`` over ``conn``; from Python 3.14 on, wait until it is received."""
    _rsmp.send_descriptors(conn.fileno(), [handle])
    if _acknowledges():
        _acknowledged(os.read(conn.fileno(), 1))


def recv_handle(conn: Any) -> int:
    """Return a descriptor received over ``conn``."""
    (received,) = _rsmp.receive_descriptors(conn.fileno(), 1)
    if _acknowledges():
        os.write(conn.fileno(), b"A")
    return received


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
