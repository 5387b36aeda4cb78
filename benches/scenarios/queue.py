"""Queue: streams from one process to another, exchanges, many to many."""

from typing import Any

from harness import Library, case, peers, timed

BATCH = 100


def brief(item: Any) -> str:
    """Return what tells an item from another, without going through all of a large one."""
    if isinstance(item, bytes):
        return f"{len(item)} {item[:8]!r} {item[-8:]!r}"
    if hasattr(item, "shape"):
        return f"{item.shape} {item.dtype} {item[0]} {item[-1]}"
    return repr(item)


def consume(end: Any, queue: Any, count: int) -> None:
    end.send("ready")
    for _ in range(count):
        item = queue.get()
    end.send(brief(item))


def add_up(end: Any, queue: Any, count: int) -> None:
    end.send("ready")
    total = 0
    for _ in range(count):
        total += queue.get()
    end.send(total)


def add_up_batches(end: Any, queue: Any, count: int) -> None:
    end.send("ready")
    total = 0
    while count:
        items = queue.get_many(max_messages_to_get=BATCH) if hasattr(queue, "data_size") else queue.get_many(BATCH)
        total += sum(items)
        count -= len(items)
    end.send(total)


def produce(end: Any, queue: Any, items: range) -> None:
    end.send("ready")
    end.recv()
    for item in items:
        queue.put(item)


def echo(end: Any, there: Any, back: Any, count: int) -> None:
    end.send("ready")
    for _ in range(count):
        back.put(there.get())


def stream(library: Library, count: int, item: Any, size: int = 64) -> float:
    queue = library.queue(size)
    with peers(library.context(), consume, (queue, count)) as (end,):

        def work() -> None:
            for _ in range(count):
                queue.put(item)
            assert end.recv() == brief(item)

        return timed(work)


@case("stream, int", count=50_000, needs="queue")
def stream_int(library: Library, count: int) -> float:
    return stream(library, count, 12345)


@case("stream, small dict", count=30_000, needs="queue")
def stream_dict(library: Library, count: int) -> float:
    return stream(library, count, {"number": 1, "name": "text", "values": [1.5, 2.5]}, 256)


@case("stream, bytes 1 KiB", count=30_000, needs="bytes queue")
def stream_1k(library: Library, count: int) -> float:
    return stream(library, count, b"x" * 1024, 2048)


@case("stream, bytes 64 KiB", count=4_000, needs="bytes queue")
def stream_64k(library: Library, count: int) -> float:
    return stream(library, count, b"x" * 65_536, 70_000)


@case("stream, bytes 1 MiB", count=300, needs="bytes queue")
def stream_1m(library: Library, count: int) -> float:
    return stream(library, count, b"x" * 2**20, 2**20 + 1024)


def stream_array(library: Library, count: int, mebibytes: int) -> float:
    import numpy

    return stream(library, count, numpy.ones(mebibytes * 2**17), mebibytes * 2**20 + 1024)


@case("stream, numpy 8 MiB", count=30, needs="queue", module="numpy")
def stream_numpy(library: Library, count: int) -> float:
    return stream_array(library, count, 8)


@case("stream, numpy 64 MiB", count=10, needs="queue", module="numpy")
def stream_large_numpy(library: Library, count: int) -> float:
    return stream_array(library, count, 64)


@case("stream in batches of 100, int", count=100_000, needs="batches")
def stream_batches(library: Library, count: int) -> float:
    count = max(count // BATCH, 1) * BATCH
    queue = library.queue()
    batch = list(range(BATCH))
    with peers(library.context(), add_up_batches, (queue, count)) as (end,):

        def work() -> None:
            for _ in range(count // BATCH):
                queue.put_many(batch)
            assert end.recv() == sum(batch) * (count // BATCH)

        return timed(work)


@case("two to two, int", count=40_000, needs="queue")
def two_to_two(library: Library, count: int) -> float:
    context, queue = library.context(), library.queue()
    half = count // 2
    with (
        peers(context, add_up, (queue, half), (queue, half)) as consumers,
        peers(context, produce, (queue, range(half)), (queue, range(half))) as producers,
    ):

        def work() -> None:
            for end in producers:
                end.send("go")
            assert sum(end.recv() for end in consumers) == 2 * sum(range(half))

        return timed(work)


@case("ping-pong, int", count=5_000, needs="queue")
def ping_pong(library: Library, count: int) -> float:
    there, back = library.queue(), library.queue()
    with peers(library.context(), echo, (there, back, count)):

        def work() -> None:
            for number in range(count):
                there.put(number)
                assert back.get() == number

        return timed(work)


@case("create", count=300, needs="queue")
def create(library: Library, count: int) -> float:
    made: list[Any] = []
    seconds = timed(lambda: made.extend(library.queue() for _ in range(count)))
    assert len(made) == count
    made[-1].put(count)
    assert made[-1].get(timeout=10) == count
    return seconds
