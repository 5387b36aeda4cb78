"""Programs that hang, for the doctor: ``python deadlocks.py METHOD CASE``. Each says "ready" before it does."""

import multiprocessing
import os
import signal
import sys
import threading
import time


def ready(*pids):
    """Say that the program is about to hang, and which processes it has."""
    print("ready", *pids, flush=True)


def crosswise(mine, other, meet):
    mine.acquire()
    meet.wait()
    other.acquire()


def two_locks(ctx):
    first, second, meet = ctx.Lock(), ctx.RLock(), ctx.Barrier(3)
    processes = [
        ctx.Process(target=crosswise, args=locks, name=name)
        for name, locks in {"left": (first, second, meet), "right": (second, first, meet)}.items()
    ]
    for process in processes:
        process.start()
    meet.wait()
    ready(*(process.pid for process in processes))
    for process in processes:
        process.join()


def one_lock_twice(ctx):
    lock = ctx.Lock()
    lock.acquire()
    ready()
    lock.acquire()


def consume(queue, lock, started):
    started.set()
    queue.get()


def die_after_starting(queue, lock, started):
    queue.put("the only one")
    started.set()
    os.kill(os.getpid(), signal.SIGKILL)


def dead_producer(ctx):
    queue, started = ctx.Queue(), ctx.Event()
    producer = ctx.Process(target=die_after_starting, args=(queue, None, started))
    producer.start()
    producer.join()
    queue.get()
    ready()
    queue.get()


def want(lock, started):
    started.set()
    lock.acquire()


def join_of_a_waiter(ctx):
    lock, started = ctx.Lock(), ctx.Event()
    process = ctx.Process(target=want, args=(lock, started), name="heir")
    with lock:
        process.start()
        started.wait()
        ready(process.pid)
        process.join()


def die_holding(lock, started):
    lock.acquire()
    started.set()
    os.kill(os.getpid(), signal.SIGKILL)


def killed_owner(ctx):
    lock, started = ctx.Lock(), ctx.Event()
    process = ctx.Process(target=die_holding, args=(lock, started))
    process.start()
    process.join()
    ready(process.pid)
    lock.acquire()


def hold_for_a_while(lock, started):
    lock.acquire()
    started.set()
    time.sleep(600)


def busy_owner(ctx):
    """No deadlock: the holder sleeps, and will wake up."""
    lock, started = ctx.Lock(), ctx.Event()
    process = ctx.Process(target=hold_for_a_while, args=(lock, started), name="owner", daemon=True)
    process.start()
    started.wait()
    ready(process.pid)
    lock.acquire()


def patient(ctx):
    """No deadlock: one of the two gives up."""
    lock = ctx.Lock()
    lock.acquire()
    ready()
    lock.acquire(timeout=600)


def queue_with_items(ctx):
    """No deadlock: the other thread of the parent is not in rsmp."""
    queue, started = ctx.Queue(), ctx.Event()
    for item in range(3):
        queue.put(item)
    empty = ctx.Queue()
    process = ctx.Process(target=consume, args=(empty, None, started), name="consumer", daemon=True)
    process.start()
    started.wait()
    ready(process.pid)
    threading.Event().wait()


if __name__ == "__main__":
    globals()[sys.argv[2]](multiprocessing.get_context(sys.argv[1]))
