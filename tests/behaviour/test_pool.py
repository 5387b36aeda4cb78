"""Pools beyond the contract: values that do not travel, odd iterables, subclasses, threads. See test_contract_pool."""

import contextlib
import errno
import itertools
import os
import queue
import threading

import pytest
from pool_helpers import make, sleep, square, wait_until

from under_test import mp as library
from under_test import submodule

pool_module = submodule("pool")

rsmp_only = pytest.mark.rsmp_only


def identity(x):
    return x


def pid_of(_):
    return os.getpid()


def leave_by_exception(kind):
    raise kind("task")


class LoadsNowhere:
    """Pickles, and raises when unpickled."""

    def __reduce__(self):
        return leave_by_exception, (RuntimeError,)


class ErrorThatLoadsNowhere(Exception):
    def __init__(self, first, second):
        super().__init__(first)


def return_it(kind):
    return kind()


def raise_it(kind):
    raise kind(1, 2)


class Unpicklable:
    def __reduce__(self):
        raise TypeError("not this one")


class Counter:
    def __init__(self):
        self.count = 0

    def __call__(self, x):
        self.count += 1
        return self.count

    def method(self, x):
        return self(x)


# Values that do not travel.


@rsmp_only("the standard pool's result handler dies of it")
@pytest.mark.parametrize("function, argument", [(return_it, LoadsNowhere), (raise_it, ErrorThatLoadsNowhere)])
def test_a_result_that_does_not_unpickle_fails_its_task_only(ctx, function, argument):
    with make(ctx, 1) as pool:
        bad = pool.apply_async(function, (argument,))
        good = pool.apply_async(square, (3,))
        assert good.get(10) == 9
        with pytest.raises((RuntimeError, TypeError)):
            bad.get(10)


@rsmp_only("the standard worker dies of it")
def test_an_argument_that_does_not_unpickle_fails_its_task_only(ctx):
    with make(ctx, 1) as pool:
        bad = pool.apply_async(identity, (LoadsNowhere(),))
        assert pool.apply(square, (3,)) == 9
        with pytest.raises(RuntimeError, match="task"):
            bad.get(10)


@rsmp_only("the standard worker dies of it")
@pytest.mark.parametrize("kind", [BaseException, SystemExit, KeyboardInterrupt, GeneratorExit])
def test_a_base_exception_comes_back(ctx, kind):
    with make(ctx, 1) as pool:
        pid = pool.apply(pid_of, (0,))
        with pytest.raises(kind):
            pool.apply(leave_by_exception, (kind,))
        assert pool.apply(pid_of, (0,)) == pid


def test_arguments_that_cannot_be_pickled(ctx):
    with make(ctx, 1) as pool:
        with pytest.raises(TypeError, match="not this one"):
            pool.apply(identity, (Unpicklable(),))
        with pytest.raises(TypeError, match="not this one"):
            pool.map(identity, [1, Unpicklable()], chunksize=1)
        iterator = pool.imap(identity, [1, Unpicklable(), 3])
        assert next(iterator) == 1
        with pytest.raises(TypeError, match="not this one"):
            next(iterator)
        assert next(iterator) == 3


def test_a_function_with_state_is_a_new_one_for_each_task(ctx):
    with make(ctx, 1) as pool:
        assert pool.map(Counter(), range(3), chunksize=1) == [1, 1, 1]
        assert pool.map(Counter().method, range(4), chunksize=2) == [1, 2, 1, 2]
        assert list(pool.imap(Counter().method, range(3))) == [1, 1, 1]


def test_identity_within_a_task_is_kept(ctx):
    with make(ctx, 1) as pool:
        shared = []
        first, second = pool.apply(identity, ((shared, shared),))
        assert first is second
        counter = Counter()
        assert pool.apply(counter.__eq__, (counter,)) is True


def test_results_larger_than_expected(ctx):
    with make(ctx, 2) as pool:
        sizes = [0, 1, 63, 64, 65, 128, 5000, 8192, 8193, 100_000, 3_000_000]
        results = pool.map(bytes, sizes, chunksize=1)
        assert [len(result) for result in results] == sizes
        results = pool.map(identity, [bytes(size) for size in sizes], chunksize=3)
        assert [len(result) for result in results] == sizes


# Iterables.


def test_more_tasks_than_slots(ctx):
    with make(ctx, 2) as pool:
        count = 20_000
        assert pool.map(identity, range(count), chunksize=1) == list(range(count))
        assert list(pool.imap(identity, range(count))) == list(range(count))
        assert sorted(pool.imap_unordered(identity, iter(range(count)))) == list(range(count))
        results = [pool.apply_async(identity, (n,)) for n in range(count)]
        assert [result.get(30) for result in results] == list(range(count))


