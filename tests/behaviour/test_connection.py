"""Connections: what they carry, how they end, what they refuse, and what others replace on them."""

import array
import copy
import io
import os
import pickle
import signal
import struct
import subprocess
import sys

import pytest
from connection_helpers import LARGE, frame, in_thread

from under_test import submodule

connection = submodule("connection")


class Number(int):
    pass


class Text(str):
    pass


# Objects and bytes


@pytest.mark.parametrize(
    "value",
    [
        None,
        7,
        "text",
        "ünïcode" * 20_000,
        b"",
        b"x" * 2044,
        b"y" * 65_535,
        b"z" * 65_536,
        os.urandom(LARGE),
        bytearray(b"w" * 70_000),
        [b"v" * 70_000] * 2,
        {"key": [1.5, (2, 3)], b"u" * 65_536: {4}},
    ],
    ids=lambda value: f"{type(value).__name__}-{len(pickle.dumps(value))}",
)
@pytest.mark.parametrize("ends", ["pair", "simplex"])
def test_objects_arrive_as_they_were_sent(request, ends, value):
    receiver, sender = request.getfixturevalue(ends)
    thread = in_thread(sender.send, value)
    received = receiver.recv()
    thread.join()
    assert received == value
    assert type(received) is type(value)


def test_identity_inside_a_message_is_kept(pair):
    inner = [1]
    pair[0].send([inner, inner])
    first, second = pair[1].recv()
    assert first is second


def test_the_wire_is_the_documented_one(pair):
    first, second = pair
    first.send_bytes(b"hello")
    first.send_bytes(b"")
    first.send(("a", 1))
    expected = frame(b"hello") + frame(b"") + frame(pickle.dumps(("a", 1)))
    assert os.read(second.fileno(), 1000) == expected
    os.write(second.fileno(), frame(b"raw") + frame(pickle.dumps(3)) + struct.pack("!iQ", -1, 4) + b"long")
    assert first.recv_bytes() == b"raw"
    assert first.recv() == 3
    assert first.recv_bytes() == b"long"


SCALARS = [
    *(None, True, False, 0.0, -0.0, 1e300, float("inf")),
    *(
        sign * (2**bits + offset)
        for bits in (0, 7, 8, 15, 16, 31, 32, 39, 62, 63, 64)
        for offset in (-1, 0)
        for sign in (1, -1)
    ),
    *("x" * length for length in (0, 1, 2, 255, 256, 65_535, 65_536)),
    *("\u20ac" * length for length in (1, 85, 86, 30_000)),
    "lone surrogate \ud800",
    *(b"x" * length for length in (0, 1, 2, 255, 256, 61_440, 61_441, 65_535, 65_536, 100_000)),
]


@pytest.mark.parametrize("value", SCALARS, ids=range(len(SCALARS)))
def test_scalars_have_the_pickle_they_always_had(pair, value):
    thread = in_thread(pair[0].send, value)
    received = pair[1].recv_bytes()
    thread.join()
    assert received == pickle.dumps(value)


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("value", SCALARS, ids=range(len(SCALARS)))
def test_scalars_of_any_protocol_are_read(pair, protocol, value):
    thread = in_thread(pair[0].send_bytes, pickle.dumps(value, protocol))
    received = pair[1].recv()
    thread.join()
    assert type(received) is type(value)
    assert repr(received) == repr(value)


def test_subclasses_of_scalars_stay_what_they_are(pair):
    for value in (signal.SIGINT, Number(3), Text("text")):
        pair[0].send(value)
        received = pair[1].recv()
        assert received == value
        assert type(received) is type(value)


@pytest.mark.parametrize("ending", [b"\x94N.", b"\x94.N", b"N"])
def test_what_only_looks_like_a_large_bytes_object(pair, ending):
    message = b"\x80\x04B" + struct.pack("<I", 65_536) + bytes(65_536) + ending
    thread = in_thread(pair[0].send_bytes, message)
    try:
        expected = pickle.loads(message)
    except Exception as error:
        with pytest.raises(type(error)):
            pair[1].recv()
    else:
        assert pair[1].recv() == expected
    thread.join()
    pair[0].send("next")
    assert pair[1].recv() == "next"


