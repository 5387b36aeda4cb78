"""What locks, semaphores, conditions, events and barriers promise, between processes, for each start method."""

import contextlib
import pickle
import threading
import time

import pytest

NAMES = ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Condition", "Event"]


@contextlib.contextmanager
def running(ctx, target, *argument_lists):
    """Run one process per list of arguments; all must end well."""
    processes = [ctx.Process(target=target, args=arguments) for arguments in argument_lists]
    for process in processes:
        process.start()
    try:
        yield processes
    finally:
        for process in processes:
            process.join(30)
        codes = [process.exitcode for process in processes]
    assert codes == [0] * len(processes)


def add_under_lock(lock, value, times):
    for _ in range(times):
        with lock:
            value.value += 1


def hold(lock, held, let_go):
    with lock:
        held.set()
        assert let_go.wait(30)


def try_acquire(lock, sender, *arguments):
    sender.send(lock.acquire(*arguments))


def release_elsewhere(lock):
    lock.release()


def enter(semaphore, inside, highest, lock):
    for _ in range(20):
        with semaphore:
            with lock:
                inside.value += 1
                highest.value = max(highest.value, inside.value)
            time.sleep(0.0005)
            with lock:
                inside.value -= 1


def wait_condition(condition, sleeping, awake):
    with condition:
        sleeping.release()
        if condition.wait(30):
            awake.release()


def wait_turn(condition, turn, own):
    with condition:
        assert condition.wait_for(lambda: turn.value == own, 30)
        turn.value += 1
        condition.notify_all()


def wait_event(event, results):
    results.put(event.wait(30))


def pass_barrier(barrier, results, rounds):
    for _ in range(rounds):
        results.put(barrier.wait(30))


def meet_broken(barrier, results):
    try:
        barrier.wait(30)
    except threading.BrokenBarrierError:
        results.put("broken")


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "BoundedSemaphore"])
def test_one_at_a_time(ctx, name):
    lock, value = getattr(ctx, name)(), ctx.RawValue("i", 0)
    with running(ctx, add_under_lock, *[(lock, value, 500)] * 3):
        add_under_lock(lock, value, 500)
    assert value.value == 2000


@pytest.mark.parametrize("name", ["Lock", "RLock", "Semaphore", "Condition"])
def test_a_held_lock_is_not_acquired(ctx, name):
    lock, held, let_go = getattr(ctx, name)(), ctx.Event(), ctx.Event()
    with running(ctx, hold, (lock, held, let_go)):
        assert held.wait(30)
        assert not lock.acquire(False)
        assert not lock.acquire(block=False)
        begun = time.monotonic()
        assert not lock.acquire(True, 0.1)
        assert 0.09 <= time.monotonic() - begun < 5
        assert not lock.acquire(timeout=-1)
        let_go.set()
        assert lock.acquire(timeout=30)
    lock.release()


def test_a_lock_is_released_by_another_process(ctx):
    lock = ctx.Lock()
    lock.acquire()
    with running(ctx, release_elsewhere, (lock,)):
        assert lock.acquire(timeout=30)
    lock.release()


def test_an_rlock_is_its_holders(ctx):
    lock = ctx.RLock()
    assert lock.acquire() and lock.acquire()
    receiver, sender = ctx.Pipe(duplex=False)
    with running(ctx, try_acquire, (lock, sender, False)):
        assert receiver.recv() is False
    refused = []
    thread = threading.Thread(target=lambda: refused.append(lock.acquire(False)))
    thread.start()
    thread.join()
    assert refused == [False]
    lock.release()
    lock.release()
    with pytest.raises(AssertionError, match="attempt to release recursive lock not owned by thread"):
        lock.release()
    receiver.close()
    sender.close()


def test_release_of_what_is_not_held(ctx):
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        ctx.Lock().release()
    bounded = ctx.BoundedSemaphore(2)
    with pytest.raises(ValueError, match="semaphore or lock released too many times"):
        bounded.release()
    semaphore = ctx.Semaphore(0)
    semaphore.release()
    assert semaphore.get_value() == 1


def test_a_semaphore_lets_in_as_many_as_it_says(ctx):
    semaphore, lock = ctx.Semaphore(2), ctx.Lock()
    inside, highest = ctx.RawValue("i", 0), ctx.RawValue("i", 0)
    with running(ctx, enter, *[(semaphore, inside, highest, lock)] * 4):
        pass
    assert inside.value == 0 and 1 <= highest.value <= 2
    assert semaphore.get_value() == 2


