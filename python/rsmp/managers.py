"""Managers: objects that live in a server process and proxies that call them, over sockets.

The protocol and the pickled names are the standard module's, so that either end may be a plain ``multiprocessing``.
Connections and processes are rsmp's. Differing from the standard module, a server whose starter is gone ends, a
shutdown never waits for a server that does not answer, and an exception from a method carries its remote traceback.
"""

from __future__ import annotations

import importlib
import os
import signal
import sys
import threading
import time

from rsmp import _child, _stdlib, connection, process, shared_memory
from rsmp._server import Server, Stop, listener_client, serve_forked, serve_starter
from rsmp.context import _default_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


get_context = _default_context.get_context
dispatch = _standard.dispatch
util = _standard.util


class BaseManager(_standard.BaseManager):  # type: ignore[name-defined,misc]
    """Starts a server process, or connects to one, and makes proxies; see `multiprocessing.managers.BaseManager`."""

    _registry: dict[str, Any] = {}  # noqa: RUF012 (each class has its own, made by `register`)
    _Server = Server
    _address: Any

    def __init__(
        self,
        address: Any = None,
        authkey: bytes | None = None,
        serializer: str = "pickle",
        ctx: Any = None,
        *,
        shutdown_timeout: float = 1.0,
    ) -> None:
        """Manage objects at ``address``; ``shutdown_timeout`` in seconds is how long a server may take to stop."""
        super().__init__(address, authkey, serializer, ctx or get_context(), shutdown_timeout=shutdown_timeout)
        self._Listener, self._Client = listener_client[serializer]

    def get_server(self) -> Server:
        """Return a server to run in this process: ``serve_forever()``, ``address``."""
        self._check_initial("server")
        return Server(self._registry, self._address, self._authkey, self._serializer)

    def connect(self) -> None:
        """Use the server that is already running at the manager's address."""
        conn = self._Client(self._address, authkey=self._authkey)
        dispatch(conn, None, "dummy")
        self._state.value = _standard.State.STARTED

    def start(self, initializer: Any = None, initargs: Any = ()) -> None:
        """Start the server process, in which ``initializer(*initargs)`` is called first."""
        self._check_initial("server")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if self._forks():
            # Clients and the server authenticate with it: executed once, in memory that they share.
            importlib.import_module("hmac")
        own_address = self._address is None and self._serializer == "pickle"
        if own_address:
            # In the abstract namespace: nothing to remove, whoever dies first. The key is what keeps others out.
            self._address = f"\0rsmp-manager-{os.urandom(16).hex()}"
        self._process: Any = None
        try:
            stop = None
            if own_address and initializer is None and self._may_listen_first():
                stop = self._start_listening()
            else:
                self._start_and_wait(initializer, initargs)
        except BaseException:
            if self._process is not None and self._process.pid is not None:
                # Nobody would stop it.
                self._process.kill()
                self._process.join()
            if own_address:
                self._address = None
            raise
        self._state.value = _standard.State.STARTED
        callback: Any = type(self)._finalize_manager
        args: Any = self._process, self._address, self._authkey, self._state, self._Client, self._shutdown_timeout
        if stop is not None:
            callback, args = _end_forked, (stop, *args)
        self.shutdown = util.Finalize(self, callback, args=args, exitpriority=0)

    def _forks(self) -> bool:
        """Whether the server is to be a fork of this process."""
        return getattr(self._ctx.Process, "_start_method", None) == "fork"

    def _may_listen_first(self) -> bool:
        """Whether this process may make the server that its fork is to be, and nobody would see the difference."""
        cls = type(self)
        return (
            self._forks()
            and cls._Server is Server
            and not _stdlib.replaced(sys.modules[__name__], cls._run_server.__func__)  # type: ignore[attr-defined]
            and not _stdlib.replaced(sys.modules[__name__], cls._finalize_manager)
            and not _stdlib.replaced(sys.modules[Server.__module__], Server.shutdown)
            and not _stdlib.replaced(sys.modules[Server.__module__], Server.serve_forever)
            and listener_client["pickle"][0] is connection.Listener
            # Another thread's child would have the listening socket too: connecting to a dead server would wait.
            and threading.active_count() == 1
        )

    def _start_listening(self) -> Stop:
        """Start a server that listens already: it need not be waited for, and has less to do in its first moments.

        Return what stops it, which spares its last moments a client that both sides authenticate.
        """
        stop = Stop()
        server = self._Server(self._registry, self._address, self._authkey, self._serializer)
        server._prepared = stop
        held = _child.admits_interrupts()
        if held:
            # The server ignores Ctrl-C as soon as it runs.
            _child.hold_interrupts()
        try:
            self._start_process(serve_forked, server, held)
        finally:
            try:
                server.listener.close()
            finally:
                if held:
                    _child.admit_interrupts()
        self._address = server.address
        return stop

    def _start_and_wait(self, initializer: Any, initargs: Any) -> None:
        reader, writer = connection.Pipe(duplex=False)
        self._start_process(
            type(self)._run_server,
            self._registry,
            self._address,
            self._authkey,
            self._serializer,
            writer,
            initializer,
            initargs,
        )
        writer.close()
        self._address = reader.recv()
        reader.close()

    def _start_process(self, target: Any, *args: Any) -> None:
        self._process = self._ctx.Process(target=target, args=args)
        ident = ":".join(str(i) for i in self._process._identity)
        self._process.name = type(self).__name__ + "-" + ident
        self._process.start()

    @classmethod
    def _run_server(
        cls,
        registry: dict[str, Any],
        address: Any,
        authkey: bytes,
        serializer: str,
        writer: Any,
        initializer: Any = None,
        initargs: Any = (),
    ) -> None:
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        if initializer is not None:
            initializer(*initargs)
        server = cls._Server(registry, address, authkey, serializer)
        writer.send(server.address)
        writer.close()
        serve_starter(server)

    @staticmethod
    def _finalize_manager(
        process: Any, address: Any, authkey: bytes, state: Any, _Client: Any, shutdown_timeout: float
    ) -> None:
        _end_server(
            process, address, state, shutdown_timeout, lambda: _ask_to_stop(_Client, address, authkey, shutdown_timeout)
        )

    def _check_initial(self, server: str) -> None:
        state, value = _standard.State, self._state.value
        if value == state.INITIAL:
            return
        if value == state.STARTED:
            raise _standard.ProcessError(f"Already started {server}")
        if value == state.SHUTDOWN:
            raise _standard.ProcessError("Manager has shut down")
        raise _standard.ProcessError(f"Unknown state {value!r}")

    @classmethod
    def register(
        cls,
        typeid: str,
        callable: Any = None,
        proxytype: Any = None,
        exposed: Any = None,
        method_to_typeid: Any = None,
        create_method: bool = True,
    ) -> None:
        """Make ``typeid`` a type of this manager, with a method of that name unless ``create_method`` is false."""
        proxytype = AutoProxy if proxytype is None else _proxy_types.get(proxytype, proxytype)
        super().register(typeid, callable, proxytype, exposed, method_to_typeid, create_method)


