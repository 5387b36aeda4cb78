"""Wait for whichever of several processes ends first, as often as one ends."""

import sys
import time
from multiprocessing import Process
from multiprocessing.connection import wait


def sleep(seconds, code):
    time.sleep(seconds)
    sys.exit(code)


if __name__ == "__main__":
    # Wide apart, so that the order is certain.
    delays = {"slow": 0.9, "fast": 0.1, "middling": 0.5}
    processes = {}
    for code, (name, seconds) in enumerate(delays.items(), start=10):
        process = Process(target=sleep, args=(seconds, code), name=name)
        process.start()
        processes[process.sentinel] = process
    while processes:
        for sentinel in wait(list(processes)):
            process = processes.pop(sentinel)
            process.join()
            print(f"{process.name} ended with exit code {process.exitcode}")
    print("nothing is ready now:", wait([], timeout=0.01))