def test_parts_of_a_buffer(pair):
    first, second = pair
    for args, expected in {
        (): b"0123456789",
        (3,): b"3456789",
        (3, 4): b"3456",
        (10,): b"",
        (0, 0): b"",
        (2, None): b"23456789",
    }.items():
        first.send_bytes(b"0123456789", *args)
        assert second.recv_bytes() == expected
    first.send_bytes(memoryview(b"abc"), offset=1, size=1)
    assert second.recv_bytes() == b"b"
    first.send_bytes(array.array("i", [1, 2]))
    assert second.recv_bytes() == array.array("i", [1, 2]).tobytes()


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((b"abc", -1), "offset is negative"),
        ((b"abc", 4), "buffer length < offset"),
        ((b"abc", 0, -1), "size is negative"),
        ((b"abc", 1, 3), r"buffer length < offset \+ size"),
    ],
)
def test_parts_that_are_not_there(pair, args, message):
    with pytest.raises(ValueError, match=message):
        pair[0].send_bytes(*args)
    assert not pair[1].poll()


@pytest.mark.parametrize("value", ["text", 3, None])
def test_only_buffers_are_sent_as_bytes(pair, value):
    with pytest.raises(TypeError):
        pair[0].send_bytes(value)


def test_what_cannot_be_pickled_is_not_sent(pair):
    with pytest.raises((pickle.PicklingError, AttributeError)):
        pair[0].send([1, lambda: None])
    pair[0].send("next")
    assert pair[1].recv() == "next"


def test_receiving_into_a_buffer(pair):
    first, second = pair
    buffer = bytearray(8)
    first.send_bytes(b"abc")
    assert second.recv_bytes_into(buffer) == 3
    assert buffer == b"abc" + bytes(5)
    first.send_bytes(b"de")
    assert second.recv_bytes_into(buffer, 6) == 2
    assert buffer == b"abc" + bytes(3) + b"de"
    numbers = array.array("i", [0] * 4)
    first.send_bytes(array.array("i", [5, 6]))
    assert second.recv_bytes_into(numbers, 2 * numbers.itemsize) == 2 * numbers.itemsize
    assert list(numbers) == [0, 0, 5, 6]
    with pytest.raises(ValueError, match="negative offset"):
        second.recv_bytes_into(buffer, -1)
    with pytest.raises(ValueError, match="offset too large"):
        second.recv_bytes_into(buffer, 9)


@pytest.mark.parametrize("length", [9, 3000, LARGE])
def test_a_buffer_too_short_loses_nothing(mp, pair, length):
    message = os.urandom(length)
    thread = in_thread(pair[0].send_bytes, message)
    with pytest.raises(mp.BufferTooShort) as caught:
        pair[1].recv_bytes_into(bytearray(8))
    thread.join()
    assert caught.value.args == (message,)


@pytest.mark.rsmp_only("the standard library takes the message first, and loses it")
def test_a_buffer_that_cannot_be_written_costs_no_message(pair):
    pair[0].send_bytes(b"kept")
    for buffer in (b"read only", memoryview(bytearray(8))[::2]):
        with pytest.raises((TypeError, BufferError)):
            pair[1].recv_bytes_into(buffer)
    assert pair[1].recv_bytes() == b"kept"


def test_a_message_longer_than_allowed_ends_reading(pair):
    first, second = pair
    first.send_bytes(b"12345")
    assert second.recv_bytes(5) == b"12345"
    with pytest.raises(ValueError, match="negative maxlength"):
        second.recv_bytes(-1)
    first.send_bytes(b"123456")
    with pytest.raises(OSError, match="bad message length"):
        second.recv_bytes(5)
    assert not second.readable
    assert not second.closed
    with pytest.raises(OSError, match="write-only"):
        second.recv_bytes()
    second.send("still writable")
    assert first.recv() == "still writable"


