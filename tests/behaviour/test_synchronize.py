"""Locks, semaphores, conditions, events and barriers: what they cost, and what a killed process does to them."""

import gc
import inspect
import multiprocessing
import os
import signal
import sys
import threading
import time

import pytest

NAMES = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"]
MANY = 10_000


def make(ctx, name):
    return ctx.Barrier(2) if name == "Barrier" else getattr(ctx, name)()


def descriptors():
    return len(os.listdir("/proc/self/fd"))


@pytest.fixture
def start(ctx):
    """Start a process; it is killed at the end of the test if it still runs."""
    processes = []

    def run(target, *args):
        process = ctx.Process(target=target, args=args)
        process.start()
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.join()


def ends_well(process):
    process.join(30)
    assert process.exitcode == 0


def kill(process):
    os.kill(process.pid, signal.SIGKILL)
    process.join(30)
    assert process.exitcode == -signal.SIGKILL


def eventually(check):
    deadline = time.monotonic() + 20
    while not check():
        assert time.monotonic() < deadline
        time.sleep(0.005)


# What they cost.


def use_many(locks, done):
    assert all(lock.acquire(False) for lock in locks)
    done.release()
    assert all(lock.release() is None for lock in locks[::2])


@pytest.mark.rsmp_only("a standard lock is a file, and may run into the limits of files")
def test_ten_thousand_locks_take_no_descriptors(ctx, start):
    ctx.Lock()
    before = descriptors()
    locks = [ctx.Lock() for _ in range(MANY)]
    assert descriptors() == before
    done = ctx.Semaphore(0)
    process = start(use_many, locks, done)
    assert done.acquire(timeout=60)
    ends_well(process)
    assert [lock.locked() for lock in locks[:4]] == [False, True, False, True]


@pytest.mark.rsmp_only("what rsmp's memory is used for again")
def test_memory_is_used_again(mp):
    gc.collect()
    lock = mp.Lock()
    handle = lock._semlock.handle
    lock.acquire()
    del lock
    again = mp.Lock()
    assert again._semlock.handle == handle
    assert not again.locked()
    addresses = set()
    for _ in range(1000):
        process_locks = [mp.Lock() for _ in range(5)]
        addresses.update(lock._semlock.handle for lock in process_locks)
    assert len(addresses) <= 20


def pause_for_ever():
    signal.pause()


@pytest.mark.rsmp_only("what rsmp's memory is used for again")
def test_memory_is_not_used_again_while_a_process_may_hold_it(mp):
    ctx = mp.get_context("fork")
    locks = [ctx.Lock() for _ in range(100)]
    handles = {lock._semlock.handle for lock in locks}
    process = ctx.Process(target=pause_for_ever)
    process.start()
    del locks
    gc.collect()
    later = [ctx.Lock() for _ in range(300)]
    assert not handles & {lock._semlock.handle for lock in later}
    process.kill()
    process.join()
    process.close()
    del later
    quick = ctx.Process(target=int)
    quick.start()
    quick.join()
    assert len({ctx.Lock()._semlock.handle for _ in range(1000)} | handles) < 1100


# Between libraries and start methods.


def acquire_shared(lock, semaphore, condition, event, barrier):
    with lock, semaphore:
        pass
    with condition:
        condition.notify()
    event.set()
    barrier.wait(30)


@pytest.mark.rsmp_only("the standard library refuses some of these")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_any_context_shares_with_any_process(mp, ctx, method):
    """Also with one that the standard library starts."""
    objects = ctx.RLock(), ctx.Semaphore(), ctx.Condition(), ctx.Event(), ctx.Barrier(2)
    condition, event, barrier = objects[2:]
    with condition:
        process = multiprocessing.get_context(method).Process(target=acquire_shared, args=objects)
        process.start()
        assert condition.wait(30)
    barrier.wait(30)
    assert event.is_set()
    ends_well(process)


def pass_on(ctx, lock, event):
    process = ctx.Process(target=hold_until, args=(lock, event))
    process.start()
    process.join(30)
    sys.exit(process.exitcode)


def hold_until(lock, event):
    with lock:
        event.set()


def test_children_pass_locks_on_to_their_children(ctx, start):
    lock, event = ctx.Lock(), ctx.Event()
    ends_well(start(pass_on, ctx, lock, event))
    assert event.is_set()
    assert lock.acquire(timeout=30)


def wait_on(condition, ready):
    with condition:
        ready.release()
        if not condition.wait(30):
            sys.exit(3)


