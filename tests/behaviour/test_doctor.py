"""``python -m rsmp doctor PID``: it finds what hangs, names the cycle, and does not touch the program."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

PROGRAMS = Path(__file__).with_name("deadlocks.py")
LIMIT = 30.0

pytestmark = [pytest.mark.rsmp_only("the standard library has no doctor"), pytest.mark.timeout(120)]

METHODS = pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])


def run_doctor(*arguments, cwd=None):
    command = [sys.executable, "-m", "rsmp", "doctor", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, cwd=cwd)


@pytest.fixture
def hang():
    """Start a case of deadlocks.py; gives the process and the pids it told. Its session is killed in the end."""
    started = []

    def run(case, method="fork", by=("-m", "rsmp")):
        command = [sys.executable, *by, str(PROGRAMS), method, case]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        words = process.stdout.readline().split()
        assert words[:1] == ["ready"], process.wait(LIMIT)
        return process, [int(word) for word in words[1:]]

    yield run
    for process in started:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        process.stdout.close()


def diagnose(process, until):
    """The doctor's JSON and exit status, once ``until`` holds of it: "ready" comes a little before the last wait."""
    deadline = time.monotonic() + LIMIT
    while True:
        ran = run_doctor("--json", process.pid)
        assert ran.returncode in (0, 1), ran.stderr
        found = json.loads(ran.stdout)
        if until(found):
            return found, ran.returncode
        assert time.monotonic() < deadline, json.dumps(found, indent=1)


def wait_of(found, pid):
    """What the main thread of ``pid`` waits for."""
    (process,) = [it for it in found["processes"] if it["pid"] == pid]
    (thread,) = [it for it in process["threads"] if it["thread_id"] == pid]
    return thread["waits"]


@METHODS
def test_two_processes_that_take_two_locks_crosswise(hang, method):
    process, (left, right) = hang("two_locks", method)
    found, status = diagnose(process, lambda found: found["deadlocks"])
    assert status == 1
    (cycle,) = found["deadlocks"]
    assert {step["pid"]: step["kept_by"]["pid"] for step in cycle} == {left: right, right: left}
    waits = {step["pid"]: step["waits_for"] for step in cycle}
    assert waits[left].startswith("RLock ") and waits[left].endswith(f"held by process {right} (right)")
    assert waits[right].startswith("Lock ") and waits[right].endswith(f"held by process {left} (left)")
    assert {step["pid"] for step in found["stuck"]} == {process.pid, left, right}, "the parent joins them"
    assert wait_of(found, process.pid)["for"] == f"the end of process {left} (left)"


def test_the_report_for_people_says_the_same(hang):
    process, (left, _) = hang("two_locks")
    diagnose(process, lambda found: found["deadlocks"])
    ran = run_doctor(process.pid)
    assert ran.returncode == 1
    assert "DEADLOCK of 2 threads:" in ran.stdout
    assert f"process {left} (left) waits for RLock " in ran.stdout
    assert f"STUCK: process {process.pid} (MainProcess) waits for the end of process {left}" in ran.stdout
    lines = ran.stdout.splitlines()
    assert lines[0].startswith(f"{process.pid} MainProcess: ") and "deadlocks.py" in lines[0]
    assert any(line.startswith(f"  {left} left: ") for line in lines), "children stand below their parent"


def test_a_thread_that_takes_its_own_lock_again(hang):
    process, _ = hang("one_lock_twice")
    found, status = diagnose(process, lambda found: found["deadlocks"])
    assert status == 1
    ((step,),) = found["deadlocks"]
    assert step["pid"] == process.pid
    assert step["kept_by"] == {"pid": process.pid, "thread_id": process.pid}


@METHODS
def test_a_parent_that_joins_a_child_that_waits_for_its_lock(hang, method):
    process, (child,) = hang("join_of_a_waiter", method)
    found, status = diagnose(process, lambda found: found["deadlocks"])
    assert status == 1
    (cycle,) = found["deadlocks"]
    assert {step["pid"]: step["kept_by"]["pid"] for step in cycle} == {child: process.pid, process.pid: child}


@METHODS
def test_a_consumer_whose_producer_was_killed(hang, method):
    process, _ = hang("dead_producer", method)
    found, status = diagnose(process, lambda found: found["stuck"])
    assert status == 0, "nobody keeps anybody: it is no cycle"
    (stuck,) = found["stuck"]
    assert (stuck["pid"], stuck["kept_by"]) == (process.pid, None)
    (queue,) = found["queues"]
    assert (queue["items"], queue["open_in"]) == (0, [process.pid])
    assert stuck["waits_for"] == f"Queue.get, queue {queue['queue']} with 0 items"


