"""Wrong arguments, closed and foreign handles, what cannot be pickled, garbage: a clear error, nothing lost or hung."""

import os
import pickle
import socket
import struct
import threading

import pytest

from under_test import submodule


class Unpicklable:
    """Refuses to be pickled."""

    def __reduce__(self):
        raise RuntimeError("not to be pickled")


class Unloadable:
    """Is pickled, and fails where it is loaded."""

    def __reduce__(self):
        return fail_to_load, ()


def fail_to_load():
    raise RuntimeError("not to be loaded")


def close(*things):
    for thing in things:
        thing.close()
        if hasattr(thing, "join_thread"):
            thing.join_thread()


def test_wrong_arguments_of_locks(mp):
    for call, error in [
        (lambda: mp.Semaphore("one"), TypeError),
        (lambda: mp.Semaphore(-1), (ValueError, OSError)),
        (lambda: mp.Semaphore(2**80), (OverflowError, ValueError, OSError)),
        (lambda: mp.Lock().acquire(timeout="soon"), TypeError),
        (lambda: mp.Lock().acquire(True, 1, 2), TypeError),
        (lambda: mp.Lock(1), TypeError),
        (lambda: mp.Event().wait("long"), TypeError),
        (lambda: mp.Condition().notify(1), AssertionError),
        (lambda: mp.RLock().release(), AssertionError),
    ]:
        with pytest.raises(error):
            call()


def test_wrong_arguments_of_queues(mp):
    with pytest.raises(TypeError):
        mp.Queue("ten")
    with pytest.raises(TypeError):
        mp.SimpleQueue(10)
    q = mp.Queue(1)
    q.put(1)
    with pytest.raises(TypeError):
        q.put(2, timeout="soon")
    assert q.get(timeout=10) == 1
    with pytest.raises(TypeError):
        q.get(timeout="soon")
    q.put("still works")
    assert q.get(timeout=10) == "still works"
    close(q)


def test_wrong_arguments_of_processes(mp):
    for call, error in [
        (lambda: mp.Process(None, None, None, 5), TypeError),
        (lambda: mp.Process(group=1), AssertionError),
        (lambda: mp.Process(target=5, args=7), TypeError),
        (lambda: mp.get_context("no such method"), ValueError),
        (lambda: mp.set_start_method("no such method", force=True), ValueError),
    ]:
        with pytest.raises(error):
            call()
    process = mp.Process()
    with pytest.raises(AssertionError):
        process.name = 5
    with pytest.raises(TypeError):
        process.authkey = "text"


def test_what_cannot_be_pickled_through_a_pipe(ctx):
    ours, theirs = ctx.Pipe()
    for item in (lambda: 1, Unpicklable(), threading.Lock(), (n for n in range(3)), {"key": [open]} | {1: lambda: 2}):
        with pytest.raises((pickle.PicklingError, AttributeError, TypeError, RuntimeError)):
            ours.send(item)
    ours.send("still works")
    assert theirs.recv() == "still works"
    close(ours, theirs)


def test_what_cannot_be_loaded_from_a_pipe(ctx):
    ours, theirs = ctx.Pipe()
    ours.send(Unloadable())
    ours.send("next")
    with pytest.raises(RuntimeError, match="not to be loaded"):
        theirs.recv()
    assert theirs.recv() == "next"
    close(ours, theirs)


@pytest.mark.parametrize("kind", ["Queue", "SimpleQueue", "JoinableQueue"])
def test_what_cannot_be_loaded_from_a_queue(ctx, kind):
    q = getattr(ctx, kind)()
    q.put(Unloadable())
    q.put("next")
    with pytest.raises(RuntimeError, match="not to be loaded"):
        q.get()
    assert q.get() == "next"
    close(q)


def test_arguments_that_cannot_be_pickled(mp):
    for method in ("spawn", "forkserver"):
        process = mp.get_context(method).Process(target=print, args=(Unpicklable(),))
        with pytest.raises(RuntimeError, match="not to be pickled"):
            process.start()
        assert process not in mp.active_children()


def test_messages_that_are_no_pickles(ctx):
    ours, theirs = ctx.Pipe()
    for garbage in (b"", b"garbage", b"\x80\x05", b"\x80\xff", bytes(range(256))):
        ours.send_bytes(garbage)
        with pytest.raises((pickle.UnpicklingError, EOFError, ValueError, KeyError, IndexError, OSError)):
            theirs.recv()
    ours.send("still works")
    assert theirs.recv() == "still works"
    close(ours, theirs)