@pytest.mark.parametrize("name", ["Lock", "RLock"])
def test_a_condition_works_over_a_standard_lock(mp, name):
    theirs = multiprocessing.get_context("fork")
    ours = mp.get_context("fork")
    condition = ours.Condition(getattr(theirs, name)())
    ready = ours.Semaphore(0)
    process = ours.Process(target=wait_on, args=(condition, ready))
    process.start()
    assert ready.acquire(timeout=30)
    with pytest.raises(AssertionError, match="lock is not owned"):
        condition.notify()
    with condition:
        if name == "RLock":
            with condition:
                assert not condition.wait(0.01)
        condition.notify()
    ends_well(process)


def test_they_are_of_the_standard_classes(mp):
    for name in [*NAMES, "Barrier"]:
        assert isinstance(make(mp, name), getattr(multiprocessing.synchronize, name))
    assert isinstance(mp.Barrier(2), threading.Barrier)
    assert isinstance(mp.Lock(), multiprocessing.synchronize.SemLock)


# What they show.


def test_what_they_look_like(mp):
    lock, rlock = mp.Lock(), mp.RLock()
    assert (repr(lock), repr(rlock)) == ("<Lock(owner=None)>", "<RLock(None, 0)>")
    shown = []
    with lock, rlock, rlock:
        assert (repr(lock), repr(rlock)) == ("<Lock(owner=MainProcess)>", "<RLock(MainProcess, 2)>")
        thread = threading.Thread(target=lambda: shown.extend([repr(lock), repr(rlock)]))
        thread.start()
        thread.join()
    assert shown == ["<Lock(owner=SomeOtherThread)>", "<RLock(SomeOtherThread, nonzero)>"]

    def hold():
        with lock:
            shown.append(repr(lock))

    thread = threading.Thread(target=hold, name="worker")
    thread.start()
    thread.join()
    assert shown[2] == "<Lock(owner=MainProcess|worker)>"
    assert repr(mp.Semaphore(3)) == "<Semaphore(value=3)>"
    assert repr(mp.BoundedSemaphore(3)) == "<BoundedSemaphore(value=3, maxvalue=3)>"
    assert repr(mp.Condition()) == "<Condition(<RLock(None, 0)>, 0)>"
    assert repr(mp.Event()).startswith("<Event at 0x")
    assert "waiters=0/2" in repr(mp.Barrier(2))


def show(lock, sender):
    sender.send(repr(lock))


@pytest.mark.parametrize("name", ["Lock", "RLock"])
def test_another_process_sees_that_it_is_held(ctx, start, name):
    lock = getattr(ctx, name)()
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender, lock:
        process = start(show, lock, sender)
        assert receiver.poll(30)
        assert "SomeOtherProcess" in receiver.recv()
        ends_well(process)


def test_the_semlock_within(mp):
    lock, rlock, semaphore = mp.Lock(), mp.RLock(), mp.Semaphore(2)
    assert [it._semlock.kind for it in (lock, rlock, semaphore)] == [1, 0, 1]
    assert [it._semlock.maxvalue for it in (lock, rlock, semaphore)] == [1, 1, 2**31 - 1]
    for it in (lock, rlock, semaphore):
        semlock = it._semlock
        value = semlock._get_value()
        assert (semlock._count(), semlock._is_mine(), semlock._is_zero()) == (0, False, False)
        assert semlock.acquire(True, None)
        assert (semlock._count(), semlock._is_mine(), semlock._get_value()) == (1, True, value - 1)
        semlock.release()
        assert semlock._count() == 0
        assert isinstance(semlock.handle, int)
    assert inspect.signature(lock.acquire) == inspect.signature(multiprocessing.Lock().acquire)


def count_in_child(rlock, semaphore, sender):
    sender.send((rlock._semlock._count(), rlock._semlock._is_mine(), semaphore._semlock._count()))


def test_what_the_parent_holds_is_not_the_childs(ctx, start):
    rlock, semaphore = ctx.RLock(), ctx.Semaphore(3)
    receiver, sender = ctx.Pipe(duplex=False)
    with receiver, sender, rlock, semaphore:
        process = start(count_in_child, rlock, semaphore, sender)
        assert receiver.poll(30)
        assert receiver.recv() == (0, False, 0)
        ends_well(process)