def test_a_message_longer_than_allowed_closes_what_only_reads(simplex):
    simplex[1].send_bytes(b"123456")
    with pytest.raises(OSError, match="bad message length"):
        simplex[0].recv_bytes(5)
    assert simplex[0].closed


# The end of the other side, truncation, garbage


def test_end_of_file(pair):
    first, second = pair
    first.send("last")
    first.close()
    assert second.poll()
    assert second.recv() == "last"
    assert second.poll()
    for receive in (second.recv, second.recv_bytes, lambda: second.recv_bytes_into(bytearray(8))):
        with pytest.raises(EOFError):
            receive()
    with pytest.raises(BrokenPipeError):
        second.send("nobody")


@pytest.mark.parametrize("cut", range(1, 9))
def test_truncated_messages(simplex, cut):
    receiver, sender = simplex
    os.write(sender.fileno(), frame(b"hello")[:cut])
    sender.close()
    expected = EOFError if cut == 4 else OSError
    with pytest.raises(expected):
        receiver.recv_bytes()


@pytest.mark.rsmp_only("the standard library takes a negative length for an empty message, a huge one for a size")
@pytest.mark.parametrize(
    "garbage",
    [struct.pack("!i", -2), struct.pack("!iQ", -1, 1 << 60), struct.pack("!iQ", -1, (1 << 64) - 1), b"\x80\0\0\0"],
    ids=["minus-two", "2**60", "2**64", "most-negative"],
)
def test_garbage_is_an_error(pair, garbage):
    os.write(pair[0].fileno(), garbage)
    with pytest.raises(OSError, match="bad message length"):
        pair[1].recv()
    assert not pair[1].readable


@pytest.mark.rsmp_only("the standard library allocates what is announced")
def test_memory_follows_what_came_not_what_was_announced(pair):
    os.write(pair[0].fileno(), struct.pack("!iQ", -1, 1 << 45) + b"x" * 1000)
    pair[0].close()
    with pytest.raises(OSError, match="end of file during message"):
        pair[1].recv_bytes()


# Arguments, states


@pytest.mark.parametrize("handle", [-1, -44])
def test_negative_handles(handle):
    with pytest.raises(ValueError, match="invalid handle"):
        connection.Connection(handle)


def test_constructor(mp):
    with pytest.raises(ValueError, match="at least one of"):
        connection.Connection(0, readable=False, writable=False)
    with pytest.raises((TypeError, AttributeError)):
        connection.Connection("3")
    conn = connection.Connection(44977608)
    with pytest.raises(OSError):
        conn.send(1)
    with pytest.raises(OSError):
        conn.recv()
    assert conn.fileno() == 44977608
    conn._handle = None
    assert conn.closed


def test_one_way(simplex):
    receiver, sender = simplex
    assert (receiver.readable, receiver.writable) == (True, False)
    assert (sender.readable, sender.writable) == (False, True)
    for call in (lambda: receiver.send(1), lambda: receiver.send_bytes(b"")):
        with pytest.raises(OSError, match="connection is read-only"):
            call()
    for call in (sender.recv, sender.recv_bytes, sender.poll, lambda: sender.recv_bytes_into(bytearray(1))):
        with pytest.raises(OSError, match="connection is write-only"):
            call()


def test_closed(pair):
    conn = pair[0]
    number = conn.fileno()
    assert not conn.closed
    conn.close()
    conn.close()
    assert conn.closed
    with pytest.raises(OSError):
        os.fstat(number)
    for call in (
        conn.fileno,
        conn.poll,
        conn.recv,
        conn.recv_bytes,
        lambda: conn.send(1),
        lambda: conn.send_bytes(b""),
        lambda: conn.recv_bytes_into(bytearray(1)),
        lambda: connection.wait([conn]),
    ):
        with pytest.raises(OSError, match="handle is closed"):
            call()


