"""Ten workers report their names and process ids through a queue."""

import os
from multiprocessing import Process, Queue, current_process


def report(q, number):
    q.put((number, current_process().name, os.getpid(), os.getppid()))


if __name__ == "__main__":
    q = Queue()
    workers = [Process(target=report, args=(q, number), name=f"Worker {number}") for number in range(10)]
    for worker in workers:
        worker.start()
    reports = sorted(q.get() for _ in workers)
    for worker in workers:
        worker.join()
    for (number, name, pid, _), worker in zip(reports, workers, strict=True):
        print(f"{name} is number {number}; its pid is the one its parent knows: {pid == worker.pid}")
    print("different pids:", len({pid for _, _, pid, _ in reports}))
    print("exit codes:", [worker.exitcode for worker in workers])
