"""What Queue, JoinableQueue and SimpleQueue promise, between processes, for each start method."""

import pickle
import queue
import threading
import time

import pytest
from process_helpers import finish, started
from queue_helpers import put_all

from under_test import submodule


@pytest.fixture
def open_queue(ctx):
    """Make queues and close them with the test."""
    made = []

    def make(kind="Queue", *args):
        made.append(getattr(ctx, kind)(*args))
        return made[-1]

    yield make
    for each in made:
        if hasattr(each, "cancel_join_thread"):
            each.cancel_join_thread()
        each.close()
        if hasattr(each, "join_thread"):
            each.join_thread()


def echo(source, target):
    while (item := source.get()) is not None:
        target.put(item)


def sum_up(source, target):
    total = 0
    while (item := source.get()) is not None:
        total += item
    target.put(total)


def work_off(source):
    while True:
        item = source.get()
        source.task_done()
        if item is None:
            return


ITEMS = [
    True,
    -1,
    2**70,
    3.5,
    "text \u20ac \U0001f600",
    b"\0" * 100,
    bytearray(b"bytes"),
    (1, (2, (3,))),
    [1, [2]],
    {"a": {"b": [1]}},
    {1, 2},
    frozenset({3}),
    1 + 2j,
    range(3),
    "x" * 100_000,
    b"y" * 3_000_000,
]


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_items_come_back_equal_and_in_order(ctx, open_queue, kind):
    there, back = open_queue(kind), open_queue(kind)
    process = started(ctx, echo, there, back)
    for item in ITEMS:
        there.put(item)
        received = back.get()
        assert received == item and type(received) is type(item)
    there.put(None)
    finish(process)


def test_identity_and_cycles_inside_an_item_are_kept(open_queue):
    q = open_queue()
    shared = [1]
    item = [shared, shared]
    item.append(item)
    q.put(item)
    received = q.get()
    assert received[0] is received[1] and received[2] is received


def test_an_item_is_a_copy(open_queue):
    q = open_queue()
    item = [1]
    q.put(item)
    received = q.get()
    assert received == item and received is not item


