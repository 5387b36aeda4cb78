"""Faults around queues."""

import os
import queue
import random
import signal
import threading
import time

from harness import Within, case, kill, patient, raises


def take(q, ready=None):
    if ready is not None:
        ready.set()
    while True:
        q.get()


def fill(q, label, size):
    for n in range(1 << 30):
        q.put((label, n, bytes([n % 256]) * size))


def fill_slowly(q):
    """Between two items it is outside the queue, nearly all of the time."""
    for n in range(1 << 30):
        q.put(n)
        time.sleep(0.001)


def start(ctx, target, *args):
    process = ctx.Process(target=target, args=args, daemon=True)
    process.start()
    return process


def make(ctx, kind):
    return getattr(ctx, kind)()


KINDS = ("Queue", "JoinableQueue", "SimpleQueue")


@case(standard="hangs")
def a_consumer_is_killed_while_it_waits(ctx):
    for kind in KINDS:
        q, ready = make(ctx, kind), ctx.Event()
        consumers = [start(ctx, take, q, ready) for _ in range(2)]
        assert ready.wait(10)
        time.sleep(0.15)
        for consumer in consumers:
            kill(consumer)
        for n in range(10):
            with Within(0.6):
                q.put(n)
                assert q.get() == n
        assert q.empty()


@case(standard="hangs")
def a_producer_is_killed_while_it_puts(ctx):
    q = ctx.Queue()
    chance = random.Random(7)
    for round in range(12 if ctx.get_start_method() == "fork" else 4):
        size = (10, 5000, 300_000, 5_000_000)[round % 4]
        producer = start(ctx, fill, q, round, size)
        expected = 0
        for _ in range(3):
            label, n, payload = q.get(timeout=10)
            assert (label, n) == (round, expected) and payload == bytes([n % 256]) * size
            expected += 1
        time.sleep(chance.random() * 0.01)
        kill(producer)
        while True:
            try:
                label, n, payload = q.get(timeout=0.05 if q.empty() else 5)
            except queue.Empty:
                break
            # Whole, in order, none missing and none twice.
            assert (label, n) == (round, expected) and payload == bytes([n % 256]) * size
            expected += 1
        with Within(0.6):
            q.put("works")
            assert q.get() == "works"


@case(standard="hangs")
def a_producer_is_killed_while_it_waits_for_room(ctx):
    for q in (ctx.Queue(2), ctx.SimpleQueue()):
        size = 10 if hasattr(q, "full") else 30_000
        producers = [start(ctx, fill, q, n, size) for n in range(2)]
        time.sleep(0.4)
        for producer in producers:
            kill(producer)
        while not q.empty():
            _, n, payload = q.get()
            assert payload == bytes([n % 256]) * size
        with Within(0.6):
            q.put("works")
            assert q.get() == "works"


class DumpsNowhere:
    def __reduce__(self):
        raise TypeError("will not be pickled")


class LoadsNowhere:
    def __reduce__(self):
        return raise_runtime_error, ()


def raise_runtime_error():
    raise RuntimeError("will not be unpickled")


@case(standard="fails")
def items_that_do_not_travel(ctx):
    for kind in KINDS:
        q = make(ctx, kind)
        for bad in (DumpsNowhere(), lambda: 1, [bytes(100_000), DumpsNowhere()], threading.Lock()):
            raises(Exception, q.put, bad)
        assert q.empty()
        q.put(LoadsNowhere())
        q.put("next")
        raises(RuntimeError, q.get)
        assert q.get() == "next"
        if kind == "JoinableQueue":
            for _ in range(2):
                q.task_done()
            with Within(1):
                q.join()


@case(standard="fails")
def what_was_put_is_there(ctx):
    q = ctx.Queue()
    for n in range(1000):
        q.put(n)
        assert not q.empty() and q.qsize() == 1
        assert q.get_nowait() == n
        assert q.empty()


@case(standard="hangs")
def a_child_is_joined_before_its_items_are_taken(ctx):
    q = ctx.Queue()
    child = ctx.Process(target=put_much, args=(q,))
    child.start()
    child.join(10)
    assert child.exitcode == 0
    assert [len(q.get(timeout=1)) for _ in range(20)] == [200_000] * 20
    assert [q.get(timeout=1) for _ in range(5000)] == list(range(5000))


def put_much(q):
    for _ in range(20):
        q.put(bytes(200_000))
    for n in range(5000):
        q.put(n)


@case(standard="fails")
def what_was_put_outlives_its_producer(ctx):
    q = ctx.Queue()
    for how in ("exit", "kill"):
        child = ctx.Process(target=put_and_go, args=(q, how))
        child.start()
        child.join()
        assert [q.get_nowait() for _ in range(100)] == [(n, bytes(n * 1000)) for n in range(100)]


def put_and_go(q, how):
    for n in range(100):
        q.put((n, bytes(n * 1000)))
    if how == "exit":
        os._exit(0)
    os.kill(os.getpid(), signal.SIGKILL)


@case(standard="hangs")
def a_stopped_process_blocks_nobody_for_long(ctx):
    """A consumer and a producer that are stopped, not dead, at some point of their work: unless they hold a lock."""
    q = ctx.Queue()
    for target in (take, fill_slowly):
        process = start(ctx, target, q)
        time.sleep(0.2)
        # Waiting or working; the chance that it is in one of its short sections is small, and another try is allowed.
        for _ in range(5):
            os.kill(process.pid, signal.SIGSTOP)
            try:
                q.put("mine", timeout=1)
                q.get(timeout=1)
                break
            except (queue.Empty, queue.Full):
                os.kill(process.pid, signal.SIGCONT)
                time.sleep(0.05)
        else:
            raise AssertionError("blocked by a stopped process")
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        while not q.empty():
            q.get()


def relay(source, target):
    while True:
        target.put(source.get())


@case(standard="hangs", limit=30)
def producers_and_consumers_are_killed_at_random(ctx):
    """Every item that comes through is whole and comes once."""
    seed = int(os.environ.get("RSMP_SEED", random.randrange(1 << 30)))
    seconds = float(os.environ.get("RSMP_STRESS", 7.0))
    print("seed", seed)
    chance = random.Random(seed)
    # Bounded, lest it outgrow the memory where this program is slow.
    first, second = ctx.Queue(100), ctx.Queue(200)
    relays, producers, label, received, kills = [], [], 0, 0, 0
    seen: dict[int, set[int]] = {}
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        while len(relays) < 2:
            relays.append(start(ctx, relay, first, second))
        while len(producers) < 2:
            size = chance.choice([10, 3000, 40_000, 400_000])
            producers.append(start(ctx, fill, first, label, size))
            label += 1
        until = time.monotonic() + chance.random() * (0.05 if ctx.get_start_method() == "fork" else 0.3)
        while time.monotonic() < until:
            try:
                who, n, payload = second.get(timeout=patient(0.6))
            except queue.Empty:
                assert ctx.get_start_method() != "fork", "nothing comes through"
                continue
            assert payload.count(bytes([n % 256])) == len(payload) > 0
            # Nothing is left in the queues of those who died that long ago.
            seen.pop(label - 100, None)
            assert n not in seen.setdefault(who, set())
            seen[who].add(n)
            received += 1
        kill(chance.choice((relays, producers)).pop(0))
        kills += 1
    for process in relays + producers:
        kill(process)
    for q in (first, second):
        while not q.empty():
            q.get(timeout=2)
        with Within(0.6):
            q.put("works")
            assert q.get() == "works"
    print(f"{kills} kills, {received} items")
    assert received > 20
