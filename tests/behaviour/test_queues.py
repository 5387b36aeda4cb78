"""The queues of rsmp beyond what both libraries promise: deaths, signals, forks, subclasses, the two ends, arrays."""

import errno
import os
import pickle
import queue
import random
import selectors
import signal
import subprocess
import sys
import threading
import time

import pytest
from process_helpers import finish
from queue_helpers import MIB, put_all

from under_test import mp, submodule

try:
    # Here, not in a test: it starts threads.
    import numpy
except ModuleNotFoundError:
    numpy = None

pytestmark = pytest.mark.rsmp_only("the engine of rsmp's queues")

KINDS = ["Queue", "JoinableQueue", "SimpleQueue"]


def kill(process):
    process.kill()
    process.join(10)
    assert process.exitcode == -signal.SIGKILL
    process.close()


def take_for_ever(q):
    while True:
        q.get()


def put_for_ever(q, label, size):
    number = 0
    while True:
        q.put((label, number, b"x" * size))
        number += 1


def lock_and_die(q):
    q.put("before")
    os.kill(os.getpid(), signal.SIGKILL)


class TestDeaths:
    def test_killed_producers_and_consumers_hang_nobody_and_garble_nothing(self, ctx):
        q = ctx.Queue()
        ends = time.monotonic() + 3
        generator = random.Random(1)
        last, label, producers, consumers = {}, 0, [], []
        while time.monotonic() < ends:
            if len(producers) < 2:
                size = generator.choice([10, 3000, 40_000])
                producers.append(ctx.Process(target=put_for_ever, args=(q, label, size), daemon=True))
                producers[-1].start()
                label += 1
            if len(consumers) < 1:
                consumers.append(ctx.Process(target=take_for_ever, args=(q,), daemon=True))
                consumers[-1].start()
            until = time.monotonic() + generator.random() * 0.05
            while time.monotonic() < until:
                try:
                    label_of, number, payload = q.get(timeout=10)
                except queue.Empty:
                    assert not any(process.is_alive() for process in producers)
                    break
                assert payload.count(b"x") == len(payload)
                # What one producer put comes in order; others may have taken some in between.
                assert number > last.get(label_of, -1)
                last[label_of] = number
            kill(generator.choice([producers, consumers]).pop())
        for process in producers + consumers:
            kill(process)
        while True:
            try:
                q.get(timeout=1)
            except queue.Empty:
                break
        q.put("still works")
        assert q.get(timeout=5) == "still works"

    def test_the_item_of_a_process_that_died_is_there(self, ctx):
        q = ctx.Queue()
        process = ctx.Process(target=lock_and_die, args=(q,))
        process.start()
        process.join(10)
        assert q.get(timeout=5) == "before"
        process.close()

    def test_memory_of_dead_processes_is_used_again(self):
        # Killed while they fill or hold a slab, outside of every lock.
        ctx = mp.get_context("fork")
        q = ctx.Queue()
        for _ in range(40):
            producer = ctx.Process(target=put_for_ever, args=(q, 0, 4 * MIB), daemon=True)
            consumer = ctx.Process(target=take_for_ever, args=(q,), daemon=True)
            producer.start()
            consumer.start()
            q.get(timeout=10)
            time.sleep(random.random() * 0.01)
            kill(producer)
            kill(consumer)
            while not q.empty():
                q.get(timeout=10)
        assert q._memory < 50 * MIB


class TestSignals:
    def test_a_handler_runs_while_get_waits(self, mp):
        q = mp.Queue()
        seen = []
        previous = signal.signal(signal.SIGALRM, lambda *_: seen.append(time.monotonic()))
        try:
            begun = time.monotonic()
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(queue.Empty):
                q.get(timeout=1.2)
        finally:
            signal.signal(signal.SIGALRM, previous)
        assert seen and seen[0] - begun < 0.8
        assert time.monotonic() - begun >= 1.19

    def test_an_exception_from_a_handler_ends_get(self, mp):
        q = mp.Queue()

        def handler(*_):
            raise KeyboardInterrupt

        previous = signal.signal(signal.SIGALRM, handler)
        try:
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            with pytest.raises(KeyboardInterrupt):
                q.get()
        finally:
            signal.signal(signal.SIGALRM, previous)
        q.put(1)
        assert q.get() == 1


