"""Pools of worker processes and threads.

What differs from the standard module:

- The calling thread pickles tasks and hands them to the workers itself, and whoever waits for a result takes in what
  has come back. A pool has no threads of its own until something must go on without a caller (`_supervise`).
- A task whose worker dies ends with `WorkerLostError`; the other tasks go on. A worker whose initializer keeps failing
  breaks the pool: every result raises `BrokenPoolError`.
- A result of a terminated pool raises ProcessError where the standard one is waited for without end.
- `imap` and `imap_unordered` take ``buffersize``.
- ``Pool(retries=n)`` runs a task again whose worker died.

A subclass with a ``_setup_queues`` of its own (torch, joblib) is the standard pool on the queues that it makes.
"""

from __future__ import annotations

import functools
import os
import warnings
import weakref
from _thread import RLock, get_ident

from rsmp import _rsmp, _stdlib, util
from rsmp._results import ApplyResult, IMapIterator, IMapUnorderedIterator, MapResult
from rsmp._worker import worker
from rsmp.context import ForkProcess, _default_context

TYPE_CHECKING = False
if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Iterable, Iterator
    from typing import Any

_standard = _stdlib.mirror(__name__)
# Executes the deferred module here, not in each worker that is forked: one may be out of descriptors by then.
_ForkingPickler: Any = _stdlib.load("reduction").ForkingPickler
_ProcessError: type[Exception] = _stdlib.package.ProcessError

INIT = _standard.INIT
RUN = _standard.RUN
CLOSE = _standard.CLOSE
TERMINATE = _standard.TERMINATE

# Seconds that terminate() gives a worker to act on SIGTERM before it is killed.
_GRACE = 5.0


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


class WorkerLostError(_ProcessError):  # type: ignore[misc,valid-type]
    """The process that ran a task ended before the task did.

    ``pid`` is the process, ``exitcode`` its exit code (minus the signal that killed it), ``task`` the name of the
    function and the number of the task.
    """

    def __init__(self, message: str, pid: int | None = None, exitcode: int | None = None, task: Any = None) -> None:
        super().__init__(message, pid, exitcode, task)
        self.pid = pid
        self.exitcode = exitcode
        self.task = task

    def __str__(self) -> str:
        return str(self.args[0])


class BrokenPoolError(_ProcessError):  # type: ignore[misc,valid-type]
    """No worker of the pool gets past its start; the cause is the last traceback of the initializer."""


def _how(exitcode: int | None) -> str:
    if exitcode is None or exitcode >= 0:
        return f"ended with exit code {exitcode}"
    name: str | None = _stdlib.load("process")._exitcode_to_name.get(exitcode)
    return f"was killed by {name.removeprefix('-') if name else f'signal {-exitcode}'}"


def _lost(pid: int, exitcode: int | None, retries: int, func: Any, index: int) -> WorkerLostError:
    task = (getattr(func, "__qualname__", None) or repr(func), index)
    message = f"worker process {pid} {_how(exitcode)} while it ran {task[0]} (task {index})"
    if retries:
        message += f", as {retries} before it did"
    if exitcode == -9:
        message += "; the kernel does that when memory runs out"
    return WorkerLostError(message, pid, exitcode, task)


# What waits for workers to end, runs callbacks and reads iterables while nobody is in a call of the pool.


def _supervise(engine: _rsmp.PoolEngine, reference: weakref.ref[Pool]) -> None:
    while engine.supervise():
        _maintain(reference)


def _maintain(reference: weakref.ref[Pool]) -> None:
    pool = reference()
    if pool is not None:
        pool._replace_exited_workers()


def _start_together(made: list[Any], pool: list[Any]) -> bool:
    """Start the workers ``made`` and add them to ``pool``; False, and nothing done, if that takes more than forks."""
    if not made or not all(isinstance(process, ForkProcess) for process in made):
        return False
    from rsmp.popen_fork import start_together

    try:
        return start_together(made)
    finally:
        for process in made:
            if process._popen is not None:
                pool.append(process)
                util.debug("added worker")


