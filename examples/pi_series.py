"""Pi by the Leibniz series, its terms split over processes, the partial sums added up in a shared value."""

from multiprocessing import Array, Barrier, Process, Value

TERMS = 2_000_000
PARTS = 4


def add_terms(part, total, partial_sums, barrier):
    partial = 0.0
    for k in range(part, TERMS, PARTS):
        partial += (4.0 if k % 2 == 0 else -4.0) / (2 * k + 1)
    partial_sums[part] = partial
    barrier.wait()
    with total.get_lock():
        total.value += partial


if __name__ == "__main__":
    total, partial_sums, barrier = Value("d", 0.0), Array("d", PARTS), Barrier(PARTS)
    processes = [Process(target=add_terms, args=(part, total, partial_sums, barrier)) for part in range(PARTS)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    print("partial sums:", [round(partial, 6) for partial in partial_sums])
    print(f"pi is about {total.value:.6f}")
