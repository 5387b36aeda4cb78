"""SharedMemory and ShareableList: memory by name."""

import contextlib
import os
import pickle
import struct
import subprocess
import sys

import numpy
import pytest

from under_test import mp as library
from under_test import submodule

shared_memory = submodule("shared_memory")
SharedMemory, ShareableList = shared_memory.SharedMemory, shared_memory.ShareableList

ITEMS = ["howdy", b"HoWdY", -273.154, 100, None, True, False, 2**62, "", b"", "x" * 8, "\u20ac", -(2**63)]


@pytest.fixture
def memory():
    memory = SharedMemory(create=True, size=1000)
    yield memory
    memory.close()
    with contextlib.suppress(FileNotFoundError):
        memory.unlink()


@pytest.fixture
def items():
    items = ShareableList(ITEMS)
    yield items
    items.shm.close()
    items.shm.unlink()


def write(memory, data):
    if isinstance(memory, str):
        memory = SharedMemory(memory)
    memory.buf[: len(data)] = data
    memory.close()


def test_a_child_writes(mp, ctx, memory):
    for given, data in ((memory.name, b"by name"), (memory, b"by pickle")):
        process = ctx.Process(target=write, args=(given, data))
        process.start()
        process.join()
        assert process.exitcode == 0
        process.close()
        assert bytes(memory.buf[: len(data)]) == data


def test_names(memory):
    assert memory.name.startswith("psm_") and memory._name == "/" + memory.name
    assert os.path.exists("/dev/shm/" + memory.name)
    assert os.stat("/dev/shm/" + memory.name).st_mode & 0o777 == 0o600
    with pytest.raises(FileExistsError) as raised:
        SharedMemory(memory.name, create=True, size=10)
    assert raised.value.filename == memory._name
    with pytest.raises(FileNotFoundError) as raised:
        SharedMemory(memory.name + "-not")
    assert raised.value.filename == memory._name + "-not"
    with pytest.raises(OSError):
        SharedMemory("a/b", create=True, size=10)


@pytest.mark.rsmp_only("the standard library ends the name there")
def test_a_name_with_a_null_character():
    with pytest.raises(ValueError):
        SharedMemory("a\0b", create=True, size=10)


def test_sizes(memory):
    assert memory.size == 1000 == len(memory.buf)
    assert bytes(memory.buf) == bytes(1000)
    same = SharedMemory(memory.name, size=5)
    assert same.size == 1000
    same.close()
    for size in (0, -1):
        with pytest.raises(ValueError):
            SharedMemory(create=True, size=size)
    with pytest.raises(ValueError, match="'name' can only be None"):
        SharedMemory()
    with pytest.raises((OSError, OverflowError, MemoryError)):
        SharedMemory(create=True, size=1 << 62)
    assert repr(memory) == f"SharedMemory({memory.name!r}, size=1000)"


def test_an_empty_segment_cannot_be_attached(memory):
    os.truncate("/dev/shm/" + memory.name, 0)
    with pytest.raises(ValueError, match="cannot mmap an empty file"):
        SharedMemory(memory.name)


def test_close_waits_for_views(memory):
    view = memory.buf[:10]
    with pytest.raises(BufferError):
        memory.close()
    view.release()
    memory.close()
    memory.close()
    assert memory.buf is None
    assert memory.name and memory.size == 1000


def test_memory_outlives_its_name(memory):
    other = SharedMemory(memory.name)
    memory.unlink()
    with pytest.raises(FileNotFoundError):
        memory.unlink()
    memory.buf[0] = 7
    assert other.buf[0] == 7
    other.close()


def test_a_view_keeps_the_memory(memory):
    array = numpy.frombuffer(memory.buf, dtype="i4", count=10)
    array[:] = 5
    assert memory.buf[0] == 5
    with pytest.raises(BufferError):
        memory.close()
    assert array.sum() == 50
    del array


def test_pickles(memory):
    for protocol in range(pickle.HIGHEST_PROTOCOL + 1):
        same = pickle.loads(pickle.dumps(memory, protocol))
        assert type(same) is SharedMemory and same.name == memory.name
        same.buf[0] = protocol + 1
        assert memory.buf[0] == protocol + 1
        same.close()


def test_the_descriptor(memory):
    assert os.fstat(memory._fd).st_size == 1000
    descriptor = memory._fd
    memory.close()
    assert memory._fd == -1
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_subclasses_say_how_to_open(memory):
    class Attaching(SharedMemory):
        _flags = os.O_CREAT | os.O_RDWR

    same = Attaching(memory.name)
    assert same.size == 1000
    same.close()

    class Open(SharedMemory):
        _mode = 0o644

    opened = Open(create=True, size=10)
    assert os.stat("/dev/shm/" + opened.name).st_mode & 0o777 == 0o644
    opened.close()
    opened.unlink()


