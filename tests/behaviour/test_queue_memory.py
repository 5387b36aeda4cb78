"""What memory the queues of rsmp hold, give back and refuse."""

import os
import queue
import resource
import time

import pytest
from process_helpers import finish
from queue_helpers import MIB, put_all

pytestmark = pytest.mark.rsmp_only("the engine of rsmp's queues")

by_hand = pytest.mark.skipif(
    "RSMP_HUGE" not in os.environ,
    reason="takes up to 8 GiB of memory, which not every machine has to spare: RSMP_HUGE=1 runs it",
)


@pytest.mark.parametrize("size", [100, 5000, 60_000, 3 * MIB])
def test_what_a_queue_grew_into_is_given_back(mp, size):
    q = mp.Queue()
    item = os.urandom(size)
    count = 60 * MIB // size
    for _ in range(count):
        q.put(item)
    assert q._memory > 59 * MIB
    for _ in range(count):
        assert q.get() == item
    assert q._memory < 9 * MIB


def test_a_waiting_consumer_gives_the_rest_back(mp):
    q = mp.Queue()
    for _ in range(5):
        q.put(bytes(MIB))
        q.get()
    assert q._memory >= MIB
    with pytest.raises(queue.Empty):
        q.get(timeout=0.8)
    assert q._memory < MIB // 2


def test_a_stream_uses_the_same_memory_again(mp):
    q = mp.Queue()
    for _ in range(30):
        q.put(bytes(8 * MIB))
        assert len(q.get()) == 8 * MIB
    assert q._memory < 20 * MIB


def test_simple_queue_holds_a_fixed_amount(ctx):
    q = ctx.SimpleQueue()
    process = ctx.Process(target=put_all, args=(q, [b"x" * 10_000] * 1000))
    process.start()
    deadline = time.monotonic() + 30
    while q._memory < 64 << 10 and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.3)
    assert process.is_alive()
    assert 64 << 10 <= q._memory < 4 * MIB
    for _ in range(1000):
        assert len(q.get()) == 10_000
    finish(process)


def test_an_item_longer_than_simple_queue_holds_gets_through(mp):
    q = mp.SimpleQueue()
    q.put(b"x" * 5 * MIB)
    assert len(q.get()) == 5 * MIB


@pytest.mark.parametrize("size", [1000, 100_000])
def test_the_file_size_limit_is_a_memory_error(mp, size):
    q = mp.Queue()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (8 * MIB, hard))
    put = 0
    try:
        with pytest.raises(MemoryError):
            while True:
                q.put(bytes(size))
                put += 1
        with pytest.raises(MemoryError):
            q.put(bytes(20 * MIB))
        got = [q.get(timeout=5) for _ in range(put // 2)]
        q.put("works again")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert put > 20 and {len(item) for item in got} == {size}
    rest = [q.get(timeout=5) for _ in range(put - put // 2)]
    assert {len(item) for item in rest} == {size} and q.get(timeout=5) == "works again" and q.empty()


@by_hand
def test_more_than_the_machine_has_is_a_memory_error(mp):
    q = mp.Queue()
    with open("/proc/meminfo") as lines:
        left = {name: int(rest.split()[0]) << 10 for name, _, rest in (line.partition(":") for line in lines)}
    # The pages of zeros are never touched, so the bytes object itself takes no memory.
    huge = bytes(left["MemAvailable"] + left["SwapFree"])
    with pytest.raises(MemoryError):
        q.put(huge)
    q.put(1)
    assert q.get() == 1


@by_hand
def test_payloads_of_more_than_two_gibibytes(ctx):
    q = ctx.Queue()
    producer = ctx.Process(target=put_gibibytes, args=(q, 2.5))
    producer.start()
    payload = q.get()
    assert len(payload) == 5 << 29
    assert payload[:3] == b"abc" and payload[-3:] == b"xyz" and payload.count(0) == len(payload) - 6
    del payload
    assert q.get() == "and on"
    producer.join()


def put_gibibytes(q, count):
    q.put(b"abc" + bytes(int(count * 2**30) - 6) + b"xyz")
    q.put("and on")
