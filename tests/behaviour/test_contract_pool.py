"""What Pool and ThreadPool promise, for each start method."""

import os
import pickle
import threading
import time

import pytest
from pool_helpers import make

from under_test import mp as library
from under_test import submodule

state = None


def square(x, wait=0.0):
    time.sleep(wait)
    return x * x


def add(x, y):
    return x + y


def pid_of(_):
    return os.getpid()


def slow_pid(_):
    time.sleep(0.05)
    return os.getpid()


def fail(x):
    raise ValueError(f"no {x}")


def fail_on_three(x):
    if x == 3:
        raise KeyError(x)
    return x


def set_state(value):
    global state
    state = value


def get_state(_):
    return state


def unpicklable(_):
    return lambda: 1


def use_lock(x):
    with state:
        return x


def daemonic(_):
    process = library.current_process()
    return process.daemon, process.name


def generate(limit, problem_at=None):
    for n in range(limit):
        if n == problem_at:
            raise RuntimeError("the iterable failed")
        yield n


@pytest.fixture
def pool(ctx):
    with make(ctx, 2) as pool:
        yield pool


def test_every_way_to_call(pool):
    numbers = list(range(50))
    squares = [n * n for n in numbers]
    assert pool.apply(square, (5,)) == 25
    assert pool.apply(square, (5,), {"wait": 0.01}) == 25
    assert pool.apply_async(square, (6,)).get(30) == 36
    assert pool.map(square, numbers) == squares
    assert pool.map(square, numbers, chunksize=7) == squares
    assert pool.map(square, iter(numbers), 1) == squares
    assert pool.map_async(square, numbers).get(30) == squares
    assert pool.starmap(add, [(n, 1) for n in numbers]) == [n + 1 for n in numbers]
    assert pool.starmap_async(add, zip(numbers, numbers, strict=True)).get(30) == [2 * n for n in numbers]
    assert list(pool.imap(square, numbers)) == squares
    assert list(pool.imap(square, numbers, chunksize=7)) == squares
    assert sorted(pool.imap_unordered(square, numbers)) == squares
    assert sorted(pool.imap_unordered(square, numbers, chunksize=7)) == squares


def test_nothing_to_do(pool):
    assert pool.map(square, []) == []
    assert pool.starmap(add, []) == []
    assert list(pool.imap(square, [])) == []
    assert list(pool.imap_unordered(square, iter(()))) == []
    assert pool.map_async(square, []).get(30) == []


def test_results_of_any_size(pool):
    data = [bytes([n]) * 300_000 for n in range(8)]
    assert pool.map(bytes, data, chunksize=2) == data


def test_tasks_are_shared_among_workers(pool):
    pids = set(pool.map(slow_pid, range(20), chunksize=1))
    assert len(pids) == 2 and os.getpid() not in pids


def test_asynchronous_results(pool, mp):
    result = pool.apply_async(square, (7, 0.2))
    assert not result.ready()
    with pytest.raises(ValueError, match="not ready"):
        result.successful()
    with pytest.raises(mp.TimeoutError):
        result.get(timeout=0.01)
    result.wait(30)
    assert result.ready() and result.successful() and result.get() == 49
    failed = pool.apply_async(fail, (1,))
    failed.wait(30)
    assert failed.ready() and not failed.successful()


def test_callbacks(pool):
    called, done = [], threading.Semaphore(0)

    def remember(kind):
        def callback(value):
            called.append((kind, repr(value)))
            done.release()

        return callback

    options = {"callback": remember("result"), "error_callback": remember("error")}
    pool.apply_async(square, (3,), **options).wait(30)
    pool.apply_async(fail, (3,), **options).wait(30)
    pool.map_async(square, [1, 2], **options).wait(30)
    pool.map_async(fail_on_three, [1, 2, 3], **options).wait(30)
    for _ in range(4):
        assert done.acquire(timeout=30)
    assert called == [
        ("result", "9"),
        ("error", "ValueError('no 3')"),
        ("result", "[1, 4]"),
        ("error", "KeyError(3)"),
    ]


def test_an_exception_comes_back_with_the_remote_traceback(pool):
    with pytest.raises(ValueError, match="no 3") as caught:
        pool.map(fail, [3])
    cause = caught.value.__cause__
    assert type(cause).__name__ == "RemoteTraceback"
    assert 'in fail\n    raise ValueError(f"no {x}")' in str(cause)


def test_the_rest_goes_on_after_an_exception(pool):
    results = pool.imap(fail_on_three, range(6))
    assert [next(results), next(results), next(results)] == [0, 1, 2]
    with pytest.raises(KeyError):
        next(results)
    assert list(results) == [4, 5]
    assert pool.apply(square, (2,)) == 4


def test_an_iterable_that_fails(pool):
    with pytest.raises(RuntimeError, match="the iterable failed"):
        pool.map(square, generate(10, 5))
    for each in (pool.imap, pool.imap_unordered):
        found = []
        with pytest.raises(RuntimeError, match="the iterable failed"):
            for value in each(square, generate(10, 5)):
                found.append(value)
        # The failure may overtake results that come in any order.
        assert found == [0, 1, 4, 9, 16] or (each == pool.imap_unordered and {*found} <= {0, 1, 4, 9, 16})


