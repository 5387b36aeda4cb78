"""Signals that come when a process is just about to wait, for the first time in its life."""

import os
import signal
import time

import pytest

from under_test import mp as library
from under_test import submodule

AGAIN = 0.1
"""Seconds until the signal comes once more."""
HANDLED, LATE, TWICE, ENDED = range(4)


@pytest.fixture
def waits():
    """Return functions that wait until the signal comes, by name."""
    q, lock, event, full = library.Queue(), library.Lock(), library.Event(), library.Pipe()
    ends = library.Pipe()
    lock.acquire()
    return {
        "get": lambda: q.get(timeout=5),
        "acquire": lambda: lock.acquire(timeout=5),
        "event": lambda: event.wait(5),
        "recv": ends[0].recv,
        "poll": lambda: ends[0].poll(None),
        "wait": lambda: submodule("connection").wait([ends[0]]),
        "send": lambda: full[0].send_bytes(bytes(16 << 20)),
    }


def interrupt(wait, seconds):
    """Wait in this process until the handler of a signal that comes after ``seconds`` ends it; say how that went."""
    came = []

    def handler(*_):
        came.append(time.monotonic())
        signal.setitimer(signal.ITIMER_REAL, AGAIN)
        raise KeyboardInterrupt

    signal.signal(signal.SIGALRM, handler)
    begun = time.monotonic()
    try:
        signal.setitimer(signal.ITIMER_REAL, seconds, AGAIN)
        wait()
    except KeyboardInterrupt:
        signal.setitimer(signal.ITIMER_REAL, 0)
        return TWICE if len(came) > 1 else LATE if came[0] > begun + AGAIN / 2 else HANDLED
    return ENDED


def in_a_fork(wait, seconds):
    child = os.fork()
    if child == 0:
        try:
            os._exit(interrupt(wait, seconds))
        finally:
            os._exit(100)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


@pytest.mark.parametrize("call", ["get", "acquire", "event", "recv", "poll", "wait", "send"])
def test_what_the_handler_raises_ends_the_wait(waits, call):
    endings = [in_a_fork(waits[call], microseconds / 1e6) for microseconds in range(4, 600, 20)]
    assert set(endings) <= {HANDLED, LATE}
    if call in ("recv", "send"):
        # The kernel waits for these as long as it takes; but for the last microsecond before it does.
        assert endings.count(LATE) <= len(endings) / 4
