"""Connections, listeners and clients in the standard wire format and with the standard authentication.

- A connection reads and writes its descriptor in Rust, one system call for a message out and two in. Nothing is read
  ahead: the other end, and whoever holds the descriptor next, may be the standard library.
- ``_send_bytes``, ``_recv_bytes`` and the other hooks of the standard class may be replaced, on a subclass or on an
  instance; the standard methods, which go through them, then do the work.
- `Listener.accept` gives up on a client that does not answer its challenge in `CONNECTION_TIMEOUT` seconds.
"""

from __future__ import annotations

import _socket
import sys

from rsmp import _rsmp, _stdlib, reduction

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


class Connection(_rsmp.Connection, _standard.Connection):  # type: ignore[name-defined,misc]
    """One end of a pipe or socket; see `multiprocessing.connection.Connection`."""

    def __getstate__(self) -> dict[str, Any]:
        # A plain pickle or copy holds the descriptor's number, as in the standard library; `reduce_connection` is what
        # takes the descriptor itself to another process.
        names = ("_handle", "_readable", "_writable")
        return {name: getattr(self, name) for name in names} | self.__dict__

    def __setstate__(self, state: dict[str, Any]) -> None:
        for name, value in state.items():
            setattr(self, name, value)


class Listener(_standard.Listener):  # type: ignore[name-defined,misc]
    """A bound socket that accepts connections; see `multiprocessing.connection.Listener`."""

    def __init__(
        self, address: Any = None, family: str | None = None, backlog: int = 1, authkey: bytes | None = None
    ) -> None:
        family = family or (address and _standard.address_type(address)) or _standard.default_family
        address = address or _standard.arbitrary_address(family)
        _standard._validate_family(family)
        self._listener = SocketListener(address, family, backlog)
        if authkey is not None and not isinstance(authkey, bytes):
            self._listener.close()
            raise TypeError("authkey should be a byte string")
        self._authkey = authkey

    def accept(self) -> Connection:
        """Return a connection to the next client.

        Raises AuthenticationError for a client that has the wrong key, or lets `CONNECTION_TIMEOUT` seconds pass;
        the listener goes on.
        """
        if self._listener is None:
            raise OSError("listener is closed")
        connection = self._listener.accept()
        if self._authkey is not None:
            _authenticate(connection, self._authkey, (deliver_challenge, answer_challenge))
        return connection


def Client(address: Any, family: str | None = None, authkey: bytes | None = None) -> Connection:
    """Return a connection to the listener at ``address``; see `multiprocessing.connection.Client`."""
    family = family or _standard.address_type(address)
    _standard._validate_family(family)
    connection = SocketClient(address)
    if authkey is not None and not isinstance(authkey, bytes):
        connection.close()
        raise TypeError("authkey should be a byte string")
    if authkey is not None:
        try:
            answer_challenge(connection, authkey)
            deliver_challenge(connection, authkey)
        except BaseException:
            connection.close()
            raise
    return connection


def Pipe(duplex: bool = True) -> tuple[Connection, Connection]:
    """Return two connected connections; without ``duplex`` the first only receives, the second only sends."""
    first, second = _rsmp.pipe(duplex)
    return Connection(first, writable=duplex), Connection(second, readable=duplex)


class SocketListener(_standard.SocketListener):  # type: ignore[name-defined,misc]
    """A listening socket; see `multiprocessing.connection.SocketListener`."""

    def accept(self) -> Connection:
        """Return a connection to the next client, not authenticated."""
        if self._family == "AF_UNIX" and _is_plain(type(self._socket)):
            descriptor, self._last_accepted = self._socket._accept()
            return Connection(descriptor)
        client, self._last_accepted = self._socket.accept()
        client.setblocking(True)
        return _connection(client)


def SocketClient(address: Any) -> Connection:
    """Return a connection to the socket at ``address``, not authenticated."""
    family = _standard.address_type(address)
    socket = _standard.socket
    if family == "AF_UNIX" and _is_plain(socket.socket):
        client = _socket.socket(_socket.AF_UNIX)
        try:
            client.setblocking(True)
            client.connect(address)
            return Connection(client.detach())
        except BaseException:
            client.close()
            raise
    with socket.socket(getattr(socket, family)) as client:
        client.setblocking(True)
        client.connect(address)
        return _connection(client)


def _is_plain(kind: Any) -> bool:
    """Whether ``kind`` is the standard socket class as it was, and not one that a library puts in its place.

    What that class adds in Python, enumerations above all, would be for nothing: only the descriptor is kept.
    """
    return kind.__module__ == kind.accept.__module__ == "socket" and "connect" not in vars(kind)