@pytest.mark.parametrize("count", [1, 2, 4])
def test_notify_wakes_as_many_as_it_says(ctx, count):
    condition, sleeping, awake = ctx.Condition(), ctx.Semaphore(0), ctx.Semaphore(0)
    with running(ctx, wait_condition, *[(condition, sleeping, awake)] * 4):
        for _ in range(4):
            assert sleeping.acquire(timeout=30)
        with condition:
            condition.notify(count)
        for _ in range(count):
            assert awake.acquire(timeout=30)
        assert not awake.acquire(timeout=0.1)
        with condition:
            condition.notify_all()
        for _ in range(4 - count):
            assert awake.acquire(timeout=30)


def test_a_condition_waits_for_a_predicate(ctx):
    condition, turn = ctx.Condition(), ctx.RawValue("i", 0)
    with running(ctx, wait_turn, *[(condition, turn, own) for own in (2, 0, 1)]):
        pass
    assert turn.value == 3


def test_a_condition_times_out(ctx):
    condition = ctx.Condition()
    with condition:
        assert condition.wait(0.05) is False
        assert condition.wait_for(lambda: False, 0.05) is False
        assert condition.wait_for(lambda: "yes", 0.05) == "yes"
    with pytest.raises(AssertionError, match="must acquire"):
        condition.wait(0)
    with pytest.raises(AssertionError, match="lock is not owned"):
        condition.notify()


def test_an_event_wakes_everybody_and_stays_set(ctx):
    event, results = ctx.Event(), ctx.SimpleQueue()
    assert not event.is_set() and event.wait(0.01) is False
    with running(ctx, wait_event, *[(event, results)] * 3):
        event.set()
        assert [results.get() for _ in range(3)] == [True] * 3
    assert event.is_set() and event.wait(0)
    event.clear()
    assert not event.is_set() and event.wait(0.01) is False
    results.close()


def test_a_barrier_lets_all_pass_at_once(ctx):
    barrier, results = ctx.Barrier(3), ctx.SimpleQueue()
    with running(ctx, pass_barrier, *[(barrier, results, 3)] * 2):
        own = [barrier.wait(30) for _ in range(3)]
        theirs = [results.get() for _ in range(6)]
    assert sorted(own + theirs) == [0, 0, 0, 1, 1, 1, 2, 2, 2]
    assert (barrier.parties, barrier.n_waiting, barrier.broken) == (3, 0, False)
    results.close()


def test_a_barrier_breaks_and_is_mended(ctx):
    barrier, results = ctx.Barrier(3), ctx.SimpleQueue()
    with running(ctx, meet_broken, (barrier, results)):
        while barrier.n_waiting == 0:
            time.sleep(0.01)
        with pytest.raises(threading.BrokenBarrierError):
            barrier.wait(0.01)
        assert results.get() == "broken"
    assert barrier.broken
    barrier.reset()
    assert not barrier.broken
    barrier.abort()
    assert barrier.broken
    results.close()


def test_a_barriers_action_runs_once_per_round(ctx):
    called = []
    barrier = ctx.Barrier(2, action=lambda: called.append(1))
    threads = [threading.Thread(target=barrier.wait) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert called == [1]


@pytest.mark.parametrize("name", NAMES)
def test_locks_are_shared_only_by_inheritance(ctx, name):
    with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
        pickle.dumps(getattr(ctx, name)())


def test_a_lock_is_a_context_manager(ctx):
    for lock in (ctx.Lock(), ctx.RLock(), ctx.Semaphore(), ctx.BoundedSemaphore(), ctx.Condition()):
        with lock as entered:
            assert entered is True
        with pytest.raises(KeyError), lock:
            raise KeyError
        assert lock.acquire(False)
        lock.release()


def test_waiting_is_interrupted_by_a_signal_handler(ctx):
    import signal

    class Interrupted(Exception):
        pass

    def interrupt(number, frame):
        raise Interrupted

    lock = ctx.Lock()
    lock.acquire()
    previous = signal.signal(signal.SIGUSR1, interrupt)
    timer = threading.Timer(0.1, signal.pthread_kill, (threading.main_thread().ident, signal.SIGUSR1))
    timer.start()
    try:
        with pytest.raises(Interrupted):
            lock.acquire(timeout=20)
    finally:
        timer.join()
        signal.signal(signal.SIGUSR1, previous)
    lock.release()
    with lock:
        pass
