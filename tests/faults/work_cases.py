"""A program that uses everything, to be run in surroundings that are short of something."""

import contextlib
import os
import signal
import time

from harness import case, kill, patient, raises

from under_test import submodule

MIB = 1 << 20


def double(x):
    return 2 * x


def echo(inbox, outbox):
    while (item := inbox.get()) is not None:
        outbox.put(item)


def count_up(lock, condition, value, times):
    for _ in range(times):
        with lock:
            value.value += 1
    with condition:
        condition.notify_all()


@case(limit=60)
def everything(ctx):
    inbox, outbox = ctx.Queue(), ctx.SimpleQueue()
    child = ctx.Process(target=echo, args=(inbox, outbox))
    child.start()
    for item in [1, "text", bytes(100_000), [None] * 50]:
        inbox.put(item)
        assert outbox.get() == item
    inbox.put(None)
    child.join()
    assert child.exitcode == 0
    lock, condition, value = ctx.Lock(), ctx.Condition(), ctx.Value("i", lock=False)
    with condition:
        children = [ctx.Process(target=count_up, args=(lock, condition, value, 200)) for _ in range(2)]
        for child in children:
            child.start()
        while value.value < 400:
            condition.wait(1)
    for child in children:
        child.join()
    with ctx.Pool(2) as pool:
        assert pool.map(double, range(200)) == [2 * n for n in range(200)]
        assert len(pool.apply(double, (bytes(MIB),))) == 2 * MIB
        assert sorted(pool.imap_unordered(double, range(20))) == [2 * n for n in range(20)]


@case(limit=60)
def on_one_cpu(ctx):
    os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
    everything(ctx)


@case(limit=60)
def with_the_memory_file_system_full(ctx):
    """Locks, queues, values and pools have no files there: only named segments do."""
    assert os.statvfs("/dev/shm").f_blocks * os.statvfs("/dev/shm").f_frsize <= 4 * MIB
    with open("/dev/shm/filler", "wb", buffering=0) as filler, contextlib.suppress(OSError):
        while True:
            filler.write(bytes(4096))
    everything(ctx)
    os.unlink("/dev/shm/filler")
    segment = submodule("shared_memory").SharedMemory(create=True, size=MIB)
    segment.buf[MIB - 1] = 7
    segment.close()
    segment.unlink()
    assert os.listdir("/dev/shm") == []


def hold(lock, held):
    with lock:
        held.set()
        time.sleep(60)


def stopped_holder(ctx, lock):
    held = ctx.Event()
    child = ctx.Process(target=hold, args=(lock, held))
    child.start()
    assert held.wait(20)
    os.kill(child.pid, signal.SIGSTOP)
    begun = time.monotonic()
    assert not lock.acquire(timeout=0.7), "it is held, however long its holder does nothing"
    assert 0.6 < time.monotonic() - begun < patient(1.4)
    return child


@case(limit=40)
def the_holder_of_a_lock_is_stopped(ctx):
    lock = ctx.Lock()
    child = stopped_holder(ctx, lock)
    os.kill(child.pid, signal.SIGCONT)
    kill(child)
    lock.release()
    assert lock.acquire(timeout=1)


@case(standard="fails", limit=40)
def the_holder_of_a_robust_lock_is_stopped(ctx):
    lock = ctx.Lock(robust=True)
    kill(stopped_holder(ctx, lock))
    # Now it is dead.
    error = raises(submodule("synchronize").OwnerDiedError, lock.acquire, timeout=2)
    assert error
    lock.release()