@METHODS
def test_a_lock_whose_owner_was_killed(hang, method):
    process, (owner,) = hang("killed_owner", method)
    found, status = diagnose(process, lambda found: found["stuck"])
    assert status == 0
    (stuck,) = found["stuck"]
    assert stuck["pid"] == process.pid
    assert f"held by process {owner}" in stuck["waits_for"] and stuck["waits_for"].endswith(", which is dead")


def test_a_holder_that_is_busy_is_no_deadlock(hang):
    process, (owner,) = hang("busy_owner")
    found, status = diagnose(process, lambda found: wait_of(found, process.pid))
    assert (status, found["deadlocks"], found["stuck"]) == (0, [], [])
    wait = wait_of(found, process.pid)
    assert wait["kind"] == "Lock"
    assert wait["for"].endswith(f"held by process {owner}"), "it never waited, so it never told its name"
    assert "no deadlock found" in run_doctor(process.pid).stdout


def test_a_wait_that_ends_by_itself_is_no_deadlock(hang):
    process, _ = hang("patient")
    found, status = diagnose(process, lambda found: wait_of(found, process.pid))
    assert (status, found["deadlocks"], found["stuck"]) == (0, [], [])
    assert wait_of(found, process.pid)["timed"]


def test_the_depth_of_queues_and_who_has_them(hang):
    process, (consumer,) = hang("queue_with_items")
    found, status = diagnose(process, lambda found: wait_of(found, consumer))
    assert (status, found["stuck"]) == (0, []), "a thread that is not in rsmp may yet put something"
    full, empty = sorted(found["queues"], key=lambda queue: -queue["items"])
    assert (full["items"], empty["items"]) == (3, 0)
    assert set(empty["open_in"]) == {process.pid, consumer}
    assert wait_of(found, consumer)["for"] == f"Queue.get, queue {empty['queue']} with 0 items"


def test_a_stopped_program_is_examined_without_waking_it(hang):
    process, (left, right) = hang("two_locks")
    diagnose(process, lambda found: found["deadlocks"])
    for pid in (process.pid, left, right):
        os.kill(pid, signal.SIGSTOP)
    found, status = diagnose(process, lambda found: found["deadlocks"])
    assert status == 1
    assert {it["state"] for it in found["processes"]} == {"stopped"}


def test_a_program_that_imports_rsmp(hang, tmp_path):
    program = tmp_path / "program.py"
    lines = ["import rsmp", "lock = rsmp.Lock()", "lock.acquire()", "print('ready', flush=True)", "lock.acquire()"]
    program.write_text("\n".join(lines))
    command = [sys.executable, str(program)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout.readline() == "ready\n"
        _, status = diagnose(process, lambda found: found["deadlocks"])
        assert status == 1
    finally:
        process.kill()
        process.wait()
        process.stdout.close()


def test_no_such_process():
    child = subprocess.Popen(["true"])
    child.wait()
    ran = run_doctor(child.pid)
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"there is no process {child.pid}" in ran.stderr


def test_a_process_without_rsmp():
    child = subprocess.Popen(["sleep", "60"])
    try:
        ran = run_doctor(child.pid)
    finally:
        child.kill()
        child.wait()
    assert (ran.returncode, ran.stdout) == (2, "")
    assert f"neither process {child.pid} nor any below it has loaded rsmp" in ran.stderr


def test_what_is_no_pid():
    ran = run_doctor("everything")
    assert (ran.returncode, ran.stdout) == (2, "")
    assert "everything" in ran.stderr


@pytest.mark.skipif(os.geteuid() != 0, reason="takes another user's identity, which only root can")
def test_a_process_of_another_user(hang):
    process, _ = hang("one_lock_twice")
    # The import comes first: the other user may not be able to read the installation.
    code = f"from rsmp import _doctor; import os, sys; os.setuid(65534); sys.exit(_doctor.main(['{process.pid}']))"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=LIMIT)
    assert (ran.returncode, ran.stdout) == (2, ""), ran.stderr
    assert f"process {process.pid} may not be looked at: it belongs to user 0, you are user 65534" in ran.stderr


@pytest.mark.parametrize("kind", ["file", "folder"])
def test_a_program_called_doctor_still_runs(tmp_path, kind):
    program = tmp_path / "doctor" if kind == "file" else tmp_path / "doctor" / "__main__.py"
    program.parent.mkdir(exist_ok=True)
    program.write_text("import sys; print('mine', sys.argv[1:])")
    ran = run_doctor("17", cwd=tmp_path)
    assert (ran.returncode, ran.stdout) == (0, "mine ['17']\n"), ran.stderr


def test_stacks_come_from_py_spy_where_there_is_one(hang):
    process, _ = hang("one_lock_twice")
    found, _ = diagnose(process, lambda found: found["deadlocks"])
    (thread,) = found["processes"][0]["threads"]
    if thread["stack"] is None:
        assert "py-spy" in found["hint"]
    else:
        assert any("one_lock_twice" in frame for frame in thread["stack"])
