"""An rsmp end talks to a standard end, both ways, in one process and between processes."""

import multiprocessing
import multiprocessing.connection
import multiprocessing.reduction
import os
import pickle
import threading

import pytest

import rsmp
import rsmp.connection
import rsmp.reduction

LIBRARIES = {"rsmp": rsmp, "multiprocessing": multiprocessing}
METHODS = ("fork", "spawn", "forkserver")

pytestmark = pytest.mark.skipif(
    multiprocessing is rsmp,
    reason="connects rsmp with the standard library, and `rsmp.install()` has put rsmp in its place",
)

VALUES = [
    None,
    7,
    b"",
    b"small",
    b"x" * 16_385,
    b"y" * 65_536,
    os.urandom(1 << 20),
    "text" * 30_000,
    [b"z" * 70_000] * 2,
]


def ends(ours, theirs):
    """Two connected ends, the first of library ``ours``, the second of library ``theirs``."""
    first, second = ours.Pipe()
    if ours is not theirs:
        number = second.fileno()
        second._handle = None
        second = theirs.connection.Connection(number)
    return first, second


@pytest.mark.parametrize("sender", LIBRARIES)
@pytest.mark.parametrize("value", VALUES, ids=lambda value: f"{type(value).__name__}-{len(pickle.dumps(value))}")
def test_messages_cross(sender, value):
    ours = LIBRARIES[sender]
    theirs = rsmp if ours is multiprocessing else multiprocessing
    first, second = ends(ours, theirs)
    with first, second:
        thread = threading.Thread(target=first.send, args=(value,))
        thread.start()
        assert second.recv() == value
        thread.join()
        data = pickle.dumps(value)
        thread = threading.Thread(target=first.send_bytes, args=(data,))
        thread.start()
        assert second.recv_bytes() == data
        thread.join()


def test_the_two_may_take_turns_on_one_descriptor():
    sender, receiver = rsmp.Pipe()
    with sender, receiver, multiprocessing.connection.Connection(os.dup(receiver.fileno())) as standard:
        for number in range(6):
            sender.send(number)
        assert [(receiver, standard)[number % 2].recv() for number in range(6)] == list(range(6))


@pytest.mark.parametrize("listening", LIBRARIES)
@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX"])
@pytest.mark.parametrize("keys", [(b"k", b"k"), (b"k", b"other")], ids=["right", "wrong"])
def test_authentication_crosses(listening, family, keys):
    ours = LIBRARIES[listening].connection
    theirs = rsmp.connection if ours is multiprocessing.connection else multiprocessing.connection
    outcome = []

    def accept():
        try:
            with listener.accept() as conn:
                conn.send(conn.recv() + 1)
        except Exception as error:
            outcome.append(error)

    with ours.Listener(family=family, authkey=keys[0]) as listener:
        thread = threading.Thread(target=accept)
        thread.start()
        if keys[0] == keys[1]:
            with theirs.Client(listener.address, authkey=keys[1]) as client:
                client.send(1)
                assert client.recv() == 2
        else:
            with pytest.raises(multiprocessing.AuthenticationError):
                theirs.Client(listener.address, authkey=keys[1])
        thread.join()
    assert [type(error) for error in outcome] == ([] if keys[0] == keys[1] else [multiprocessing.AuthenticationError])


def echo(conn):
    while (message := conn.recv()) is not None:
        conn.send((type(conn).__module__, message))
    conn.close()


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("starting", LIBRARIES)
@pytest.mark.parametrize("piping", LIBRARIES)
def test_either_library_starts_a_process_with_the_others_connection(method, starting, piping):
    ours, theirs = LIBRARIES[piping].Pipe()
    process = LIBRARIES[starting].get_context(method).Process(target=echo, args=(theirs,))
    process.start()
    theirs.close()
    with ours:
        ours.send(b"x" * 70_000)
        assert ours.recv() == (f"{piping}.connection", b"x" * 70_000)
        ours.send(None)
        with pytest.raises(EOFError):
            ours.recv()
    process.join()
    assert process.exitcode == 0
    process.close()


@pytest.mark.parametrize("library", LIBRARIES)
def test_either_pickler_takes_either_connection(library):
    pickler = LIBRARIES[library].reduction.ForkingPickler
    for made in LIBRARIES.values():
        first, second = made.Pipe()
        with first, second, pickler.loads(pickler.dumps(second)) as twin:
            assert type(twin) is type(second)
            first.send(1)
            assert twin.recv() == 1
    rsmp.resource_sharer.stop(5)
    multiprocessing.resource_sharer.stop(5)


def test_either_wait_takes_either_connection():
    for wait in (rsmp.connection.wait, multiprocessing.connection.wait):
        for made in LIBRARIES.values():
            first, second = made.Pipe()
            with first, second:
                assert wait([second], 0) == []
                first.send(1)
                assert wait([second]) == [second]


def test_an_rsmp_connection_is_a_standard_one():
    first, second = rsmp.Pipe()
    with first, second:
        assert isinstance(first, multiprocessing.connection.Connection)
    with rsmp.connection.Listener() as listener:
        assert isinstance(listener, multiprocessing.connection.Listener)


@pytest.mark.parametrize("sender", LIBRARIES)
def test_descriptors_cross(sender):
    ours = LIBRARIES[sender]
    theirs = rsmp if ours is multiprocessing else multiprocessing
    first, second = ends(ours, theirs)
    reader, writer = os.pipe()
    with first, second:
        # The sender may wait until it is received.
        sending = threading.Thread(target=ours.reduction.send_handle, args=(first, writer, os.getpid()))
        sending.start()
        received = theirs.reduction.recv_handle(second)
        sending.join()
        os.close(writer)
        os.write(received, b"x")
        second.send("and nothing else")
        assert first.recv() == "and nothing else"
        os.close(received)
        assert os.read(reader, 1) == b"x"
    os.close(reader)
