"""`rsmp.inspect_locks`: who holds, who waits, and since when."""

import contextlib
import os
import signal
import threading
import time

import pytest

pytestmark = pytest.mark.rsmp_only("the standard library has nothing of the kind")

NAMES = ["Lock", "RLock", "Semaphore", "Condition", "Event", "Barrier"]
LIMIT = 20.0


@pytest.fixture
def start(ctx):
    """Start a named process; it is killed at the end of the test."""
    processes = []

    def run(name, target, *args):
        process = ctx.Process(target=target, args=args, name=name)
        process.start()
        processes.append(process)
        return process

    yield run
    for process in processes:
        process.kill()
        process.join()


def make(ctx, name):
    made = {"Semaphore": lambda: ctx.Semaphore(0), "Barrier": lambda: ctx.Barrier(3)}
    return made.get(name, getattr(ctx, name))()


def state_of(handle, mp):
    """The state of the lock with this ``handle``."""
    (found,) = [state for state in mp.inspect_locks() if state.handle == handle]
    return found


def eventually(look):
    """What ``look`` returns once that is true."""
    deadline = time.monotonic() + LIMIT
    while not (found := look()):
        assert time.monotonic() < deadline, "nothing came of it"
        time.sleep(0.01)
    return found


def hold(lock, ready):
    lock.acquire()
    ready.set()
    time.sleep(60)


def wait_for(lock):
    if hasattr(lock, "acquire") and not hasattr(lock, "notify"):
        lock.acquire()
    else:
        with lock if hasattr(lock, "notify") else contextlib.nullcontext():
            lock.wait()


def wait_in_turns(lock, timeout):
    lock.acquire(timeout=timeout)


@pytest.mark.parametrize("name", ["Lock", "RLock"])
def test_the_holder_is_named(ctx, mp, name):
    lock = getattr(ctx, name)()
    before = state_of(lock.handle, mp)
    assert (before.kind, before.holder, before.value, before.waiters) == (name, None, 0, ())
    with lock:
        holder = state_of(lock.handle, mp).holder
        assert (holder.pid, holder.thread_id, holder.alive) == (os.getpid(), threading.get_native_id(), True)
        assert holder.seen_for is None, "nobody waits, so nobody has looked"
    assert state_of(lock.handle, mp).holder is None


def test_a_recursive_lock_tells_how_often_it_is_held(ctx, mp):
    lock = ctx.RLock()
    with lock, lock, lock:
        assert state_of(lock.handle, mp).value == 3


def test_semaphores_tell_their_value_and_their_bound(ctx, mp):
    semaphore, bounded = ctx.Semaphore(3), ctx.BoundedSemaphore(2)
    bounded.acquire()
    states = state_of(semaphore.handle, mp), state_of(bounded.handle, mp)
    assert [(state.kind, state.value, state.maximum) for state in states] == [
        ("Semaphore", 3, None),
        ("Semaphore", 1, 2),
    ]


def test_an_event_tells_whether_it_is_set(ctx, mp):
    event = ctx.Event()
    known = {state.name for state in mp.inspect_locks()}
    other = ctx.Event()
    (found,) = [state for state in mp.inspect_locks() if state.name not in known]
    assert (found.kind, found.value) == ("Event", 0)
    other.set()
    (found,) = [state for state in mp.inspect_locks() if state.name not in known]
    assert found.value == 1
    event.set()


def test_who_waits_is_named_and_since_when(ctx, mp, start):
    lock, ready = ctx.Lock(), ctx.Event()
    holder = start("holder", hold, lock, ready)
    assert ready.wait(LIMIT)
    waiters = [start(f"waiter-{number}", wait_for, lock) for number in range(2)]

    def everybody():
        state = state_of(lock.handle, mp)
        return state if len(state.waiters) == 2 and state.holder.seen_for else None

    first = eventually(everybody)
    time.sleep(0.3)
    state = state_of(lock.handle, mp)
    assert (state.holder.pid, state.holder.thread_id) == (holder.pid, holder.pid)
    assert {(waiter.pid, waiter.process_name) for waiter in state.waiters} == {(it.pid, it.name) for it in waiters}
    assert all(waiter.thread_id == waiter.pid and not waiter.timed for waiter in state.waiters)
    for before, after in zip(first.waiters, state.waiters, strict=True):
        assert 0.25 < after.waits_for - before.waits_for < 5
    assert state.waiters[0].waits_for >= state.waiters[1].waits_for, "the longest is to come first"
    assert 0.25 < state.holder.seen_for < LIMIT


