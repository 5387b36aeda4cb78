"""Contexts: one object per start method that makes everything else.

Each context is a subclass of the standard one and makes rsmp's objects. The start method is one for both libraries:
the default context here reads and writes the standard default context's choice.
"""

from __future__ import annotations

import sys
from types import GenericAlias, MethodType

from rsmp import _stdlib, process

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    if name == "reduction":
        # Comes when used, as in the package.
        from rsmp import reduction

        return reduction
    return getattr(_standard, name)


_modules: dict[str, Any] = {}


def _load(name: str) -> Any:
    """Return the submodule ``name``, imported when first asked for: an import statement costs more than a lock."""
    module = _modules.get(name)
    if module is None:
        full = "rsmp." + name
        __import__(full)
        module = _modules[name] = sys.modules[full]
    return module


_locks: dict[str, Any] = {}
"""The names of `rsmp.synchronize` once it is used: the attributes of a module take longer than the keys of this,"""
_lock_init: Any = None
_rlock_init: Any = None
_make_lock: Any = None
_make_rlock: Any = None
"""and these, which nobody replaces, are globals."""


def _know_locks() -> dict[str, Any]:
    global _locks, _lock_init, _rlock_init, _make_lock, _make_rlock
    _locks = vars(_load("synchronize"))
    _lock_init, _rlock_init = _locks["_lock_init"], _locks["_rlock_init"]
    _make_lock, _make_rlock = _locks["_make_lock"], _locks["_make_rlock"]
    return _locks


class _Alias(GenericAlias):
    """``ctx.Queue[int]``: an alias of the class, for annotations, that makes the object when called."""

    __slots__ = ("_make",)
    _make: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        # Plain attribute access on an alias reads from the class.
        return object.__getattribute__(self, "_make")(*args, **kwargs)


class _Maker:
    """A context's method bound to it that can also be subscripted: ``ctx.Queue(10)``, ``ctx.Queue[int]``."""

    __slots__ = ("__func__", "__self__", "__weakref__")

    def __init__(self, function: Callable[..., Any], context: Any) -> None:
        self.__func__ = function
        self.__self__ = context

    def __getattr__(self, name: str) -> Any:
        return getattr(self.__wrapped__, name)

    @property
    def __wrapped__(self) -> Callable[..., Any]:
        return MethodType(self.__func__, self.__self__)

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        return self.__func__(self.__self__, *args, **kwargs)

    def __getitem__(self, item: Any) -> Any:
        from rsmp import queues

        alias = _Alias(getattr(queues, self.__func__.__name__), item)
        alias._make = self.__wrapped__
        return alias

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Maker) and self.__wrapped__ == other.__wrapped__

    def __hash__(self) -> int:
        return hash(self.__wrapped__)

    def __repr__(self) -> str:
        return repr(self.__wrapped__)

    def __reduce__(self) -> Any:
        return getattr, (self.__self__, self.__func__.__name__)