@pytest.mark.parametrize("value", [-1, 2**31, 2**40, "1", 1.5, None])
def test_values_that_no_semaphore_has(mp, value):
    def outcome(library):
        with pytest.raises((OSError, OverflowError, TypeError)) as caught:
            library.Semaphore(value)
        return caught.type, str(caught.value)

    assert outcome(mp) == outcome(multiprocessing)


@pytest.mark.parametrize("arguments", [(None,), ("x",), (False, "x"), (True, "x"), (1, 2, 3)])
def test_arguments_that_acquire_does_not_take(mp, arguments):
    def outcome(library):
        lock = library.Lock()
        try:
            return lock.acquire(*arguments)
        except TypeError as error:
            return str(error) if len(arguments) < 3 else TypeError

    assert outcome(mp) == outcome(multiprocessing)


def test_an_object_that_was_never_initialised(mp):
    class Bypassed(type(mp.Lock())):
        def __init__(self):
            pass

    with pytest.raises(AttributeError):
        Bypassed().acquire()
    with pytest.raises(AttributeError):
        Bypassed().release()


# When a process is killed.


def hold_for_ever(lock, ready):
    lock.acquire()
    ready.release()
    signal.pause()


def test_a_killed_holder_keeps_its_lock(ctx, start):
    """As with the standard library: who waits for it times out, and anybody may release it."""
    lock, ready = ctx.Lock(), ctx.Semaphore(0)
    process = start(hold_for_ever, lock, ready)
    assert ready.acquire(timeout=30)
    kill(process)
    assert not lock.acquire(timeout=0.2)
    lock.release()
    assert lock.acquire(timeout=1)


@pytest.mark.rsmp_only("the standard library has no robust locks")
@pytest.mark.parametrize("name", ["Lock", "RLock"])
def test_the_next_owner_of_a_robust_lock_learns_of_the_death(ctx, start, name):
    from rsmp.synchronize import OwnerDiedError

    lock, ready = getattr(ctx, name)(robust=True), ctx.Semaphore(0)

    def die_holding():
        process = start(hold_for_ever, lock, ready)
        assert ready.acquire(timeout=30)
        assert not lock.acquire(False)
        assert not lock.acquire(timeout=0.1)
        kill(process)
        return process.pid

    pid = die_holding()
    with pytest.raises(OwnerDiedError, match=f"process {pid} died while holding it") as caught:
        lock.acquire()
    assert caught.value.pid == pid
    assert lock._semlock._is_mine()
    lock.release()
    with lock:
        pass
    die_holding()
    with pytest.raises(OwnerDiedError), lock:
        pytest.fail("it was not to be entered")
    assert not lock.locked()
    die_holding()
    with pytest.raises(OwnerDiedError):
        lock.acquire(False)
    lock.release()


@pytest.mark.rsmp_only("gh-75158: notify waits for the dead")
def test_a_killed_waiter_hangs_no_notifier(ctx, start):
    condition, ready = ctx.Condition(), ctx.Semaphore(0)
    processes = [start(wait_on, condition, ready) for _ in range(3)]
    for _ in processes:
        assert ready.acquire(timeout=30)
    with condition:
        pass
    eventually(lambda: condition._sleeping_count.get_value() == 3)
    kill(processes[0])
    for process in processes[1:]:
        with condition:
            condition.notify()
        eventually(lambda: any(not other.is_alive() for other in processes[1:]))
        del process
    for process in processes[1:]:
        ends_well(process)
    with condition:
        condition.notify_all()
    assert condition._sleeping_count.get_value() == 0


def wait_for(event, ready):
    ready.release()
    event.wait()


@pytest.mark.rsmp_only("the standard event's set waits for the dead")
def test_a_killed_waiter_hangs_no_setter(ctx, start):
    event, ready = ctx.Event(), ctx.Semaphore(0)
    process = start(wait_for, event, ready)
    assert ready.acquire(timeout=30)
    time.sleep(0.05)
    kill(process)
    begun = time.monotonic()
    event.set()
    event.clear()
    event.set()
    assert time.monotonic() - begun < 1
    assert event.wait(0)


def meet(barrier, ready):
    ready.release()
    barrier.wait()


@pytest.mark.rsmp_only("the standard barrier never empties")
def test_a_killed_waiter_hangs_no_barrier(ctx, start):
    barrier, ready = ctx.Barrier(3), ctx.Semaphore(0)
    dead, alive = start(meet, barrier, ready), start(meet, barrier, ready)
    eventually(lambda: barrier.n_waiting == 2)
    kill(dead)
    assert barrier.wait(30) == 2
    ends_well(alive)
    assert barrier.n_waiting == 0
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait(0.05)
    barrier.reset()
    assert not barrier.broken


