"""Import: what a program pays before it does anything."""

import subprocess
import sys

from harness import Library, case, timed


def run(code: str, count: int) -> float:
    def work() -> None:
        for _ in range(count):
            subprocess.run([sys.executable, "-c", code], check=True)

    return timed(work)


@case("interpreter + import", count=10, needs="import", warm_up=1)
def package(library: Library, count: int) -> float:
    return run(f"import {library.module}", count)


@case("the same + queues and pool", count=10, needs="import", warm_up=1)
def modules(library: Library, count: int) -> float:
    return run(f"import {library.module}.queues, {library.module}.pool, {library.module}.synchronize", count)