@pytest.mark.parametrize(
    ("sent", "error"),
    [
        (b"", EOFError),
        (b"\0\0", (EOFError, OSError)),
        (struct.pack("!i", 100) + b"too short", (EOFError, OSError)),
        (struct.pack("!i", -1) + b"\0\0", (EOFError, OSError)),
    ],
)
def test_frames_that_are_cut_off(sent, error):
    receive_frame(sent, error)


@pytest.mark.rsmp_only("the standard library takes a negative length for an empty message")
@pytest.mark.parametrize("length", [-2, -(2**31)])
def test_frames_of_negative_length(length):
    receive_frame(struct.pack("!i", length), OSError)


def receive_frame(sent, error):
    ours, theirs = socket.socketpair()
    connection = submodule("connection").Connection(theirs.detach())
    ours.sendall(sent)
    ours.close()
    with pytest.raises(error):
        connection.recv_bytes()
    connection.close()


@pytest.mark.rsmp_only("the standard library allocates what a peer announces")
def test_a_frame_that_announces_too_much_allocates_nothing():
    ours, theirs = socket.socketpair()
    connection = submodule("connection").Connection(theirs.detach())
    ours.sendall(struct.pack("!iQ", -1, 2**60) + b"a little")
    ours.close()
    with pytest.raises((EOFError, OSError, MemoryError)):
        connection.recv_bytes()
    connection.close()


def test_handles_that_are_none(mp):
    connection = submodule("connection").Connection
    with pytest.raises(ValueError, match="invalid handle"):
        connection(-1)
    with pytest.raises((TypeError, AttributeError)):
        connection("text")
    with pytest.raises(ValueError, match="at least one of"):
        connection(5, readable=False, writable=False)
    reader, writer = os.pipe()
    os.close(writer)
    os.close(reader)
    stale = connection(reader)
    with pytest.raises(OSError, match="Bad file descriptor"):
        stale.recv()
    stale._handle = None


def test_wait_on_what_cannot_be_waited_for():
    wait = submodule("connection").wait
    with pytest.raises((ValueError, TypeError)):
        wait(["text"], timeout=0)
    with pytest.raises((ValueError, TypeError)):
        wait([object()], timeout=0)


def test_wrong_arguments_of_shared_memory():
    shared_memory = submodule("shared_memory")
    for arguments, error in [
        ({"create": True, "size": 0}, ValueError),
        ({"create": True, "size": -5}, ValueError),
        ({"create": True, "size": "ten"}, TypeError),
        ({"name": "no-such-segment"}, FileNotFoundError),
        ({}, ValueError),
    ]:
        with pytest.raises(error):
            shared_memory.SharedMemory(**arguments)
    memory = shared_memory.SharedMemory(create=True, size=16)
    with pytest.raises(FileExistsError):
        shared_memory.SharedMemory(memory.name, create=True, size=16)
    with pytest.raises(IndexError):
        memory.buf[memory.size] = 1
    memory.close()
    memory.close()
    memory.unlink()
    with pytest.raises(FileNotFoundError):
        shared_memory.SharedMemory(memory.name)


def test_wrong_use_of_shareable_lists():
    shareable_list = submodule("shared_memory").ShareableList
    shared = shareable_list([1, "text", None])
    with pytest.raises(IndexError):
        shared[3]
    with pytest.raises(ValueError, match="exceeds available storage"):
        shared[1] = "much longer than what was there before"
    assert list(shared) == [1, "text", None]
    shared.shm.close()
    shared.shm.unlink()


def test_garbage_to_a_listener(ctx, mp):
    connection = submodule("connection")
    for garbage in (b"", b"\xff" * 100, struct.pack("!i", 5) + b"wrong", struct.pack("!i", 2**30)):
        with connection.Listener(("127.0.0.1", 0), authkey=b"key") as listener:
            stranger = socket.create_connection(listener.address)
            stranger.sendall(garbage)
            stranger.shutdown(socket.SHUT_WR)
            with pytest.raises((mp.AuthenticationError, EOFError, OSError)):
                listener.accept()
            stranger.close()
