"""A program that uses everything, where processors, memory files or time are short."""

import os
import signal
import subprocess
import sys
import time

import harness
import pytest
import work_cases


def start_method(ctx):
    return ctx.get_start_method()


def test_one_processor(ctx, mp):
    harness.check(work_cases.on_one_cpu, start_method(ctx), mp.__name__)


def test_a_fifth_of_the_time(ctx, mp):
    """As under a quota of a control group: everybody runs for 10 ms, then nobody does for 40 ms."""
    run = harness.Run(work_cases.everything, start_method(ctx), mp.__name__)
    ends = time.monotonic() + harness.limit_of(work_cases.everything)
    while run.process.poll() is None and time.monotonic() < ends:
        for number, seconds in ((signal.SIGSTOP, 0.04), (signal.SIGCONT, 0.01)):
            try:
                # The case leads a group of its own, which everything it starts is in.
                os.killpg(run.process.pid, number)
            except ProcessLookupError:
                break
            time.sleep(seconds)
    status, out, error = run.end(5)
    run.kill_all()
    assert status == 0, f"{status}\n{out}\n{error}"


@pytest.mark.rsmp_only("the standard library keeps its locks there and finds no room for them")
def test_a_full_memory_file_system(ctx):
    """In a mount namespace of its own, with two megabytes of /dev/shm."""
    mount = "mount -t tmpfs -o size=2m rsmp-test /dev/shm"
    probe = subprocess.run(["unshare", "--mount", "sh", "-c", mount], capture_output=True, text=True)
    if probe.returncode:
        pytest.skip(f"mounts a /dev/shm of two megabytes, which takes root and unshare(1): {probe.stderr.strip()}")
    case = work_cases.with_the_memory_file_system_full
    command = [sys.executable, str(harness.HERE / "harness.py"), case.__module__, case.__name__, start_method(ctx)]
    script = f'{mount} && exec "$@"'
    done = subprocess.run(
        ["unshare", "--mount", "sh", "-c", script, "sh", *command],
        capture_output=True, text=True, timeout=harness.limit_of(case), env={**os.environ, "RSMP_UNDER_TEST": "rsmp"},
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    "case",
    [
        harness.parameter(work_cases.the_holder_of_a_lock_is_stopped),
        harness.parameter(work_cases.the_holder_of_a_robust_lock_is_stopped),
    ],
)
def test_the_holder_of_a_lock_is_stopped(case, ctx, mp):
    harness.check(case, start_method(ctx), mp.__name__)
