"""Faults in pools."""

import contextlib
import ctypes
import itertools
import os
import random
import signal
import sys
import threading
import time

from harness import Within, case, is_running, patient, raises, wait_until

from under_test import submodule

pool_module = submodule("pool")

# The standard library has no such errors, and comes to no end where they are due.
Lost = getattr(pool_module, "WorkerLostError", Exception)
Broken = getattr(pool_module, "BrokenPoolError", Exception)


def double(x):
    return 2 * x


def add(x, y):
    return x + y


def pid(_=None):
    return os.getpid()


def nap(seconds):
    time.sleep(seconds)
    return seconds


def die(how):
    if how == "segfault":
        ctypes.string_at(0)
    elif how == "exit":
        os._exit(7)
    else:
        os.kill(os.getpid(), getattr(signal, how))
        time.sleep(10)


def die_on(bad, x):
    if x == bad:
        os.kill(os.getpid(), signal.SIGKILL)
    return x


def die_on_ten(x):
    return die_on(10, x)


def die_on_ten_of_two(x, _):
    return die_on(10, x)


ENDS = {"SIGKILL": -9, "SIGABRT": -6, "SIGTERM": -15, "segfault": -11, "exit": 7}


def pids(pool):
    return {process.pid for process in pool._pool}


@case(standard="hangs")
def a_worker_ends_in_a_task(ctx):
    with ctx.Pool(2) as pool:
        for how, code in ENDS.items():
            others = [pool.apply_async(double, (n,)) for n in range(20)]
            with Within(1.0 if ctx.get_start_method() == "fork" else 2.0):
                error = raises(Lost, pool.apply, die, (how,))
            others += [pool.apply_async(double, (n,)) for n in range(20, 40)]
            assert error.exitcode == code and error.pid and "die" in str(error), (how, error)
            assert code == 7 or signal.Signals(-code).name in str(error), error
            assert [other.get(10) for other in others] == [2 * n for n in range(40)]
        wait_until(lambda: len(pids(pool)) == 2)
        assert pool.map(double, range(100)) == [2 * n for n in range(100)]


@case(standard="hangs")
def a_map_reports_the_item_that_was_lost(ctx):
    with ctx.Pool(2) as pool:
        raises(Lost, pool.map, die_on_ten, range(30), 1)
        raises(Lost, pool.starmap, die_on_ten_of_two, [(n, 0) for n in range(30)], 3)
        raises(Lost, pool.map_async(die_on_ten, range(30), 4).get, 10)
        for name in ("imap", "imap_unordered"):
            results, errors = [], 0
            iterator = getattr(pool, name)(die_on_ten, range(30))
            while True:
                try:
                    results.append(next(iterator))
                except StopIteration:
                    break
                except Lost:
                    errors += 1
            assert sorted(results) == [n for n in range(30) if n != 10] and errors == 1, (name, results, errors)
        assert pool.map(double, range(100)) == [2 * n for n in range(100)]


@case(standard="hangs")
def idle_workers_are_killed(ctx):
    with ctx.Pool(2) as pool:
        for round in range(4):
            pool.map(nap, [0.01] * 4, 1)
            before = pids(pool)
            for victim in sorted(before)[: 1 + round % 2]:
                os.kill(victim, signal.SIGKILL)
            with Within(5):
                assert pool.apply_async(double, (4,)).get(5) == 8
                assert pool.map(double, range(10)) == [2 * n for n in range(10)]
            wait_until(lambda: len(pids(pool)) == 2 and all(map(is_running, pids(pool))))


@case(standard="hangs")
def the_only_worker_is_killed_again_and_again(ctx):
    with ctx.Pool(1) as pool:
        for n in range(6):
            raises(Lost, pool.apply_async(die, ("SIGKILL",)).get, 5)
            assert pool.apply_async(double, (n,)).get(5) == 2 * n


@case(standard="hangs")
def a_stopped_worker_does_not_hold_up_terminate(ctx):
    pool = ctx.Pool(2)
    victim = pool.apply(pid)
    os.kill(victim, signal.SIGSTOP)
    with Within(8):
        pool.terminate()
        pool.join()
    assert not is_running(victim)


class LoadsNowhere:
    def __reduce__(self):
        return raise_runtime_error, ()


def raise_runtime_error():
    raise RuntimeError("will not be unpickled")


