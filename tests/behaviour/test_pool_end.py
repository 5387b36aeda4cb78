"""How pools end: terminated, held by nobody, with the program or by an interrupt."""

import gc
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import weakref

import pytest
from pool_helpers import sleep, square

from under_test import mp as library

rsmp_only = pytest.mark.rsmp_only


@rsmp_only("the standard one is waited for without end")
def test_a_result_of_a_terminated_pool_says_so(ctx):
    pool = ctx.Pool(1)
    result = pool.apply_async(sleep, (60,))
    iterator = pool.imap(sleep, [60])
    waiting = []

    def wait():
        with pytest.raises(library.ProcessError, match="terminated") as caught:
            result.get()
        waiting.append(caught)

    thread = threading.Thread(target=wait)
    thread.start()
    time.sleep(0.1)
    pool.terminate()
    thread.join(10)
    assert waiting
    with pytest.raises(library.ProcessError, match="terminated"):
        next(iterator)
    assert not result.ready()
    pool.join()


def test_terminate_in_a_callback(ctx):
    pool = ctx.Pool(2)
    done = threading.Event()

    def callback(_):
        pool.terminate()
        done.set()

    pool.apply_async(square, (2,), callback=callback)
    assert done.wait(20)
    pool.join()


@rsmp_only("the standard pool, collected while its handlers are at work, can wait for them for ever")
def test_a_pool_that_nobody_holds_is_ended(ctx):
    pool = ctx.Pool(1)
    assert pool.apply_async(square, (2,)).get(10) == 4
    processes = list(pool._pool)
    gone = weakref.ref(pool)
    with pytest.warns(ResourceWarning, match="unclosed running multiprocessing pool"):
        del pool
        gc.collect()
    assert gone() is None
    for process in processes:
        process.join(10)
        assert process.exitcode is not None


@pytest.mark.rsmp_only("the standard pool waits for it for ever")
def test_a_worker_that_ignores_sigterm_is_ended_all_the_same(ctx):
    pool = ctx.Pool(1, signal.signal, (signal.SIGTERM, signal.SIG_IGN))
    result = pool.apply_async(sleep, (60,))
    time.sleep(0.2)
    assert not result.ready()
    started = time.monotonic()
    pool.terminate()
    pool.join()
    assert time.monotonic() - started < 10


def run(source, *arguments, **options):
    program = textwrap.dedent(source)
    environment = {
        **os.environ,
        "RSMP_UNDER_TEST": library.__name__,
        "PYTHONPATH": os.path.dirname(os.path.dirname(__file__)),
    }
    return subprocess.run(
        [sys.executable, "-c", program, *arguments],
        capture_output=True,
        text=True,
        timeout=30,
        env=environment,
        **options,
    )


LIVE = """
    import sys, time
    from under_test import mp
    if __name__ == "__main__":
        pool = mp.get_context(sys.argv[1]).Pool(2)
        {work}
        print("end", flush=True)
"""


@pytest.mark.parametrize(
    "work",
    [
        "pool.map(abs, range(10))",
        "result = pool.map_async(time.sleep, [30] * 5, 1)",
        "result = pool.imap(time.sleep, iter([30] * 5))",
        "result = pool.apply_async(abs, (1,), callback=print)",
    ],
)
def test_the_interpreter_ends_with_a_live_pool(ctx, work):
    done = run(LIVE.format(work=work), ctx.get_start_method())
    assert done.returncode == 0
    assert "end" in done.stdout


INTERRUPTED = """
    import os, signal, sys, threading, time
    from under_test import mp
    if __name__ == "__main__":
        pool = mp.get_context(sys.argv[1]).Pool(2)
        pool.map(abs, range(10))
        threading.Timer(0.5, os.killpg, (os.getpgrp(), signal.SIGINT)).start()
        try:
            pool.map(time.sleep, [20] * 4)
        except KeyboardInterrupt:
            print("interrupted", flush=True)
            raise
"""


@rsmp_only("each of the standard workers prints its own traceback")
def test_an_interrupt_ends_a_program_with_one_traceback(ctx):
    started = time.monotonic()
    done = run(INTERRUPTED, ctx.get_start_method(), start_new_session=True)
    assert "interrupted" in done.stdout
    assert done.stderr.count("Traceback") == 1, done.stderr
    assert time.monotonic() - started < 10
