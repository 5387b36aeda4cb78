"""Who waits uses no CPU: the CPU time of a process that is blocked, relative to the time that passes."""

import os
import time
from typing import Any

import pytest

WATCHED = 2.0
"""Seconds of waiting that are watched, a few wakes of every waiter's slices."""
SETTLE = 0.5
"""Seconds for a process to start and to go to sleep."""
SHARE = 0.002
"""The part of one CPU that a waiter may use."""
LONG = 600.0


def cpu_time(pid: int) -> float:
    """Return the seconds of CPU time that all threads of a process have used, to the nanosecond."""
    return time.clock_gettime(~pid << 3 | 2)  # the kernel's number for the scheduler's clock of a process


def share_of_a_cpu(pids: list[int]) -> float:
    """Watch processes and return the part of a CPU that they use together."""
    time.sleep(SETTLE)
    before, begun = sum(map(cpu_time, pids)), time.monotonic()
    time.sleep(WATCHED)
    return (sum(map(cpu_time, pids)) - before) / (time.monotonic() - begun)


def square(x: int) -> int:
    return x * x


def call(started: Any, method: Any, *arguments: Any) -> None:
    started.set()
    method(*arguments)


def get_often(started: Any, queue: Any) -> None:
    started.set()
    queue.put("looked")
    while queue.get() is not None:
        pass


@pytest.mark.parametrize("what", ["get", "get with a timeout", "put", "acquire", "wait", "wait with a timeout", "recv"])
def test_a_blocked_call_uses_no_cpu(mp: Any, what: str) -> None:
    context = mp.get_context("fork")
    queue, full, lock, event = context.Queue(), context.Queue(1), context.Semaphore(0), context.Event()
    reader, writer = context.Pipe(duplex=False)
    full.put("full")
    wait, release = {
        "get": ((queue.get,), lambda: queue.put(1)),
        "get with a timeout": ((queue.get, True, LONG), lambda: queue.put(1)),
        "put": ((full.put, "more"), full.get),
        "acquire": ((lock.acquire,), lock.release),
        "wait": ((event.wait,), event.set),
        "wait with a timeout": ((event.wait, LONG), event.set),
        "recv": ((reader.recv,), lambda: writer.send(1)),
    }[what]
    started = context.Event()
    process = context.Process(target=call, args=(started, *wait))
    process.start()
    assert started.wait(30)
    share = share_of_a_cpu([process.pid])
    assert process.is_alive(), "it waits"
    release()
    if what == "put":
        full.get()
    process.join(30)
    assert process.exitcode == 0
    for each in (queue, full):
        each.close()
        each.join_thread()
    assert share < SHARE


def test_a_consumer_that_was_busy_goes_to_sleep(mp: Any) -> None:
    context = mp.get_context("fork")
    queue, started = context.Queue(), context.Event()
    process = context.Process(target=get_often, args=(started, queue))
    process.start()
    assert started.wait(30)
    for number in range(2_000):
        queue.put(number)
    share = share_of_a_cpu([process.pid])
    queue.put(None)
    process.join(30)
    assert process.exitcode == 0
    queue.close()
    queue.join_thread()
    assert share < SHARE


def test_the_workers_of_an_idle_pool_use_no_cpu(mp: Any) -> None:
    with mp.get_context("fork").Pool(2) as pool:
        assert pool.map(square, range(1_000), chunksize=1) == [x * x for x in range(1_000)]
        workers = [process.pid for process in pool._pool]
        assert share_of_a_cpu(workers) < SHARE
        assert pool.apply(square, (3,)) == 9


@pytest.mark.rsmp_only("the standard pool's threads look ten times a second")
def test_the_owner_of_an_idle_pool_uses_no_cpu(mp: Any) -> None:
    with mp.get_context("fork").Pool(2) as pool:
        assert pool.map(square, range(1_000), chunksize=1) == [x * x for x in range(1_000)]
        assert share_of_a_cpu([os.getpid()]) < SHARE
        assert pool.apply(square, (3,)) == 9
