"""Faults around locks, semaphores, conditions, events and barriers."""

import os
import random
import signal
import threading
import time

from harness import Within, case, kill, patient, raises

from under_test import submodule


def start(ctx, target, *args):
    process = ctx.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def hold(lock, ready):
    lock.acquire()
    ready.release()
    time.sleep(60)


def await_condition(condition, ready, woken):
    with condition:
        ready.release()
        condition.wait()
        woken.release()


def await_event(event, ready, woken):
    ready.release()
    event.wait()
    woken.release()


def wait_all(ready, count):
    for _ in range(count):
        assert ready.acquire(timeout=10)


@case(standard="hangs")
def waiters_of_a_condition_are_killed(ctx):
    for notify in ("notify", "notify_all", "notify(2)"):
        condition = ctx.Condition()
        ready, woken = ctx.Semaphore(0), ctx.Semaphore(0)
        waiters = [start(ctx, await_condition, condition, ready, woken) for _ in range(3)]
        wait_all(ready, 3)
        with condition:
            pass
        kill(waiters[0])
        kill(waiters[1])
        with Within(0.6), condition:
            if notify == "notify_all":
                condition.notify_all()
            else:
                condition.notify(2 if "2" in notify else 1)
        assert woken.acquire(timeout=0.7), "the living waiter was not woken"
        waiters[2].join(5)
        assert waiters[2].exitcode == 0
        with Within(0.6), condition:
            condition.notify_all()


@case(standard="hangs")
def waiters_of_an_event_are_killed(ctx):
    event = ctx.Event()
    ready, woken = ctx.Semaphore(0), ctx.Semaphore(0)
    waiters = [start(ctx, await_event, event, ready, woken) for _ in range(3)]
    wait_all(ready, 3)
    time.sleep(0.05)
    kill(waiters[0])
    kill(waiters[1])
    with Within(0.6):
        event.set()
    assert woken.acquire(timeout=0.7)
    waiters[2].join(5)
    event.clear()
    with Within(0.6):
        event.set()
        assert event.wait(1)


def arrive(barrier, ready, woken):
    ready.release()
    barrier.wait()
    woken.release()


def arrive_and_act_for_ever(barrier):
    barrier.wait()


def never_end():
    os.kill(os.getpid(), signal.SIGKILL)


@case(standard="hangs")
def parties_of_a_barrier_are_killed(ctx):
    barrier = ctx.Barrier(3)
    ready, woken = ctx.Semaphore(0), ctx.Semaphore(0)
    victim = start(ctx, arrive, barrier, ready, woken)
    wait_all(ready, 1)
    while barrier.n_waiting < 1:
        time.sleep(0.005)
    kill(victim)
    # It has arrived; the round ends when the others are there.
    other = start(ctx, arrive, barrier, ready, woken)
    with Within(5):
        barrier.wait(4)
    assert woken.acquire(timeout=2)
    other.join(5)
    # One that never comes breaks the round in time, and everybody hears of it.
    other = start(ctx, arrive, barrier, ready, woken)
    with Within(2):
        raises(threading.BrokenBarrierError, barrier.wait, 0.3)
    other.join(5)
    assert other.exitcode == 1 and barrier.broken
    barrier.reset()
    assert not barrier.broken


@case(standard="hangs")
def the_process_that_runs_a_barrier_s_action_is_killed(ctx):
    barrier = ctx.Barrier(2, action=never_end)
    actor = start(ctx, arrive_late, barrier)
    with Within(8):
        raises(threading.BrokenBarrierError, barrier.wait, 6)
    actor.join(5)
    assert actor.exitcode == -signal.SIGKILL


def arrive_late(barrier):
    while barrier.n_waiting < 1:
        time.sleep(0.005)
    barrier.wait()


@case()
def the_holder_of_a_lock_is_killed(ctx):
    """As with the standard library the lock stays held; whoever waits does so in time, and anybody may release it."""
    for lock in (ctx.Lock(), ctx.RLock(), ctx.Semaphore(1)):
        ready = ctx.Semaphore(0)
        holder = start(ctx, hold, lock, ready)
        wait_all(ready, 1)
        kill(holder)
        with Within(1):
            assert not lock.acquire(timeout=0.2)
            assert not lock.acquire(block=False)
        if lock.__class__.__name__ != "RLock":
            lock.release()
            assert lock.acquire(timeout=0.2)


