"""Python's ``multiprocessing`` on a Rust engine.

``import rsmp as multiprocessing`` gives the names of the standard package; the functions below are the methods of the
default context, as they are there. `install` makes every later ``import multiprocessing`` mean rsmp, `inspect_locks`
says who holds and who waits.
"""

# General layout: one file per standard submodule, importing in the same direction. `_stdlib` is the only file that
# imports the standard package; `_rsmp` is the engine. As in the standard package a bare import loads only context,
# process and reduction.

from __future__ import annotations

import sys

from rsmp import context as context
from rsmp import process as process
from rsmp._install import install as install
from rsmp.context import _default_context

__all__ = [
    "Array",
    "AuthenticationError",
    "Barrier",
    "BoundedSemaphore",
    "BufferTooShort",
    "Condition",
    "Event",
    "JoinableQueue",
    "Lock",
    "Manager",
    "Pipe",
    "Pool",
    "Process",
    "ProcessError",
    "Queue",
    "RLock",
    "RawArray",
    "RawValue",
    "Semaphore",
    "SimpleQueue",
    "TimeoutError",
    "Value",
    "active_children",
    "allow_connection_pickling",
    "cpu_count",
    "current_process",
    "freeze_support",
    "get_all_start_methods",
    "get_context",
    "get_logger",
    "get_start_method",
    "log_to_stderr",
    "parent_process",
    "reducer",
    "set_executable",
    "set_forkserver_preload",
    "set_start_method",
]

SUBDEBUG = 5
SUBWARNING = 25

Process = _default_context.Process
ProcessError = _default_context.ProcessError
BufferTooShort = _default_context.BufferTooShort
TimeoutError = _default_context.TimeoutError
AuthenticationError = _default_context.AuthenticationError
reducer = _default_context.reducer

active_children = _default_context.active_children
current_process = _default_context.current_process
parent_process = _default_context.parent_process

allow_connection_pickling = _default_context.allow_connection_pickling
cpu_count = _default_context.cpu_count
freeze_support = _default_context.freeze_support
get_all_start_methods = _default_context.get_all_start_methods
get_context = _default_context.get_context
get_logger = _default_context.get_logger
get_start_method = _default_context.get_start_method
log_to_stderr = _default_context.log_to_stderr
set_executable = _default_context.set_executable
set_forkserver_preload = _default_context.set_forkserver_preload
set_start_method = _default_context.set_start_method

Array = _default_context.Array
Barrier = _default_context.Barrier
BoundedSemaphore = _default_context.BoundedSemaphore
Condition = _default_context.Condition
Event = _default_context.Event
JoinableQueue = _default_context.JoinableQueue
Lock = _default_context.Lock
Manager = _default_context.Manager
Pipe = _default_context.Pipe
Pool = _default_context.Pool
Queue = _default_context.Queue
RLock = _default_context.RLock
RawArray = _default_context.RawArray
RawValue = _default_context.RawValue
Semaphore = _default_context.Semaphore
SimpleQueue = _default_context.SimpleQueue
Value = _default_context.Value


def __getattr__(name: str) -> object:
    # The standard package has it from the start; here its mirror comes when used.
    if name == "reduction":
        import rsmp.reduction

        return rsmp.reduction
    if name in ("inspect_locks", "LockState", "Holder", "Waiter"):
        from rsmp import _inspect

        return getattr(_inspect, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


if "__main__" in sys.modules:
    # Children find the parent's main module under this name.
    sys.modules["__mp_main__"] = sys.modules["__main__"]
