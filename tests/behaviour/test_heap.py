"""The allocator behind sharedctypes, whose names programs and tests reach into."""

import os

import pytest

from under_test import mp as library
from under_test import submodule

heap = submodule("heap")

# A heap keeps its arenas for the next blocks.
pytestmark = pytest.mark.may_leave("arenas")


def write(wrapper):
    wrapper.create_memoryview()[:5] = b"child"


def test_blocks_are_seen_by_children(mp, ctx):
    wrapper = heap.BufferWrapper(100)
    wrapper.create_memoryview()[:] = bytes(100)
    process = ctx.Process(target=write, args=(wrapper,))
    process.start()
    process.join()
    assert process.exitcode == 0
    process.close()
    assert bytes(wrapper.create_memoryview()[:6]) == b"child\0"


def test_sizes(mp):
    with pytest.raises(ValueError):
        heap.BufferWrapper(-1)
    with pytest.raises(OverflowError):
        heap.BufferWrapper(1 << 63)
    assert len(heap.BufferWrapper(0).create_memoryview()) == 0
    assert len(heap.BufferWrapper(10_000_000).create_memoryview()) == 10_000_000


def test_the_heap_can_be_replaced(mp, monkeypatch):
    monkeypatch.setattr(heap.BufferWrapper, "_heap", heap.Heap())
    fresh = heap.BufferWrapper._heap
    wrapper = heap.BufferWrapper(1000)
    (arena, start, stop), size = wrapper._state
    assert (arena, stop - start, size) == (fresh._arenas[0], 1000, 1000)
    assert fresh._n_mallocs == 1 and fresh._n_frees == 0
    del wrapper
    assert fresh._n_frees == 1


@pytest.mark.rsmp_only("the standard library makes a file in /dev/shm and unlinks it")
def test_nothing_has_a_name(mp):
    arena = heap.Arena(10_000)
    assert os.readlink(f"/proc/self/fd/{arena.fd}").startswith("/memfd:")
    assert isinstance(arena, submodule("heap")._standard.Arena)
    assert library.RawArray("b", 10_000_000)
