"""The interpreter's own multiprocessing tests under rsmp, for every start method, with any interpreter.

``python tests/cpython/run.py [--python EXE] [--methods fork,spawn,forkserver] [--jobs 4] [--plain] [pattern ...]``

A pattern selects tests as ``Class.test`` with wildcards. What must fail stands in ``expected_failures/3.X.txt``: one
line each, ``[method:]Class.test  the reason``. A test may be skipped only where the standard library skips it too. The
tests mostly sleep, so several interpreters run at once; a test that shows nothing for `PATIENCE` seconds is ended,
counted as hung, and the rest of its group goes on in a new interpreter. Exit status 0 means that all is as expected.
"""

import argparse
import contextlib
import fnmatch
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

HERE = Path(__file__).resolve().parent
METHODS = ("fork", "spawn", "forkserver")
PATIENCE = 120.0
"""Seconds that one test may take; the longest of the standard library's takes about ten."""
KINDS = ("WithProcesses", "WithThreads", "WithManager")
MOST_EXPECTED = 12


@dataclass
class Outcome:
    """How one test ended: passed, skipped, failed, hung or crashed, with its reason or traceback."""

    result: str
    detail: str = ""
    seconds: float = 0.0


@dataclass
class Interpreter:
    """An interpreter and the library that its ``import multiprocessing`` means."""

    executable: str
    plain: bool
    version: str = field(init=False)

    def __post_init__(self) -> None:
        code = "import platform; print(platform.python_version())"
        self.version = subprocess.run(
            [self.executable, "-c", code], check=True, capture_output=True, text=True
        ).stdout.strip()

    def command(self, method: str, *arguments: str) -> list[str]:
        """Return the command line of `record.py`."""
        library = [] if self.plain else ["-m", "rsmp"]
        return [self.executable, *library, str(HERE / "record.py"), method, *arguments]

    def names(self, method: str) -> list[str]:
        """Return every test as ``Class.test``."""
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder, "names")
            command = self.command(method, str(path))
            subprocess.run(command, check=True, timeout=120, env=_environment(method), stdin=subprocess.DEVNULL)
            return path.read_text().split()

    def run(self, method: str, names: list[str]) -> dict[str, Outcome]:
        """Run the tests ``names`` and return how each ended."""
        outcomes: dict[str, Outcome] = {}
        while left := [name for name in names if name not in outcomes]:
            outcomes |= self._run_until_stuck(method, left)
        return outcomes

    def _run_until_stuck(self, method: str, names: list[str]) -> dict[str, Outcome]:
        with tempfile.TemporaryDirectory() as folder:
            results, log = Path(folder, "results"), Path(folder, "log")
            results.touch()
            with log.open("wb") as output:
                process = subprocess.Popen(
                    self.command(method, str(results), *names),
                    cwd=folder,
                    env=_environment(method),
                    stdin=subprocess.DEVNULL,
                    stdout=output,
                    stderr=subprocess.STDOUT,
                    start_new_session=True,
                )
                hung = _wait(process, results)
            outcomes, current = _read(results)
            text = log.read_text(errors="replace")
            for pattern in [name for name in outcomes if name.endswith(".*")]:
                outcome = outcomes.pop(pattern)
                outcomes |= {name: outcome for name in names if fnmatch.fnmatch(name, pattern)}
            if current is not None:
                outcomes[current] = Outcome("hung" if hung else "crashed", text[-4000:])
            elif not outcomes.keys() & set(names):
                # Not one test was reached: do not try for ever.
                outcomes |= {name: Outcome("crashed", text[-4000:]) for name in names}
            elif hung:
                outcomes["(end of the group)"] = Outcome("hung", text[-4000:])
                outcomes |= {name: Outcome("hung", "not reached") for name in names if name not in outcomes}
            return outcomes


def _environment(method: str) -> dict[str, str]:
    return os.environ | {"RSMP_SUITE_METHOD": method, "PYTHONDONTWRITEBYTECODE": "1"}


def _wait(process: subprocess.Popen[bytes], results: Path) -> bool:
    """Wait for the group to end; end it when nothing happens for `PATIENCE` seconds, and say so."""
    size, changed = 0, time.monotonic()
    hung = False
    while True:
        try:
            process.wait(timeout=1.0)
            break
        except subprocess.TimeoutExpired:
            pass
        if (now := results.stat().st_size) != size:
            size, changed = now, time.monotonic()
        elif time.monotonic() - changed > PATIENCE:
            hung = True
            process.send_signal(signal.SIGABRT)
            time.sleep(1.0)
            break
    with contextlib.suppress(ProcessLookupError):
        # Whatever the tests left behind is in their session.
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    return hung


def _read(results: Path) -> tuple[dict[str, Outcome], str | None]:
    """Return how the tests ended and the one that was running last, if it did not end."""
    outcomes: dict[str, Outcome] = {}
    current: str | None = None
    started = 0.0
    for line in results.read_text().splitlines():
        entry = json.loads(line)
        name, result = entry["test"], entry["outcome"]
        if result == "started":
            current, started = name, entry["time"]
            continue
        if name not in outcomes or outcomes[name].result != "failed":
            outcomes[name] = Outcome(result, entry["detail"], entry["time"] - started)
        if name == current:
            current = None
    return outcomes, current


