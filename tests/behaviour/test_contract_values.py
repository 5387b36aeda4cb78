"""What Value, Array, their raw forms and sharedctypes promise, between processes, for each start method."""

import ctypes
import pickle
from ctypes import Structure, c_char, c_double, c_int, c_short

import pytest

from under_test import submodule


class Point(Structure):
    """A structure, as users share them."""

    _fields_ = [("x", c_int), ("y", c_double), ("tags", c_short * 3)]


class Nested(Structure):
    """A structure in a structure."""

    _fields_ = [("point", Point), ("name", c_char * 8)]


def run(ctx, target, *args):
    process = ctx.Process(target=target, args=args)
    process.start()
    process.join(30)
    assert process.exitcode == 0
    process.close()


def double(*values):
    for value in values:
        value.value *= 2


def fill(array):
    for n in range(len(array)):
        array[n] = n * n


def add(value, times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def move(point):
    point.x += 1
    point.y /= 2
    point.tags[1] = 7


def rename(nested):
    nested.point.x = 42
    nested.name = b"renamed"


VALUES = [
    ("c", b"a", b"z"),
    ("b", -5, 6),
    ("B", 200, 7),
    ("h", -300, 30_000),
    ("H", 60_000, 1),
    ("i", -70_000, 2**31 - 1),
    ("I", 2**32 - 1, 0),
    ("l", -(2**40), 1),
    ("L", 2**63, 1),
    ("q", -(2**62), 1),
    ("Q", 2**64 - 1, 1),
    ("f", 0.5, 2.0),
    ("d", 0.1, 1e300),
    ("u", "a", "\u20ac"),
    (c_int, 3, 4),
]


@pytest.mark.parametrize(("code", "first", "second"), VALUES)
@pytest.mark.parametrize("lock", [True, False])
def test_every_type_code(mp, code, first, second, lock):
    for value in (mp.Value(code, first, lock=lock), mp.RawValue(code, first)):
        assert value.value == first
        value.value = second
        assert value.value == second


def test_children_see_and_change_values(ctx):
    values = ctx.Value("i", 21), ctx.Value("d", 1.5, lock=False), ctx.RawValue("h", -3)
    run(ctx, double, *values)
    assert [value.value for value in values] == [42, 3.0, -6]


def test_children_see_and_change_arrays(ctx):
    arrays = ctx.Array("i", 10), ctx.Array("d", 10, lock=False), ctx.RawArray("l", 10)
    for array in arrays:
        run(ctx, fill, array)
        assert list(array) == [n * n for n in range(10)]


def test_additions_under_the_lock_are_all_there(ctx):
    value = ctx.Value("i", 0)
    processes = [ctx.Process(target=add, args=(value, 300)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(30)
        assert process.exitcode == 0
    assert value.value == 900


def test_structures(ctx):
    point = ctx.Value(Point, 1, 5.0)
    run(ctx, move, point)
    assert (point.x, point.y, list(point.tags)) == (2, 2.5, [0, 7, 0])
    assert isinstance(point.get_obj(), Point)
    nested = ctx.RawValue(Nested, (1, 2.0), b"name")
    run(ctx, rename, nested)
    assert (nested.point.x, nested.point.y, nested.name) == (42, 2.0, b"renamed")
    points = ctx.Array(Point, [(1, 2.0), (3, 4.0)])
    assert [(each.x, each.y) for each in points] == [(1, 2.0), (3, 4.0)]


def test_arrays_behave_as_sequences(mp):
    array = mp.Array("i", range(10))
    assert len(array) == 10 and array[3] == 3 and array[-1] == 9
    assert array[2:8:3] == [2, 5]
    array[2:4] = [20, 30]
    assert array[:5] == [0, 1, 20, 30, 4]
    assert sum(array) == 0 + 1 + 20 + 30 + sum(range(4, 10))
    with pytest.raises(IndexError, match="invalid index"):
        array[10]
    with pytest.raises(ValueError, match="Can only assign sequence of same size"):
        array[2:4] = [1, 2, 3]
    with pytest.raises(TypeError):
        array[0] = "text"


def test_arrays_start_as_zeros(mp):
    assert list(mp.Array("d", 1000)) == [0.0] * 1000
    assert list(mp.RawArray("B", 100_000)) == [0] * 100_000


def test_strings(mp):
    text = mp.Array("c", b"hello world")
    assert text.value == b"hello world"
    text.value = b"bye"
    assert text.value == b"bye" and text.raw == b"bye\0o world"
    text.raw = b"x" * 11
    assert text.value == b"x" * 11
    with pytest.raises(ValueError, match="byte string too long"):
        text.value = b"y" * 12
    wide = mp.RawArray("u", "wide")
    assert wide.value == "wide"


def test_locks_of_values(ctx):
    value = ctx.Value("i", 1)
    with value.get_lock():
        value.value += 1
    with value:
        value.value += 1
    assert value.acquire() and value.release() is None
    lock = ctx.Lock()
    assert ctx.Value("i", 1, lock=lock).get_lock() is lock
    with pytest.raises(AttributeError, match=r"'5' has no method 'acquire'|has no method 'acquire'"):
        ctx.Value("i", 1, lock=5)
    assert not hasattr(ctx.RawValue("i", 1), "get_lock")


def test_what_is_made_is_of_the_standard_classes(mp):
    sharedctypes = submodule("sharedctypes")
    assert isinstance(mp.Value("i"), sharedctypes.Synchronized)
    assert isinstance(mp.Array("i", 3), sharedctypes.SynchronizedArray)
    assert isinstance(mp.Array("c", 3), sharedctypes.SynchronizedString)
    assert isinstance(mp.RawValue("i"), c_int)
    assert isinstance(mp.Value(Point), sharedctypes.SynchronizedBase)


def test_synchronized_and_copy(mp):
    sharedctypes = submodule("sharedctypes")
    point = mp.RawValue(Point, 1, 2.0)
    wrapped = sharedctypes.synchronized(point)
    wrapped.x = 9
    assert point.x == 9
    copied = sharedctypes.copy(point)
    copied.x = 1
    assert (copied.x, copied.y, point.x) == (1, 2.0, 9)
    with pytest.raises(AssertionError, match="object already synchronized"):
        sharedctypes.synchronized(wrapped)


def test_values_are_shared_only_by_inheritance(mp):
    for value in (mp.Value("i"), mp.Array("i", 3)):
        with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
            pickle.dumps(value)


def test_bad_arguments(mp):
    with pytest.raises(TypeError):
        mp.Value("no such code")
    with pytest.raises(ValueError, match="Array length must be >= 0"):
        mp.Array("i", -1)
    with pytest.raises(TypeError):
        mp.Value("i", "text")
    with pytest.raises((OverflowError, MemoryError, ValueError, OSError)):
        mp.RawArray("d", 2**60)


def test_memory_is_one_for_all_views(mp):
    array = mp.RawArray("i", 4)
    view = memoryview(array).cast("B").cast("i")
    view[2] = 11
    assert array[2] == 11
    assert ctypes.addressof(array) % ctypes.alignment(c_double) == 0


def test_memory_is_used_again(mp):
    # Made and dropped many times, arrays do not pile up.
    def resident():
        with open("/proc/self/statm") as file:
            return int(file.read().split()[2])

    for _ in range(10):
        mp.RawArray("B", 1_000_000)
    before = resident()
    for _ in range(100):
        mp.RawArray("B", 1_000_000)
    assert resident() - before < 10_000_000 / 4096