def _end_server(process: Any, address: Any, state: Any, timeout: float, tell: Callable[[], None]) -> None:
    """Have the server stop by ``tell``, and end its process if it does not within ``timeout`` seconds."""
    if process.is_alive():
        util.info("sending shutdown message to manager")
        try:
            tell()
        except Exception as error:
            util.info("... shutdown message failed: %r", error)
        for end, what in ((process.terminate, ""), (process.kill, " after terminate")):
            process.join(timeout=timeout)
            if not process.is_alive():
                break
            util.info("manager still alive%s", what)
            end()
        else:
            process.join()
    state.value = _standard.State.SHUTDOWN
    _standard.BaseProxy._address_to_local.pop(address, None)


def _end_forked(
    stop: Stop, process: Any, address: Any, authkey: bytes, state: Any, client: Any, timeout: float
) -> None:
    """Finalize the manager of a server that ``stop`` stops; it is asked to if this process has closed that."""

    def tell() -> None:
        if not stop.ring():
            _ask_to_stop(client, address, authkey, timeout)

    _end_server(process, address, state, timeout, tell)


def _ask_to_stop(client: Any, address: Any, authkey: bytes, timeout: float) -> None:
    """Send the shutdown message; TimeoutError if the server has not answered within ``timeout`` seconds."""
    conn = client(address, authkey=None)
    patient = _Patient(conn, timeout)
    try:
        connection.answer_challenge(patient, authkey)
        connection.deliver_challenge(patient, authkey)
        dispatch(patient, None, "shutdown")
    finally:
        conn.close()


