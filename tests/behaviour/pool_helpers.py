"""What the tests of pools share."""

import contextlib
import time


@contextlib.contextmanager
def make(ctx, *args, **options):
    pool = ctx.Pool(*args, **options)
    try:
        yield pool
        pool.close()
        pool.join()
    finally:
        pool.terminate()
        pool.join()


def wait_until(condition, seconds=10):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def square(x):
    return x * x


def sleep(seconds):
    time.sleep(seconds)
    return seconds
