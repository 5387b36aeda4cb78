"""``concurrent.futures.ProcessPoolExecutor`` on a context of rsmp."""

import concurrent.futures
import multiprocessing
import os
import time

import pytest

import rsmp


def square(x):
    return x * x


def where(_):
    time.sleep(0.02)
    return os.getpid(), multiprocessing.current_process().name, type(multiprocessing.current_process()).__module__


def fail(x):
    raise ValueError(f"no {x}")


def die():
    os._exit(7)


@pytest.fixture(params=["fork", "spawn", "forkserver"])
def executor(request):
    with concurrent.futures.ProcessPoolExecutor(2, mp_context=rsmp.get_context(request.param)) as executor:
        yield executor


def test_submit_and_map(executor):
    assert executor.submit(square, 5).result(30) == 25
    assert list(executor.map(square, range(50))) == [n * n for n in range(50)]
    assert list(executor.map(square, range(50), chunksize=7)) == [n * n for n in range(50)]


def test_the_workers_are_processes_of_rsmp(executor):
    found = set(executor.map(where, range(10)))
    assert os.getpid() not in {pid for pid, _, _ in found}
    assert {module for _, _, module in found} == {"rsmp.context"}


def test_an_exception_comes_back(executor):
    with pytest.raises(ValueError, match="no 3") as caught:
        executor.submit(fail, 3).result(30)
    assert "in fail" in str(caught.value.__cause__)
    assert executor.submit(square, 2).result(30) == 4


def test_large_arguments_and_results(executor):
    data = os.urandom(2_000_000)
    assert executor.submit(bytes, data).result(30) == data


def test_what_cannot_be_pickled(executor):
    with pytest.raises(Exception, match=r"pickle|lambda"):
        executor.submit(lambda: 1).result(30)
    assert executor.submit(square, 2).result(30) == 4


def test_a_dead_worker_breaks_the_executor(executor):
    with pytest.raises(concurrent.futures.process.BrokenProcessPool):
        executor.submit(die).result(30)


def test_a_initializer_with_a_lock():
    ctx = rsmp.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(
        1, mp_context=ctx, initializer=keep, initargs=(ctx.Lock(), ctx.Value("i", 0))
    ) as executor:
        assert list(executor.map(count, range(5))) == [1, 2, 3, 4, 5]


kept = []


def keep(*items):
    kept.extend(items)


def count(_):
    lock, value = kept
    with lock:
        value.value += 1
        return value.value
