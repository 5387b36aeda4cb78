"""A producer fills a queue until the consumer has had enough and sets an event."""

import queue
from multiprocessing import Event, Process, Queue

ENOUGH = 20_000


def produce(q, stop, produced):
    n = 0
    while not stop.is_set():
        try:
            q.put({"number": n, "square": n * n}, timeout=0.1)
        except queue.Full:
            continue
        n += 1
    produced.put(n)


def consume(q, stop, consumed):
    total = 0
    for expected in range(ENOUGH):
        item = q.get()
        assert item["number"] == expected
        total += item["square"]
    stop.set()
    consumed.put(total)


if __name__ == "__main__":
    q, produced, consumed, stop = Queue(maxsize=100), Queue(), Queue(), Event()
    producer = Process(target=produce, args=(q, stop, produced))
    consumer = Process(target=consume, args=(q, stop, consumed))
    producer.start()
    consumer.start()
    print("the consumer took", ENOUGH, "items; the sum of squares is", consumed.get())
    count = produced.get()
    # The producer may have run ahead as far as the queue reaches; what is left is read so that it can end.
    left = 0
    while ENOUGH + left < count:
        q.get()
        left += 1
    print("the producer stopped in time:", count <= ENOUGH + 102)
    producer.join()
    consumer.join()
    print("exit codes:", producer.exitcode, consumer.exitcode)