def echo_one(q, results):
    results.put(q.get(timeout=20))


class TestFork:
    def test_a_fork_while_threads_put_and_get_leaves_a_usable_child(self):
        ctx = mp.get_context("fork")
        busy, there, back = ctx.Queue(), ctx.Queue(), ctx.Queue()
        stop = threading.Event()

        def work():
            while not stop.is_set():
                busy.put(["x" * 100, {"a": [1.5]}, b"y" * 20_000, object])
                busy.get(timeout=10)

        threads = [threading.Thread(target=work) for _ in range(3)]
        for thread in threads:
            thread.start()
        try:
            for index in range(20):
                process = ctx.Process(target=echo_one, args=(there, back))
                process.start()
                there.put(index)
                assert back.get(timeout=20) == index
                finish(process)
        finally:
            stop.set()
            for thread in threads:
                thread.join()

    def test_a_child_of_a_process_that_closed_starts_with_an_open_queue(self):
        ctx = mp.get_context("fork")
        q, results = ctx.Queue(), ctx.Queue()
        q.close()
        with pytest.raises(ValueError, match="is closed"):
            q.put(1)
        process = ctx.Process(target=put_all, args=(q, [1]))
        process.start()
        finish(process)
        assert q.qsize() == 1
        results.close()


class TestMany:
    def test_many_go_in_and_come_out(self, mp):
        q = mp.Queue()
        items = [*range(5000), "x" * 50_000, b"y" * 200_000, {"z": [1]}]
        q.put_many(items)
        assert q.qsize() == len(items)
        received = []
        while not q.empty():
            part = q.get_many(700)
            assert 1 <= len(part) <= 700
            received += part
        assert received == items
        with pytest.raises(queue.Empty):
            q.get_many(5, timeout=0.01)
        with pytest.raises(queue.Empty):
            q.get_many(5, block=False)
        with pytest.raises(ValueError):
            q.get_many(0)

    def test_a_full_queue_says_how_many_went_in(self, mp):
        q = mp.Queue(4)
        with pytest.raises(queue.Full) as caught:
            q.put_many(range(10), timeout=0.05)
        assert caught.value.args == (4,) and q.qsize() == 4

    def test_nothing_is_put_when_one_cannot_be_pickled(self, mp):
        q = mp.Queue()
        with pytest.raises((pickle.PicklingError, AttributeError)):
            q.put_many([1, 2, lambda: 3])
        assert q.empty()


class TestEnds:
    def test_messages_are_pickles_at_the_ends(self, mp):
        q = mp.Queue()
        q.put({"a": [1]})
        assert pickle.loads(q._reader.recv_bytes()) == {"a": [1]}
        q._writer.send_bytes(pickle.dumps([2]))
        assert q.get() == [2]
        q._writer.send("three")
        assert q._reader.poll() and q._reader.recv() == "three"
        assert not q._reader.poll() and not q._reader.poll(0.01)
        q.put(b"0123456789")
        with pytest.raises(OSError):
            q._reader.recv_bytes(5)
        with pytest.raises(OSError, match="read-only"):
            q._reader.send(1)
        with pytest.raises(OSError, match="write-only"):
            q._writer.recv()
        assert q._poll() is False

    def test_closed_ends_refuse(self, mp):
        q = mp.Queue()
        q._reader.close()
        assert q._reader.closed
        for call in (q._reader.recv, q._reader.poll, q._reader.fileno, q.empty):
            with pytest.raises(OSError, match="handle is closed"):
                call()
        q._writer.close()
        with pytest.raises(OSError, match="handle is closed"):
            q._writer.send(1)

    def test_closing_a_used_queue_closes_its_ends(self, mp):
        unused, used = mp.Queue(), mp.Queue()
        used.put(1)
        unused.close()
        used.close()
        assert unused.empty()
        with pytest.raises(OSError, match="is closed"):
            used.empty()

    def test_the_descriptor_serves_a_selector(self, ctx):
        q, done = ctx.Queue(), ctx.Queue()
        with selectors.DefaultSelector() as selector:
            selector.register(q._reader, selectors.EVENT_READ)
            assert not selector.select(0)
            processes = [ctx.Process(target=put_all, args=(q, range(50))) for _ in range(2)]
            for process in processes:
                process.start()
            received = 0
            while received < 100:
                assert selector.select(20)
                try:
                    q.get_nowait()
                except queue.Empty:
                    continue
                received += 1
            assert not selector.select(0)
            finish(*processes)
        done.close()

    def test_an_end_does_not_keep_the_queue_open(self, mp):
        before = len(os.listdir("/proc/self/fd"))
        for _ in range(10):
            q = mp.Queue()
            q._reader.poll()
            q._writer.send(1)
            del q
        assert len(os.listdir("/proc/self/fd")) == before


