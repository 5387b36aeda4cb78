"""What a fault case is, and how it is run: in an interpreter of its own, under a time limit, leaving nothing.

A case is a function of a context; it passes when it returns. ``python harness.py MODULE CASE METHOD`` runs one. The
interpreter leads a session of its own and carries a token in its environment, which its descendants inherit: that is
how those that it left are found, and ended.
"""

import contextlib
import faulthandler
import importlib
import os
import signal
import subprocess
import sys
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
TOKEN = "RSMP_FAULT_TOKEN"

sys.path[:0] = [entry for entry in (str(HERE), str(HERE.parent)) if entry not in sys.path]

SLOW = float(os.environ.get("RSMP_SLOW", 1))
"""How many times as long everything may take; for hours of faults beside other work."""

Case = Callable[[Any], None]


def case(standard: str = "", limit: float = 20.0) -> Callable[[Case], Case]:
    """Make a function a case. ``standard``: "hangs" or "fails" with the standard library; ``limit`` in seconds."""

    def mark(function: Case) -> Case:
        function.standard, function.limit = standard, limit  # type: ignore[attr-defined]
        return function

    return mark


def parameter(function: Case) -> Any:
    """Return the case as a parameter of a test: of rsmp only, if the standard library does not survive it."""
    import pytest  # which the interpreters of the cases need not

    marks = []
    if function.standard:  # type: ignore[attr-defined]
        happens = function.standard  # type: ignore[attr-defined]
        marks.append(pytest.mark.rsmp_only(f"the standard library {happens} in this case, which rsmp survives"))
    name = f"{function.__module__.removesuffix('_cases')}: {function.__name__.replace('_', ' ')}"
    return pytest.param(function, marks=marks, id=name)


def cases(module: str) -> list[Case]:
    """Return the cases of a module, in the order in which they are written."""
    return [value for value in vars(importlib.import_module(module)).values() if hasattr(value, "standard")]


class Run:
    """A case, running in an interpreter of its own."""

    def __init__(self, function: Case, method: str, library: str, **options: Any) -> None:
        self.function = function
        self.token = uuid.uuid4().hex
        environment = {**os.environ, TOKEN: self.token, "RSMP_UNDER_TEST": library, **options.pop("env", {})}
        command = [sys.executable, str(HERE / "harness.py"), function.__module__, function.__name__, method]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=pipe, stderr=pipe, text=True, env=environment,
            start_new_session=True, **options,
        )  # fmt: skip

    def end(self, limit: float | None = None) -> tuple[int | None, str, str]:
        """Wait for the end; return the exit status, None for a hang, and what it wrote. Nothing is left then."""
        status: int | None
        try:
            out, error = self.process.communicate(timeout=limit or limit_of(self.function))
            status = self.process.returncode
        except subprocess.TimeoutExpired:
            # It dumps the stacks of its threads.
            self.process.send_signal(signal.SIGABRT)
            status = None
            self.kill_all()
            out, error = self.process.communicate()
        return status, out, error

    def left(self) -> list[int]:
        """Return the processes that carry the token."""
        return carriers(self.token)

    def kill_all(self) -> None:
        """End whatever the case has started."""
        time.sleep(0.1)
        while found := self.left():
            for pid in found:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, signal.SIGKILL)
            time.sleep(0.01)


def limit_of(function: Case) -> float:
    """Return the seconds that a case may take; storms take ``RSMP_STRESS`` seconds more."""
    return patient(float(function.limit)) + float(os.environ.get("RSMP_STRESS", 0))  # type: ignore[attr-defined]


def carriers(token: str) -> list[int]:
    """Return the living processes whose environment holds ``token``."""
    needle = f"{TOKEN}={token}".encode()
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                if needle in Path("/proc", entry, "environ").read_bytes():
                    found.append(int(entry))
            except OSError:
                continue
    return found


def check(function: Case, method: str, library: str, **options: Any) -> str:
    """Run a case to its end; fail if it fails, hangs or leaves a process. Return what it wrote."""
    run = Run(function, method, library, **options)
    status, out, error = run.end()
    assert status is not None, f"hung for {limit_of(function)} s\n{out}\n{error[-6000:]}"
    assert status == 0, f"exit status {status}\n{out}\n{error[-6000:]}"
    try:
        wait_until(lambda: not run.left(), 2.0)
    except AssertionError:
        commands = [Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ") for pid in run.left()]
        raise AssertionError(f"left running: {commands}\n{error[-3000:]}") from None
    finally:
        run.kill_all()
    return out + error


def wait_until(condition: Callable[[], Any], seconds: float = 5.0) -> Any:
    """Wait for a condition to hold, and return its value."""
    deadline = time.monotonic() + seconds
    while not (value := condition()):
        assert time.monotonic() < deadline, f"not within {seconds} s"
        time.sleep(0.005)
    return value


def is_running(pid: int) -> bool:
    """Whether a process is there and has not ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except OSError:
        return False


def kill(process: Any) -> None:
    """Kill a process of the library as the kernel does when memory runs out, and wait for its end."""
    os.kill(process.pid, signal.SIGKILL)
    process.join()


def patient(seconds: float) -> float:
    """Return how long something may take that takes ``seconds`` at most where nothing else is going on."""
    return seconds * SLOW


class Within:
    """A block that must not take longer than ``seconds``."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def __enter__(self) -> None:
        self.begun = time.monotonic()

    def __exit__(self, kind: object, *_: object) -> None:
        took = time.monotonic() - self.begun
        assert kind is not None or took < patient(self.seconds), f"took {took:.2f} s, not {self.seconds} s"


def raises(kinds: Any, function: Callable[..., Any], *args: Any, **options: Any) -> BaseException:
    """Call a function that must raise, and return the exception."""
    try:
        result = function(*args, **options)
    except kinds as error:
        return error  # type: ignore[no-any-return]
    raise AssertionError(f"{function} returned {result!r} instead of raising {kinds}")


if __name__ == "__main__":
    from under_test import mp

    faulthandler.enable()
    module, name, method = sys.argv[1:]
    getattr(importlib.import_module(module), name)(mp.get_context(method))
