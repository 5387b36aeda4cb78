"""Cases, libraries and one measurement, which `measure.py` makes in a process of its own."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent


@dataclass(frozen=True)
class Case:
    """Something to measure: ``function(library, count)`` returns the seconds that ``count`` operations took.

    What the result should be stands in ``targets.py``.
    """

    name: str
    function: Callable[[Library, int], float]
    count: int
    needs: str
    """What a library must offer to run it."""
    warm_up: int
    """Operations before the measured ones."""
    module: str | None
    """A module that the case cannot do without."""


_cases: dict[str, list[Case]] = {}


def case(
    name: str,
    *,
    count: int,
    needs: str,
    warm_up: int | None = None,
    module: str | None = None,
) -> Callable[[Callable[[Library, int], float]], Callable[[Library, int], float]]:
    """Declare the decorated function as a case."""

    def add(function: Callable[[Library, int], float]) -> Callable[[Library, int], float]:
        warm = max(count // 10, 1) if warm_up is None else warm_up
        _cases.setdefault(function.__module__, []).append(Case(name, function, count, needs, warm, module))
        return function

    return add


class Library:
    """A library under measurement. Subclasses stand in ``libraries/``, one per file, as ``class Adapter``.

    What it offers decides which cases it runs. `module` is the package itself; `host` the package whose processes and
    pipes serve it, its own if it looks like ``multiprocessing``.
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

    def queue(self, largest: int = 64) -> Any:
        """Return an object with ``put`` and ``get`` for messages of up to ``largest`` bytes."""
        return self.context().Queue()

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
    return _cases[importlib.import_module(f"scenarios.{scenario}").__name__]


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


POOL = frozenset({f"pool {what}" for what in ("map", "starmap", "imap", "imap_unordered", "apply", "apply_async")})
"""The ways to hand tasks to a pool."""


def timed(function: Callable[[], Any]) -> float:
    """Return the seconds that ``function`` takes."""
    begun = time.perf_counter()
    function()
    return time.perf_counter() - begun


def measure(library_name: str, scenario: str, case_name: str, budget: float) -> dict[str, float]:
    """Run one case once and return the seconds per operation and how many operations there were.

    If the warm-up says that the case would take more than ``budget`` seconds, it is done less often.
    """
    chosen = next(each for each in cases(scenario) if each.name == case_name)
    under_test, count = library(library_name), chosen.count
    if chosen.warm_up:
        seconds = chosen.function(under_test, chosen.warm_up)
        count = min(count, max(int(min(budget / seconds, count) * chosen.warm_up), 1))
    return {"seconds": chosen.function(under_test, count) / count, "count": count}