def test_imap_gives_results_as_they_come(pool, mp):
    results = pool.imap(square, [1, 2])
    assert results.next(timeout=30) == 1
    assert results.next() == 4
    with pytest.raises(StopIteration):
        results.next()
    slow = pool.imap_unordered(slow_pid, range(2))
    with pytest.raises(mp.TimeoutError):
        slow.next(timeout=0.001)
    assert len(list(slow)) == 2


def test_what_cannot_be_pickled(pool):
    with pytest.raises((AttributeError, TypeError, ValueError, pickle.PicklingError), match=r"pickle|lambda"):
        pool.apply(lambda: 1)
    with pytest.raises(submodule("pool").MaybeEncodingError, match="lambda"):
        pool.apply(unpicklable, (1,))
    assert pool.apply(square, (2,)) == 4


def test_bad_arguments(ctx, pool):
    with pytest.raises(ValueError, match="Number of processes must be at least 1"):
        ctx.Pool(0)
    with pytest.raises(TypeError, match="initializer must be a callable"):
        ctx.Pool(1, initializer="text")
    for wrong in (0, -1, "1"):
        with pytest.raises(ValueError, match="maxtasksperchild must be a positive int or None"):
            ctx.Pool(1, maxtasksperchild=wrong)
    with pytest.raises(ValueError, match="Chunksize must be 1"):
        pool.imap(square, [1], chunksize=0)
    with pytest.raises(TypeError):
        pool.map(square, 5)


def test_the_initializer_runs_in_each_worker(ctx):
    with make(ctx, 2, set_state, ("set",)) as pool:
        assert pool.map(get_state, range(10), chunksize=1) == ["set"] * 10


def test_locks_go_to_workers_by_the_initializer(ctx):
    with make(ctx, 2, set_state, (ctx.Lock(),)) as pool:
        assert pool.map(use_lock, range(10), chunksize=1) == list(range(10))


def test_workers_are_replaced_after_so_many_tasks(ctx):
    with make(ctx, 2, maxtasksperchild=3) as pool:
        pids = pool.map(pid_of, range(24), chunksize=1)
        assert all(pids.count(pid) <= 3 for pid in pids)
        assert len(set(pids)) >= 8


def test_workers_are_daemons_with_names(pool):
    daemon, name = pool.apply(daemonic, (1,))
    assert daemon is True
    assert "PoolWorker-" in name


def test_a_closed_pool_finishes_its_work(ctx):
    pool = ctx.Pool(2)
    results = [pool.apply_async(square, (n, 0.02)) for n in range(10)]
    pool.close()
    with pytest.raises(ValueError, match="Pool not running"):
        pool.apply(square, (1,))
    pool.join()
    assert [result.get(0) for result in results] == [n * n for n in range(10)]


def test_join_before_close_is_refused(ctx, pool):
    with pytest.raises(ValueError, match="Pool is still running"):
        pool.join()


def test_terminate_drops_the_work(ctx):
    pool = ctx.Pool(2)
    result = pool.map_async(time.sleep, [10] * 10, chunksize=1)
    begun = time.monotonic()
    pool.terminate()
    pool.join()
    assert time.monotonic() - begun < 8
    assert not result.ready()


def test_the_context_manager_terminates(ctx):
    with ctx.Pool(2) as pool:
        assert pool.apply(square, (3,)) == 9
    with pytest.raises(ValueError, match="Pool not running"):
        pool.apply(square, (3,))
    with pytest.raises(ValueError, match="Pool not running"), pool:
        pass
    pool.join()


def test_representation(ctx):
    with make(ctx, 2) as pool:
        kind = type(pool)
        assert repr(pool) == f"<{kind.__module__}.Pool state=RUN pool_size=2>"
    assert "state=CLOSE" in repr(pool) or "state=TERMINATE" in repr(pool)


def test_a_pool_is_not_sent(pool):
    import pickle

    with pytest.raises(NotImplementedError, match="pool objects cannot be passed between processes or pickled"):
        pickle.dumps(pool)


def test_threads_call_at_once(pool):
    found = {}

    def call(n):
        found[n] = pool.map(square, range(n, n + 20), chunksize=3)

    threads = [threading.Thread(target=call, args=(n,)) for n in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [x * x for x in range(n, n + 20)] for n in range(4)}


def test_a_thread_pool_has_the_same_ways(mp):
    with submodule("pool").ThreadPool(3, set_state, ("set",)) as pool:
        assert pool.map(get_state, range(5)) == ["set"] * 5
        assert pool.map(square, range(10)) == [n * n for n in range(10)]
        assert pool.apply_async(lambda: os.getpid()).get(30) == os.getpid()
        assert list(pool.imap(square, range(5))) == [0, 1, 4, 9, 16]
        with pytest.raises(ValueError, match="no 1"):
            pool.apply(fail, (1,))
        pool.close()
        pool.join()
    with submodule("dummy").Pool(2) as pool:
        assert pool.starmap(add, [(1, 2), (3, 4)]) == [3, 7]
        pool.close()
        pool.join()
