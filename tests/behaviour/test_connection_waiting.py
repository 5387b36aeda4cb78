"""Connections that wait, for data, beside signals and threads, or for other processes; and `wait`."""

import os
import signal
import socket
import threading
import time

import pytest
from connection_helpers import LARGE, in_thread

from under_test import submodule

connection = submodule("connection")


# Polling and waiting


def test_poll(pair):
    first, second = pair
    assert second.poll() is False
    start = time.monotonic()
    assert second.poll(0.05) is False
    assert time.monotonic() - start >= 0.05
    assert second.poll(-1) is False
    timer = threading.Timer(0.05, first.send, ["late"])
    timer.start()
    assert second.poll(None) is True
    assert second.poll() is True
    timer.join()
    assert second.recv() == "late"


def test_a_poll_in_between_sees_every_message(pair):
    for number in range(3):
        pair[0].send(number)
    for number in range(3):
        assert pair[1].poll()
        assert pair[1].recv() == number
    assert not pair[1].poll()


def test_wait_takes_what_has_a_fileno(mp, ctx, pair, simplex):
    one, other = socket.socketpair()
    process = ctx.Process(target=os.getpid)
    process.start()
    queue = ctx.SimpleQueue()
    queue.put("item")
    pair[0].send(1)
    one.send(b"x")
    process.join()
    # Of a process started by the standard fork server, the sentinel is ready only a moment later.
    connection.wait([process.sentinel], 10)
    objects = [pair[1], simplex[0], other, process.sentinel, queue._reader]
    with one, other:
        assert connection.wait(iter(objects), 10) == [pair[1], other, process.sentinel, queue._reader]
        assert connection.wait([simplex[0], other.fileno()]) == [other.fileno()]
    queue.get()
    queue.close()
    process.close()


def test_wait_times_out(pair):
    for timeout in (0, -1, 0.02):
        assert connection.wait(pair, timeout) == []
        assert connection.wait([], timeout) == []
    start = time.monotonic()
    assert connection.wait(pair, 0.05) == []
    assert time.monotonic() - start >= 0.05


def test_wait_sees_the_end_of_file(pair):
    pair[0].close()
    assert connection.wait([pair[1]], 10) == [pair[1]]


@pytest.mark.parametrize("count", [2, 60])
def test_wait_refuses_the_same_descriptor_twice(mp, count):
    pipes = [mp.Pipe() for _ in range(count)]
    readers = [receiver for receiver, _ in pipes]
    with pytest.raises(KeyError, match="already registered"):
        connection.wait([*readers, readers[0]])
    pipes[-1][1].send(1)
    assert connection.wait(readers, 10) == [readers[-1]]
    for ends in pipes:
        for end in ends:
            end.close()


def test_wait_refuses_what_is_no_file(pair):
    class Odd:
        def fileno(self):
            return "three"

    class Negative:
        def fileno(self):
            return -1

    for thing in ("text", object(), 1.5, Odd()):
        with pytest.raises(ValueError, match="Invalid file object"):
            connection.wait([thing])
    for thing in (-1, Negative()):
        with pytest.raises(ValueError, match="Invalid file descriptor: -1"):
            connection.wait([thing])
    with pytest.raises(TypeError):
        connection.wait(3)
    with pytest.raises(TypeError):
        connection.wait([pair[0]], "soon")


# Signals and threads


@pytest.mark.parametrize("call", ["recv", "poll", "wait", "send"])
def test_signal_handlers_run_while_waiting(pair, call):
    came = []

    def handler(*_):
        came.append(time.monotonic())
        if len(came) == 2:
            raise RuntimeError("enough")

    previous = signal.signal(signal.SIGALRM, handler)
    signal.setitimer(signal.ITIMER_REAL, 0.03, 0.03)
    try:
        with pytest.raises(RuntimeError, match="enough"):
            {
                "recv": pair[0].recv,
                "poll": lambda: pair[0].poll(None),
                "wait": lambda: connection.wait([pair[0]]),
                "send": lambda: pair[0].send_bytes(bytes(8 * LARGE)),
            }[call]()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert len(came) == 2