def _connection(connected: Any) -> Connection:
    socket = _standard.socket
    if connected.family != socket.AF_UNIX:
        # Two small messages in a row (the last of the authentication, then a request) would wait 40 ms for each other.
        connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return Connection(connected.detach())


def _authenticate(connection: Connection, authkey: bytes, steps: tuple[Any, ...]) -> None:
    """Take the listener's steps with a client that may be anyone."""
    connection._allow(_standard.CONNECTION_TIMEOUT)
    try:
        for step in steps:
            step(connection, authkey)
    except TimeoutError as error:
        connection.close()
        raise _standard.AuthenticationError("the client did not answer in time") from error
    except BaseException:
        connection.close()
        raise
    connection._allow(None)


if sys.version_info >= (3, 12):

    def deliver_challenge(connection: Any, authkey: bytes, digest_name: str = "sha256") -> None:
        """Make the other side prove that it has ``authkey``; see `multiprocessing.connection.deliver_challenge`."""
        _standard.deliver_challenge(connection, authkey, digest_name)

    def answer_challenge(connection: Any, authkey: bytes) -> None:
        """Prove to the other side that we have ``authkey``; see `multiprocessing.connection.answer_challenge`."""
        _standard.answer_challenge(connection, authkey)

else:

    def deliver_challenge(connection: Any, authkey: bytes) -> None:
        """Make the other side prove that it has ``authkey``, in the format of Python 3.11.

        Unlike the standard function it compares in constant time. Raises AuthenticationError.
        """
        import hmac

        if not isinstance(authkey, bytes):
            raise ValueError(f"Authkey must be bytes, not {type(authkey)!s}")
        message = _standard.os.urandom(_standard.MESSAGE_LENGTH)
        connection.send_bytes(_standard.CHALLENGE + message)
        digest = hmac.digest(authkey, message, "md5")
        response = connection.recv_bytes(256)
        if not hmac.compare_digest(response, digest):
            connection.send_bytes(_standard.FAILURE)
            raise _standard.AuthenticationError("digest received was wrong")
        connection.send_bytes(_standard.WELCOME)

    def answer_challenge(connection: Any, authkey: bytes) -> None:
        """Prove to the other side that we have ``authkey``, in the format of Python 3.11.

        Unlike the standard function it raises AuthenticationError, and does so in optimised programs too, for what
        is no challenge.
        """
        import hmac

        if not isinstance(authkey, bytes):
            raise ValueError(f"Authkey must be bytes, not {type(authkey)!s}")
        message = connection.recv_bytes(256)
        if not message.startswith(_standard.CHALLENGE):
            raise _standard.AuthenticationError("what was received is no challenge")
        challenge = message[len(_standard.CHALLENGE) :]
        connection.send_bytes(hmac.digest(authkey, challenge, "md5"))
        if connection.recv_bytes(256) != _standard.WELCOME:
            raise _standard.AuthenticationError("digest sent was rejected")


class XmlListener(Listener, _standard.XmlListener):  # type: ignore[name-defined,misc]
    """A listener whose connections send and receive in XML."""

    def accept(self) -> Any:
        """Return a `ConnectionWrapper` of the next client's connection."""
        _import_xmlrpc()
        connection = Listener.accept(self)
        return _standard.ConnectionWrapper(connection, _standard._xml_dumps, _standard._xml_loads)


def XmlClient(*args: Any, **kwds: Any) -> Any:
    """Return a client that sends and receives in XML."""
    _import_xmlrpc()
    return _standard.ConnectionWrapper(Client(*args, **kwds), _standard._xml_dumps, _standard._xml_loads)


def _import_xmlrpc() -> None:
    import xmlrpc.client

    # Where the standard functions look for it.
    vars(_standard)["xmlrpclib"] = xmlrpc.client


wait = _rsmp.wait


def reduce_connection(conn: Any) -> Any:
    """Return how to rebuild ``conn`` in another process."""
    return rebuild_connection, (reduction.DupFd(conn.fileno()), conn.readable, conn.writable)


def rebuild_connection(df: Any, readable: bool, writable: bool) -> Connection:
    """Return a connection on the descriptor handed over as ``df``."""
    return Connection(df.detach(), readable, writable)


_standard.reduction.register(Connection, reduce_connection)

_stdlib.unannotate(__name__)
if sys.version_info >= (3, 12):
    # The only annotations that the standard module has.
    deliver_challenge.__annotations__ = answer_challenge.__annotations__ = {"authkey": bytes}