class TestSubclasses:
    def test_init_left_out_means_the_standard_queue(self, mp):
        queues, connection = submodule("queues"), submodule("connection")
        ctx = mp.get_context("fork")

        class Own(queues.Queue):
            def __init__(self):
                self._maxsize = 5
                self._reader, self._writer = connection.Pipe(duplex=False)
                self._rlock, self._wlock = ctx.Lock(), ctx.Lock()
                self._sem = ctx.BoundedSemaphore(5)
                self._opid = os.getpid()
                self._ignore_epipe = False
                self._reset()

        q = Own()
        q.put([1])
        assert q._thread is not None
        assert q.get(timeout=10) == [1]
        assert q.empty() and q.qsize() == 0 and not q.full()
        with pytest.raises(queue.Empty):
            q.get_nowait()
        q.close()
        with pytest.raises(ValueError, match="is closed"):
            q.put(1)
        q.join_thread()
        assert q._reader.closed

    def test_put_nowait_calls_the_subclass(self, mp):
        queues = submodule("queues")

        class Doubling(queues.Queue):
            def put(self, obj, block=True, timeout=None):
                super().put(obj * 2, block, timeout)

            def get(self, block=True, timeout=None):
                return super().get(block, timeout) + 1

        q = Doubling(ctx=mp.get_context())
        q.put_nowait(4)
        assert q.get_nowait() == 9

    def test_the_feeder_hook_of_a_subclass_is_told(self, mp):
        queues = submodule("queues")
        told = []

        class Telling(queues.Queue):
            @staticmethod
            def _on_queue_feeder_error(e, obj):
                told.append((e, obj))

        q = Telling(ctx=mp.get_context())
        item = threading.Lock()
        q.put(item)
        assert isinstance(told[0][0], TypeError) and told[0][1] is item
        assert q.empty()

    def test_instance_attributes_of_an_end_may_be_set(self, mp):
        q = mp.SimpleQueue()
        q._writer._send_bytes = print
        q.put(1)
        assert q.get() == 1


class TestArguments:
    def test_wrong_types_are_type_errors(self, mp):
        q = mp.Queue()
        with pytest.raises(TypeError):
            mp.Queue("3")
        with pytest.raises(TypeError):
            mp.Queue(2.5)
        with pytest.raises(TypeError):
            q.get(timeout="1")
        with pytest.raises(TypeError):
            q.put()
        assert q.empty()

    def test_block_is_a_truth_value(self, mp):
        q = mp.Queue(1)
        q.put(1, 1)
        with pytest.raises(queue.Full):
            q.put(2, 0)
        with pytest.raises(queue.Full):
            q.put(2, [], 5)
        assert q.get([1], 1) == 1
        with pytest.raises(queue.Empty):
            q.get(timeout=-1)

    def test_a_descriptor_of_something_else_is_refused(self, mp):
        from rsmp import _rsmp

        ours = _rsmp.Queue()
        read, write = os.pipe()
        with pytest.raises(OSError):
            ours._open(read, write)
        with pytest.raises(OSError) as caught:
            ours._open(-1, -1)
        assert caught.value.errno == errno.EBADF


