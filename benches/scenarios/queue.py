"""Queue: streams from one process to another, exchanges, many to many."""

from typing import Any

from harness import Library, case, peers, timed


def consume(end: Any, queue: Any, count: int) -> None:
    end.send("ready")
    for _ in range(count):
        item = queue.get()
    end.send(repr(item)[:100])


def produce(end: Any, queue: Any, items: range) -> None:
    end.send("ready")
    end.recv()
    for item in items:
        queue.put(item)


def echo(end: Any, there: Any, back: Any, count: int) -> None:
    end.send("ready")
    for _ in range(count):
        back.put(there.get())


def stream(library: Library, count: int, item: Any) -> float:
    queue = library.queue()
    with peers(library.context(), consume, (queue, count)) as (end,):

        def work() -> None:
            for _ in range(count):
                queue.put(item)
            assert end.recv() == repr(item)[:100]

        return timed(work)


@case("stream, int", count=50_000, needs="queue", floor=8, aim=15)
def stream_int(library: Library, count: int) -> float:
    return stream(library, count, 12345)


@case("stream, small dict", count=30_000, needs="queue", floor=3, aim=8)
def stream_dict(library: Library, count: int) -> float:
    return stream(library, count, {"number": 1, "name": "text", "values": [1.5, 2.5]})


@case("stream, bytes 1 KiB", count=30_000, needs="queue", floor=6, aim=15)
def stream_1k(library: Library, count: int) -> float:
    return stream(library, count, b"x" * 1024)


@case("stream, bytes 64 KiB", count=5_000, needs="queue", floor=6, aim=12)
def stream_64k(library: Library, count: int) -> float:
    return stream(library, count, b"x" * 65_536)


@case("stream, bytes 1 MiB", count=400, needs="queue", floor=3, aim=6)
def stream_1m(library: Library, count: int) -> float:
    return stream(library, count, b"x" * 2**20)


def stream_array(library: Library, count: int, mebibytes: int) -> float:
    import numpy

    return stream(library, count, numpy.ones(mebibytes * 2**17))


@case("stream, numpy 8 MiB", count=40, needs="queue", floor=8, aim=20, module="numpy")
def stream_numpy(library: Library, count: int) -> float:
    return stream_array(library, count, 8)


@case("stream, numpy 64 MiB", count=6, needs="queue", floor=6, aim=20, module="numpy")
def stream_large_numpy(library: Library, count: int) -> float:
    return stream_array(library, count, 64)


@case("two to two, int", count=40_000, needs="queue", floor=6, aim=12)
def two_to_two(library: Library, count: int) -> float:
    context, queue = library.context(), library.queue()
    half = count // 2
    with (
        peers(context, consume, (queue, half), (queue, half)) as consumers,
        peers(context, produce, (queue, range(half)), (queue, range(half))) as producers,
    ):

        def work() -> None:
            for end in producers:
                end.send("go")
            for end in consumers:
                assert int(end.recv()) >= 0

        return timed(work)


@case("ping-pong, int", count=5_000, needs="queue", floor=4, aim=15)
def ping_pong(library: Library, count: int) -> float:
    there, back = library.queue(), library.queue()
    with peers(library.context(), echo, (there, back, count)):

        def work() -> None:
            for number in range(count):
                there.put(number)
                assert back.get() == number

        return timed(work)


@case("create", count=300, needs="queue", floor=4, aim=8)
def create(library: Library, count: int) -> float:
    made: list[Any] = []
    seconds = timed(lambda: made.extend(library.queue() for _ in range(count)))
    assert len(made) == count
    return seconds
