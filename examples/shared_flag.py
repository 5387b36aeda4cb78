"""A subclass of Process works until a shared flag tells it to stop."""

import time
from ctypes import c_bool
from multiprocessing import Process, Value


class Ticker(Process):
    """Counts in shared memory until it is told to stop."""

    def __init__(self):
        super().__init__(name="Ticker")
        self.running = Value(c_bool, True)
        self.ticks = Value("i", 0)

    def run(self):
        while self.running.value:
            with self.ticks.get_lock():
                self.ticks.value += 1
            time.sleep(0.001)

    def stop(self):
        self.running.value = False


if __name__ == "__main__":
    ticker = Ticker()
    ticker.start()
    while ticker.ticks.value < 50:
        time.sleep(0.001)
    print(f"{ticker.name} is alive: {ticker.is_alive()}")
    ticker.stop()
    ticker.join()
    print(f"{ticker.name} ticked at least 50 times: {ticker.ticks.value >= 50}")
    print(f"{ticker.name} is alive: {ticker.is_alive()}, exit code {ticker.exitcode}")
