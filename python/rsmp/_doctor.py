"""``python -m rsmp doctor PID``: why a program hangs, without touching it.

It reads what the processes below PID left in the memory they share, and ``/proc``. Nothing is stopped, signalled or
asked. Python stacks come from py-spy (``pip install 'rsmp[doctor]'``), which reads them in the same manner.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rsmp._deadlock import Step, Stuck, Thread, describe, held, items, who
from rsmp._inspect import Survey, Wait

__all__ = ["main"]

OK, DEADLOCK, FAILED = 0, 1, 2
TICKS = os.sysconf("SC_CLK_TCK")
STACK_SECONDS = 20
CONFIRM_SECONDS = 0.2
"""What looks like a deadlock is looked at again after so long."""


class TroubleError(Exception):
    """PID cannot be examined; says what to do about it."""


@dataclass
class Process:
    """A process of the tree, as ``/proc`` and its memory describe it."""

    pid: int
    parent: int
    command: str
    state: str
    age: float
    cpu: float
    name: str | None = None
    threads: dict[int, str] = field(default_factory=dict)
    """Of each thread, by native id, what the kernel says it does."""
    stacks: dict[int, list[str]] = field(default_factory=dict)


def main(arguments: list[str]) -> int:
    """Examine the process that ``arguments`` name; return the exit status: 1 for a deadlock, 2 for an error."""
    parser = argparse.ArgumentParser(prog="python -m rsmp doctor", description="Say why a program hangs.")
    parser.add_argument("pid", type=int, help="the process to begin with; its descendants are examined, too")
    parser.add_argument("--json", action="store_true", help="write JSON")
    options = parser.parse_args(arguments)
    try:
        report = examine(options.pid)
    except TroubleError as trouble:
        sys.stderr.write(f"doctor: {trouble}\n")
        return FAILED
    sys.stdout.write(json.dumps(report.as_json(), indent=1) + "\n" if options.json else report.as_text())
    return DEADLOCK if report.cycles else OK


def examine(pid: int) -> Report:
    """Look at the process ``pid`` and its descendants; raise TroubleError when that is not possible."""
    processes = tree(pid)
    _check(pid, processes)
    survey = Survey.of(processes)
    threads: dict[int, Iterable[int]] = {number: process.threads for number, process in processes.items()}
    stuck = Stuck(survey, threads)
    cycles = stuck.cycles()
    if stuck.steps:
        # What was read at different moments may look like a deadlock that is none.
        time.sleep(CONFIRM_SECONDS)
        survey = Survey.of(processes)
        again = Stuck(survey, threads)
        stuck.keep(again.steps)
        cycles = [cycle for cycle in cycles if cycle in again.cycles()]
    for number, process in processes.items():
        process.name = survey.names.get(number)
    return Report(pid, processes, survey, stuck.steps, cycles, _stacks(processes))


def tree(root: int) -> dict[int, Process]:
    """Return ``root`` and its descendants, parents before children."""
    children: dict[int, list[int]] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit() and (stat := _stat(int(entry))):
            children.setdefault(int(stat[1]), []).append(int(entry))
    found: dict[int, Process] = {}
    waiting = [root]
    while waiting:
        pid = waiting.pop()
        process = _process(pid)
        if process is None:
            if pid == root:
                raise TroubleError(f"there is no process {root}; `pgrep -af python` lists those that run")
            continue
        found[pid] = process
        waiting += sorted(children.get(pid, ()), reverse=True)
    return found


STATES = {
    "R": "running",
    "S": "sleeping",
    "D": "in the kernel",
    "T": "stopped",
    "t": "traced",
    "Z": "ended, not reaped",
}


def _process(pid: int) -> Process | None:
    stat = _stat(pid)
    if stat is None:
        return None
    try:
        command = Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        threads = {int(task): _kernel(pid, int(task)) for task in os.listdir(f"/proc/{pid}/task")}
    except OSError:
        return None
    age, cpu = uptime - int(stat[19]) / TICKS, (int(stat[11]) + int(stat[12])) / TICKS
    return Process(pid, int(stat[1]), command, STATES.get(stat[0], stat[0]), age, cpu, threads=threads)


def _stat(pid: int) -> list[str] | None:
    """Return the fields of ``/proc/PID/stat`` from the third on: the state."""
    try:
        return Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()
    except OSError:
        return None


def _kernel(pid: int, tid: int) -> str:
    """Say what a thread does as far as the kernel tells: its state, and where in the kernel it sleeps."""
    task = Path(f"/proc/{pid}/task/{tid}")
    try:
        state = (task / "stat").read_text(errors="replace").rpartition(")")[2].split()[0]
        place = (task / "wchan").read_text()
    except OSError:
        return "gone, or not to be seen"
    return STATES.get(state, state) + (f" in {place}" if place not in ("", "0") else "")


def _check(root: int, processes: dict[int, Process]) -> None:
    """Raise Trouble unless some process of the tree has rsmp loaded and may be looked at."""
    forbidden = False
    for pid in processes:
        try:
            if "/_rsmp." in Path(f"/proc/{pid}/maps").read_text(errors="replace"):
                os.listdir(f"/proc/{pid}/fd")
                return
        except PermissionError:
            forbidden = True
        except OSError:
            continue
    if forbidden:
        owner = os.stat(f"/proc/{root}").st_uid if os.path.exists(f"/proc/{root}") else "?"
        raise TroubleError(
            f"process {root} may not be looked at: it belongs to user {owner}, you are user {os.geteuid()}. "
            "Run the doctor as that user, or as root"
        )
    raise TroubleError(f"neither process {root} nor any below it has loaded rsmp: is it the right one?")


def _stacks(processes: dict[int, Process]) -> str | None:
    """Read the Python stacks with py-spy; return what to do where there are none."""
    beside = Path(sys.executable).with_name("py-spy")
    program = str(beside) if beside.exists() else shutil.which("py-spy")
    if program is None:
        return "no Python stacks: pip install py-spy"
    hint = None
    until = time.monotonic() + STACK_SECONDS
    for process in processes.values():
        command = [program, "dump", "--nonblocking", "--json", "--pid", str(process.pid)]
        try:
            seconds = max(until - time.monotonic(), 0.1)
            ran = subprocess.run(command, capture_output=True, check=False, text=True, timeout=seconds)
            threads = json.loads(ran.stdout) if ran.returncode == 0 else None
        except (OSError, ValueError, subprocess.TimeoutExpired):
            threads = None
        if threads is None:
            hint = hint or "some Python stacks could not be read: py-spy may need root, or does not know this Python"
            continue
        for thread in threads:
            frames = [f'File "{it["filename"]}", line {it["line"]}, in {it["name"]}' for it in thread["frames"]]
            process.stacks[thread.get("os_thread_id") or thread["thread_id"]] = frames[::-1]
    return hint


@dataclass
class Report:
    """What was found."""

    root: int
    processes: dict[int, Process]
    survey: Survey
    stuck: dict[Thread, Step]
    cycles: list[list[Step]]
    hint: str | None

    def as_text(self) -> str:
        """Return the report for people."""
        return "\n".join([*self._tree(), "", *self._queues(), *self._locks(), *self._verdict()]) + "\n"

    def _tree(self) -> Iterator[str]:
        depth: dict[int, int] = {}
        waits = self._waits()
        for process in self.processes.values():
            depth[process.pid] = depth.get(process.parent, -1) + 1
            indent = "  " * depth[process.pid]
            yield f"{indent}{process.pid} {process.name or '-'}: {process.command or '(no command)'}"
            yield f"{indent}  {process.state}, {process.age:.1f} s old, {process.cpu:.2f} s of CPU"
            for tid, kernel in sorted(process.threads.items()):
                those = waits.get((process.pid, tid))
                text = self._wait(those) if those else f"not waiting in rsmp; {kernel}"
                yield f"{indent}  thread {tid}: {text}"
                yield from (f"{indent}    {frame}" for frame in process.stacks.get(tid, ()))
        if self.hint:
            yield f"({self.hint})"

    def _waits(self) -> dict[Thread, Wait]:
        return {(wait.pid, wait.tid): wait for wait in self.survey.waits}

    def _wait(self, wait: Wait) -> str:
        text = f"has waited {wait.seconds:.1f} s" if wait.seconds >= 0 else "waits"
        return f"{text}{', with a timeout,' if wait.timed else ''} for {describe(wait, self.survey)}"

    def _queues(self) -> Iterator[str]:
        for identity, queue in sorted(self.survey.queues.items()):
            where = ", ".join(str(pid) for pid in sorted(self.survey.open_in.get(identity, ())))
            limit = f" of {queue.limit}" if queue.limit else ""
            yield f"queue {identity}: {items(queue.items)}{limit}, {queue.bytes} bytes; open in {where}"

    def _locks(self) -> Iterator[str]:
        for _, lock in sorted(self.survey.locks.items()):
            if lock.holder is not None:
                yield f"{lock.kind} {lock.name}: {held(self.survey, lock)}"

    def _verdict(self) -> Iterator[str]:
        yield ""
        in_cycles = {step.thread for cycle in self.cycles for step in cycle}
        for cycle in self.cycles:
            yield f"DEADLOCK of {len(cycle)} thread{'' if len(cycle) == 1 else 's'}:"
            for step in cycle:
                yield f"  {who(self.survey, *step.thread)} waits for {step.what}"
        for thread, step in sorted(self.stuck.items()):
            if thread not in in_cycles:
                why = (
                    "nobody is left who could help" if step.whom is None else f"{who(self.survey, *step.whom)} is stuck"
                )
                yield f"STUCK: {who(self.survey, *thread)} waits for {step.what}; {why}"
        if not self.cycles and not self.stuck:
            yield "no deadlock found"

    def as_json(self) -> dict[str, Any]:
        """Return the report for machines."""
        waits = self._waits()

        def thread(process: Process, tid: int) -> dict[str, Any]:
            wait = waits.get((process.pid, tid))
            found: dict[str, Any] = {"thread_id": tid, "kernel": process.threads[tid], "waits": None}
            if wait is not None:
                seconds = wait.seconds if wait.seconds >= 0 else None
                what = describe(wait, self.survey)
                found["waits"] = {"kind": wait.kind, "for": what, "seconds": seconds, "timed": wait.timed}
            return found | {"stack": process.stacks.get(tid)}

        def step(it: Step) -> dict[str, Any]:
            whom = None if it.whom is None else {"pid": it.whom[0], "thread_id": it.whom[1]}
            return {"pid": it.thread[0], "thread_id": it.thread[1], "waits_for": it.what, "kept_by": whom}

        return {
            "processes": [
                {
                    "pid": it.pid,
                    "parent": it.parent,
                    "name": it.name,
                    "command": it.command,
                    "state": it.state,
                    "age": it.age,
                    "cpu": it.cpu,
                    "threads": [thread(it, tid) for tid in sorted(it.threads)],
                }
                for it in self.processes.values()
            ],
            "queues": [
                {
                    "queue": identity,
                    "items": queue.items,
                    "bytes": queue.bytes,
                    "limit": queue.limit or None,
                    "open_in": sorted(self.survey.open_in.get(identity, ())),
                }
                for identity, queue in sorted(self.survey.queues.items())
            ],
            "locks": [
                {
                    "kind": lock.kind,
                    "name": lock.name,
                    "pid": lock.holder[0],
                    "thread_id": lock.holder[1],
                    "alive": lock.holder[2],
                }
                for _, lock in sorted(self.survey.locks.items())
                if lock.holder is not None
            ],
            "deadlocks": [[step(it) for it in cycle] for cycle in self.cycles],
            "stuck": [step(it) for _, it in sorted(self.stuck.items())],
            "hint": self.hint,
        }
