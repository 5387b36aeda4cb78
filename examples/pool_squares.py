"""A pool of workers computes squares in every way a pool offers."""

import os
from multiprocessing import Pool, TimeoutError


def square(x):
    return x * x


def power(x, exponent):
    return x**exponent


def reciprocal(x):
    return 1 / x


if __name__ == "__main__":
    with Pool(4) as pool:
        print("map:", pool.map(square, range(10)))
        print("imap, one by one:", sum(pool.imap(square, range(5_000))))
        print("imap_unordered, sorted:", sorted(pool.imap_unordered(square, range(10), chunksize=3)))
        print("starmap:", pool.starmap(power, [(2, n) for n in range(10)]))
        results = [pool.apply_async(square, (n,)) for n in range(2_000)]
        print("apply_async:", sum(result.get(timeout=60) for result in results))
        print("workers other than this process:", os.getpid() not in set(pool.map(os.getpgid, [0] * 10)))
        try:
            pool.apply_async(reciprocal, (0,)).get(timeout=60)
        except ZeroDivisionError as error:
            print("an error of a task:", error)
        try:
            pool.apply_async(square, ("text",)).get(timeout=60)
        except (TypeError, TimeoutError) as error:
            print("another:", type(error).__name__)
        print("map of 100000:", sum(pool.map(square, range(100_000))))
