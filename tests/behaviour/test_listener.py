"""Listeners and clients: families, keys, clients that are silent or talk nonsense, addresses."""

import os
import socket

import pytest
from connection_helpers import frame, in_thread

from under_test import mp as library
from under_test import submodule

connection = submodule("connection")


def serve(listener, results):
    try:
        with listener.accept() as conn:
            conn.send(conn.recv() * 2)
    except Exception as error:
        results.append(error)


def assert_serves(listener, key):
    results = []
    thread = in_thread(serve, listener, results)
    with connection.Client(listener.address, authkey=key) as client:
        client.send(1)
        assert client.recv() == 2
    thread.join()
    assert not results


@pytest.mark.parametrize("family", ["AF_INET", "AF_UNIX", "abstract", None])
@pytest.mark.parametrize("authkey", [None, b"secret"])
def test_listener_and_client(family, authkey):
    address = f"\0rsmp-test-{os.getpid()}" if family == "abstract" else None
    results = []
    family = None if family == "abstract" else family
    with connection.Listener(address, family, authkey=authkey) as listener:
        assert listener.last_accepted is None
        thread = in_thread(serve, listener, results)
        with connection.Client(listener.address, authkey=authkey) as client:
            assert type(client) is connection.Connection
            client.send(21)
            assert client.recv() == 42
        thread.join()
        path = listener.address
        if isinstance(path, str) and not path.startswith("\0"):
            assert os.path.exists(path)
    assert not results
    if isinstance(path, str) and not path.startswith("\0"):
        assert not os.path.exists(path)
    with pytest.raises(OSError, match="listener is closed"):
        listener.accept()


def test_a_wrong_key_is_refused_and_the_listener_goes_on(mp):
    results = []
    with connection.Listener(authkey=b"right") as listener:
        thread = in_thread(serve, listener, results)
        with pytest.raises(mp.AuthenticationError):
            connection.Client(listener.address, authkey=b"wrong")
        thread.join()
        assert type(results.pop()) is mp.AuthenticationError
        assert_serves(listener, b"right")


@pytest.mark.parametrize("sent", [b"", b"\0\0", frame(b"garbage"), frame(b"#CHALLENGE#" + b"x" * 500), b"\xff" * 12])
def test_a_client_that_talks_nonsense_does_not_harm_the_listener(sent):
    results = []
    with connection.Listener(family="AF_UNIX", authkey=b"right") as listener:
        thread = in_thread(serve, listener, results)
        with socket.socket(socket.AF_UNIX) as client:
            client.connect(listener.address)
            client.sendall(sent)
            client.shutdown(socket.SHUT_WR)
            thread.join(10)
            assert not thread.is_alive()
        assert isinstance(results.pop(), (OSError, EOFError, library.AuthenticationError))
        assert_serves(listener, b"right")


@pytest.mark.rsmp_only("a silent client blocks the standard listener for ever")
def test_a_silent_client_does_not_block_the_listener(mp, monkeypatch):
    monkeypatch.setattr(connection, "CONNECTION_TIMEOUT", 0.1)
    with connection.Listener(family="AF_UNIX", authkey=b"right") as listener, socket.socket(socket.AF_UNIX) as client:
        client.connect(listener.address)
        client.sendall(b"\0\0\0")
        with pytest.raises(mp.AuthenticationError, match="in time"):
            listener.accept()


# The standard library leaves the socket to the collector.
@pytest.mark.filterwarnings("ignore::ResourceWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_keys_are_bytes():
    with pytest.raises(TypeError, match="authkey should be a byte string"):
        connection.Listener(authkey="text")
    with connection.Listener() as listener, pytest.raises(TypeError, match="authkey should be a byte string"):
        connection.Client(listener.address, authkey="text")


@pytest.mark.rsmp_only("before 3.13 the standard listener takes an empty key for none")
def test_an_empty_key_is_a_key(mp):
    with connection.Listener(authkey=b"") as listener:
        assert_serves(listener, b"")


def test_addresses():
    assert connection.address_type(("localhost", 0)) == "AF_INET"
    assert connection.address_type("/tmp/x") == "AF_UNIX"
    assert connection.address_type("\0x") == "AF_UNIX"
    assert connection.arbitrary_address("AF_INET") == ("localhost", 0)
    for call in (
        lambda: connection.address_type(3),
        lambda: connection.arbitrary_address("AF_NONE"),
        lambda: connection.Listener(r"\\.\test"),
        lambda: connection.Client(r"\\.\test"),
    ):
        with pytest.raises((ValueError, TypeError)):
            call()


def test_an_address_in_use(tmp_path):
    with connection.Listener(str(tmp_path / "socket")), pytest.raises(OSError):
        connection.Listener(str(tmp_path / "socket"))


def test_xml(mp):
    with connection.XmlListener() as listener:

        def accept():
            with_wrapper = listener.accept()
            with_wrapper.send({"answer": with_wrapper.recv()})
            with_wrapper.close()

        thread = in_thread(accept)
        client = connection.XmlClient(listener.address)
        client.send(42)
        assert client.recv() == {"answer": 42}
        client.close()
        thread.join()