def test_an_iterable_that_needs_its_results(ctx):
    """The iterable is read in the background: it may wait for what the caller does with earlier results."""
    feedback = queue.Queue()

    def numbers():
        yield 2
        for _ in range(5):
            yield feedback.get()

    with make(ctx, 1) as pool:
        found = []
        for value in pool.imap(square, numbers()):
            found.append(value)
            feedback.put(value % 1000)
        assert found == [4, 16, 256, 65536, 536 * 536, 296 * 296]


@rsmp_only("3.16 has buffersize")
@pytest.mark.parametrize("name", ["imap", "imap_unordered"])
@pytest.mark.parametrize("chunksize", [1, 5])
def test_buffersize_bounds_what_is_read(ctx, name, chunksize):
    taken = 0

    def numbers():
        nonlocal taken
        while True:
            taken += 1
            yield taken

    with make(ctx, 2) as pool:
        iterator = getattr(pool, name)(identity, numbers(), chunksize, buffersize=10)
        for count in range(1, 50):
            next(iterator)
            assert taken <= count + 10 + chunksize
        pool.terminate()
    with pytest.raises(ValueError, match="buffersize"), ctx.Pool(1) as pool:
        pool.imap(identity, [], buffersize=0)


def test_an_infinite_iterable_can_be_abandoned(ctx):
    pool = ctx.Pool(1)
    iterator = pool.imap(square, itertools.count())
    assert [next(iterator) for _ in range(4)] == [0, 1, 4, 9]
    pool.terminate()
    pool.join()


def test_the_popular_istarmap_recipe(ctx):
    with make(ctx, 2) as pool:
        chunks = type(pool)._get_tasks(pow, [(2, n) for n in range(20)], 3)
        result = pool_module.IMapIterator(pool)
        tasks = pool._guarded_task_generation(result._job, pool_module.starmapstar, chunks)
        pool._taskqueue.put((tasks, result._set_length))
        assert [item for chunk in result for item in chunk] == [2**n for n in range(20)]


# Semi-private names that packages use.


def test_names_that_packages_use(ctx):
    with make(ctx, 2) as pool:
        assert pool._processes == len(pool._pool) == 2
        assert pool._ctx.get_start_method() == ctx.get_start_method()
        assert pool._state == pool_module.RUN
        assert len(pool._cache) == 0
        result = pool.map_async(sleep, [0.2] * 4, chunksize=1)
        assert pool._cache == {result._job: result}
        assert 0 < result._number_left <= 4
        assert not result._event.is_set()
        result.wait()
        assert result._number_left == 0
        assert result._event.is_set()
        assert result._success
        assert result._value == [0.2] * 4
        assert pool._taskqueue.qsize() == 0
        wait_until(lambda: len(pool._cache) == 0)


class QueuesOfItsOwn(pool_module.Pool):
    """As torch.multiprocessing.Pool and joblib's pools do it."""

    def _setup_queues(self):
        self._inqueue = self._ctx.SimpleQueue()
        self._outqueue = self._ctx.SimpleQueue()
        self._quick_put = self._inqueue._writer.send
        self._quick_get = self._outqueue._reader.recv

    def _repopulate_pool(self):
        for _ in range(self._processes - len(self._pool)):
            arguments = (self._inqueue, self._outqueue, self._initializer, self._initargs, self._maxtasksperchild)
            process = self.Process(self._ctx, target=pool_module.worker, args=(*arguments, self._wrap_exception))
            self._pool.append(process)
            process.name = process.name.replace("Process", "PoolWorker")
            process.daemon = True
            process.start()


def test_a_subclass_with_queues_of_its_own(ctx):
    with QueuesOfItsOwn(2, context=ctx) as pool:
        assert pool.map(square, range(10)) == [n * n for n in range(10)]
        assert list(pool.imap(square, range(4))) == [0, 1, 4, 9]
        assert pool.apply(square, (5,)) == 25
        assert pool.apply_async(square, (6,)).get(10) == 36
        assert pool.starmap(pow, [(2, 3)]) == [8]
        pool.close()
        pool.join()


class WorkersOfItsOwn(pool_module.Pool):
    @staticmethod
    def Process(ctx, *args, **kwds):
        process = ctx.Process(*args, **kwds)
        process.name = f"Mine-{process.name}"
        return process


def name_of_process(_):
    return library.current_process().name


def test_a_subclass_with_workers_of_its_own(ctx):
    with WorkersOfItsOwn(1, context=ctx) as pool:
        assert pool.apply(name_of_process, (0,)).startswith("Mine-")
        pool.close()
        pool.join()


# Threads.


