"""What runs in the process of a manager: the server of `rsmp.managers`.

It accepts in its main thread and serves each connection in one of its own.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import os
import queue
import sys
import threading
import time
from traceback import format_exc

from rsmp import _child, _rsmp, _stdlib, connection

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["Server", "Stop", "listener_client", "serve_forked", "serve_starter"]

_standard: Any = _stdlib.load("managers")
process, util = _standard.process, _standard.util

listener_client: dict[str, tuple[Any, Any]] = {
    "pickle": (connection.Listener, connection.Client),
    "xmlrpclib": (connection.XmlListener, connection.XmlClient),
}
"""Listener and client type of each serializer."""

_ACCEPT_PAUSE = 0.02
"""Seconds until a server accepts again after it could not."""

_SOCKET_LISTENERS = (connection.Listener, connection.XmlListener)
"""Listeners whose `accept` does not wait when their socket is ready."""

_ANSWERS = (StopIteration, queue.Empty, queue.Full)
"""Exceptions that say what there is to say without a traceback."""


class Server(_standard.Server):  # type: ignore[misc]
    """What runs in the process of a manager; see `multiprocessing.managers.Server`."""

    _starter: Any = None
    _prepared: Any = None
    """The event that is to stop the server, if its starter has it, too."""

    def __init__(self, registry: dict[str, Any], address: Any, authkey: bytes, serializer: str) -> None:
        if not isinstance(authkey, bytes):
            raise TypeError(f"Authkey {authkey!r} is type {type(authkey)!s}, not bytes")
        self.registry = registry
        self.authkey = process.AuthenticationString(authkey)
        self.listener = listener_client[serializer][0](address=address, backlog=128)
        self.address = self.listener.address
        self.id_to_obj: dict[str, Any] = {"0": (None, ())}
        self.id_to_refcount: dict[str, int] = {}
        self.id_to_local_proxy_obj: dict[str, Any] = {}
        self.mutex = threading.Lock()

    def serve_forever(self) -> None:
        """Serve until told to stop, or until the process that started this one is gone."""
        process.current_process()._manager_server = self
        try:
            self._serve()
        except (KeyboardInterrupt, SystemExit):
            pass
        finally:
            if sys.stdout != sys.__stdout__:
                util.debug("resetting stdout, stderr")
                sys.stdout = sys.__stdout__
                sys.stderr = sys.__stderr__
            sys.exit(0)

    def _serve(self) -> None:
        stop = self.stop_event = self._prepared or Stop()
        self._prepared = None
        awaited = [stop] if self._starter is None else [stop, self._starter._sentinel]
        replaced = _stdlib.replaced(sys.modules[__name__], type(self).accepter)
        if not replaced and type(self.listener) in _SOCKET_LISTENERS:
            # In this thread: in a process that is just starting, one more is what costs most.
            listening = self.listener._listener._socket
            listening.setblocking(False)
            while (ready := connection.wait([listening, *awaited])) == [listening]:
                self._accept()
        else:
            threading.Thread(target=self.accepter, daemon=True).start()
            ready = connection.wait(awaited)
        if stop in ready and not stop.is_set():
            util.debug("manager received shutdown message")
            stop.set()

    def accepter(self) -> None:
        """Start a thread for each connection."""
        while True:
            self._accept()

    def _accept(self) -> None:
        try:
            conn = self.listener.accept()
        except BlockingIOError:
            # The client has gone again.
            return
        except OSError:
            # Most likely out of descriptors: let some be closed.
            time.sleep(_ACCEPT_PAUSE)
            return
        try:
            threading.Thread(target=self.handle_request, args=(conn,), daemon=True).start()
        except (RuntimeError, MemoryError):
            # As many threads as there can be: this client hears of it, the others go on.
            conn.close()
            time.sleep(_ACCEPT_PAUSE)

    def shutdown(self, c: Any) -> None:
        """Stop the server, after an answer."""
        try:
            util.debug("manager received shutdown message")
            c.send(("#RETURN", None))
        finally:
            self.stop_event.set()
        # The caller answers once more, and would tell at length that nobody listens.
        c.send = _ignore

    def serve_client(self, conn: Any) -> None:
        """Answer the proxies of one thread of one process until it closes the connection."""
        util.debug("starting server thread to service %r", threading.current_thread().name)
        recv, send = conn.recv, conn.send
        stopped = self.stop_event.is_set
        while not stopped():
            try:
                message = self._answer(conn, recv())
            except EOFError:
                util.debug("got EOF -- exiting thread serving %r", threading.current_thread().name)
                sys.exit(0)
            except Exception:
                message = ("#TRACEBACK", format_exc())
            try:
                try:
                    send(message)
                except Exception:
                    send(("#UNSERIALIZABLE", format_exc()))
            except Exception as error:
                util.info("exception in thread serving %r", threading.current_thread().name)
                util.info(" ... message was %r", message)
                util.info(" ... exception was %r", error)
                conn.close()
                sys.exit(1)

    def _answer(self, conn: Any, request: Any) -> tuple[str, Any]:
        ident, methodname, args, kwds = request
        try:
            obj, exposed, method_to_typeid = self.id_to_obj[ident]
        except KeyError:
            if ident not in self.id_to_local_proxy_obj:
                raise
            obj, exposed, method_to_typeid = self.id_to_local_proxy_obj[ident]
        if methodname not in exposed:
            fallback = self.fallback_mapping.get(methodname)
            if fallback is None:
                raise AttributeError(f"method {methodname!r} of {type(obj)!r} object is not in exposed={exposed!r}")
            return "#RETURN", fallback(self, conn, ident, obj, *args, **kwds)
        function = getattr(obj, methodname)
        try:
            result = function(*args, **kwds)
        except Exception as error:
            return "#ERROR", _with_traceback(error)
        typeid = method_to_typeid and method_to_typeid.get(methodname)
        if not typeid:
            return "#RETURN", result
        ident, exposed = self.create(conn, typeid, result)
        return "#PROXY", (exposed, _standard.Token(typeid, self.address, ident))


def _file(descriptor: int, fstat: Any = os.fstat) -> tuple[int, int] | None:
    try:
        status = fstat(descriptor)
    except OSError:
        return None
    return status.st_dev, status.st_ino


class Stop(threading.Event):
    """An event that `connection.wait` waits for, too, in all processes that are forked from this one."""

    _descriptor = -1

    def __init__(self) -> None:
        super().__init__()
        self._descriptor = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._file = _file(self._descriptor)

    def __del__(self, close: Any = os.close, file: Any = _file) -> None:
        # Programs that become daemons close all descriptors, and the number may be another file's then.
        if self._descriptor >= 0 and file(self._descriptor) == self._file:
            close(self._descriptor)

    def fileno(self) -> int:
        """Return a descriptor that is readable from when the event is set."""
        return self._descriptor

    def set(self) -> None:
        """Set the event, for good."""
        super().set()
        self.ring()

    def ring(self) -> bool:
        """Make the descriptor readable, in all the processes; False if this one does not have it any more."""
        if _file(self._descriptor) != self._file:
            return False
        os.eventfd_write(self._descriptor, 1)
        return True


def _ignore(message: Any) -> None:
    pass


def _with_traceback(error: Exception) -> Any:
    """Return ``error``, to be pickled with the frames of the method that raised it if there are any."""
    traceback = error.__traceback__ and error.__traceback__.tb_next
    if traceback is None or isinstance(error, _ANSWERS):
        return error
    return _standard.pool.ExceptionWithTraceback(error, traceback)


def serve_forked(server: Server, held: bool) -> None:
    """Be the process of ``server``, which listens already. ``held``: its start has put off Ctrl-C."""
    # Not through the signal module, whose enumerations are pages that the server would copy.
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    if held:
        _child.admit_interrupts()
    serve_starter(server)


def serve_starter(server: Any) -> None:
    """Serve until told to stop, or until the process that started this one is gone."""
    _rsmp.share_one_arena()
    server._starter = process.parent_process()
    util.info("manager serving at %r", server.address)
    server.serve_forever()


_stdlib.unannotate(__name__)