class ErrorOfTwo(Exception):
    def __init__(self, one, two):
        super().__init__(one)


class DumpsNowhere:
    def __reduce__(self):
        raise TypeError("will not be pickled")


class ErrorThatDumpsNowhere(Exception):
    def __reduce__(self):
        raise TypeError("will not be pickled")


class Dies:
    """Kills who unpickles it."""

    def __reduce__(self):
        return die, ("SIGKILL",)


class Quit(BaseException):
    pass


def make(kind):
    return kind()


def throw(kind, *args):
    raise kind(*args)


def check_others(pool):
    assert pool.map(double, range(20)) == [2 * n for n in range(20)]


@case(standard="hangs")
def results_that_do_not_travel(ctx):
    with ctx.Pool(2) as pool:
        raises(Exception, pool.apply_async(make, (LoadsNowhere,)).get, 5)
        check_others(pool)
        raises(Exception, pool.apply_async(throw, (ErrorOfTwo, 1, 2)).get, 5)
        check_others(pool)
        raises(pool_module.MaybeEncodingError, pool.apply_async(make, (DumpsNowhere,)).get, 5)
        raises(pool_module.MaybeEncodingError, pool.apply_async(throw, (ErrorThatDumpsNowhere,)).get, 5)
        raises(Exception, pool.apply_async(make, (threading.Lock,)).get, 5)
        check_others(pool)
        raises(Exception, pool.map, make, [int, LoadsNowhere, DumpsNowhere, int], 1)
        raises(Exception, pool.map_async(make, [int, DumpsNowhere]).get, 5)
        check_others(pool)


@case(standard="hangs")
def arguments_that_do_not_travel(ctx):
    with ctx.Pool(2) as pool:
        raises(TypeError, pool.apply_async(double, (DumpsNowhere(),)).get, 5)
        raises(RuntimeError, pool.apply_async(double, (LoadsNowhere(),)).get, 5)
        raises(Exception, pool.apply_async(lambda: 1).get, 5)
        check_others(pool)
        raises(Lost, pool.apply_async(double, (Dies(),)).get, 5)
        check_others(pool)


@case(standard="hangs")
def a_base_exception_is_the_task_s_error(ctx):
    with ctx.Pool(2) as pool:
        for kind in (SystemExit, KeyboardInterrupt, GeneratorExit, Quit, StopIteration, EOFError, MemoryError):
            raises(kind, pool.apply_async(throw, (kind, 3)).get, 5)
            check_others(pool)
        raises(SystemExit, pool.apply_async(sys.exit, (0,)).get, 5)
        raises(SystemExit, pool.map, sys.exit, [0, 1])
        check_others(pool)


def count_and_fail(counter, how):
    with counter.get_lock():
        counter.value += 1
    if how == "raise":
        raise ValueError("this initializer fails")
    die(how)


@case(standard="hangs", limit=30)
def a_failing_initializer_breaks_the_pool(ctx):
    for how in ("raise", "exit", "SIGKILL"):
        counter = ctx.Value("i", 0)
        with ctx.Pool(2, count_and_fail, (counter, how)) as pool:
            error = raises(Broken, pool.apply_async(double, (1,)).get, 10)
            assert counter.value <= 12, counter.value
            tries = counter.value
            if how == "raise":
                assert "this initializer fails" in str(error.__cause__)
            raises(Broken, pool.map, double, range(4))
            time.sleep(0.2)
            assert counter.value <= tries + 2, "it goes on trying"


@case(standard="hangs")
def terminate_in_a_callback(ctx):
    for failing in (False, True):
        pool = ctx.Pool(2)
        done = threading.Event()

        def finish(_, pool=pool, done=done):
            pool.terminate()
            done.set()

        if failing:
            pool.apply_async(throw, (ValueError,), error_callback=finish)
        else:
            pool.apply_async(double, (1,), callback=finish)
        pending = [pool.apply_async(nap, (30,)) for _ in range(3)]
        assert done.wait(10)
        with Within(5):
            pool.join()
            for result in pending:
                raises(Exception, result.get, 5)


