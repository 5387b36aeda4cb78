"""Value, Array and their raw forms: every ctypes type, under a lock, seen by every process."""

import ctypes
import gc
import os
import pickle
import struct
import threading
import time

import pytest

from under_test import mp as library
from under_test import submodule

sharedctypes = submodule("sharedctypes")

INTEGERS = {"b": 8, "B": 8, "h": 16, "H": 16, "i": 32, "I": 32, "l": 64, "L": 64, "q": 64, "Q": 64}


class Point(ctypes.Structure):
    _fields_ = [("x", ctypes.c_int), ("y", ctypes.c_double)]


def change(value, array, point, text):
    with value.get_lock():
        value.value += 1
    array[0] = 0.5
    array[-2:] = [7.0, 8.0]
    point.x *= 2
    point.y = -1.5
    text.value = b"from the child"


def test_a_child_changes_them(mp, ctx):
    value, array, point, text = ctx.Value("i", 41), ctx.Array("d", 4), ctx.Value(Point, 3, 2), ctx.Array("c", 20)
    process = ctx.Process(target=change, args=(value, array, point, text))
    process.start()
    process.join()
    assert process.exitcode == 0
    process.close()
    assert value.value == 42
    assert array[:] == [0.5, 0.0, 7.0, 8.0]
    assert (point.x, point.y) == (6, -1.5)
    assert text.value == b"from the child"


def test_raw_ones_too(mp, ctx):
    value, array = ctx.RawValue("i", 41), ctx.RawArray("d", 4)
    process = ctx.Process(target=change_raw, args=(value, array))
    process.start()
    process.join()
    assert process.exitcode == 0
    process.close()
    assert value.value == 42
    assert array[:] == [0.5, 0.0, 7.0, 8.0]


def change_raw(value, array):
    value.value += 1
    array[0] = 0.5
    array[-2:] = [7.0, 8.0]


def add(value, times):
    for _ in range(times):
        with value.get_lock():
            value.value += 1


