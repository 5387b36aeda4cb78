"""Cases, libraries and one measurement. `run.py` runs this file once per measurement, in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import json
import resource
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Case:
    """Something to measure: ``function(library, count)`` returns the seconds that ``count`` operations took."""

    name: str
    function: Callable[[Library, int], float]
    count: int
    needs: str
    floor: float | None
    """The ratio to the standard library that must be reached."""
    aim: float | None
    """The ratio that should be reached."""
    warm_up: int
    """Operations before the measured ones."""
    module: str | None
    """A module that the case cannot do without."""


_cases: list[Case] = []


def case(
    name: str,
    *,
    count: int,
    needs: str,
    floor: float | None = None,
    aim: float | None = None,
    warm_up: int | None = None,
    module: str | None = None,
) -> Callable[[Callable[[Library, int], float]], Callable[[Library, int], float]]:
    """Declare the decorated function as a case."""

    def add(function: Callable[[Library, int], float]) -> Callable[[Library, int], float]:
        warm = max(count // 10, 1) if warm_up is None else warm_up
        _cases.append(Case(name, function, count, needs, floor, aim, warm, module))
        return function

    return add


class Library:
    """A library under measurement. Subclasses stand in ``libraries/``, one per file, as ``class Adapter``.

    What it offers decides which cases it runs: "queue", "simple queue", "pipe", "pool", "start", "locks", "values",
    "manager", "shared memory", "import". `module` is the package itself; `host` the package whose processes and pipes
    serve it, its own if it looks like ``multiprocessing``.
    """

    name: str
    requirement: str | None = None
    """What pip installs for it."""
    offers: frozenset[str] = frozenset()
    module: str = "multiprocessing"
    host: str = "multiprocessing"

    def available(self) -> bool:
        """Whether it can be imported here."""
        return importlib.util.find_spec(self.module) is not None

    def load(self, submodule: str = "") -> Any:
        """Return the package or a submodule of it."""
        return importlib.import_module(f"{self.module}.{submodule}" if submodule else self.module)

    def context(self, method: str = "fork") -> Any:
        """Return the context that makes processes, pipes and, by default, everything else."""
        return importlib.import_module(self.host).get_context(method)

    def queue(self, maxsize: int = 0) -> Any:
        """Return an object with ``put`` and ``get``."""
        return self.context().Queue(maxsize)

    def pool(self, processes: int, method: str = "fork") -> Any:
        """Return an object with the methods of a Pool, a context manager."""
        return self.context(method).Pool(processes)


def library(name: str) -> Library:
    """Return the adapter in ``libraries/name.py``."""
    adapter: Library = importlib.import_module(f"libraries.{name}").Adapter()
    return adapter


def library_names() -> list[str]:
    """Return every library there is an adapter for, the standard one first."""
    names = sorted(path.stem for path in (HERE / "libraries").glob("*.py") if not path.stem.startswith("_"))
    return sorted(names, key=lambda name: (name != "multiprocessing", name != "rsmp", name))


def scenario_names() -> list[str]:
    """Return every scenario there is a file for."""
    return sorted(path.stem for path in (HERE / "scenarios").glob("*.py") if not path.stem.startswith("_"))


def cases(scenario: str) -> list[Case]:
    """Return the cases of ``scenarios/scenario.py``."""
    _cases.clear()
    importlib.import_module(f"scenarios.{scenario}")
    return list(_cases)


@contextlib.contextmanager
def peers(context: Any, target: Callable[..., None], *argument_lists: tuple[Any, ...]) -> Iterator[list[Any]]:
    """Start a process per list of arguments and give the pipes to them, each peer having said that it is there.

    A peer's first argument is its end of the pipe.
    """
    processes, ends = [], []
    for arguments in argument_lists:
        ours, theirs = context.Pipe()
        process = context.Process(target=target, args=(theirs, *arguments))
        process.start()
        processes.append(process)
        ends.append(ours)
    for end in ends:
        assert end.recv() == "ready"
    yield ends
    for process in processes:
        process.join(60)
        assert process.exitcode == 0, process.exitcode


def timed(function: Callable[[], Any]) -> float:
    """Return the seconds that ``function`` takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def measure(library_name: str, scenario: str, case_name: str) -> dict[str, float]:
    """Run one case once and return seconds per operation and the highest memory use of one process, in KiB."""
    chosen = next(each for each in cases(scenario) if each.name == case_name)
    under_test = library(library_name)
    if chosen.warm_up:
        chosen.function(under_test, chosen.warm_up)
    seconds = chosen.function(under_test, chosen.count) / chosen.count
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return {"seconds": seconds, "peak_kib": peak}


if __name__ == "__main__":
    # Under its own name, so that scenarios and this program share one list of cases.
    import harness

    print(json.dumps(harness.measure(*sys.argv[1:])))