def test_a_descriptor_is_closed_with_its_connection(mp):
    first, second = mp.Pipe()
    numbers = [first.fileno(), second.fileno()]
    del first
    with second:
        pass
    for number in numbers:
        with pytest.raises(OSError):
            os.fstat(number)


def test_a_failing_close_still_closes(pair):
    os.close(pair[0].fileno())
    with pytest.raises(OSError):
        pair[0].close()
    assert pair[0].closed


def test_a_copy_has_the_same_handle(pair):
    twin = copy.copy(pair[0])
    assert twin.fileno() == pair[0].fileno()
    twin._handle = None


def test_descriptors_are_closed_on_exec(pair, simplex):
    for conn in (*pair, *simplex):
        assert not os.get_inheritable(conn.fileno())


def test_connections_left_open_at_exit_are_silent(mp):
    code = f"import {mp.__name__} as mp; ends = mp.Pipe(); mp.left = ends; import sys; sys.modules['left'] = mp"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stderr == ""


# What others replace


def test_a_replaced_send_bytes_on_the_instance(pair):
    sent = []
    original = pair[0]._send_bytes
    pair[0]._send_bytes = lambda data: (sent.append(bytes(data)), original(data))
    pair[0].send("hooked")
    pair[0].send_bytes(b"too")
    assert pair[1].recv() == "hooked"
    assert pair[1].recv_bytes() == b"too"
    assert sent == [pickle.dumps("hooked"), b"too"]
    del pair[0]._send_bytes
    pair[0].send(1)
    assert len(sent) == 2


def test_replaced_methods_of_a_subclass(pair):
    class Shouting(connection.Connection):
        def _send_bytes(self, buf):
            super()._send_bytes(bytes(buf).upper())

        def _recv_bytes(self, maxsize=None):
            message = io.BytesIO()
            message.write(super()._recv_bytes(maxsize).getvalue().lower())
            return message

        def _poll(self, timeout):
            return ("polled", timeout)

        def _close(self):
            closed.append(self._handle)
            super()._close()

    closed = []
    conn = Shouting(os.dup(pair[0].fileno()))
    number = conn.fileno()
    conn.send_bytes(b"abc")
    assert pair[1].recv_bytes() == b"ABC"
    pair[1].send_bytes(b"DEF")
    assert conn.recv_bytes() == b"def"
    pair[1].send_bytes(b"GHI")
    buffer = bytearray(3)
    assert conn.recv_bytes_into(buffer) == 3
    assert buffer == b"ghi"
    assert conn.poll(2) in (True, ("polled", 2))
    conn.close()
    assert closed == [number]


def test_replaced_reads_and_writes_of_a_subclass(pair):
    class Counting(connection.Connection):
        def _send(self, buf):
            counts.append(len(buf))
            super()._send(buf)

        def _recv(self, size):
            counts.append(-size)
            return super()._recv(size)

    counts = []
    with Counting(os.dup(pair[0].fileno())) as conn:
        conn.send_bytes(b"abc")
        pair[1].send_bytes(b"defg")
        assert conn.recv_bytes() == b"defg"
    assert pair[1].recv_bytes() == b"abc"
    assert counts == [7, -4, -4]


def test_a_method_replaced_on_the_class(pair, monkeypatch):
    sent = []
    monkeypatch.setattr(connection.Connection, "_send_bytes", lambda self, data: sent.append(bytes(data)))
    pair[0].send(1)
    assert sent == [pickle.dumps(1)]
    monkeypatch.undo()
    pair[0].send(2)
    assert pair[1].recv() == 2


def test_a_subclass_without_init(pair):
    class Bare(connection.Connection):
        def __init__(self):
            self._handle, self._readable, self._writable = os.dup(pair[0].fileno()), True, True

    with Bare() as conn:
        conn.send(1)
    assert pair[1].recv() == 1