def test_nothing_is_lost_between_processes(mp, ctx):
    value = ctx.Value("q")
    processes = [ctx.Process(target=add, args=(value, 2000)) for _ in range(3)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        process.close()
    assert value.value == 6000


@pytest.mark.parametrize("code", INTEGERS)
def test_integers_wrap_as_in_ctypes(mp, code):
    type_ = sharedctypes.typecode_to_type[code]
    value, array = mp.Value(code), mp.Array(code, 3)
    for number in (0, 1, -1, 2**7, 2**15 - 1, 2**31, -(2**63), 2**64 + 5, 10**30, True):
        expected = type_(number).value
        value.value = number
        array[1] = number
        assert value.value == expected and type(value.value) is int
        assert array[1] == expected == array[:][1]
        assert array.get_obj()[1] == expected


def test_other_simple_types(mp):
    for type_, values in {
        ctypes.c_bool: [True, False, 2, []],
        ctypes.c_double: [1.5, 3, float("inf"), True],
        ctypes.c_float: [0.1, 3, 1e300],
        ctypes.c_char: [b"a", b"\0"],
        ctypes.c_wchar: ["a", "\u20ac"],
        ctypes.c_longdouble: [1.5],
        ctypes.c_void_p: [None, 5],
    }.items():
        value, array = mp.Value(type_), mp.Array(type_, 2)
        for new in values:
            value.value = array[-1] = new
            assert value.value == type_(new).value
            assert array[-1] == type_(new).value
            assert type(value.value) is type(type_(new).value)


@pytest.mark.parametrize(
    ("code", "bad"), [("i", 1.5), ("i", "1"), ("i", None), ("d", "x"), ("c", b"ab"), ("c", "a"), ("u", b"a")]
)
def test_what_ctypes_refuses(mp, code, bad):
    with pytest.raises(TypeError) as expected:
        sharedctypes.typecode_to_type[code]().value = bad
    value, array = mp.Value(code), mp.Array(code, 2)
    with pytest.raises(TypeError) as raised:
        value.value = bad
    assert str(raised.value) == str(expected.value)
    with pytest.raises(TypeError):
        array[0] = bad
    # The lock was given back.
    assert value.get_lock().acquire(timeout=1)
    value.get_lock().release()


@pytest.mark.parametrize("type_", [ctypes.c_int, ctypes.c_double, ctypes.c_char, ctypes.c_wchar, Point])
def test_indices_and_slices_are_those_of_a_ctypes_array(mp, type_):
    items = {ctypes.c_char: list(b"hello"), ctypes.c_wchar: list("hello"), Point: [(i, 0.5) for i in range(5)]}
    plain = (type_ * 5)(*items.get(type_, range(5)))
    array = mp.Array(type_, items.get(type_, range(5)))
    for index in (0, 4, -1, -5, slice(None), slice(1, 4), slice(None, None, -1), slice(4, 0, -2), slice(9, 12)):
        expected, got = plain[index], array[index]
        if type_ is Point:
            as_pairs = lambda found: [(p.x, p.y) for p in (found if isinstance(found, list) else [found])]  # noqa: E731
            expected, got = as_pairs(expected), as_pairs(got)
        assert got == expected and type(got) is type(expected)
    for index in (5, -6, 10**30):
        with pytest.raises(IndexError):
            plain[index]
        with pytest.raises(IndexError):
            array[index]
    for index in ("1", 1.0, None):
        with pytest.raises(TypeError):
            array[index]
    assert len(array) == 5
    with pytest.raises((ValueError, TypeError)):
        array[0:2] = [1]


def test_slices_are_assigned_from_any_sequence(mp):
    array = mp.Array("i", 6)
    array[:] = range(6)
    array[0:2] = (10, 11)
    array[2:4] = [12, True]
    array[5:3:-1] = [15, 14]
    assert array[:] == [10, 11, 12, 1, 14, 15]
    with pytest.raises(TypeError):
        array[0:2] = [5, "x"]
    assert array[:2] == [5, 11]


def test_structures_have_a_property_per_field(mp):
    point = mp.Value(Point, 1, 2.5)
    assert (point.x, point.y) == (1, 2.5)
    point.x = 7
    assert point.get_obj().x == 7
    assert type(point).__name__ == "SynchronizedPoint"
    assert isinstance(point, sharedctypes.SynchronizedBase)
    assert type(mp.Value(Point)) is type(point)


def test_strings(mp):
    text = mp.Array("c", 10)
    text.value = b"hello"
    assert (text.value, text.raw) == (b"hello", b"hello" + bytes(5))
    assert text[1:3] == b"el"
    assert isinstance(text, sharedctypes.SynchronizedString)


def test_locks(mp, ctx):
    lock = ctx.Lock()
    value = ctx.Value("i", 5, lock=lock)
    assert value.get_lock() is lock
    assert value.get_obj().value == 5
    assert type(ctx.Value("i").get_lock()) is type(ctx.RLock())
    assert isinstance(ctx.Value("i", lock=False), ctypes.c_int)
    assert isinstance(ctx.Array("i", 2, lock=False), ctypes.Array)
    with pytest.raises(AttributeError, match="has no method 'acquire'"):
        ctx.Value("i", lock="notalock")
    with pytest.raises(AttributeError):
        ctx.Array("i", 3, lock="notalock")
    with value:
        assert not lock.acquire(block=False)
    assert value.acquire() and not lock.acquire(block=False)
    value.release()
    with pytest.raises(AssertionError, match="already synchronized"):
        sharedctypes.synchronized(value)


def test_readers_wait_for_the_lock(mp):
    value = mp.Value("i", 1)
    seen = []
    reader = threading.Thread(target=lambda: seen.append(value.value))
    with value.get_lock():
        reader.start()
        reader.join(0.2)
        assert not seen
        value.value = 2
        value.value = 3
    reader.join()
    assert seen == [3]


def write_odd_then_even(value, array, stop):
    while not stop.is_set():
        for _ in range(200):
            with value.get_lock():
                value.value += 1
                value.get_obj().value += 1
            with array.get_lock():
                array[1] += 1
                array[1] += 1


@pytest.mark.parametrize("code", ["B", "i", "d"])
def test_readers_see_nothing_from_within_a_critical_section(mp, ctx, code):
    value, array, stop = ctx.Value(code), ctx.Array(code, 3), ctx.Event()
    writers = [ctx.Process(target=write_odd_then_even, args=(value, array, stop)) for _ in range(2)]
    for writer in writers:
        writer.start()
    seen, end = set(), time.monotonic() + 0.3
    while time.monotonic() < end or len(seen) < 2:
        for _ in range(100):
            seen.add(value.value)
            seen.add(array[1])
            seen.add(array[-2])
    stop.set()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
        writer.close()
    assert not [found for found in seen if found % 2], "read in the middle of an increment"


def hold_and_die(value, held):
    value.get_lock().acquire()
    value.value = 3
    held.set()
    os._exit(0)


def read(value):
    value.value  # noqa: B018


def test_readers_wait_for_a_lock_whose_holder_died(mp, ctx):
    value, held = ctx.Value("i", 2), ctx.Event()
    process = ctx.Process(target=hold_and_die, args=(value, held))
    process.start()
    assert held.wait(30)
    process.join()
    process.close()
    reader = ctx.Process(target=read, args=(value,))
    reader.start()
    reader.join(0.5)
    assert reader.is_alive()
    reader.kill()
    reader.join()
    reader.close()


@pytest.mark.rsmp_only("the standard library has no robust locks")
def test_readers_read_again_once_a_dead_holders_lock_is_let_go(mp, ctx):
    lock, held = ctx.RLock(robust=True), ctx.Event()
    value = ctx.Value("i", 2, lock=lock)
    process = ctx.Process(target=hold_and_die, args=(value, held))
    process.start()
    assert held.wait(30)
    process.join()
    process.close()
    with pytest.raises(submodule("synchronize").OwnerDiedError):
        lock.acquire()
    assert value.value == 3
    value.value = 4
    lock.release()
    assert value.value == 4
    seen = []
    reader = threading.Thread(target=lambda: seen.append(value.value))
    with lock:
        reader.start()
        reader.join(0.1)
        assert not seen
        value.value = 6
    reader.join()
    assert seen == [6]


def test_a_number_that_is_not_aligned(mp):
    memory = mp.RawArray("c", 16)
    value = sharedctypes.synchronized(ctypes.c_int64.from_buffer(memory, 3))
    value.value = -5
    assert value.value == -5
    with value.get_lock():
        value.value = 7
    assert value.value == 7


def test_a_lock_that_is_not_ours_is_used_as_it_is(mp):
    class Counting:
        taken = given = 0

        def acquire(self):
            self.taken += 1

        def release(self):
            self.given += 1

        def __enter__(self):
            self.acquire()

        def __exit__(self, *error):
            self.release()

    lock = Counting()
    value, array = mp.Value("i", lock=lock), mp.Array("i", 2, lock=lock)
    value.value = 3
    assert value.value == 3
    array[0] = 1
    with pytest.raises(IndexError):
        array[2]
    assert lock.taken == lock.given == 4


def test_memory_is_zero(mp):
    for _ in range(20):
        value, array = mp.RawValue("q"), mp.RawArray("q", 500)
        assert value.value == 0 and not any(array)
        value.value = -1
        array[:] = [-1] * 500
        del value, array
    gc.collect()


def test_sizes(mp):
    assert mp.Array("i", 0)[:] == []
    assert len(mp.RawArray("b", 1_000_000)) == 1_000_000
    big = mp.RawArray("b", 9_000_000)
    big[8_999_999] = 5
    assert big[8_999_999] == 5
    with pytest.raises(ValueError):
        mp.RawArray("i", -1)
    with pytest.raises(TypeError):
        mp.RawArray("i", 2.5)
    with pytest.raises(TypeError):
        mp.Value("no such code")
    with pytest.raises((MemoryError, OSError, OverflowError)):
        mp.RawArray("b", 1 << 60)


def fill(array):
    array[-1] = 9
    return array[0]


def test_a_big_array_goes_to_a_child(mp, ctx):
    array = ctx.Array("b", 5_000_000)
    process = ctx.Process(target=fill, args=(array,))
    process.start()
    process.join()
    assert process.exitcode == 0
    process.close()
    assert array[-1] == 9


def test_copy(mp):
    point = Point(1, 2.5)
    shared = sharedctypes.copy(point)
    point.x = 9
    assert (shared.x, shared.y) == (1, 2.5)
    wrapped = sharedctypes.synchronized(shared)
    wrapped.x = 4
    assert shared.x == 4


def test_they_are_pickled_only_for_a_child(mp):
    for shared in (mp.Value("i"), mp.Array("i", 3), mp.RawValue("i"), mp.RawArray("b", 10_000_000)):
        with pytest.raises((RuntimeError, ValueError, TypeError, pickle.PicklingError)):
            pickle.dumps(shared)


def test_reprs(mp):
    assert repr(mp.Value("i", 5)) == "<Synchronized wrapper for c_int(5)>"
    assert repr(mp.Array("i", 2)).startswith("<SynchronizedArray wrapper for <")


def test_an_object_with_memory_of_its_own(mp):
    number = ctypes.c_int(5)
    wrapped = sharedctypes.synchronized(number)
    ctypes.resize(number, 64)
    wrapped.value = 6
    assert number.value == 6


def test_subclasses(mp):
    class Doubling(ctypes.c_int):
        @property
        def doubled(self):
            return self.value * 2

    value = mp.Value(Doubling, 4)
    assert value.value == 4 and value.get_obj().doubled == 8

    class Named(sharedctypes.Synchronized):
        def __init__(self, obj, name):
            super().__init__(obj)
            self.name = name

    if library.__name__ == "rsmp":  # the standard __init__ fails without a context
        named = Named(mp.RawValue("i", 3), "three")
        assert (named.value, named.name) == (3, "three")


def test_many_values_take_few_descriptors(mp):
    before = len(os.listdir("/proc/self/fd"))
    values = [mp.Value("i", number) for number in range(10_000 if library.__name__ == "rsmp" else 100)]
    assert [value.value for value in values[::50]] == list(range(len(values)))[::50]
    if library.__name__ == "rsmp":
        assert len(os.listdir("/proc/self/fd")) - before < 20


def test_bytes_are_shared_with_memoryviews(mp):
    array = mp.Array("i", 4)
    memoryview(array.get_obj()).cast("B")[:] = struct.pack("4i", 1, -2, 3, -4)
    assert array[:] == [1, -2, 3, -4]


@pytest.mark.rsmp_only("the standard library names it from 3.15 on")
@pytest.mark.parametrize("make", ["Value", "RawValue", "Array", "RawArray"])
def test_a_bad_typecode_is_named(ctx, make):
    with pytest.raises(TypeError, match="bad typecode 'x'"):
        getattr(ctx, make)("x", 1)
