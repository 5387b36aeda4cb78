"""Arrays go to workers through one queue and their results come back through another."""

from multiprocessing import Process, Queue

try:
    import numpy as np
except ImportError:
    raise SystemExit("this example needs numpy") from None

ARRAYS, SIZE = 30, 250_000


def work(tasks, results):
    while (task := tasks.get()) is not None:
        number, array = task
        results.put((number, array * 2.0, float(array.sum())))


if __name__ == "__main__":
    tasks, results = Queue(), Queue()
    workers = [Process(target=work, args=(tasks, results)) for _ in range(2)]
    for worker in workers:
        worker.start()
    for number in range(ARRAYS):
        tasks.put((number, np.arange(number, number + SIZE, dtype=np.float64)))
    for _ in workers:
        tasks.put(None)
    received = sorted((results.get() for _ in range(ARRAYS)), key=lambda result: result[0])
    for worker in workers:
        worker.join()
    for number, doubled, total in received[:3]:
        print(number, doubled[:3].tolist(), total)
    print("all right:", all((doubled == 2 * np.arange(n, n + SIZE)).all() for n, doubled, _ in received))