class _Patient:
    """A connection whose receives, all together, take a limited time."""

    def __init__(self, conn: Any, timeout: float) -> None:
        self._conn = conn
        self._deadline = time.monotonic() + timeout
        self.send, self.send_bytes = conn.send, conn.send_bytes

    def recv(self) -> Any:
        self._wait()
        return self._conn.recv()

    def recv_bytes(self, maxlength: int | None = None) -> bytes:
        self._wait()
        received: bytes = self._conn.recv_bytes(maxlength)
        return received

    def _wait(self) -> None:
        if not self._conn.poll(max(0.0, self._deadline - time.monotonic())):
            raise TimeoutError("the server does not answer")


class BaseProxy(_standard.BaseProxy):  # type: ignore[name-defined,misc]
    """Calls the methods of an object in a server; see `multiprocessing.managers.BaseProxy`."""

    @property
    def _Client(self) -> Any:
        return listener_client[self._serializer][1]

    @_Client.setter
    def _Client(self, client: Any) -> None:
        # The standard __init__ sets the standard one.
        pass

    def _callmethod(self, methodname: str, args: Any = (), kwds: Any = {}) -> Any:  # noqa: B006 (the standard default)
        """Return what the method returns, a copy or a proxy; raise what it raises."""
        try:
            conn = self._tls.connection
        except AttributeError:
            util.debug("thread %r does not own a connection", threading.current_thread().name)
            self._connect()
            conn = self._tls.connection
        conn.send((self._id, methodname, args, kwds))
        kind, result = conn.recv()
        if kind == "#RETURN":
            proxytype = _proxy_types.get(type(result))
            if proxytype is not None:
                # Pickled under its standard name, for peers without rsmp.
                result.__class__ = proxytype
            return result
        if kind == "#PROXY":
            return self._proxy(*result)
        try:
            raise _standard.convert_to_error(kind, result)
        finally:
            del result  # it refers to this frame

    def _proxy(self, exposed: Any, token: Any) -> Any:
        proxytype = self._manager._registry[token.typeid][-1]
        token.address = self._token.address
        proxy = proxytype(token, self._serializer, manager=self._manager, authkey=self._authkey, exposed=exposed)
        with self._Client(token.address, authkey=self._authkey) as conn:
            dispatch(conn, None, "decref", (token.id,))
        return proxy

    def __reduce__(self) -> Any:
        reduced: Any = super().__reduce__()
        rebuild, (func, token, serializer, kwds) = reduced
        if func is _standard.AutoProxy:
            func = AutoProxy
        if _standard.get_spawning_popen() is None and func in _standard_names:
            # It may go to a process without rsmp.
            func = _Named(_standard_names[func])
        return rebuild, (func, token, serializer, kwds)


class _Named:
    """Pickled as what the standard module, or what stands in for it over there, has under a name."""

    def __init__(self, name: str | None = None) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        if self.name is None:
            return importlib.import_module, ("multiprocessing.managers",)
        return getattr, (_Named(), self.name)


def MakeProxyType(name: str, exposed: Any, _cache: dict[Any, Any] = {}) -> Any:  # noqa: B006 (it is the cache)
    """Return a proxy type with the methods ``exposed``."""
    exposed = tuple(exposed)
    if (name, exposed) not in _cache:
        methods = {method: _forwarder(method) for method in exposed}
        _cache[name, exposed] = type(name, (BaseProxy,), {**methods, "_exposed_": exposed})
    return _cache[name, exposed]


def _forwarder(name: str) -> Any:
    def method(self: Any, /, *args: Any, **kwds: Any) -> Any:
        return self._callmethod(name, args, kwds)

    method.__name__ = method.__qualname__ = name
    return method


