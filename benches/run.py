"""``make bench``: every case on every library, in turns; a table of medians and ratios, a record, a picture."""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import importlib.util
import json
import os
import platform
import signal
import subprocess
import sys
import tempfile
import time
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import harness
import memory
import report
from targets import target

LIMIT = 120.0
"""Seconds that one measurement may take."""
BUDGET = 0.6
"""Seconds that a measurement of a rival should take; a slow one does less."""
CLEAR = "\033[K" if sys.stdout.isatty() else ""
UNSTEADY, BRIEF, MORE = 0.1, 1.0, 3
"""A case goes on, for so many times the rounds, while the spread of either of the pair is so large, with the libraries
of which no measurement took so many seconds: the processor's clock and the neighbours change between such measurements,
and a few of them may all fall on one side."""
PAIR = ("multiprocessing", "rsmp")
"""Measured in every round and in full; the others in the first rounds."""


@dataclass
class Result:
    """What was measured of one case, by library."""

    scenario: str
    case: str
    goals: dict[str, Any]
    counts: dict[str, int] = field(default_factory=dict)
    seconds: dict[str, list[float]] = field(default_factory=dict)
    """Per operation, one per round."""
    memory_kib: dict[str, list[int]] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)


def measure(library: str, scenario: str, case: str, watched: bool = False) -> dict[str, Any] | str:
    """Run one measurement in a process of its own; a string says what went wrong.

    If it is ``watched``, the answer has the peak of its memory and the time means nothing.
    """
    budget = "inf" if library in PAIR else str(BUDGET)
    command = [sys.executable, str(harness.HERE / "measure.py"), library, scenario, case, budget]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    with tempfile.TemporaryFile("w+") as output, tempfile.TemporaryFile("w+") as errors:
        process = subprocess.Popen(command, stdout=output, stderr=errors, start_new_session=True, env=environment)
        peak, deadline = memory.Peak(process.pid), time.monotonic() + LIMIT
        try:
            if watched:
                while process.poll() is None and time.monotonic() < deadline:
                    peak.look()
            status = process.wait(max(deadline - time.monotonic(), 0))
        except subprocess.TimeoutExpired:
            return f"no end after {LIMIT:.0f} s"
        finally:
            # What a case left behind would run beside the next one.
            for pid in memory.session(process.pid):
                os.kill(pid, signal.SIGKILL)
            process.wait()
        output.seek(0)
        errors.seek(0)
        if status:
            return (errors.read().strip().splitlines() or [f"exit status {status}"])[-1]
        found: dict[str, Any] = json.loads(output.read().splitlines()[-1])
    return found | {"memory_kib": peak.kib}


