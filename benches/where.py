"""Where the time of a case goes: ``python benches/where.py SCENARIO CASE [LIBRARY]``, by perf.

The case is repeated for some seconds; what the processes do then, asleep or not, is not counted: the shares are of the
CPU time that they use, the start of the interpreter aside.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path

import harness

SECONDS = 3.0
DELAY = 500
"""Milliseconds before perf begins to count."""


def repeat(name: str, scenario: str, case: str) -> None:
    """Run a case again and again."""
    chosen = next(each for each in harness.cases(scenario) if each.name == case)
    library, end = harness.library(name), time.monotonic() + SECONDS
    while time.monotonic() < end:
        chosen.function(library, chosen.count)


def shares(data: Path, *keys: str) -> list[str]:
    """Return the largest shares, one line each."""
    command = ["perf", "report", "-i", str(data), "--stdio", "--no-children", "--sort", ",".join(keys)]
    ran = subprocess.run(command, capture_output=True, text=True)
    lines = [line.split(None, 4) for line in ran.stdout.splitlines() if line.strip() and not line.startswith("#")]
    found = []
    for fields in lines:
        dso = fields[1].strip("[]").split(".cpython")[0].removesuffix(".kallsyms")
        symbol = fields[3] if len(keys) > 1 else ""
        found.append(f"{fields[0]:>7}  {dso:22} {symbol}".rstrip())
    return found


def main() -> int:
    """Profile and print."""
    scenario, case, name = (*sys.argv[1:3], *(sys.argv[3:] or ["rsmp"]))
    with tempfile.TemporaryDirectory() as folder:
        data = Path(folder, "perf.data")
        record = ["perf", "record", "--quiet", "--event", "cpu-clock", "--freq", "2000", "--delay", str(DELAY)]
        run = [sys.executable, __file__, "--repeat", name, scenario, case]
        subprocess.run([*record, "--output", str(data), *run], check=True, stderr=subprocess.DEVNULL)
        print(f"{scenario}: {case}: {name}")
        print("\n".join([*shares(data, "dso")[:5], "", *shares(data, "dso", "symbol")[:14]]))
    return 0


if __name__ == "__main__":
    if sys.argv[1] == "--repeat":
        repeat(*sys.argv[2:])
    else:
        sys.exit(main())