def find_broken(barrier, found):
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    found.append(True)


def die():
    os.kill(os.getpid(), signal.SIGKILL)


@pytest.mark.rsmp_only("the standard barrier hangs")
def test_a_barrier_breaks_when_its_action_dies(ctx, start):
    barrier, ready = ctx.Barrier(2, die), ctx.Semaphore(0)
    broken = []
    waiter = threading.Thread(target=find_broken, args=(barrier, broken))
    waiter.start()
    eventually(lambda: barrier.n_waiting == 1)
    process = start(meet, barrier, ready)
    process.join(30)
    waiter.join(30)
    assert broken
    assert barrier.broken


# Signals.


class Stop(Exception):
    pass


@pytest.fixture
def alarm():
    """Raise Stop in 0.1 seconds."""

    def stop(*_):
        raise Stop

    before = signal.signal(signal.SIGALRM, stop)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    yield
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


@pytest.mark.parametrize("name", [*NAMES[:4], "Event", "Barrier"])
def test_a_signal_handler_ends_a_wait(mp, alarm, name):
    if name in ("Lock", "RLock"):
        blocked = make(mp, name)
        thread = threading.Thread(target=blocked.acquire)
        thread.start()
        thread.join()
        wait = blocked.acquire
    elif name == "Event":
        wait = mp.Event().wait
    elif name == "Barrier":
        wait = mp.Barrier(2).wait
    else:
        wait = getattr(mp, name)(0).acquire
    begun = time.monotonic()
    with pytest.raises(Stop):
        wait()
    assert time.monotonic() - begun < 5


def test_a_condition_is_held_again_after_a_signal_handler_raised(mp, alarm):
    condition = mp.Condition()
    with condition:
        with pytest.raises(Stop):
            condition.wait()
        condition.notify()
    assert not condition._lock._semlock._is_mine()


@pytest.mark.rsmp_only("the standard barrier stays short of one")
def test_an_interrupted_waiter_has_not_arrived(mp, alarm):
    barrier = mp.Barrier(2)
    with pytest.raises(Stop):
        barrier.wait()
    assert barrier.n_waiting == 0
    assert not barrier.broken


@pytest.mark.rsmp_only("a standard waiter looks at the event once more when it wakes, and may find it cleared")
def test_an_event_set_and_cleared_lets_waiters_through(ctx, start):
    event, ready = ctx.Event(), ctx.Semaphore(0)
    processes = [start(wait_for, event, ready) for _ in range(3)]
    for _ in processes:
        assert ready.acquire(timeout=30)
    time.sleep(0.1)
    event.set()
    event.clear()
    for process in processes:
        ends_well(process)
    assert not event.is_set()


# Barriers.


def test_the_barriers_action_may_fail(mp):
    def fail():
        raise KeyError("action")

    barrier = mp.Barrier(1, fail)
    with pytest.raises(KeyError):
        barrier.wait()
    assert barrier.broken
    with pytest.raises(threading.BrokenBarrierError):
        barrier.wait()
    barrier.reset()
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (1, 0, False)


@pytest.mark.parametrize("how", ["abort", "reset"])
def test_waiters_of_a_barrier_that_is_broken(mp, how):
    barrier = mp.Barrier(3)
    caught = []
    threads = [threading.Thread(target=find_broken, args=(barrier, caught)) for _ in range(2)]
    for thread in threads:
        thread.start()
    eventually(lambda: barrier.n_waiting == 2)
    getattr(barrier, how)()
    for thread in threads:
        thread.join(30)
    assert len(caught) == 2
    assert barrier.broken == (how == "abort")


def test_a_notification_is_for_those_who_waited_first(mp):
    condition = mp.Condition(mp.Lock())
    order = []

    def wait(number):
        with condition:
            assert condition.wait(30)
            order.append(number)

    threads = []
    for number in range(20):
        thread = threading.Thread(target=wait, args=(number,))
        thread.start()
        threads.append(thread)
        eventually(lambda: f", {len(threads)})>" in repr(condition))
    for count in range(1, 21):
        with condition:
            condition.notify()
        eventually(lambda count=count: len(order) == count)
    for thread in threads:
        thread.join(30)
    assert sorted(order) == list(range(20))
    if mp is not multiprocessing:
        assert order == list(range(20))