def _terminate(
    engine: _rsmp.PoolEngine, workers: list[Any], maintenance: RLock, supervisor: list[threading.Thread]
) -> None:
    util.debug("finalizing pool")
    engine.terminate()
    with maintenance:
        # Nobody starts workers any more.
        running = [process for process in workers if hasattr(process, "terminate")]
    for process in running:
        if process.exitcode is None:
            process.terminate()
    for process in running:
        process.join(_GRACE)
        if process.is_alive():
            util.debug("killing worker %d", process.pid)
            process.kill()
            process.join()
    for thread in supervisor:
        if thread.ident != get_ident():
            # It may be inside a callback that never returns, or that waits for this thread.
            thread.join(_GRACE)


class _TaskQueue:
    """What packages use of the queue between a standard pool and its task handler."""

    def __init__(self, pool: Pool) -> None:
        self._pool = weakref.ref(pool)

    def put(self, item: tuple[Iterable[Any], Callable[[int], None] | None] | None) -> None:
        pool = self._pool()
        if pool is not None and item is not None:
            pool._start_supervisor()
            pool._native().put(*item)

    def qsize(self) -> int:
        pool = self._pool()
        return 0 if pool is None else pool._native().queued

    def empty(self) -> bool:
        return self.qsize() == 0


class Pool(_standard.Pool):  # type: ignore[name-defined,misc]
    """Worker processes that run functions for the caller; see `multiprocessing.pool.Pool`.

    A task whose worker dies is run again, by another worker, up to ``retries`` times before it ends with
    `WorkerLostError`: it may then have been run, in part or as a whole, more than once. Tasks that raise are not run
    again. With ``retries``, items travel one by one whatever the chunk size, so that none is run again but the one that
    was lost, and the pool keeps the pickles of the tasks that are out.
    """

    _engine: _rsmp.PoolEngine | None = None
    _retries = 0

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
        maxtasksperchild: int | None = None,
        context: Any = None,
        *,
        retries: int = 0,
    ) -> None:
        # There for __del__, whatever happens below.
        self._pool: list[Any] = []
        self._state = INIT
        context = context or _default_context.get_context()
        if getattr(type(self)._setup_queues, "__module__", None) != __name__:
            if retries:
                raise ValueError("retries needs the pool's own queues")
            _standard.Pool.__init__(self, processes, initializer, initargs, maxtasksperchild, context)
            return
        self._ctx = context
        if processes is None:
            # Python 3.13 counts the processors this process may use.
            processes = getattr(os, "process_cpu_count", os.cpu_count)() or 1
        if processes < 1:
            raise ValueError("Number of processes must be at least 1")
        if maxtasksperchild is not None and (not isinstance(maxtasksperchild, int) or maxtasksperchild <= 0):
            raise ValueError("maxtasksperchild must be a positive int or None")
        if initializer is not None and not callable(initializer):
            raise TypeError("initializer must be a callable")
        if not isinstance(retries, int) or not 0 <= retries < 2**32:
            raise ValueError("retries must be a non-negative int")
        self._retries = retries
        self._processes = processes
        self._maxtasksperchild = maxtasksperchild
        self._initializer = initializer
        self._initargs = initargs
        self._maintenance = RLock()
        self._supervisor: list[threading.Thread] = []
        self._failures = 0
        self._setup_queues()
        self._taskqueue = _TaskQueue(self)
        # All that can be is made before the first fork: each page written after one is copied.
        self._terminate = util.Finalize(
            self,
            _terminate,
            args=(self._engine, self._pool, self._maintenance, self._supervisor),
            exitpriority=15,
        )
        self._native().on_exit(functools.partial(_maintain, weakref.ref(self)))
        try:
            self._repopulate_pool()
        except Exception:
            self._terminate.cancel()
            self._native().terminate()
            for process in self._pool:
                if process.exitcode is None:
                    process.terminate()
            for process in self._pool:
                process.join()
            raise
        self._watch()
        self._state = RUN

    def __del__(self, _warn: Any = warnings.warn, RUN: str = RUN) -> None:
        if self._engine is None:
            _standard.Pool.__del__(self)
        elif self._state == RUN:
            _warn(f"unclosed running multiprocessing pool {self!r}", ResourceWarning, source=self)

    def _native(self) -> _rsmp.PoolEngine:
        assert self._engine is not None
        return self._engine

    def _setup_queues(self) -> None:
        self._engine = _rsmp.PoolEngine(self._processes, retries=self._retries)
        self._cache = self._engine.cache
        self._inqueue: Any = self._engine.channel()
        self._outqueue: Any = self._inqueue

    # Workers.

    def _repopulate_pool(self) -> None:
        if self._engine is None:
            _standard.Pool._repopulate_pool(self)
            return
        self._repopulate_pool_static(
            self._ctx,
            self.Process,
            self._processes,
            self._pool,
            self._inqueue,
            self._outqueue,
            self._initializer,
            self._initargs,
            self._maxtasksperchild,
            self._wrap_exception,
        )
        if self._state != INIT:
            self._watch()

    @staticmethod
    def _repopulate_pool_static(
        ctx: Any,
        Process: Any,
        processes: int,
        pool: list[Any],
        inqueue: Any,
        outqueue: Any,
        initializer: Callable[..., object] | None,
        initargs: Iterable[Any],
        maxtasksperchild: int | None,
        wrap_exception: bool,
    ) -> None:
        made = []
        for _ in range(processes - len(pool)):
            process = Process(
                ctx,
                target=worker,
                args=(inqueue, outqueue, initializer, initargs, maxtasksperchild, wrap_exception),
            )
            process.name = process.name.replace("Process", "PoolWorker")
            process.daemon = True
            made.append(process)
        if _start_together(made, pool):
            return
        for process in made:
            process.start()
            pool.append(process)
            util.debug("added worker")

    def _watch(self) -> None:
        """Tell the engine whose end it must report."""
        self._native().watch(self._get_worker_sentinels(self._pool))

    def _replace_exited_workers(self) -> None:
        """Settle what workers that have ended leave, and start others in their place."""
        engine = self._native()
        with self._maintenance:
            if self._state == TERMINATE or engine.is_terminated:
                return
            exited = [process for process in self._pool if process.exitcode is not None]
            for process in exited:
                util.debug("cleaning up worker %d", process.pid)
                process.join()
                # Buried first: if Ctrl-C comes in between, it is found again.
                stage = engine.bury(process.pid, functools.partial(_lost, process.pid, process.exitcode, self._retries))
                self._pool.remove(process)
                self._failures = 0 if stage in ("serving", "left") else self._failures + 1
            if self._failures > self._processes + 1 and engine.serving == 0:
                engine.break_down(self._why_broken(exited[-1].exitcode if exited else None))
            elif self._state == RUN or engine.outstanding:
                try:
                    self._repopulate_pool()
                except OSError as error:
                    # Try again when somebody asks, as long as there is anybody to do the work.
                    if not self._pool:
                        engine.break_down(error)
            self._watch()

    def _why_broken(self, exitcode: int | None) -> BrokenPoolError:
        report = self._native().report()
        what = "its initializer raised an exception" if report else f"it {_how(exitcode)}"
        error = BrokenPoolError(f"the pool is broken: no worker gets past its start, the last because {what}")
        if report:
            error.__cause__ = _standard.RemoteTraceback(f'\n"""\n{report}"""')
        return error

    def _start_supervisor(self) -> None:
        if self._supervisor:
            return
        import threading

        with self._maintenance:
            if self._supervisor or self._state == TERMINATE:
                return
            thread = threading.Thread(
                target=_supervise, args=(self._native(), weakref.ref(self)), name="PoolSupervisor", daemon=True
            )
            self._supervisor.append(thread)
            thread.start()

    # Calls.

    def apply(self, func: Callable[..., Any], args: Iterable[Any] = (), kwds: Any = {}) -> Any:  # noqa: B006
        """Return ``func(*args, **kwds)``, run by a worker."""
        if self._engine is None or type(self).apply_async is not _apply_async:
            return self.apply_async(func, args, kwds).get()
        self._check_running()
        return self._engine.apply(func, args, kwds)

    def apply_async(
        self,
        func: Callable[..., Any],
        args: Iterable[Any] = (),
        kwds: Any = {},  # noqa: B006
        callback: Callable[[Any], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> Any:
        """Start ``func(*args, **kwds)`` in a worker and return its `ApplyResult`.

        ``callback`` is called with the result, ``error_callback`` with the exception, in a thread of the pool.
        """
        if self._engine is None:
            return _standard.Pool.apply_async(self, func, args, kwds, callback, error_callback)
        self._check_running()
        if not self._supervisor:
            self._start_supervisor()
        return self._engine.apply_async(self, ApplyResult, func, args, kwds, callback, error_callback)

    def map(self, func: Callable[[Any], Any], iterable: Iterable[Any], chunksize: int | None = None) -> Any:
        """Return the list of ``func(item)``, run by the workers in chunks of ``chunksize`` items."""
        if self._engine is None:
            return _standard.Pool.map(self, func, iterable, chunksize)
        return self._map(func, iterable, chunksize, False)

    def starmap(self, func: Callable[..., Any], iterable: Iterable[Iterable[Any]], chunksize: int | None = None) -> Any:
        """Return the list of ``func(*item)``, run by the workers in chunks of ``chunksize`` items."""
        if self._engine is None:
            return _standard.Pool.starmap(self, func, iterable, chunksize)
        return self._map(func, iterable, chunksize, True)

    def map_async(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> Any:
        """Start `map` and return its `MapResult`; callbacks as in `apply_async`."""
        if self._engine is None:
            return _standard.Pool.map_async(self, func, iterable, chunksize, callback, error_callback)
        return self._map_later(func, iterable, chunksize, callback, error_callback, False)

    def starmap_async(
        self,
        func: Callable[..., Any],
        iterable: Iterable[Iterable[Any]],
        chunksize: int | None = None,
        callback: Callable[[list[Any]], object] | None = None,
        error_callback: Callable[[BaseException], object] | None = None,
    ) -> Any:
        """Start `starmap` and return its `MapResult`; callbacks as in `apply_async`."""
        if self._engine is None:
            return _standard.Pool.starmap_async(self, func, iterable, chunksize, callback, error_callback)
        return self._map_later(func, iterable, chunksize, callback, error_callback, True)

    def _cut(self, iterable: Any, chunksize: int | None) -> tuple[Any, int, int]:
        """Return the items as something with a length, that length and the chunk size."""
        self._check_running()
        if not hasattr(iterable, "__len__"):
            iterable = list(iterable)
        length = len(iterable)
        if self._retries:
            chunksize = 1
        elif chunksize is None:
            chunksize = -(-length // ((len(self._pool) or 1) * 4))
        return iterable, length, chunksize if length else 0

    def _map(self, func: Any, iterable: Any, chunksize: int | None, spread: bool) -> Any:
        iterable, length, chunksize = self._cut(iterable, chunksize)
        return self._native().map(func, iterable, length, chunksize, spread)

    def _map_later(
        self, func: Any, iterable: Any, chunksize: int | None, callback: Any, error_callback: Any, spread: bool
    ) -> Any:
        iterable, length, chunksize = self._cut(iterable, chunksize)
        self._start_supervisor()
        result = MapResult(self, chunksize, length, callback, error_callback)
        self._native().map_async(result, func, iterable, length, chunksize, spread)
        return result

    def _map_async(
        self,
        func: Any,
        iterable: Any,
        mapper: Any,
        chunksize: int | None = None,
        callback: Any = None,
        error_callback: Any = None,
    ) -> Any:
        if self._engine is None:
            return _standard.Pool._map_async(self, func, iterable, mapper, chunksize, callback, error_callback)
        spread = mapper is _standard.starmapstar
        return self._map_later(func, iterable, chunksize, callback, error_callback, spread)

    def imap(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator of ``func(item)`` in the order of the items.

        With ``buffersize``, no more than that many items are taken from ``iterable`` ahead of the caller.
        """
        if self._engine is None and buffersize is None:
            return _standard.Pool.imap(self, func, iterable, chunksize)  # type: ignore[no-any-return]
        return self._stream(IMapIterator, func, iterable, chunksize, buffersize)

    def imap_unordered(
        self,
        func: Callable[[Any], Any],
        iterable: Iterable[Any],
        chunksize: int = 1,
        buffersize: int | None = None,
    ) -> Iterator[Any]:
        """Return an iterator of ``func(item)`` as they come; ``buffersize`` as in `imap`."""
        if self._engine is None and buffersize is None:
            return _standard.Pool.imap_unordered(self, func, iterable, chunksize)  # type: ignore[no-any-return]
        return self._stream(IMapUnorderedIterator, func, iterable, chunksize, buffersize)

    def _stream(
        self, kind: type[IMapIterator], func: Any, iterable: Any, chunksize: int, buffersize: int | None
    ) -> Iterator[Any]:
        self._check_running()
        if chunksize < 1:
            raise ValueError(f"Chunksize must be 1+, not {chunksize:n}")
        if buffersize is not None and buffersize < 1:
            raise ValueError(f"buffersize must be 1+, not {buffersize}")
        if self._retries:
            chunksize = 1
        self._start_supervisor()
        result = kind(self)
        self._native().imap(result, func, iterable, chunksize, buffersize)
        if chunksize == 1:
            return result
        return (item for chunk in result for item in chunk)

    # The end.

    def close(self) -> None:
        """Take no more calls; the workers leave when everything is done."""
        if self._engine is None:
            _standard.Pool.close(self)
            return
        util.debug("closing pool")
        if self._state == RUN:
            self._state = CLOSE
            self._engine.close()

    def join(self) -> None:
        """Wait for the workers to leave; `close` or `terminate` comes first."""
        if self._engine is None:
            _standard.Pool.join(self)
            return
        util.debug("joining pool")
        if self._state == RUN:
            raise ValueError("Pool is still running")
        if self._state not in (CLOSE, TERMINATE):
            raise ValueError("In unknown state")
        self._engine.drain()
        for thread in self._supervisor:
            if thread.ident != get_ident():
                thread.join()
        for process in self._pool:
            process.join()


_apply_async = Pool.apply_async


class ThreadPool(Pool, _standard.ThreadPool):  # type: ignore[name-defined,misc]
    """Worker threads that run functions for the caller; see `multiprocessing.pool.ThreadPool`."""

    _wrap_exception = False

    @staticmethod
    def Process(ctx: Any, *args: Any, **kwds: Any) -> Any:
        """Return a thread that looks like a process."""
        from rsmp.dummy import Process

        return Process(*args, **kwds)

    def __init__(
        self,
        processes: int | None = None,
        initializer: Callable[..., object] | None = None,
        initargs: Iterable[Any] = (),
    ) -> None:
        Pool.__init__(self, processes, initializer, initargs)

    def _setup_queues(self) -> None:
        self._engine = _rsmp.PoolEngine(self._processes, threads=True)
        self._cache = self._engine.cache
        self._inqueue = self._engine
        self._outqueue = self._engine

    @staticmethod
    def _get_worker_sentinels(workers: Any) -> list[Any]:
        return []


_stdlib.unannotate(__name__)
