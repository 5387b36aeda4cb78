"""SimpleQueue: a stream from one process to another."""

from typing import Any

from harness import Library, case, peers, timed


def consume(end: Any, queue: Any, count: int) -> None:
    end.send("ready")
    end.send(sum(queue.get() for _ in range(count)))


@case("stream, int", count=50_000, needs="simple queue")
def stream(library: Library, count: int) -> float:
    context = library.context()
    queue = context.SimpleQueue()
    with peers(context, consume, (queue, count)) as (end,):

        def work() -> None:
            for number in range(count):
                queue.put(number)
            assert end.recv() == sum(range(count))

        return timed(work)