@case(standard="hangs")
def terminate_while_threads_wait(ctx):
    pool = ctx.Pool(2)
    ended = []

    def wait(call):
        try:
            call()
        except BaseException as error:
            ended.append(error)

    calls = [
        lambda: pool.map(nap, [30] * 4, 1),
        lambda: pool.apply(nap, (30,)),
        lambda: pool.apply_async(nap, (30,)).get(),
        lambda: list(pool.imap(nap, itertools.repeat(30, 100))),
        lambda: pool.map_async(nap, [30] * 4).wait(),
    ]
    threads = [threading.Thread(target=wait, args=(call,), daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    time.sleep(0.3)
    with Within(8):
        pool.terminate()
        pool.join()
        for thread in threads:
            thread.join(5)
            assert not thread.is_alive()
    assert len(ended) >= 4


@case()
def the_program_ends_with_a_live_pool(ctx):
    ctx.Pool(2).apply(double, (1,))
    pool = ctx.Pool(2)
    pool.map_async(nap, [30] * 10, 1)
    pool.apply_async(nap, (30,))
    pool.imap(nap, itertools.repeat(30))
    globals()["kept"] = pool


@case()
def the_program_ends_with_a_live_pool_and_threads(ctx):
    pool = globals()["kept"] = ctx.Pool(2)

    def call():
        try:
            while True:
                pool.map(double, range(10))
        except Exception:
            pass

    for _ in range(3):
        threading.Thread(target=call, daemon=True).start()
    time.sleep(0.2)


@case()
def the_program_is_ended_by_an_exception_with_a_live_pool(ctx):
    pool = globals()["kept"] = ctx.Pool(2)
    pool.map_async(nap, [30] * 10, 1)
    os.environ["EXPECTED"] = "1"
    threading.excepthook = lambda _: None
    sys.excepthook = lambda *_: os.write(2, b"as expected\n")
    import atexit

    # The status of an exception, 1, becomes 0 at the very end, after the finalizers, which are registered later.
    atexit._clear()
    atexit.register(os._exit, 0)
    submodule("util")
    atexit.register(submodule("util")._exit_function)
    raise RuntimeError


@case(standard="hangs", limit=30)
def workers_killed_at_random_while_they_return_results(ctx):
    """What a task returns comes back whole, or the task is reported; no task is run twice, none is lost."""
    seed = int(os.environ.get("RSMP_SEED", random.randrange(1 << 30)))
    print("seed", seed)
    chance = random.Random(seed)
    seconds = float(os.environ.get("RSMP_STRESS", 7.0))
    count = 400
    runs, runners = (ctx.Array("i", count, lock=False) for _ in range(2))
    begun = time.monotonic()
    tasks = kills = lost = 0
    with ctx.Pool(2, share, (runs, runners)) as pool:
        while tasks == 0 or time.monotonic() - begun < seconds:
            runs[:] = runners[:] = [0] * count
            results = [pool.apply_async(count_run, (n, chance.choice([10, 1000, 300_000]))) for n in range(count)]
            round_begun = time.monotonic()
            while not all(result.ready() for result in results):
                time.sleep(chance.random() * (0.03 if ctx.get_start_method() == "fork" else 0.3))
                if time.monotonic() - begun < seconds:
                    # Those that have run a task: what ends before it is ready counts as a failed start.
                    victims = sorted(pids(pool).intersection(runners))
                    if victims:
                        with contextlib.suppress(ProcessLookupError):
                            os.kill(chance.choice(victims), signal.SIGKILL)
                            kills += 1
                assert time.monotonic() - round_begun < patient(20)
            for n, result in enumerate(results):
                try:
                    assert result.get(0) == bytes([n % 256]) * len(result.get(0))
                    assert runs[n] == 1, (n, runs[n])
                except Lost:
                    lost += 1
                    assert runs[n] <= 1, (n, runs[n])
            tasks += count
        check_others(pool)
    print(f"{kills} kills, {lost} of {tasks} tasks lost, none run twice")


shared = None


def share(*arrays):
    global shared
    shared = arrays


def count_run(n, size):
    runs, runners = shared
    runs[n] += 1
    runners[n] = os.getpid()
    time.sleep(0.002)
    return bytes([n % 256]) * size


@case(standard="hangs")
def workers_of_few_tasks_are_killed(ctx):
    with ctx.Pool(2, maxtasksperchild=3) as pool:
        lost = 0
        for result in [pool.apply_async(die_on, (n // 7 * 7, n)) for n in range(1, 40)]:
            try:
                result.get(10)
            except Lost:
                lost += 1
        assert lost == 5, lost
        check_others(pool)