def test_what_children_put_before_they_end_arrives(ctx, open_queue):
    q = open_queue()
    processes = [started(ctx, put_all, q, range(n * 100, n * 100 + 100)) for n in range(3)]
    received = [q.get(timeout=30) for _ in range(300)]
    finish(*processes)
    assert sorted(received) == list(range(300))
    for n in range(3):
        own = [item for item in received if item // 100 == n]
        assert own == sorted(own)


def test_every_item_goes_to_exactly_one_consumer(ctx, open_queue):
    q, results = open_queue(), open_queue()
    processes = [started(ctx, sum_up, q, results) for _ in range(3)]
    for item in range(1000):
        q.put(item)
    for _ in processes:
        q.put(None)
    total = sum(results.get(timeout=30) for _ in processes)
    finish(*processes)
    assert total == sum(range(1000))


def test_full_and_empty_raise(open_queue):
    q = open_queue("Queue", 2)
    with pytest.raises(queue.Empty):
        q.get_nowait()
    with pytest.raises(queue.Empty):
        q.get(timeout=0.01)
    with pytest.raises(queue.Empty):
        q.get(block=False, timeout=5)
    q.put(1)
    q.put(2)
    with pytest.raises(queue.Full):
        q.put_nowait(3)
    with pytest.raises(queue.Full):
        q.put(3, timeout=0.01)
    assert q.full() and q.qsize() == 2
    assert [q.get(timeout=5), q.get(timeout=5)] == [1, 2]
    assert q.qsize() == 0 and not q.full()


def test_a_timeout_is_kept(open_queue):
    q = open_queue()
    begun = time.monotonic()
    with pytest.raises(queue.Empty):
        q.get(timeout=0.2)
    assert 0.19 <= time.monotonic() - begun < 2


def test_a_blocked_put_goes_on_when_there_is_room(ctx, open_queue):
    q = open_queue("Queue", 1)
    process = started(ctx, put_all, q, [1, 2, 3])
    time.sleep(0.1)
    assert [q.get(timeout=10) for _ in range(3)] == [1, 2, 3]
    finish(process)


def test_threads_and_processes_share_a_queue(ctx, open_queue):
    there, back = open_queue(), open_queue()
    process = started(ctx, echo, there, back)
    threads = [threading.Thread(target=put_all, args=(there, range(n, 400, 4))) for n in range(4)]
    for thread in threads:
        thread.start()
    received = [back.get(timeout=30) for _ in range(400)]
    for thread in threads:
        thread.join()
    there.put(None)
    finish(process)
    assert sorted(received) == list(range(400))


def test_join_waits_for_every_task_done(ctx, open_queue):
    q = open_queue("JoinableQueue")
    processes = [started(ctx, work_off, q) for _ in range(2)]
    for item in range(20):
        q.put(item)
    q.join()
    assert q.empty()
    for _ in processes:
        q.put(None)
    q.join()
    finish(*processes)
    with pytest.raises(ValueError, match=r"task_done\(\) called too many times"):
        q.task_done()


def test_a_closed_queue_refuses(open_queue):
    q = open_queue()
    q.close()
    with pytest.raises(ValueError, match="is closed"):
        q.put(1)
    with pytest.raises(ValueError, match="is closed"):
        q.get()


def test_a_closed_simple_queue_refuses(open_queue):
    q = open_queue("SimpleQueue")
    q.close()
    assert q._reader.closed and q._writer.closed
    with pytest.raises(OSError, match="closed"):
        q.empty()


@pytest.mark.parametrize("kind", ["Queue", "JoinableQueue", "SimpleQueue"])
def test_a_queue_is_shared_only_by_inheritance(open_queue, kind):
    with pytest.raises(RuntimeError, match="should only be shared between processes through inheritance"):
        pickle.dumps(open_queue(kind))


def test_the_reader_can_be_waited_for(ctx, open_queue):
    wait = submodule("connection").wait
    q = open_queue()
    assert wait([q._reader], timeout=0) == []
    q.put("item")
    assert wait([q._reader], timeout=10) == [q._reader]
    assert q.get() == "item"
    assert wait([q._reader], timeout=0) == []
    process = started(ctx, put_all, q, ["more"])
    assert wait([q._reader], timeout=30) == [q._reader]
    assert q.get() == "more"
    finish(process)


def test_a_queue_is_no_item(open_queue):
    outer, inner = open_queue("SimpleQueue"), open_queue()
    with pytest.raises(RuntimeError, match="through inheritance"):
        outer.put(inner)
    outer.put("still works")
    assert outer.get() == "still works"


@pytest.mark.rsmp_only("the standard library pickles in a thread that put() does not wait for")
class TestPutIsDone:
    """`put` has put the item when it returns."""

    def test_an_item_is_there_when_put_returns(self, open_queue):
        q = open_queue()
        for item in range(1000):
            q.put(item)
            assert not q.empty() and q.qsize() == 1
            assert q.get_nowait() == item
            assert q.empty() and q.qsize() == 0

    def test_put_raises_what_pickling_raises(self, open_queue):
        q = open_queue()
        with pytest.raises((pickle.PicklingError, AttributeError), match="lambda"):
            q.put(lambda: 1)
        q.put("still works")
        assert q.get(timeout=5) == "still works"

    def test_an_item_is_pickled_when_it_is_put(self, open_queue):
        q = open_queue()
        item = [1]
        q.put(item)
        item.append(2)
        assert q.get(timeout=5) == [1]

    def test_a_child_that_put_much_can_be_joined_before_it_is_read(self, ctx, open_queue):
        q = open_queue()
        process = started(ctx, put_all, q, [b"x" * 1_000_000] * 5)
        finish(process)
        assert [len(q.get_nowait()) for _ in range(5)] == [1_000_000] * 5
