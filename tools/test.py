"""``make test``: every check of the project, one line each, one closing summary.

``python tools/test.py [--only lint|rust|python|cpython] [--python EXE]``. The output of a stage is kept in
``target/test/NAME.log`` and shown when it fails.
"""

from __future__ import annotations

import argparse
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOGS = ROOT / "target" / "test"
SHOWN = 12_000
"""Characters of a failed stage's output that are printed; the end, where the failures are."""


@dataclass
class Stage:
    """A command, and how to count what it did."""

    group: str
    name: str
    command: list[str]
    limit: float
    """Seconds after which it is ended and has failed."""
    again: list[str] | None = None
    """Run when it failed, and decides: the standard library loses a race now and then, which is not our failure."""


@dataclass
class Count:
    """What a stage did."""

    passed: int = 0
    failed: int = 0
    skipped: int = 0

    def __add__(self, other: Count) -> Count:
        return Count(self.passed + other.passed, self.failed + other.failed, self.skipped + other.skipped)

    def __str__(self) -> str:
        return f"{self.passed} passed, {self.failed} failed, {self.skipped} skipped"


def stages(python: str) -> Iterator[Stage]:
    """Return everything there is to run, in order."""
    if available("cargo", "fmt"):
        yield Stage("lint", "cargo fmt", ["cargo", "fmt", "--check"], 60)
    if available("cargo", "clippy"):
        deny = ["--", "-D", "warnings"]
        yield Stage("lint", "clippy", ["cargo", "clippy", "--quiet", "--workspace", "--all-targets", *deny], 600)
    yield Stage("lint", "ruff", [python, "-m", "ruff", "check"], 60)
    yield Stage("lint", "ruff format", [python, "-m", "ruff", "format", "--check"], 60)
    yield Stage("lint", "mypy --strict", [python, "-m", "mypy", "python/rsmp"], 180)
    yield Stage("rust", "cargo test", ["cargo", "test"], 900)
    loom = ["cargo", "run", "--release", "--quiet", "--manifest-path", "tests/core/loom/Cargo.toml"]
    yield Stage("rust", "loom models", [*loom, "--target-dir", "target/loom"], 600)
    miri = ["cargo", "run", "--quiet", "--manifest-path", "tests/core/miri/Cargo.toml"]
    yield Stage("rust", "the cases for Miri, without it", [*miri, "--target-dir", "target/miri-native"], 300)
    pytest = [python, "-m", "pytest", "-q", "tests", "--ignore=tests/cpython"]
    yield Stage("python", "rsmp", pytest, 1200)
    oracle = [python, "-m", "pytest", "-q", "tests/behaviour", "--mp=multiprocessing"]
    failed = [*oracle, "--last-failed", "--last-failed-no-failures=none"]
    yield Stage("python", "multiprocessing, the oracle", oracle, 900, failed)
    yield Stage("cpython", "test._test_multiprocessing", [python, "tests/cpython/run.py"], 900)


def available(*command: str) -> bool:
    """Whether a component of the Rust toolchain is installed."""
    if shutil.which(command[0]) is None:
        return False
    return subprocess.run([*command, "--version"], capture_output=True, cwd=ROOT).returncode == 0


def run(stage: Stage) -> Count:
    """Run a stage, print its line, and its output if it failed."""
    print(f"{stage.group:8} {stage.name:28} ", end="", flush=True)
    begun = time.monotonic()
    log = LOGS / f"{stage.group}-{re.sub(r'[^a-z0-9]+', '-', stage.name)}.log"
    with log.open("w") as output:
        try:
            status = subprocess.run(
                stage.command,
                cwd=ROOT,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                timeout=stage.limit,
            ).returncode
            ended = f"exit status {status}" if status else ""
        except subprocess.TimeoutExpired:
            ended = f"no end after {stage.limit:.0f} s"
    text = log.read_text(errors="replace")
    count = counted(stage.group, text)
    if ended and not count.failed:
        count.failed = 1
    elif not ended and not count.passed:
        count.passed = 1
    print(f"{count} ({time.monotonic() - begun:.0f} s)")
    if ended and stage.again:
        print(f"{text[-SHOWN:]}\n")
        return count_again(stage, count)
    if ended:
        print(f"\n--- {stage.name}: {ended}, {log.relative_to(ROOT)} ---\n{text[-SHOWN:]}\n")
    return count


def count_again(stage: Stage, count: Count) -> Count:
    """Run what failed once more; count as failed what failed twice."""
    second = run(Stage(stage.group, f"{stage.name}, again", stage.again or [], stage.limit))
    return Count(count.passed + second.passed, second.failed, count.skipped)


def counted(group: str, text: str) -> Count:
    """Add up what the runner said it did."""
    found = {"passed": 0, "failed": 0, "skipped": 0}
    words = {"errors": "failed", "error": "failed", "ignored": "skipped", "xfailed": "skipped"}
    if group == "rust":
        lines = re.findall(r"^test result: .*$", text, re.MULTILINE)
    elif group == "python":
        lines = text.strip().splitlines()[-1:]
    else:
        lines = re.findall(r"^CPython .* tests: .*$", text, re.MULTILINE)
        words["expected failures"] = "skipped"
    for line in lines:
        for number, word in re.findall(r"(\d+) (expected failures|[a-z]+)\b", line):
            name = words.get(word, word)
            if name in found:
                found[name] += int(number)
    return Count(**found)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", action="append", choices=["lint", "rust", "python", "cpython"])
    parser.add_argument("--python", default=sys.executable)
    options = parser.parse_args()
    LOGS.mkdir(parents=True, exist_ok=True)
    total = Count()
    for stage in stages(options.python):
        if not options.only or stage.group in options.only:
            total += run(stage)
    print(f"\nrsmp: {total}")
    return 1 if total.failed else 0


if __name__ == "__main__":
    sys.exit(main())