def machine(libraries: list[str]) -> dict[str, Any]:
    """Say where the numbers come from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=harness.HERE)
    dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, cwd=harness.HERE)
    versions = {}
    for name in libraries:
        try:
            versions[name] = metadata.version(name.replace("_", "-"))
        except metadata.PackageNotFoundError:
            versions[name] = platform.python_version()
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() + ("+" if dirty.stdout.strip() else ""),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d %H:%M"),
        "libraries": versions,
        "load": round(os.getloadavg()[0], 1),
    }


def run_case(scenario: str, case: harness.Case, libraries: list[str], options: argparse.Namespace) -> Result:
    """Measure one case in turns."""
    able = [name for name in libraries if case.needs in harness.library(name).offers]
    result = Result(scenario, case.name, asdict(target(scenario, case.name)))

    longest: dict[str, float] = {}

    def take_turns(number: int, names: list[str], watched: bool = False) -> None:
        """Run one round, and note how long the longest measurement of each library took, in seconds."""
        # The order alternates, so that no library always runs after the same other.
        for name in names if number % 2 == 0 else reversed(names):
            if name in result.errors:
                continue
            if sys.stdout.isatty():
                what = "memory" if watched else "time"
                print(f"\r{scenario}: {case.name}: {name}, {what} {number + 1}{CLEAR}", end="\r", flush=True)
            begun = time.monotonic()
            found = measure(name, scenario, case.name, watched)
            longest[name] = max(longest.get(name, 0.0), time.monotonic() - begun)
            if isinstance(found, str):
                result.errors[name] = found
            elif watched:
                result.memory_kib.setdefault(name, []).append(found["memory_kib"])
            else:
                result.counts[name] = found["count"]
                result.seconds.setdefault(name, []).append(found["seconds"])

    pair = [name for name in able if name in PAIR]
    for number in range(options.rounds):
        take_turns(number, able if number < options.rival_rounds else pair)
    brief = [name for name in able if longest.get(name, 0.0) <= BRIEF]
    for number in range(options.rounds, MORE * options.rounds):
        unsteady = any(report.spread(result.seconds.get(name, [])) >= UNSTEADY for name in pair)
        if not unsteady or not set(pair).issubset(brief):
            break
        take_turns(number, brief)
    for number in range(options.memory_rounds):
        take_turns(number, able if number == 0 else pair, watched=True)
    return result


def chosen(options: argparse.Namespace) -> list[tuple[str, harness.Case]]:
    """Return the cases to run and name those that cannot be."""
    found = []
    for scenario in options.scenarios.split(","):
        for case in harness.cases(scenario):
            if case.module and importlib.util.find_spec(case.module) is None:
                print(f"left out: {scenario}: {case.name} needs {case.module}")
            elif fnmatch.fnmatch(case.name, options.cases):
                found.append((scenario, case))
    return found


def arguments() -> argparse.Namespace:
    """Read the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", default=",".join(harness.library_names()), help="default: all, %(default)s")
    parser.add_argument("--scenarios", default=",".join(harness.scenario_names()), help="default: all, %(default)s")
    parser.add_argument("--cases", default="*", help="a pattern of case names")
    parser.add_argument("--rounds", type=int, default=5, help="of the standard library and rsmp (default: 5)")
    parser.add_argument("--rival-rounds", type=int, default=3, help="of the others (default: 3)")
    parser.add_argument("--memory-rounds", type=int, default=3, help="further rounds that watch memory (default: 3)")
    parser.add_argument("--quick", action="store_true", help="rsmp and the standard library only, fewer rounds")
    parser.add_argument("--check", action="store_true", help="exit with 1 if a floor is missed")
    parser.add_argument("--record", action="store_true", help="write the result to benches/record/")
    options = parser.parse_args()
    if options.quick:
        options.libraries, options.rounds, options.memory_rounds = ",".join(PAIR), min(options.rounds, 3), 1
    return options


def main() -> int:
    """Run the suite."""
    options = arguments()
    # Ended from outside, it still says what it has.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    names = options.libraries.split(",")
    libraries = [name for name in names if harness.library(name).available()]
    for name in names:
        if name not in libraries:
            print(f"left out: {name} is not installed (python benches/install.py)")
    record: dict[str, Any] = {"machine": machine(libraries), "cases": []}
    print(f"{report.place(record)}; above 1.00x rsmp is faster\n\n{report.HEAD}")
    cases, begun = chosen(options), time.monotonic()
    try:
        for number, (scenario, case) in enumerate(cases):
            result = asdict(run_case(scenario, case, libraries, options))
            record["cases"].append(result)
            left = (time.monotonic() - begun) / (number + 1) * (len(cases) - number - 1)
            print(f"{report.line(result)}  ({number + 1}/{len(cases)}, {left / 60:.0f} min left){CLEAR}", flush=True)
            for name, error in result["errors"].items():
                print(f"    {name}: {error}")
    except KeyboardInterrupt:
        print("\ninterrupted; so far:")
    record["machine"]["minutes"] = round((time.monotonic() - begun) / 60, 1)
    print(f"\n{report.table(record)}\n\n{report.summary(record)}")
    if options.record:
        whole = len(record["cases"]) == sum(len(harness.cases(name)) for name in harness.scenario_names())
        for path in report.write(record, "" if whole and not options.quick else "-partial"):
            print(f"recorded: {path.relative_to(harness.HERE.parent)}")
    if any(name in PAIR for result in record["cases"] for name in result["errors"]):
        return 1
    return 1 if options.check and report.missed(record) else 0


if __name__ == "__main__":
    sys.exit(main())