def test_a_large_message_survives_signals(pair):
    previous = signal.signal(signal.SIGALRM, lambda *_: None)
    signal.setitimer(signal.ITIMER_REAL, 0.002, 0.002)
    message = os.urandom(16 * LARGE)
    received = []

    def receive():
        time.sleep(0.05)
        received.append(pair[1].recv_bytes())

    thread = in_thread(receive)
    try:
        pair[0].send_bytes(message)
        thread.join()
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, previous)
    assert received == [message]


def test_both_directions_at_once(pair):
    message = os.urandom(4 * LARGE)
    received = []
    threads = [in_thread(lambda end=end: received.append(end.recv_bytes())) for end in pair]
    threads += [in_thread(end.send_bytes, message) for end in pair]
    for thread in threads:
        thread.join()
    assert received == [message, message]


def test_other_threads_run_while_one_waits(pair):
    thread = in_thread(pair[1].recv)
    time.sleep(0.02)
    pair[0].send("wake")
    thread.join(10)
    assert not thread.is_alive()


def test_a_nonblocking_descriptor_with_nothing_to_read(pair):
    os.set_blocking(pair[1].fileno(), False)
    with pytest.raises(BlockingIOError):
        pair[1].recv()
    pair[0].send(1)
    assert pair[1].recv() == 1


@pytest.mark.rsmp_only("the standard library stops in the middle of the message")
def test_a_nonblocking_descriptor_takes_whole_messages(pair):
    message = os.urandom(2 * LARGE)
    for end in pair:
        os.set_blocking(end.fileno(), False)
    thread = in_thread(pair[0].send_bytes, message)
    assert pair[1].poll(10)
    assert pair[1].recv_bytes() == message
    thread.join()


# Other processes


def echo(conn):
    while (message := conn.recv()) is not None:
        conn.send(message)
    conn.close()


def test_a_child_answers(ctx):
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=echo, args=(theirs,))
    process.start()
    theirs.close()
    for message in (1, "two", b"3" * LARGE, [4.0] * 10_000):
        ours.send(message)
        assert ours.recv() == message
    ours.send(None)
    with pytest.raises(EOFError):
        ours.recv()
    process.join()
    assert process.exitcode == 0
    process.close()
    ours.close()


def use_what_comes(conn):
    with conn, conn.recv() as sender:
        sender.send(type(sender).__module__)


@pytest.mark.may_leave("the thread that hands over descriptors stays")
def test_a_connection_is_sent_over_a_connection(mp, ctx):
    ours, theirs = ctx.Pipe()
    process = ctx.Process(target=use_what_comes, args=(theirs,))
    process.start()
    receiver, sender = ctx.Pipe(duplex=False)
    ours.send(sender)
    assert receiver.recv() == f"{mp.__name__}.connection"
    process.join()
    assert process.exitcode == 0
    submodule("resource_sharer").stop(5)


def test_a_connection_keeps_its_direction_when_pickled(mp, pair, simplex):
    reduction = submodule("reduction")
    for conn in (*pair, *simplex):
        twin = reduction.ForkingPickler.loads(reduction.ForkingPickler.dumps(conn))
        with twin:
            assert type(twin) is type(conn)
            assert twin.fileno() != conn.fileno()
            assert (twin.readable, twin.writable) == (conn.readable, conn.writable)
    submodule("resource_sharer").stop(5)


def test_descriptors_over_a_connection(pair, simplex):
    reduction = submodule("reduction")
    # The sender may wait until it is received.
    sending = in_thread(reduction.send_handle, pair[0], simplex[1].fileno(), os.getpid())
    with connection.Connection(reduction.recv_handle(pair[1]), readable=False) as sender:
        sending.join()
        sender.send("over there")
    assert simplex[0].recv() == "over there"
    pair[0].close()
    with pytest.raises(EOFError):
        reduction.recv_handle(pair[1])


def test_descriptors_over_a_socket(simplex):
    reduction = submodule("reduction")
    one, other = socket.socketpair()
    with one, other:
        sending = in_thread(reduction.sendfds, one, [end.fileno() for end in simplex])
        received = reduction.recvfds(other, 4)
        sending.join()
        assert len(received) == 2
        for number in received:
            os.close(number)
        one.send(b"no descriptors")
        with pytest.raises(RuntimeError):
            reduction.recvfds(other, 1)
