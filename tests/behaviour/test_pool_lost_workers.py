"""Pools whose workers die: the task fails at once and alone, another worker comes; what a failing initializer does."""

import os
import queue
import signal
import time

import pytest
from pool_helpers import make, square, wait_until

from under_test import mp as library
from under_test import submodule

pool_module = submodule("pool")

rsmp_only = pytest.mark.rsmp_only


def die_on_three(x):
    if x == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def leave(code):
    os._exit(code)


def fail_to_start():
    raise RuntimeError("no database")


def fail_once(flag):
    if not flag.is_set():
        flag.set()
        raise RuntimeError("only the first one")


@rsmp_only("the standard pool waits for ever for the results of a dead worker")
class TestDeath:
    def test_exactly_its_task_fails(self, ctx):
        with make(ctx, 2) as pool:
            results = [pool.apply_async(die_on_three, (n,)) for n in range(50)]
            for n, result in enumerate(results):
                if n != 3:
                    assert result.get(10) == n
            with pytest.raises(pool_module.WorkerLostError) as caught:
                results[3].get(10)
            assert isinstance(caught.value, library.ProcessError)
            assert caught.value.exitcode == -signal.SIGKILL
            assert caught.value.pid not in (None, os.getpid())
            assert caught.value.task == ("die_on_three", 0)
            assert "SIGKILL" in str(caught.value)
            wait_until(lambda: len(pool._pool) == 2)
            assert pool.map(square, range(10)) == [n * n for n in range(10)]

    def test_a_map_and_an_imap_report_it(self, ctx):
        with make(ctx, 2) as pool:
            started = time.monotonic()
            with pytest.raises(pool_module.WorkerLostError):
                pool.map(die_on_three, range(6), chunksize=1)
            iterator = pool.imap(die_on_three, range(6))
            assert [next(iterator) for _ in range(3)] == [0, 1, 2]
            with pytest.raises(pool_module.WorkerLostError):
                next(iterator)
            assert list(iterator) == [4, 5]
            found, lost = [], 0
            iterator = pool.imap_unordered(die_on_three, range(6))
            for _ in range(6):
                try:
                    found.append(next(iterator))
                except pool_module.WorkerLostError:
                    lost += 1
            assert (sorted(found), lost) == ([0, 1, 2, 4, 5], 1)
            assert time.monotonic() - started < 8

    def test_within_a_second(self, ctx):
        with make(ctx, 1) as pool:
            pool.apply(die_on_three, (1,))  # the worker imports this file, and pytest, before time counts
            started = time.monotonic()
            with pytest.raises(pool_module.WorkerLostError) as caught:
                pool.apply(leave, (7,))
            assert caught.value.exitcode == 7
            assert time.monotonic() - started < 1
            assert pool.apply(square, (2,)) == 4

    def test_an_idle_worker_is_replaced(self, ctx):
        with make(ctx, 2) as pool:
            pool.apply_async(square, (1,)).get(10)
            victim = pool._pool[0].pid
            os.kill(victim, signal.SIGKILL)
            wait_until(lambda: victim not in [process.pid for process in pool._pool] and len(pool._pool) == 2)
            assert pool.map(square, range(8)) == [n * n for n in range(8)]

    def test_callbacks_hear_of_it(self, ctx):
        with make(ctx, 1) as pool:
            heard = queue.Queue()
            pool.apply_async(leave, (3,), callback=heard.put, error_callback=heard.put)
            assert isinstance(heard.get(timeout=10), pool_module.WorkerLostError)

    def test_many_deaths(self, ctx):
        with make(ctx, 3) as pool:
            results = [
                pool.apply_async(leave, (1,)) if n % 5 == 0 else pool.apply_async(square, (n,)) for n in range(30)
            ]
            for n, result in enumerate(results):
                if n % 5 == 0:
                    with pytest.raises(pool_module.WorkerLostError):
                        result.get(20)
                else:
                    assert result.get(20) == n * n

    def test_a_failing_initializer_breaks_the_pool(self, ctx):
        pool = ctx.Pool(2, fail_to_start)
        with pytest.raises(pool_module.BrokenPoolError) as caught:
            pool.apply(square, (1,))
        assert "no database" in str(caught.value.__cause__)
        with pytest.raises(pool_module.BrokenPoolError):
            pool.apply_async(square, (1,)).get(10)
        pool.terminate()
        pool.join()

    def test_an_initializer_may_fail_now_and_then(self, ctx):
        with make(ctx, 2, fail_once, (ctx.Event(),)) as pool:
            assert pool.map(square, range(10)) == [n * n for n in range(10)]