class _Subscriptable:
    """Decorates a context's method that makes objects of a generic class."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.__wrapped__ = function

    def __get__(self, context: Any, owner: type) -> Callable[..., Any]:
        return self.__wrapped__ if context is None else _Maker(self.__wrapped__, context)


# Of what is made and of the class itself, the former's counts: `help(ctx.Queue)`.
_Maker.__doc__ = property(lambda self: self.__func__.__doc__)  # type: ignore[assignment]


class BaseContext(_standard.BaseContext):  # type: ignore[name-defined,misc]
    """What every context can do; see `multiprocessing.context.BaseContext`."""

    def Manager(self) -> Any:
        """Return a started `rsmp.managers.SyncManager`."""
        from rsmp.managers import SyncManager

        manager = SyncManager(ctx=self.get_context())
        manager.start()
        return manager

    def set_forkserver_preload(self, module_names: list[str], *, on_error: str = "ignore") -> None:
        """Have the fork server import ``module_names``; see `forkserver.ForkServer.set_forkserver_preload`."""
        from rsmp.forkserver import set_forkserver_preload

        set_forkserver_preload(module_names, on_error=on_error)

    def Pipe(self, duplex: bool = True) -> Any:
        """Return two connected `rsmp.connection.Connection` objects."""
        return _load("connection").Pipe(duplex)

    def Lock(self, *, robust: bool = False) -> Any:
        """Return a lock that any process or thread may release; ``robust`` as in `synchronize.OwnerDiedError`."""
        class_, ctx = (_locks or _know_locks())["Lock"], self.get_context()
        # Handing the arguments to its `__init__` takes longer than what that does.
        if class_.__init__ is _lock_init:
            return _make_lock(class_, robust)
        return class_(ctx=ctx, robust=robust)

    def RLock(self, *, robust: bool = False) -> Any:
        """Return a lock that its holder may acquire again; ``robust`` as in `synchronize.OwnerDiedError`."""
        class_, ctx = (_locks or _know_locks())["RLock"], self.get_context()
        if class_.__init__ is _rlock_init:
            return _make_rlock(class_, robust)
        return class_(ctx=ctx, robust=robust)

    def Condition(self, lock: Any = None) -> Any:
        """Return a condition variable on ``lock``, a new RLock by default."""
        return _load("synchronize").Condition(lock, ctx=self.get_context())

    def Semaphore(self, value: int = 1) -> Any:
        """Return a semaphore that starts at ``value``."""
        return _load("synchronize").Semaphore(value, ctx=self.get_context())

    def BoundedSemaphore(self, value: int = 1) -> Any:
        """Return a semaphore that never rises above ``value``."""
        return _load("synchronize").BoundedSemaphore(value, ctx=self.get_context())

    def Event(self) -> Any:
        """Return an event, not set."""
        return _load("synchronize").Event(ctx=self.get_context())

    def Barrier(self, parties: int, action: Any = None, timeout: float | None = None) -> Any:
        """Return a barrier for ``parties`` processes or threads; ``timeout`` in seconds."""
        return _load("synchronize").Barrier(parties, action, timeout, ctx=self.get_context())

    @_Subscriptable
    def Queue(self, maxsize: int = 0) -> Any:
        """Return a queue of at most ``maxsize`` items; zero or less is unbounded."""
        return _load("queues").Queue(maxsize, ctx=self.get_context())

    @_Subscriptable
    def JoinableQueue(self, maxsize: int = 0) -> Any:
        """Return a queue that counts unfinished items."""
        return _load("queues").JoinableQueue(maxsize, ctx=self.get_context())

    @_Subscriptable
    def SimpleQueue(self) -> Any:
        """Return a queue without item bounds or timeouts."""
        return _load("queues").SimpleQueue(ctx=self.get_context())

    def Pool(
        self,
        processes: int | None = None,
        initializer: Any = None,
        initargs: Any = (),
        maxtasksperchild: int | None = None,
        *,
        retries: int = 0,
    ) -> Any:
        """Return a pool of ``processes`` worker processes; ``retries`` as in `rsmp.pool.Pool`."""
        return _load("pool").Pool(
            processes, initializer, initargs, maxtasksperchild, self.get_context(), retries=retries
        )

    def RawValue(self, typecode_or_type: Any, *args: Any) -> Any:
        """Return a ctypes object in shared memory."""
        return _load("sharedctypes").RawValue(typecode_or_type, *args)

    def RawArray(self, typecode_or_type: Any, size_or_initializer: Any) -> Any:
        """Return a ctypes array in shared memory."""
        return _load("sharedctypes").RawArray(typecode_or_type, size_or_initializer)

    def Value(self, typecode_or_type: Any, *args: Any, lock: Any = True) -> Any:
        """Return a ctypes object in shared memory behind a lock."""
        return _load("sharedctypes").Value(typecode_or_type, *args, lock=lock, ctx=self.get_context())

    def Array(self, typecode_or_type: Any, size_or_initializer: Any, *, lock: Any = True) -> Any:
        """Return a ctypes array in shared memory behind a lock."""
        return _load("sharedctypes").Array(typecode_or_type, size_or_initializer, lock=lock, ctx=self.get_context())

    def get_context(self, method: str | None = None) -> Any:
        """Return the context for ``method`` ("fork", "spawn", "forkserver"), this one by default."""
        if method is None:
            return self
        ctx = _concrete_contexts.get(method)
        if ctx is None:
            # Other libraries add their own start methods to the standard table.
            return super().get_context(method)
        ctx._check_available()
        return ctx


class Process(process.Interruptible, _standard.Process):  # type: ignore[name-defined,misc]
    """A process started by the default context's start method."""

    _start_method = None

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return _default_context.get_context().Process._Popen(process_obj)

    @staticmethod
    def _after_fork() -> Any:
        return _default_context.get_context().Process._after_fork()