def AutoProxy(
    token: Any,
    serializer: str,
    manager: Any = None,
    authkey: bytes | None = None,
    exposed: Any = None,
    incref: bool = True,
    manager_owned: bool = False,
) -> Any:
    """Return a proxy with the methods that the server exposes for the object of ``token``."""
    if authkey is None:
        authkey = manager._authkey if manager is not None else process.current_process().authkey
    if exposed is None:
        conn = listener_client[serializer][1](token.address, authkey=authkey)
        try:
            exposed = dispatch(conn, None, "get_methods", (token,))
        finally:
            conn.close()
    proxytype = MakeProxyType(f"AutoProxy[{token.typeid}]", exposed)
    proxy = proxytype(token, serializer, manager=manager, authkey=authkey, incref=incref, manager_owned=manager_owned)
    proxy._isauto = True
    return proxy


class IteratorProxy(BaseProxy, _standard.IteratorProxy):  # type: ignore[name-defined,misc]
    """A proxy of an iterator or generator."""


class AcquirerProxy(BaseProxy, _standard.AcquirerProxy):  # type: ignore[name-defined,misc]
    """A proxy of a lock or semaphore."""

    def locked(self) -> Any:
        """Return whether the lock is held."""
        return self._callmethod("locked")


class ConditionProxy(AcquirerProxy, _standard.ConditionProxy):  # type: ignore[name-defined,misc]
    """A proxy of a `threading.Condition`."""


class EventProxy(BaseProxy, _standard.EventProxy):  # type: ignore[name-defined,misc]
    """A proxy of a `threading.Event`."""


class BarrierProxy(BaseProxy, _standard.BarrierProxy):  # type: ignore[name-defined,misc]
    """A proxy of a `threading.Barrier`."""


class NamespaceProxy(BaseProxy, _standard.NamespaceProxy):  # type: ignore[name-defined,misc]
    """A proxy of a `Namespace`."""


class ValueProxy(BaseProxy, _standard.ValueProxy):  # type: ignore[name-defined,misc]
    """A proxy of a `Value`."""


class BaseListProxy(BaseProxy, _standard.BaseListProxy):  # type: ignore[name-defined,misc]
    """The methods of a proxy of a list."""


class ListProxy(BaseListProxy, _standard.ListProxy):  # type: ignore[name-defined,misc]
    """A proxy of a list."""


class DictProxy(BaseProxy, _standard.DictProxy):  # type: ignore[name-defined,misc]
    """A proxy of a dictionary."""


class ArrayProxy(BaseProxy, _standard.ArrayProxy):  # type: ignore[name-defined,misc]
    """A proxy of an `array.array`."""


class BasePoolProxy(BaseProxy, _standard.BasePoolProxy):  # type: ignore[name-defined,misc]
    """The methods of a proxy of a pool."""


class PoolProxy(BasePoolProxy, _standard.PoolProxy):  # type: ignore[name-defined,misc]
    """A proxy of a pool."""


_SET_METHODS = (
    *("__contains__", "__iter__", "__len__", "__lt__", "__le__", "__gt__", "__ge__"),
    *("__and__", "__or__", "__sub__", "__xor__", "__rand__", "__ror__", "__rsub__", "__rxor__"),
    *("__iand__", "__ior__", "__isub__", "__ixor__"),
    *("add", "clear", "copy", "difference", "difference_update", "discard", "intersection", "intersection_update"),
    *("isdisjoint", "issubset", "issuperset", "pop", "remove", "symmetric_difference"),
    *("symmetric_difference_update", "union", "update"),
)
_BaseSetProxy: Any = MakeProxyType("_BaseSetProxy", _SET_METHODS)
if hasattr(_standard, "_BaseSetProxy"):
    _BaseSetProxy = type("_BaseSetProxy", (_BaseSetProxy, _standard._BaseSetProxy), {})


class SetProxy(_BaseSetProxy, *([_standard.SetProxy] if hasattr(_standard, "SetProxy") else [])):  # type: ignore[misc]
    """A proxy of a set, on every Python version."""

    def __ior__(self, value: Any) -> Any:
        self._callmethod("__ior__", (value,))
        return self

    def __iand__(self, value: Any) -> Any:
        self._callmethod("__iand__", (value,))
        return self

    def __ixor__(self, value: Any) -> Any:
        self._callmethod("__ixor__", (value,))
        return self

    def __isub__(self, value: Any) -> Any:
        self._callmethod("__isub__", (value,))
        return self


