"""What each case must reach, should reach, and cannot beat.

``floor`` and ``aim`` are ratios to the standard library in the same run. ``limit`` is the time per operation that the
hardware and CPython's own objects leave, in seconds, put together from what was measured on a virtual machine with two
CPUs of an AMD EPYC (Linux 6.18); on another machine it is an order of magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass

RING = 0.28e-6
"""An int through a ring in shared memory, both ends awake (a prototype without Python's queue interface)."""
ROBUST_LOCK = 15e-9
"""Acquire and release of a robust mutex that nobody else wants."""
CONTENDED_LOCK = 0.145e-6
"""The same, hammered by two processes."""
COPY = 1 / 16e9
"""A byte, by memcpy into warm memory; into fresh pages it is 1 ns."""
AWAKE = 1.1e-6
"""There and back between two processes that look without sleeping. To wake a sleeping CPU takes 20 us each way."""
SOCKET = 1.2e-6
"""A write and a read of a small message, twice."""
FORK = 1.44e-3
"""fork, _exit and wait of a small C program."""
INTERPRETER = 9e-3
"""``python -I -S -c pass``."""
MEMORY_FILE = 9.3e-6
"""memfd_create, ftruncate, mmap, munmap, close."""
CALL = 25e-9
"""The call of a built-in method without arguments."""
TASK = 0.4e-6
"""What the caller's process must do for one task: encode, push, pop, decode, complete."""
MEBIBYTE = 2**20


@dataclass(frozen=True)
class Target:
    """The goals of one case."""

    floor: float | None = None
    aim: float | None = None
    limit: float | None = None
    why: str = ""
    """What the limit is made of."""


TARGETS: dict[tuple[str, str], Target] = {
    ("queue", "stream, int"): Target(8, 15, RING, "the ring alone"),
    ("queue", "stream, small dict"): Target(3, 8, RING + 0.3e-6, "the ring, and marshal's time for the value"),
    ("queue", "stream, bytes 1 KiB"): Target(6, 15, RING + 2 * 1024 * COPY, "the ring, two copies"),
    ("queue", "stream, bytes 64 KiB"): Target(6, 12, 65_536 * COPY, "two copies, on two CPUs at once"),
    ("queue", "stream, bytes 1 MiB"): Target(3, 6, MEBIBYTE * COPY, "two copies, on two CPUs at once"),
    ("queue", "stream, numpy 8 MiB"): Target(8, 20, 8 * MEBIBYTE * COPY, "one copy"),
    ("queue", "stream, numpy 64 MiB"): Target(6, 20, 64 * MEBIBYTE * COPY, "one copy"),
    ("queue", "two to two, int"): Target(6, 12, RING, "the ring alone"),
    ("queue", "ping-pong, int"): Target(4, 15, AWAKE, "nobody sleeps"),
    ("queue", "create"): Target(4, 8, MEMORY_FILE, "one memory file"),
    ("simple_queue", "stream, int"): Target(8, 15, RING, "the ring alone"),
    ("pipe", "ping-pong, int"): Target(1.5, 4, SOCKET, "nobody sleeps"),
    ("pipe", "ping-pong, 32 B"): Target(1.5, 4, SOCKET, "nobody sleeps"),
    ("pipe", "ping-pong, 1 MiB"): Target(1.5, 4, 4 * MEBIBYTE * COPY, "into the kernel and out, both ways"),
    ("pipe", "ping-pong, 32 MiB"): Target(1.5, 4, 128 * MEBIBYTE * COPY, "into the kernel and out, both ways"),
    ("pool", "map, chunksize 1"): Target(8, 20, TASK, "the caller's work"),
    ("pool", "imap, chunksize 1"): Target(8, 20, TASK, "the caller's work"),
    ("pool", "imap_unordered, chunksize 1"): Target(8, 20, TASK, "the caller's work"),
    ("pool", "apply"): Target(5, 15, AWAKE + TASK, "nobody sleeps"),
    ("pool", "apply_async"): Target(8, 20, TASK, "the caller's work"),
    ("pool", "map, default chunks"): Target(1.3, 2, 85e-9, "pickling a chunk, calling"),
    ("pool", "starmap, default chunks"): Target(1.3, 2, 85e-9, "pickling a chunk, calling"),
    ("pool", "map, numpy 8 MiB arguments"): Target(4, 10, 8 * MEBIBYTE * COPY, "one copy"),
    ("pool", "map, numpy 8 MiB and back"): Target(5, 12, 16 * MEBIBYTE * COPY, "one copy each way"),
    ("pool", "create, use, close: fork"): Target(2, 3, 2 * FORK, "two forks"),
    ("pool", "create, use, close: spawn"): Target(1.5, 2.5, INTERPRETER, "two interpreters on two CPUs"),
    ("start", "fork"): Target(1.15, 1.5, FORK, "a small program's fork"),
    ("start", "spawn"): Target(1.6, 2.5, INTERPRETER, "an interpreter's start"),
    ("start", "forkserver"): Target(4, 8, FORK, "a small program's fork"),
    ("locks", "Lock, acquire + release"): Target(1, 1.5, ROBUST_LOCK + 2 * CALL, "two calls, an uncontended lock"),
    ("locks", "with Lock"): Target(1.5, 3, ROBUST_LOCK + 2 * CALL, "two calls, an uncontended lock"),
    ("locks", "with RLock"): Target(1.5, 3, ROBUST_LOCK + 2 * CALL, "two calls, an uncontended lock"),
    ("locks", "Semaphore, ping-pong"): Target(1.2, 3, AWAKE, "nobody sleeps"),
    ("locks", "Event, ping-pong"): Target(2.5, 6, AWAKE, "nobody sleeps"),
    ("locks", "Event.is_set"): Target(5, 8, CALL, "a call"),
    ("locks", "create a Lock"): Target(15, 40, 2 * CALL, "an atomic and a Python object"),
    ("values", "Value += under its lock"): Target(2, 4, ROBUST_LOCK + 3 * CALL, "an uncontended lock, a read, a write"),
    ("values", "the same, two processes"): Target(1.5, 3, CONTENDED_LOCK, "a contended lock"),
    ("values", "Value read"): Target(1.8, 3, CALL, "a call"),
    ("values", "Array item write"): Target(3.5, 7, CALL, "a call"),
    ("values", "Array slice of a million"): Target(1, 2, 1e6 * 10e-9, "a million int objects"),
    ("manager", "dict get"): Target(1.5, 3, SOCKET, "nobody sleeps"),
    ("manager", "dict set"): Target(1.5, 3, SOCKET, "nobody sleeps"),
    ("manager", "start and shut down"): Target(1.4, 2.5, FORK, "a small program's fork"),
    ("shared_memory", "create + unlink, 4 KiB"): Target(1.3, 2.5, MEMORY_FILE, "one memory file"),
    ("shared_memory", "ShareableList item"): Target(5, 12, CALL, "a call"),
    ("import_time", "interpreter + import"): Target(0.85, 1, INTERPRETER, "an interpreter's start"),
}


def target(scenario: str, case: str) -> Target:
    """Return the goals of a case, which may have none."""
    return TARGETS.get((scenario, case), Target())
