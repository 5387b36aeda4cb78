"""What a pool's worker runs. A process that is started for it imports no more of the pool than this."""

from __future__ import annotations

import sys

from rsmp import _child, _rsmp, _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable
    from typing import Any

__all__ = ["attach_channel", "reduce_channel", "worker"]


def worker(
    inqueue: Any,
    outqueue: Any,
    initializer: Callable[..., object] | None = None,
    initargs: Iterable[Any] = (),
    maxtasks: int | None = None,
    wrap_exception: bool = False,
) -> None:
    """Run tasks until there are no more, or ``maxtasks`` of them; see `multiprocessing.pool.worker`."""
    if isinstance(inqueue, _rsmp.PoolEngine):
        _run_thread(inqueue, initializer, initargs)
        return
    if not isinstance(inqueue, _rsmp.PoolChannel):
        _admit_interrupts()
        _stdlib.load("pool").worker(inqueue, outqueue, initializer, initargs, maxtasks, wrap_exception)
        return
    if maxtasks is not None and not (isinstance(maxtasks, int) and maxtasks >= 1):
        raise AssertionError(f"Maxtasks {maxtasks!r} is not valid")
    inqueue.enter()
    # As late as that: between tasks Ctrl-C is the program's business, here it would be told of twice.
    _admit_interrupts()
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException as error:
            import traceback

            inqueue.fail(traceback.format_exc())
            if isinstance(error, KeyboardInterrupt):
                # The program tells of it, once for all its workers.
                sys.exit(1)
            raise
    completed = inqueue.serve(maxtasks, _wrapped if wrap_exception else _bare, _unsendable)
    _debug("worker exiting after %d tasks", completed)


# Its start puts off Ctrl-C until it is here.
worker.admits_interrupts = True  # type: ignore[attr-defined]


def _admit_interrupts() -> None:
    """Let Ctrl-C through, but not what was pressed so far: that is for the program, which ends its workers."""
    try:  # noqa: SIM105 (contextlib is an import)
        _child.admit_interrupts()
    except KeyboardInterrupt:
        pass


def _run_thread(engine: _rsmp.PoolEngine, initializer: Callable[..., object] | None, initargs: Iterable[Any]) -> None:
    if initializer is not None:
        try:
            initializer(*initargs)
        except BaseException as error:
            engine.thread_failed(error)
            raise
    engine.work()


def _wrapped(error: BaseException, function: Any) -> Any:
    try:
        standard = _stdlib.load("pool")
        if function is standard._helper_reraises_exception:
            return error
        return standard.ExceptionWithTraceback(error, error.__traceback__)
    except (ImportError, OSError, MemoryError):
        # A task that leaves no descriptor to read `traceback` by has an error of its own to tell of.
        return error


def _bare(error: BaseException, function: Any) -> Any:
    return error


def _unsendable(error: BaseException, value: Any) -> Any:
    wrapped = _stdlib.load("pool").MaybeEncodingError(error, value)
    _debug("Possible encoding error while sending result: %s", wrapped)
    return wrapped


def _debug(message: str, *args: object) -> None:
    if "multiprocessing.util" in sys.modules:
        _stdlib.load("util").debug(message, *args)


def reduce_channel(channel: _rsmp.PoolChannel) -> Any:
    """Return what pickles ``channel`` for a process that is being started."""
    from rsmp.reduction import share_descriptor

    *descriptors, reserve = channel.parts
    return attach_channel, (*map(share_descriptor, descriptors), reserve)


def attach_channel(file: Any, event: Any, attention: Any, reserve: int) -> _rsmp.PoolChannel:
    """Return the channel behind the descriptors received."""
    return _rsmp.PoolChannel.attach(file.detach(), event.detach(), attention.detach(), reserve)


_stdlib.unannotate(__name__)
