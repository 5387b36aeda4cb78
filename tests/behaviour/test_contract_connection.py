"""What Pipe, Connection, Listener, Client and wait promise, for each start method."""

import array
import contextlib
import os
import socket
import threading
import time

import pytest
from process_helpers import finish, started

from under_test import mp as library
from under_test import submodule


@pytest.fixture
def connection():
    """The module."""
    return submodule("connection")


@pytest.fixture
def pipe(ctx):
    """Make pipes and close them with the test."""
    with contextlib.ExitStack() as stack:

        def make(duplex=True):
            ends = ctx.Pipe(duplex)
            for end in ends:
                stack.callback(lambda end=end: end.closed or end.close())
            return ends

        yield make


def echo(end, times):
    for _ in range(times):
        end.send(end.recv())
    end.close()


def send_late(end, seconds, item):
    time.sleep(seconds)
    end.send(item)
    end.close()


def pass_on(end):
    passed = end.recv()
    passed.send("through another process")
    passed.close()
    end.close()


def send_to_socket(end):
    own = end.recv()
    own.sendall(b"from the child")
    own.close()
    end.close()


SIZES = [0, 1, 4095, 4096, 16383, 16384, 16385, 65536, 1_000_003]


def test_objects_come_back(ctx, pipe):
    ours, theirs = pipe()
    items = (None, 1, "text", [1, {"two": (3,)}], b"x" * 200_000, RuntimeError("an error"))
    process = started(ctx, echo, theirs, len(items))
    theirs.close()
    for item in items:
        ours.send(item)
        received = ours.recv()
        assert repr(received) == repr(item) and type(received) is type(item)
    ours.close()
    finish(process)


@pytest.mark.parametrize("size", SIZES)
def test_bytes_of_any_size_come_back(pipe, size):
    ours, theirs = pipe()
    message = os.urandom(size)
    thread = threading.Thread(target=ours.send_bytes, args=(message,))
    thread.start()
    assert theirs.recv_bytes() == message
    thread.join()


def test_parts_of_buffers(pipe):
    ours, theirs = pipe()
    for buffer in (b"0123456789", bytearray(b"0123456789"), memoryview(b"0123456789")):
        ours.send_bytes(buffer)
        ours.send_bytes(buffer, 2)
        ours.send_bytes(buffer, 2, 3)
        assert [theirs.recv_bytes() for _ in range(3)] == [b"0123456789", b"23456789", b"234"]
    ours.send_bytes(array.array("i", [1, 2, 3]))
    received = array.array("i", [0] * 5)
    assert theirs.recv_bytes_into(received, 4) == 12
    assert list(received) == [0, 1, 2, 3, 0]


def test_what_is_too_long_is_told(mp, pipe):
    ours, theirs = pipe()
    ours.send_bytes(b"twelve bytes")
    with pytest.raises(mp.BufferTooShort) as caught:
        theirs.recv_bytes_into(bytearray(5))
    assert caught.value.args == (b"twelve bytes",)
    ours.send_bytes(b"short")
    assert theirs.recv_bytes(5) == b"short"
    ours.send_bytes(b"longer")
    with pytest.raises(OSError, match="bad message length"):
        theirs.recv_bytes(5)
    assert theirs.closed or not theirs.readable


def test_bad_arguments(pipe):
    ours, theirs = pipe()
    with pytest.raises(ValueError, match="offset is negative"):
        ours.send_bytes(b"123", -1)
    with pytest.raises(ValueError, match="buffer length < offset"):
        ours.send_bytes(b"123", 4)
    with pytest.raises(ValueError, match="size is negative"):
        ours.send_bytes(b"123", 0, -1)
    with pytest.raises(ValueError, match=r"buffer length < offset \+ size"):
        ours.send_bytes(b"123", 1, 3)
    with pytest.raises(TypeError):
        ours.send_bytes("text")
    with pytest.raises(ValueError, match="negative maxlength"):
        theirs.recv_bytes(-1)
    with pytest.raises(ValueError, match="negative offset"):
        theirs.recv_bytes_into(bytearray(5), -1)
    with pytest.raises(ValueError, match="offset too large"):
        theirs.recv_bytes_into(bytearray(5), 6)
    ours.send("still works")
    assert theirs.recv() == "still works"


def test_one_way(pipe):
    receiver, sender = pipe(duplex=False)
    assert (receiver.readable, receiver.writable) == (True, False)
    assert (sender.readable, sender.writable) == (False, True)
    with pytest.raises(OSError, match="connection is read-only"):
        receiver.send(1)
    with pytest.raises(OSError, match="connection is write-only"):
        sender.recv()
    with pytest.raises(OSError, match="connection is write-only"):
        sender.poll()


