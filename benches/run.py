"""``make bench``: every case on every library, in turns; a table of medians and ratios; a record on request."""

from __future__ import annotations

import argparse
import datetime
import fnmatch
import importlib.util
import json
import math
import os
import platform
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Any

import harness

LIMIT = 180.0
"""Seconds that one measurement may take."""
STANDARD = "multiprocessing"


def measure(library: str, scenario: str, case: str) -> dict[str, float] | str:
    """Run one measurement in a process of its own; a string says what went wrong."""
    command = [sys.executable, str(harness.HERE / "harness.py"), library, scenario, case]
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return f"no end after {LIMIT:.0f} s"
    if ran.returncode:
        return (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
    found: dict[str, float] = json.loads(ran.stdout.splitlines()[-1])
    return found


def duration(seconds: float) -> str:
    """Write a time per operation with three digits."""
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 1000:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def spread(values: list[float]) -> str:
    """Write half the range between the quartiles, relative to the median."""
    if len(values) < 2:
        return ""
    low, middle, high = statistics.quantiles(values, n=4)
    return f"{(high - low) / 2 / middle:.0%}"


def machine() -> dict[str, Any]:
    """Say where the numbers come from."""
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=harness.HERE)
    dirty = subprocess.run(["git", "status", "--porcelain"], capture_output=True, text=True, cwd=harness.HERE)
    return {
        "cpu": cpu,
        "cores": len(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "commit": commit.stdout.strip() + ("+" if dirty.stdout.strip() else ""),
        "date": datetime.datetime.now(datetime.UTC).strftime("%Y-%m-%d"),
    }


def row(result: dict[str, Any], libraries: list[str]) -> str:
    """Return a line of the table."""
    medians = {name: statistics.median(values) for name, values in result["seconds"].items()}
    cells = [f"{result['scenario']:14}{result['case']:30}"]
    for name in libraries:
        if name in medians:
            cells.append(f"{duration(medians[name]):>10} {spread(result['seconds'][name]):>4}")
        else:
            cells.append(f"{'-' if name not in result['errors'] else 'failed':>10}     ")
    ratios = {name: medians[STANDARD] / medians[name] for name in medians if name != STANDARD and STANDARD in medians}
    if "rsmp" in ratios:
        verdict = ""
        if result["floor"] is not None:
            floor, aim, ratio = result["floor"], result["aim"] or math.inf, ratios["rsmp"]
            verdict = "aim" if ratio >= aim else "ok" if ratio >= floor else "BELOW" if ratio >= 1 else "SLOWER"
        cells.append(f"{ratios['rsmp']:7.2f}x  {result['floor'] or '':>5} {result['aim'] or '':>4}  {verdict}")
    return " ".join(cells)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--libraries", default="multiprocessing,rsmp", help=", ".join(harness.library_names()))
    parser.add_argument("--scenarios", default=",".join(harness.scenario_names()))
    parser.add_argument("--cases", default="*", help="a pattern of case names")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--record", action="store_true", help="write the result to benches/record/")
    options = parser.parse_args()
    libraries = [name for name in options.libraries.split(",") if harness.library(name).available()]
    for name in set(options.libraries.split(",")) - set(libraries):
        print(f"{name} is not installed: pip install {harness.library(name).requirement or name}")

    where = machine()
    print(
        f"{where['cpu']}, {where['cores']} CPUs, Linux {where['kernel']}, Python {where['python']}, {where['commit']}"
    )
    print(f"medians of {options.rounds} rounds and spread; above 1.00x rsmp is faster\n")
    header = " ".join(f"{name:>15}" for name in libraries)
    print(f"{'scenario':14}{'case':30} {header} {'ratio':>8}  {'floor':>5} {'aim':>4}")
    results = []
    for scenario in options.scenarios.split(","):
        for case in harness.cases(scenario):
            if not fnmatch.fnmatch(case.name, options.cases):
                continue
            if case.module and importlib.util.find_spec(case.module) is None:
                print(f"{scenario:14}{case.name:30} needs {case.module}")
                continue
            able = [name for name in libraries if case.needs in harness.library(name).offers]
            result: dict[str, Any] = {"scenario": scenario, "case": case.name, "count": case.count}
            result |= {"floor": case.floor, "aim": case.aim, "seconds": {}, "peak_kib": {}, "errors": {}}
            for number in range(options.rounds):
                # The order alternates, so that no library always runs after the same other.
                for name in able if number % 2 == 0 else reversed(able):
                    if sys.stdout.isatty():
                        print(f"\r{scenario}: {case.name}: {name} {number + 1}/{options.rounds}\033[K", end="\r")
                    found = measure(name, scenario, case.name)
                    if isinstance(found, str):
                        result["errors"][name] = found
                    elif not math.isnan(found["seconds"]):
                        result["seconds"].setdefault(name, []).append(found["seconds"])
                        result["peak_kib"].setdefault(name, []).append(found["peak_kib"])
            results.append(result)
            print(row(result, libraries), flush=True)
            for name, error in result["errors"].items():
                print(f"    {name}: {error}")
    if options.record:
        path = harness.HERE / "record" / f"{where['date']}-{where['commit'].rstrip('+')}-py{where['python']}.json"
        Path(path).write_text(json.dumps({"machine": where, "cases": results}, indent=1) + "\n")
        print(f"\nrecorded in {path.relative_to(harness.HERE.parent)}")
    failed = [result for result in results if result["errors"]]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