@pytest.mark.parametrize("name", NAMES)
def test_every_kind_tells_who_waits(ctx, mp, start, name):
    known = {state.name for state in mp.inspect_locks()}
    lock = make(ctx, name)
    if name in ("Lock", "RLock"):
        lock.acquire()
    waiter = start("waiter", wait_for, lock)
    state = eventually(lambda: next((it for it in mp.inspect_locks() if it.name not in known and it.waiters), None))
    assert state.kind == name
    assert [(it.pid, it.thread_id, it.process_name) for it in state.waiters] == [(waiter.pid, waiter.pid, "waiter")]


def test_a_wait_that_ends_by_itself_says_so_and_goes(ctx, mp, start):
    lock = ctx.Lock()
    with lock:
        process = start("patient", wait_in_turns, lock, 1.0)
        (waiter,) = eventually(lambda: state_of(lock.handle, mp).waiters)
        assert waiter.timed
        process.join(LIMIT)
        assert state_of(lock.handle, mp).waiters == ()


def test_each_thread_of_a_process_waits_for_itself(ctx, mp):
    lock = ctx.Lock()
    with lock:
        threads = [threading.Thread(target=wait_for, args=(lock,)) for _ in range(3)]
        for thread in threads:
            thread.start()
        state = eventually(lambda: next((it for it in [state_of(lock.handle, mp)] if len(it.waiters) == 3), None))
        assert {it.thread_id for it in state.waiters} == {thread.native_id for thread in threads}
        lock.release()
        for _ in threads:
            time.sleep(0.05)
            lock.release()
        for thread in threads:
            thread.join(LIMIT)
        lock.acquire()
    assert state_of(lock.handle, mp).waiters == ()


def test_the_dead_do_not_wait_and_a_dead_holder_is_told_from_a_living_one(ctx, mp, start):
    lock, ready = ctx.Lock(), ctx.Event()
    holder = start("holder", hold, lock, ready)
    assert ready.wait(LIMIT)
    waiter = start("waiter", wait_for, lock)
    eventually(lambda: state_of(lock.handle, mp).waiters)
    waiter.kill()
    waiter.join()
    assert state_of(lock.handle, mp).waiters == ()
    holder.kill()
    holder.join()
    dead = state_of(lock.handle, mp).holder
    assert (dead.pid, dead.alive) == (holder.pid, False)


def test_a_stopped_process_is_seen_as_it_was(ctx, mp, start):
    lock = ctx.Lock()
    with lock:
        waiter = start("waiter", wait_for, lock)
        eventually(lambda: state_of(lock.handle, mp).waiters)
        os.kill(waiter.pid, signal.SIGSTOP)
        time.sleep(0.1)
        assert [it.pid for it in state_of(lock.handle, mp).waiters] == [waiter.pid]


def test_what_its_maker_dropped_appears_while_it_is_held(ctx, mp, start):
    lock, ready = ctx.Lock(), ctx.Event()
    handle = lock.handle
    process = start("holder", hold, lock, ready)
    assert ready.wait(LIMIT)
    del lock
    assert state_of(handle, mp).holder.pid == process.pid
    process.kill()
    process.join()
    assert [state for state in mp.inspect_locks() if state.handle == handle and not state.holder] == []


def wait_in_a_handler(lock, inner, ready):
    def handler(*_):
        inner.acquire()

    signal.signal(signal.SIGUSR1, handler)
    ready.set()
    lock.acquire()


def test_a_signal_handler_may_wait_in_the_middle_of_a_wait(ctx, mp, start):
    lock, inner, ready = ctx.Lock(), ctx.Lock(), ctx.Event()
    with lock:
        inner.acquire()
        waiter = start("waiter", wait_in_a_handler, lock, inner, ready)
        assert ready.wait(LIMIT)
        eventually(lambda: state_of(lock.handle, mp).waiters)
        os.kill(waiter.pid, signal.SIGUSR1)
        eventually(lambda: state_of(inner.handle, mp).waiters)
        assert state_of(lock.handle, mp).waiters == ()
        inner.release()
        eventually(lambda: state_of(lock.handle, mp).waiters)
        assert state_of(inner.handle, mp).waiters == ()