_standard_names: dict[Any, str] = {
    proxytype: proxytype.__name__
    for proxytype in (
        *(AutoProxy, IteratorProxy, AcquirerProxy, ConditionProxy, EventProxy, BarrierProxy, NamespaceProxy),
        *(ValueProxy, BaseListProxy, ListProxy, DictProxy, ArrayProxy, BasePoolProxy, PoolProxy, SetProxy),
    )
    if hasattr(_standard, proxytype.__name__)
}
"""The proxy types here that have a counterpart in the standard module."""

_proxy_types: dict[Any, Any] = {getattr(_standard, name): proxytype for proxytype, name in _standard_names.items()}
"""The proxy types of the standard module and their counterparts here."""


class SyncManager(BaseManager, _standard.SyncManager):  # type: ignore[name-defined,misc]
    """A manager of dictionaries, lists, queues, locks and so on; see `multiprocessing.managers.SyncManager`."""


def _pool(*args: Any, **kwds: Any) -> Any:
    from rsmp.pool import Pool

    return Pool(*args, **kwds)


for _typeid, (_callable, _exposed, _typeids, _proxytype) in _standard.SyncManager._registry.items():
    SyncManager.register(
        _typeid,
        _pool if _typeid == "Pool" else _callable,
        _proxytype,
        (*_exposed, "locked") if _proxytype is _standard.AcquirerProxy else _exposed,
        _typeids,
        hasattr(_standard.SyncManager, _typeid),
    )
SyncManager.register("set", set, SetProxy)


class _SharedMemoryTracker(_standard._SharedMemoryTracker):  # type: ignore[name-defined,misc]
    """The names of the segments that a server has to unlink."""

    def destroy_segment(self, segment_name: str) -> None:
        """Unlink a segment and forget it."""
        util.debug(f"Destroy segment {segment_name!r} in pid {os.getpid()}")
        self.segment_names.remove(segment_name)
        segment = shared_memory.SharedMemory(segment_name)
        segment.close()
        segment.unlink()


class SharedMemoryServer(_standard.SharedMemoryServer, Server):  # type: ignore[name-defined,misc]
    """A server that unlinks the segments of its manager when it stops."""

    def __init__(self, registry: dict[str, Any], address: Any, authkey: bytes, serializer: str) -> None:
        Server.__init__(self, registry, address, authkey, serializer)
        # The address in the abstract namespace is bytes.
        name = os.fsdecode(self.address) if isinstance(self.address, bytes) else self.address
        self.shared_memory_context = _SharedMemoryTracker(f"shm_{name}_{os.getpid()}", [])
        util.debug(f"SharedMemoryServer started by pid {os.getpid()}")


class SharedMemoryManager(BaseManager, _standard.SharedMemoryManager):  # type: ignore[name-defined,misc]
    """A manager of shared memory blocks; see `multiprocessing.managers.SharedMemoryManager`."""

    _Server = SharedMemoryServer

    def get_server(self) -> Server:
        """Return a server to run in this process."""
        self._check_initial("SharedMemoryServer")
        return self._Server(self._registry, self._address, self._authkey, self._serializer)

    def SharedMemory(self, size: int) -> Any:
        """Return a new block of ``size`` bytes that goes when the manager does."""
        return self._tracked(lambda: shared_memory.SharedMemory(None, create=True, size=size), lambda memory: memory)

    def ShareableList(self, sequence: Any) -> Any:
        """Return a new list that goes when the manager does."""
        return self._tracked(lambda: shared_memory.ShareableList(sequence), lambda items: items.shm)

    def _tracked(self, make: Any, memory_of: Any) -> Any:
        with self._Client(self._address, authkey=self._authkey) as conn:
            made = make()
            try:
                dispatch(conn, None, "track_segment", (memory_of(made).name,))
            except BaseException:
                memory_of(made).unlink()
                raise
        return made


_stdlib.unannotate(__name__)