NO_THREADS = """
import os, sys, rsmp
q = rsmp.Queue()
for index in range(100):
    q.put([index] * 1000)
threads = len(os.listdir("/proc/self/task"))
assert [q.get()[0] for _ in range(100)] == list(range(100))
sys.exit(0 if threads == len(os.listdir("/proc/self/task")) == 1 else 3)
"""


def test_no_thread_is_started():
    assert subprocess.run([sys.executable, "-c", NO_THREADS], timeout=30, check=False).returncode == 0


def standard_child(q, results):
    for item in iter(q.get, None):
        results.put(item)


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
@pytest.mark.parametrize("kind", KINDS)
def test_a_standard_process_takes_our_queue(mp, method, kind):
    import multiprocessing

    q, results = getattr(mp, kind)(), mp.SimpleQueue()
    process = multiprocessing.get_context(method).Process(target=standard_child, args=(q, results))
    process.start()
    for item in (1, "two", [3]):
        q.put(item)
        assert results.get() == item
    q.put(None)
    finish(process)


@pytest.mark.skipif(numpy is None, reason="needs numpy, which `make test` installs")
class TestArrays:
    """Buffers that reducers offer to protocol 5 are copied apart from the pickle; the objects are what pickle makes."""

    numpy = numpy

    def trip(self, q, value):
        q.put(value)
        return q.get(timeout=10)

    @pytest.mark.parametrize("layout", ["C", "F"])
    @pytest.mark.parametrize("rows", [3, 3000])
    def test_arrays_are_equal_and_writable(self, mp, layout, rows):
        array = self.numpy.asarray(self.numpy.arange(rows * 50.0).reshape(rows, 50), order=layout)
        received = self.trip(mp.Queue(), array)
        assert (received == array).all() and received.dtype == array.dtype
        assert received.flags.writeable and received.flags.f_contiguous == array.flags.f_contiguous
        received[0, 0] = -1
        assert array[0, 0] == 0

    def test_views_objects_and_empty_arrays_get_through(self, mp):
        q = mp.Queue()
        array = self.numpy.arange(100_000.0)
        assert (self.trip(q, array[::3]) == array[::3]).all()
        objects = self.numpy.array([1, "two", None] * 10_000, dtype=object)
        assert (self.trip(q, objects) == objects).all()
        assert self.trip(q, self.numpy.zeros((0, 5))).shape == (0, 5)

    def test_a_read_only_array_arrives_as_by_default(self, mp):
        array = self.numpy.arange(100_000.0)
        array.flags.writeable = False
        received = self.trip(mp.Queue(), array)
        assert (received == array).all()
        assert received.flags.writeable == pickle.loads(pickle.dumps(array)).flags.writeable

    def test_identity_is_kept(self, mp):
        array = self.numpy.arange(100_000.0)
        first, (second, other), named = self.trip(mp.Queue(), [array, (array, array.copy()), {"name": array}])
        assert first is second is named["name"] and first is not other and (first == other).all()

    def test_a_fork_and_a_reuse_leave_received_arrays_alone(self):
        ctx = mp.get_context("fork")
        q, results = ctx.Queue(), ctx.Queue()
        array = self.trip(q, self.numpy.full(200_000, 7.0))
        process = ctx.Process(target=sum_array, args=(array, results))
        for value in range(5):
            self.trip(q, self.numpy.full(200_000, float(value)))
        process.start()
        array[:] = 1
        assert results.get(timeout=10) == 7.0 * 200_000
        finish(process)

    def test_a_foreign_reader_gets_a_plain_pickle(self, mp):
        q = mp.Queue()
        array = self.numpy.arange(100_000.0)
        q.put([array])
        assert (pickle.loads(q._reader.recv_bytes())[0] == array).all()


def sum_array(array, results):
    time.sleep(0.3)
    results.put(float(array.sum()))