def test_the_end_of_the_other_side(pipe):
    ours, theirs = pipe()
    theirs.send("last words")
    theirs.close()
    assert ours.poll() and ours.recv() == "last words"
    assert ours.poll()
    with pytest.raises(EOFError):
        ours.recv()
    with pytest.raises(BrokenPipeError):
        ours.send("too late")


def test_a_closed_end_refuses(pipe):
    ours, _ = pipe()
    descriptor = ours.fileno()
    ours.close()
    ours.close()
    assert ours.closed
    for use in (ours.recv, ours.poll, ours.fileno, lambda: ours.send(1)):
        with pytest.raises(OSError, match="handle is closed"):
            use()
    with pytest.raises(OSError):
        os.fstat(descriptor)


def test_poll_waits(ctx, pipe):
    ours, theirs = pipe()
    assert ours.poll() is False
    begun = time.monotonic()
    assert ours.poll(0.1) is False
    assert 0.09 <= time.monotonic() - begun < 5
    process = started(ctx, send_late, theirs, 0.1, "now")
    assert ours.poll(None) is True
    assert ours.recv() == "now"
    finish(process)


def test_a_connection_is_sent_through_a_connection(ctx, pipe):
    ours, theirs = pipe()
    receiver, sender = pipe(duplex=False)
    process = started(ctx, pass_on, theirs)
    theirs.close()
    ours.send(sender)
    sender.close()
    assert receiver.recv() == "through another process"
    with pytest.raises(EOFError):
        receiver.recv()
    finish(process)


def test_a_socket_is_sent_through_a_connection(ctx, pipe):
    ours, theirs = pipe()
    near, far = socket.socketpair()
    process = started(ctx, send_to_socket, theirs)
    ours.send(far)
    far.close()
    with near:
        assert near.recv(100) == b"from the child"
        assert near.recv(100) == b""
    finish(process)


def test_wait_returns_what_is_ready(ctx, connection, pipe):
    (first, first_other), (second, second_other) = pipe(), pipe()
    near, far = socket.socketpair()
    process = started(ctx, send_late, second_other, 0.1, "hello")
    with near, far:
        candidates = [first, second, near, process.sentinel]
        assert connection.wait([first, near], timeout=0) == []
        ready = connection.wait(candidates, timeout=30)
        assert second in ready and first not in ready and near not in ready
        assert second.recv() == "hello"
        far.send(b"1")
        first_other.send(1)
        process.join()
        assert connection.wait([process.sentinel], timeout=30) == [process.sentinel]
        assert connection.wait([first, near, process.sentinel], timeout=30) == [first, near, process.sentinel]
    assert connection.wait([first.fileno()], timeout=0) == [first.fileno()]
    finish(process)


def test_wait_keeps_its_timeout(connection, pipe):
    ours, _ = pipe()
    begun = time.monotonic()
    assert connection.wait([ours], timeout=0.1) == []
    assert 0.09 <= time.monotonic() - begun < 5
    assert connection.wait([ours], timeout=-1) == []


def connect(address, authkey, message):
    with submodule("connection").Client(address, authkey=authkey) as client:
        client.send(message)
        assert client.recv() == message


@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX", None])
@pytest.mark.parametrize("authkey", [None, b"a key"])
def test_listeners_and_clients(ctx, connection, family, authkey):
    with connection.Listener(family=family, authkey=authkey) as listener:
        process = started(ctx, connect, listener.address, authkey, "hello")
        with listener.accept() as accepted:
            accepted.send(accepted.recv())
            with pytest.raises(EOFError):
                accepted.recv()
        assert isinstance(listener.last_accepted, tuple if family == "AF_INET" else str)
        finish(process)
    with pytest.raises(OSError, match="listener is closed"):
        listener.accept()


def present_wrong_key(address):
    try:
        submodule("connection").Client(address, authkey=b"wrong")
    except library.AuthenticationError:
        return
    raise AssertionError("the wrong key was taken")


def test_a_wrong_key_is_refused_and_the_listener_goes_on(ctx, mp, connection):
    with connection.Listener(authkey=b"right") as listener:
        process = started(ctx, present_wrong_key, listener.address)
        with pytest.raises(mp.AuthenticationError):
            listener.accept()
        finish(process)
        process = started(ctx, connect, listener.address, b"right", 1)
        with listener.accept() as accepted:
            accepted.send(accepted.recv())
        finish(process)


@pytest.mark.filterwarnings("ignore::ResourceWarning")  # the listener whose authkey is refused
def test_bad_addresses(connection):
    with pytest.raises(TypeError, match="address type of 12345 unrecognized"):
        connection.Client(12345)
    with pytest.raises(ValueError, match="not recognized"):
        connection.Listener(r"\\.\test", family=None)
    with pytest.raises(TypeError, match="authkey should be a byte string"):
        connection.Listener(authkey="text")
    with pytest.raises(ConnectionRefusedError):
        connection.Client(unused_address())


def unused_address():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()
