"""Pickling for other processes and passing descriptors."""

from __future__ import annotations

from typing import Any

from rsmp import _stdlib

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def share_descriptor(descriptor: int) -> Any:
    """Return a picklable stand-in whose ``detach()`` gives the descriptor in the process that unpickles it.

    To a process that is being started, each descriptor goes once however many objects share it (one arena holds every
    lock), and ``detach()`` then gives the same number each time: the receiver keeps track of what it owns.
    """
    popen = _stdlib.load("context").get_spawning_popen()
    if popen is None:
        return _standard.DupFd(descriptor)
    shared: dict[int, Any] = popen.__dict__.setdefault("_shared_descriptors", {})
    if descriptor not in shared:
        shared[descriptor] = _standard.DupFd(descriptor)
    return shared[descriptor]