def groups(names: list[str]) -> list[list[str]]:
    """Cut the tests into groups that share an interpreter, as the standard library's own files do."""
    found: dict[str, list[str]] = {}
    for name in names:
        kind = next((kind for kind in KINDS if name.startswith(kind)), "misc")
        if name.startswith(("WithProcessesTestPool", "WithThreadsTestPool", "WithManagerTestPool")):
            kind += " pool"
        found.setdefault(kind, []).append(name)
    return list(found.values())


def expected_failures(version: str) -> dict[tuple[str, str], str]:
    """Read ``expected_failures/3.X.txt``: (method, test) -> reason."""
    path = HERE / "expected_failures" / f"{'.'.join(version.split('.')[:2])}.txt"
    expected = {}
    for line in path.read_text().splitlines() if path.is_file() else []:
        if line and not line.startswith("#"):
            name, _, reason = line.partition(" ")
            method, _, test = name.rpartition(":")
            expected |= {(each, test): reason.strip() for each in ([method] if method else METHODS)}
    return expected


def judge(
    interpreter: Interpreter, method: str, outcomes: dict[str, Outcome], expected: dict[tuple[str, str], str]
) -> list[str]:
    """Say what is not as expected, one entry each."""
    wrong = []
    for name, outcome in outcomes.items():
        due = not interpreter.plain and (method, name) in expected
        if outcome.result == "passed" and due:
            wrong.append(f"{method}: {name} passed: take it off the list of expected failures")
        elif outcome.result in ("failed", "hung", "crashed") and not due:
            wrong.append(f"{method}: {name} {outcome.result}\n{outcome.detail.rstrip()}")
    skipped = [name for name, outcome in outcomes.items() if outcome.result == "skipped"]
    if skipped and not interpreter.plain:
        standard = Interpreter(interpreter.executable, plain=True).run(method, skipped)
        wrong += [
            f"{method}: {name} is skipped only under rsmp" for name in skipped if standard[name].result != "skipped"
        ]
    return wrong


def main() -> int:
    # A shell that runs this in the background has it ignored, and so would every test.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("patterns", nargs="*")
    parser.add_argument("--python", default=sys.executable, help="the interpreter, with rsmp installed")
    parser.add_argument("--methods", default=",".join(METHODS))
    parser.add_argument("--jobs", type=int, default=4, help="interpreters at once (default 4)")
    parser.add_argument("--plain", action="store_true", help="test the standard library itself")
    parser.add_argument("--durations", type=int, default=0, metavar="N", help="show the N slowest tests")
    options = parser.parse_args()

    begun = time.monotonic()
    # The tests run in folders of their own.
    options.python = str(Path(options.python).absolute()) if os.sep in options.python else options.python
    interpreter = Interpreter(options.python, options.plain)
    expected = expected_failures(interpreter.version)
    methods = options.methods.split(",")
    outcomes: dict[str, dict[str, Outcome]] = {method: {} for method in methods}
    lock = threading.Lock()

    def work(method: str, names: list[str]) -> None:
        found = interpreter.run(method, names)
        with lock:
            outcomes[method] |= found

    names = interpreter.names(methods[0])
    if not options.plain and names != Interpreter(options.python, plain=True).names(methods[0]):
        print("the tests under rsmp are not those of the standard library")
        return 1
    if options.patterns:
        names = [name for name in names if any(fnmatch.fnmatch(name, f"{pattern}*") for pattern in options.patterns)]
    with ThreadPoolExecutor(options.jobs) as executor:
        # The longest groups first.
        tasks = [(method, group) for group in sorted(groups(names), key=len, reverse=True) for method in methods]
        list(executor.map(lambda task: work(*task), tasks))
        judged = executor.map(lambda method: judge(interpreter, method, outcomes[method], expected), methods)
        wrong = [entry for entries in judged for entry in entries]

    for entry in wrong:
        print(entry, end="\n\n")
    if options.durations:
        slow = [(outcome.seconds, method, name) for method in methods for name, outcome in outcomes[method].items()]
        for seconds, method, name in sorted(slow, reverse=True)[: options.durations]:
            print(f"{seconds:6.1f} s  {method}  {name}")
    different = {test for _, test in expected}
    if len(different) > MOST_EXPECTED:
        wrong.append("too many")
        print(f"{len(different)} expected failures: at most {MOST_EXPECTED} may be")
    counts = []
    for method in methods:
        results = [outcome.result for outcome in outcomes[method].values()]
        broken = [name for name, outcome in outcomes[method].items() if outcome.result not in ("passed", "skipped")]
        due = sum((method, name) in expected and not options.plain for name in broken)
        counts.append(
            f"{method} {results.count('passed')} passed, {results.count('skipped')} skipped, "
            f"{due} expected failures, {len(broken) - due} failed"
        )
    library = "multiprocessing" if options.plain else "rsmp"
    print(
        f"CPython {interpreter.version} test._test_multiprocessing on {library}, {len(names)} tests: "
        f"{'; '.join(counts)} ({time.monotonic() - begun:.0f} s)"
    )
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