def test_submitting_in_a_callback(ctx):
    with make(ctx, 2) as pool:
        found = queue.Queue()

        def again(value):
            if value < 100_000:
                pool.apply_async(square, (value,), callback=again)
            found.put(value)

        pool.apply_async(square, (3,), callback=again)
        assert [found.get(timeout=10) for _ in range(4)] == [9, 81, 6561, 6561**2]


@rsmp_only("the standard result handler dies of it")
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_callback_that_raises(ctx):
    with make(ctx, 1) as pool:
        results = [pool.apply_async(square, (n,), callback=lambda _: 1 / 0) for n in range(3)]
        assert [result.get(10) for result in results] == [0, 1, 4]


@rsmp_only("the standard pool never answers in a forked child")
def test_a_pool_in_a_forked_child_is_refused(mp):
    with make(mp.get_context("fork"), 1) as pool:
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                pool.apply(square, (1,))
            except RuntimeError:
                code = 0
            finally:
                os._exit(code)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        assert pool.apply(square, (3,)) == 9


def test_pools_within_threads(ctx):
    found = []

    def use():
        with make(ctx, 1) as pool:
            found.append(pool.map(square, range(5)))

    threads = [threading.Thread(target=use) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert found == [[0, 1, 4, 9, 16]] * 3


def test_many_threads_on_one_pool(ctx):
    with make(ctx, 2) as pool:
        failures = []

        def use(base):
            for n in range(50):
                if pool.apply(identity, (base + n,)) != base + n:
                    failures.append(n)
            if pool.map(square, range(base, base + 100), chunksize=1) != [n * n for n in range(base, base + 100)]:
                failures.append(base)

        threads = [threading.Thread(target=use, args=(1000 * n,)) for n in range(6)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(60)
        assert not failures


def test_a_thread_pool_pickles_nothing(mp):
    with pool_module.ThreadPool(2) as pool:
        thing = object()
        assert pool.apply(lambda: thing) is thing
        assert pool.map(lambda x: (x, thing), [1, 2], chunksize=1) == [(1, thing), (2, thing)]
        assert list(pool.imap(lambda x: x + 1, iter(range(2000)))) == list(range(1, 2001))
        heard = queue.Queue()
        pool.apply_async(lambda: 1 / 0, error_callback=heard.put)
        assert isinstance(heard.get(timeout=10), ZeroDivisionError)
        assert isinstance(pool, pool_module.Pool)
        pool.close()
        pool.join()


def test_a_thread_pool_by_way_of_dummy(mp):
    dummy = submodule("dummy")
    with dummy.Pool(2) as pool:
        assert isinstance(pool, pool_module.ThreadPool)
        assert pool.map(square, range(3)) == [0, 1, 4]


def test_threads_that_wait_for_each_other():
    with pool_module.ThreadPool(4) as pool:
        barrier = threading.Barrier(4)
        assert sorted(pool.map(lambda _: barrier.wait(10), range(4), chunksize=1)) == [0, 1, 2, 3]


@pytest.mark.parametrize("count", [2, 4])
def test_tasks_that_wait_for_each_other(ctx, count):
    """Tasks are never held back behind another one while a worker is free."""
    with ctx.Manager() as manager, make(ctx, count) as pool:
        barrier = manager.Barrier(count)
        for _ in range(3):
            tasks = [pool.apply_async(barrier.wait, (10,)) for _ in range(count)]
            assert sorted(task.get(20) for task in tasks) == list(range(count))


@pytest.mark.rsmp_only("the standard pool leaves its pipes")
def test_a_worker_that_cannot_be_forked(monkeypatch):
    fork, forked = os.fork, []

    def limited():
        if forked:
            raise BlockingIOError(errno.EAGAIN, "no more processes")
        forked.append(None)
        return fork()

    monkeypatch.setattr(os, "fork", limited)
    with pytest.raises(BlockingIOError):
        library.get_context("fork").Pool(3)
    assert forked
    assert not library.active_children()


class Alarm(Exception):
    """What a signal handler raises, here at the first try to unpickle some numbers in the main thread."""


interrupted = set()


def load_interrupted(number):
    if number % 3 == 0 and number not in interrupted and threading.current_thread() is threading.main_thread():
        interrupted.add(number)
        raise Alarm
    return number


class LoadsInterrupted:
    def __init__(self, number):
        self.number = number

    def __reduce__(self):
        return load_interrupted, (self.number,)


@rsmp_only("3.16 has buffersize; results are unpickled in a thread of the pool")
@pytest.mark.parametrize("options", [{}, {"buffersize": 1000}])
def test_an_interrupted_caller_has_lost_no_results(ctx, options):
    interrupted.clear()
    seen = []
    with make(ctx, 2) as pool:
        results = pool.imap(LoadsInterrupted, range(5000), **options)
        while True:
            with contextlib.suppress(Alarm):
                seen.extend(results)
                break
    assert seen == list(range(5000))
    assert interrupted