class DefaultContext(BaseContext, _standard.DefaultContext):  # type: ignore[name-defined,misc]
    """The context behind the functions of the package; its choice is the standard default context's."""

    Process = Process

    def __init__(self, context: Any) -> None:
        # The state lives in the standard default context.
        del context

    # Optional where it is so in the standard class.
    __init__.__defaults__ = _standard.DefaultContext.__init__.__defaults__

    @property
    def _default_context(self) -> Any:
        return _ours(_standard._default_context._default_context)

    @property
    def _actual_context(self) -> Any:
        return _ours(_standard._default_context._actual_context)

    @_actual_context.setter
    def _actual_context(self, context: Any) -> None:
        _standard._default_context._actual_context = _theirs(context)

    def get_context(self, method: str | None = None) -> Any:
        """Return the context for ``method``, the one in use by default."""
        if method is None:
            actual = _standard._default_context._actual_context
            if actual is None:
                return _standard.DefaultContext.get_context(self)
            return _counterparts.get(id(actual), actual)
        return BaseContext.get_context(self, method)


class ForkProcess(process.Interruptible, process.Forked, _standard.ForkProcess):  # type: ignore[name-defined,misc]
    """A process started by fork."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return _load("popen_fork").Popen(process_obj)


class SpawnProcess(process.Interruptible, _standard.SpawnProcess):  # type: ignore[name-defined,misc]
    """A process started as a fresh interpreter."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return _load("popen_spawn_posix").Popen(process_obj)


class ForkServerProcess(process.Interruptible, process.Forked, _standard.ForkServerProcess):  # type: ignore[name-defined,misc]
    """A process forked by the fork server."""

    @staticmethod
    def _Popen(process_obj: Any) -> Any:
        return _load("popen_forkserver").Popen(process_obj)


class ForkContext(BaseContext, _standard.ForkContext):  # type: ignore[name-defined,misc]
    """The context of the "fork" start method."""

    Process = ForkProcess


class SpawnContext(BaseContext, _standard.SpawnContext):  # type: ignore[name-defined,misc]
    """The context of the "spawn" start method."""

    Process = SpawnProcess


class ForkServerContext(BaseContext, _standard.ForkServerContext):  # type: ignore[name-defined,misc]
    """The context of the "forkserver" start method."""

    Process = ForkServerProcess

    def _check_available(self) -> None:
        """Do nothing: descriptors can always be passed on Linux."""


_concrete_contexts: dict[str, Any] = {
    "fork": ForkContext(),
    "spawn": SpawnContext(),
    "forkserver": ForkServerContext(),
}
_default_context = DefaultContext(None)


# By identity, which is good as long as the object lives: whatever a program uses as a context need not be hashable.
_standard_contexts = {name: _standard._concrete_contexts[name] for name in _concrete_contexts}
_counterparts: dict[int, Any] = {
    id(standard): _concrete_contexts[name] for name, standard in _standard_contexts.items()
}


def _ours(context: Any) -> Any:
    """Return rsmp's counterpart of a standard context; others as they are."""
    return _counterparts.get(id(context), context)


def _theirs(context: Any) -> Any:
    """Return the standard counterpart of one of rsmp's contexts; others as they are."""
    name: Any = getattr(context, "_name", None)
    if _concrete_contexts.get(name) is not context:
        return context
    return _standard._concrete_contexts.get(name, context)


def _force_start_method(method: str) -> None:
    _default_context._actual_context = _concrete_contexts[method]


_stdlib.unannotate(__name__)
