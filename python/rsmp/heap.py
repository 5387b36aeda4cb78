"""Blocks of shared memory for `sharedctypes`.

All of it is anonymous: memory files that go with the last process that maps them, where the standard module makes and
unlinks files in /dev/shm. `Block` is what `sharedctypes` allocates: a cell of the arena that holds the locks, too, or a
memory file of its own when it is large. `Heap` and `BufferWrapper` are the standard allocator, its bookkeeping
included, over memory files.
"""

from __future__ import annotations

import mmap
import os
import weakref

from rsmp import _rsmp, _stdlib
from rsmp.reduction import share_descriptor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


_received: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()
"""The large blocks that came when this process was started, by the descriptors they came with."""


class Block(_rsmp.Block):
    """Shared memory of any size; picklable only while a process is started."""

    def create_memoryview(self) -> memoryview:
        """Return a view of the block, as `BufferWrapper` does."""
        return memoryview(self)

    def __reduce__(self) -> Any:
        _standard.assert_spawning(self)
        cell = self._share()
        if cell is not None:
            return _from_cell, (len(self), cell)
        return _from_descriptor, (len(self), share_descriptor(self.fileno()))


def _from_cell(size: int, cell: Any) -> Block:
    return Block(size, cell=cell)


def _from_descriptor(size: int, shared: Any) -> Block:
    descriptor = shared.detach()
    block = _received.get(descriptor)
    if block is None:
        block = _received[descriptor] = Block(size, descriptor=descriptor)
    return block


class Arena(_standard.Arena):  # type: ignore[name-defined,misc]
    """An area that a `Heap` cuts blocks from: a memory file and its mapping, ``buffer``."""

    def __init__(self, size: int, fd: int = -1) -> None:
        """Make an area of ``size`` bytes, or map the one behind ``fd``."""
        self.size = size
        self.fd = fd
        if fd == -1:
            self.fd = _rsmp.memory_file(size)
            _standard.util.Finalize(self, os.close, (self.fd,))
        self.buffer = mmap.mmap(self.fd, size)


def _reduce_arena(arena: Arena) -> Any:
    return _rebuild_arena, (arena.size, share_descriptor(arena.fd))


def _rebuild_arena(size: int, shared: Any) -> Arena:
    return Arena(size, shared.detach())


_standard.reduction.register(Arena, _reduce_arena)


class Heap(_standard.Heap):  # type: ignore[name-defined,misc]
    """The standard allocator over `Arena`."""

    def _new_arena(self, size: int) -> tuple[Arena, int, int]:
        length = self._roundup(max(self._size, size), mmap.PAGESIZE)
        if self._size < self._DOUBLE_ARENA_SIZE_UNTIL:
            self._size *= 2
        _standard.util.info("allocating a new mmap of length %d", length)
        arena = Arena(length)
        self._arenas.append(arena)
        return arena, 0, length


class BufferWrapper(_standard.BufferWrapper):  # type: ignore[name-defined,misc]
    """A block of ``size`` bytes from ``BufferWrapper._heap``."""

    _heap = Heap()

    def __init__(self, size: int) -> None:
        heap = BufferWrapper._heap
        block = heap.malloc(size)
        self._state = (block, size)
        _standard.util.Finalize(self, heap.free, args=(block,))


_stdlib.unannotate(__name__)
