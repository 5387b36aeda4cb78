"""Objects that live in a manager's process and are changed from several others."""

from multiprocessing import Manager, Process


def work(namespace, numbers, scores, lock, number):
    with lock:
        namespace.total += number
    numbers.append(number)
    scores[f"worker {number}"] = number**2


if __name__ == "__main__":
    with Manager() as manager:
        namespace = manager.Namespace(total=0, title="results")
        numbers, scores, lock = manager.list(), manager.dict(), manager.Lock()
        processes = [Process(target=work, args=(namespace, numbers, scores, lock, n)) for n in range(8)]
        for process in processes:
            process.start()
        for process in processes:
            process.join()
        print(namespace.title, namespace.total)
        print(sorted(numbers))
        print(dict(sorted(scores.items())))
        namespace.title = "changed here"
        print(namespace)
        for n in range(1_000):
            scores["count"] = n
        print(scores["count"])