@case(standard="fails")
def the_holder_of_a_robust_lock_is_killed(ctx):
    """Exactly one of those who wait hears of it, holding the lock; from then on it is a lock like any other."""
    died = submodule("synchronize").OwnerDiedError
    for lock in (ctx.Lock(robust=True), ctx.RLock(robust=True)):
        for _ in range(2):
            ready, told = ctx.Semaphore(0), ctx.Queue()
            holder = start(ctx, hold, lock, ready)
            wait_all(ready, 1)
            waiters = [start(ctx, acquire_and_tell, lock, told) for _ in range(2)]
            time.sleep(0.1)
            kill(holder)
            answers = sorted((told.get(timeout=3) for _ in waiters), key=str)
            for waiter in waiters:
                waiter.join(5)
                assert waiter.exitcode == 0
            assert answers.count("held") == 1 and holder.pid in answers, answers
            with Within(0.5), lock:
                pass
        holder = start(ctx, hold, lock, ready)
        wait_all(ready, 1)
        kill(holder)
        with Within(1):
            assert raises(died, lock.acquire).pid == holder.pid
        lock.release()


def acquire_and_tell(lock, told):
    try:
        lock.acquire()
        told.put("held")
    except submodule("synchronize").OwnerDiedError as error:
        told.put(error.pid)
    lock.release()


def compete(lock, ready):
    ready.release()
    while True:
        with lock:
            pass


@case()
def waiters_of_a_lock_are_killed(ctx):
    for lock in (ctx.Lock(), ctx.RLock(), ctx.Semaphore(1)):
        ready = ctx.Semaphore(0)
        lock.acquire()
        waiters = [start(ctx, compete, lock, ready) for _ in range(2)]
        wait_all(ready, 2)
        time.sleep(0.1)
        for waiter in waiters:
            kill(waiter)
        lock.release()
        with Within(0.6):
            assert lock.acquire(timeout=0.5)
            lock.release()


def sync_at_random(condition, event, semaphore, seed):
    chance = random.Random(seed)
    while True:
        what = chance.randrange(6)
        if what == 0 and condition.acquire(timeout=0.05):
            condition.wait(0.01)
            condition.release()
        elif what == 1:
            event.wait(0.01)
        elif what == 2:
            event.set()
        elif what == 3:
            event.clear()
        elif what == 4:
            semaphore.acquire(timeout=0.01)
        else:
            semaphore.release()


@case(standard="hangs", limit=30)
def users_are_killed_at_random(ctx):
    """Whatever the dead were doing, the living notify, set, release and acquire without being held up."""
    seed = int(os.environ.get("RSMP_SEED", random.randrange(1 << 30)))
    seconds = float(os.environ.get("RSMP_STRESS", 7.0))
    print("seed", seed)
    chance = random.Random(seed)
    lock = ctx.Lock()
    condition, event, semaphore = ctx.Condition(lock), ctx.Event(), ctx.Semaphore(3)
    processes, kills = [], 0
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        while len(processes) < 3:
            args = (condition, event, semaphore, chance.random())
            processes.append(start(ctx, sync_at_random, *args))
        time.sleep(chance.random() * 0.03)
        kill(processes.pop(0))
        kills += 1
        with Within(1):
            event.set()
            semaphore.release()
            assert semaphore.acquire(timeout=patient(0.9)) or semaphore.get_value() == 0
        with Within(1.2):
            if condition.acquire(timeout=patient(0.6)):
                condition.notify_all()
                condition.release()
            elif not any(process.is_alive() and process.pid == holder(lock) for process in processes):
                # The victim held it, as locks do after a death. It is free for all.
                lock.release()
    for process in processes:
        kill(process)
    if not lock.acquire(timeout=patient(0.6)):
        lock.release()
    print(kills, "kills")
    assert kills > 5


def holder(lock):
    return getattr(lock, "_holder", None)
