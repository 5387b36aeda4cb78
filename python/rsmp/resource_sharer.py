"""Descriptors handed over on request.

The sharer is a thread with a listener, started with the first descriptor that is pickled outside the start of a
process, as in the standard library. A client that does not authenticate itself in time, or asks for what is not there,
costs only its own connection.
"""

from __future__ import annotations

import os
import signal
import sys
import threading

from rsmp import _stdlib, context, process, util

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)
reduction: Any = context.reduction


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


class DupFd(_standard.DupFd):  # type: ignore[name-defined,misc]
    """A picklable stand-in for a descriptor, to be taken out once."""

    def __init__(self, fd: int) -> None:
        copy = os.dup(fd)

        def send(connection: Any, pid: int) -> None:
            reduction.send_handle(connection, copy, pid)

        def close() -> None:
            os.close(copy)

        self._id = _resource_sharer.register(send, close)

    def detach(self) -> int:
        """Return the descriptor. This should only be called once."""
        with _resource_sharer.get_connection(self._id) as connection:
            descriptor: int = reduction.recv_handle(connection)
            return descriptor


class _ResourceSharer(_standard._ResourceSharer):  # type: ignore[name-defined,misc]
    """The thread that hands over what was registered."""

    _listener: Any
    _address: Any
    _thread: Any

    @staticmethod
    def get_connection(ident: tuple[Any, int]) -> Any:
        """Return a connection from which to receive what ``ident`` names."""
        from rsmp.connection import Client

        address, key = ident
        connection = Client(address, authkey=process.current_process().authkey)
        connection.send((key, os.getpid()))
        return connection

    def stop(self, timeout: float | None = None) -> None:
        """Stop the thread and let go of what is registered; ``timeout`` in seconds."""
        from rsmp.connection import Client

        with self._lock:
            if self._address is None:
                return
            with Client(self._address, authkey=process.current_process().authkey) as connection:
                connection.send(None)
            self._thread.join(timeout)
            if self._thread.is_alive():
                util.sub_warning("_ResourceSharer thread did not stop when asked")
            self._listener.close()
            self._thread = None
            self._address = None
            self._listener = None
            for _, close in self._cache.values():
                close()
            self._cache.clear()

    def _start(self) -> None:
        from rsmp.connection import Listener

        util.debug("starting listener and thread for sending handles")
        self._listener = Listener(authkey=process.current_process().authkey, backlog=128)
        self._address = self._listener.address
        self._thread = threading.Thread(target=self._serve, daemon=True)
        self._thread.start()

    def _serve(self) -> None:
        signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        while True:
            try:
                with self._listener.accept() as connection:
                    message = connection.recv()
                    if message is None:
                        return
                    key, destination_pid = message
                    send, close = self._cache.pop(key)
                    try:
                        send(connection, destination_pid)
                    finally:
                        close()
            except BaseException:
                if not util.is_exiting():
                    sys.excepthook(*sys.exc_info())


_resource_sharer = _ResourceSharer()
stop = _resource_sharer.stop

_stdlib.unannotate(__name__)