def test_names_are_made_by_a_function_that_can_be_replaced(memory, monkeypatch):
    names = [memory._name, memory._name + "2"]
    monkeypatch.setattr(shared_memory, "_make_filename", lambda: names.pop(0))
    other = SharedMemory(create=True, size=1)
    assert other._name == memory._name + "2"
    other.close()
    other.unlink()


@pytest.mark.rsmp_only("track= came with Python 3.13")
def test_tracking(monkeypatch):
    told = []
    tracker = submodule("resource_tracker")
    for name in ("register", "unregister"):
        monkeypatch.setattr(tracker, name, lambda *what, name=name: told.append((name, *what)))
    for track in (True, False):
        memory = SharedMemory(create=True, size=1, track=track)
        memory.close()
        memory.unlink()
        if track:
            assert told == [("register", memory._name, "shared_memory"), ("unregister", memory._name, "shared_memory")]
            told.clear()
    assert not told


def test_a_killed_program_leaves_nothing():
    program = f"""if 1:
        import os, {library.__name__}.shared_memory as module
        memory = module.SharedMemory(create=True, size=10)
        print(memory.name, flush=True)
        os.kill(os.getpid(), 9)
    """
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=30)
    assert "1 leaked shared_memory object" in done.stderr
    assert not os.path.exists("/dev/shm/" + done.stdout.strip())


def test_list_items(items):
    assert list(items) == ITEMS
    assert [type(item) for item in items] == [type(item) for item in ITEMS]
    assert len(items) == len(ITEMS)
    assert items[-1] == ITEMS[-1] and items[-len(ITEMS)] == "howdy"
    assert items.format.startswith("8s8sdqxxxxxx?xxxxxxxx?")
    assert items.index(100) == 3 and items.count(True) == 1
    assert repr(items) == f"ShareableList({ITEMS!r}, name={items.shm.name!r})"
    for index in (len(ITEMS), 10**6):
        with pytest.raises(IndexError, match="index out of range"):
            items[index]
        with pytest.raises(IndexError, match="assignment index out of range"):
            items[index] = 1
    with pytest.raises(TypeError):
        items["1"]
    with pytest.raises(TypeError):
        items[:2]


def test_list_items_change(items):
    for index in range(len(ITEMS)):
        for value in (1, 2.5, None, False, "abc", b"abc", "", 2**63 - 1):
            items[index] = value
            assert items[index] == value and type(items[index]) is type(value)
    assert len(items) == len(ITEMS)
    items[0] = "12345678"
    with pytest.raises(ValueError, match="exceeds available storage"):
        items[0] = "123456789"
    assert items[0] == "12345678"
    with pytest.raises(struct.error):
        items[1] = 2**63
    with pytest.raises(KeyError):
        items[1] = [1]
    items[1] = b"ok\0\0"
    assert items[1] == b"ok"


def test_lists_have_the_standard_layout(items):
    import multiprocessing.shared_memory as standard

    theirs = standard.ShareableList(name=items.shm.name)
    assert list(theirs) == ITEMS
    theirs[0] = "theirs"
    items[1] = None
    assert (items[0], theirs[1]) == ("theirs", None)
    theirs.shm.close()
    standard.resource_tracker.register(items.shm._name, "shared_memory")
    theirs = standard.ShareableList(ITEMS)
    ours = ShareableList(name=theirs.shm.name)
    assert list(ours) == ITEMS
    assert ours.format == theirs.format
    assert ours._allocated_offsets == theirs._allocated_offsets
    ours.shm.close()
    theirs.shm.close()
    theirs.shm.unlink()
    standard.resource_tracker.register(items.shm._name, "shared_memory")


def test_lists_are_pickled_and_copied(items):
    same = pickle.loads(pickle.dumps(items))
    same[3] = 7
    assert items[3] == 7 and type(same) is ShareableList
    copy = ShareableList(items)
    copy[3] = 8
    assert items[3] == 7 and copy[3] == 8
    for other in (same, copy):
        other.shm.close()
    copy.shm.unlink()


def test_a_closed_list(items):
    items.shm.close()
    with pytest.raises(TypeError):
        items[0]
    with pytest.raises(TypeError):
        items[0] = 1


def test_what_a_list_cannot_hold():
    with pytest.raises(KeyError):
        ShareableList([1, [2]])
    with pytest.raises(KeyError):
        ShareableList([1, 1j])


@pytest.mark.rsmp_only("the standard library reads whatever is there")
def test_a_segment_without_a_list(memory):
    memory.buf[:8] = b"\xff" * 8
    with pytest.raises((OSError, ValueError)):
        ShareableList(name=memory.name)
    memory.buf[:16] = struct.pack("qq", 1, 1 << 40)
    with pytest.raises((OSError, ValueError)):
        ShareableList(name=memory.name)


@pytest.mark.rsmp_only("the standard library cuts the text off")
def test_text_is_never_cut_off():
    items = ShareableList(["\u20ac" * 8])
    assert items[0] == "\u20ac" * 8
    items.shm.close()
    items.shm.unlink()
