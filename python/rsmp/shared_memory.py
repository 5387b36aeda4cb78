"""Named shared memory: `SharedMemory` and `ShareableList`.

The segment is opened, mapped and unlinked by the engine; `_mmap` is its mapping instead of an `mmap.mmap`. Names, the
resource tracker and everything a subclass overrides (`_flags`, `_mode`, ...) are the standard module's. Beyond it,
``track=`` is there on every Python version.
"""

from __future__ import annotations

import os

from rsmp import _rsmp, _stdlib, resource_tracker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


_CREATE = os.O_CREAT | os.O_EXCL | os.O_RDWR
_usual_filename = _standard._make_filename


class SharedMemory(_standard.SharedMemory):  # type: ignore[name-defined,misc]
    """A block of memory that processes reach by its name; see `multiprocessing.shared_memory.SharedMemory`."""

    _buf: memoryview | None = None
    _mmap: _rsmp.Segment | None = None
    _track = True
    _descriptor = -1

    def __init__(self, name: str | None = None, create: bool = False, size: int = 0, *, track: bool = True) -> None:
        """Create a block of ``size`` bytes, or attach to the existing block ``name``.

        Without ``track`` the resource tracker never hears of the block, which then lives until somebody unlinks it.
        """
        if not size >= 0:
            raise ValueError("'size' must be a positive integer")
        if create:
            self._flags = _CREATE
            if size == 0:
                raise ValueError("'size' must be a positive number different from zero")
        if name is None and not self._flags & os.O_EXCL:
            raise ValueError("'name' can only be None if create=True")
        self._track = track
        if name is None:
            segment = self._make(size)
        else:
            name = "/" + name if self._prepend_leading_slash else name
            segment = self._open(name, size)
            self._name = name
        if track:
            resource_tracker.tell("register", self._name)
        self._mmap = segment
        self._size = len(segment)
        self._buf = memoryview(segment)

    def _make(self, size: int) -> _rsmp.Segment:
        # Looked up each time: tests and packages replace it.
        make = _standard._make_filename
        if make is _usual_filename and self._flags == _CREATE:
            prefix, length = _standard._SHM_NAME_PREFIX, _standard._SHM_SAFE_NAME_LENGTH
            self._name, segment = _rsmp.Segment.create_unnamed(prefix, length, size, self._mode)
            return segment
        while True:
            name = make()
            try:
                segment = self._open(name, size)
            except FileExistsError:
                continue
            self._name = name
            return segment

    def _open(self, name: str, size: int) -> _rsmp.Segment:
        if self._flags & os.O_EXCL:
            return _rsmp.Segment.create(name, size, self._mode)
        return _rsmp.Segment.open(name, bool(self._flags & os.O_CREAT), self._mode)

    @property
    def _fd(self) -> int:
        """A descriptor of the block, opened when first asked for; -1 once the block is closed or unlinked."""
        if self._descriptor < 0 and self._mmap is not None:
            try:
                self._descriptor = self._mmap.descriptor(self._name)
            except OSError:
                return -1
        return self._descriptor

    @_fd.setter
    def _fd(self, descriptor: int) -> None:
        # A subclass that opens by itself, without this class's __init__.
        self._descriptor = descriptor

    def close(self) -> None:
        """Unmap the block here; it stays for others. BufferError while views of `buf` exist."""
        if self._buf is not None:
            self._buf.release()
            self._buf = None
        if self._mmap is not None:
            self._mmap.close()
            self._mmap = None
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def unlink(self) -> None:
        """Remove the block's name: it goes when the last process closes it. FileNotFoundError if it is gone."""
        if self._name:
            _rsmp.Segment.unlink(self._name)
            if self._track:
                resource_tracker.tell("unregister", self._name)


class ShareableList(_rsmp.ShareableList, _standard.ShareableList):  # type: ignore[name-defined,misc]
    """A list of fixed length in shared memory; see `multiprocessing.shared_memory.ShareableList`."""

    def __init__(self, sequence: Any = None, *, name: str | None = None) -> None:
        """Store ``sequence`` in a new block, called ``name`` if given; without it attach to the list in ``name``."""
        if name is None or sequence is not None:
            self.shm = self._store(sequence or (), lambda size: SharedMemory(name, create=True, size=size))
        else:
            self.shm = SharedMemory(name)
            self._attach(self.shm)


_stdlib.unannotate(__name__)
