"""What a test may not leave behind: processes, threads, descriptors and names in /dev/shm.

`Holdings.now` takes stock before and after a test; helpers that live as long as the program (the resource tracker, the
fork server, one memory file per arena and one for what threads wait for) are not counted.
"""

import gc
import os
import stat
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path

SETTLE = 3.0
"""Seconds that what a test used may take to go away."""

LIBRARIES = ("multiprocessing", "rsmp")


@dataclass(frozen=True)
class Holdings:
    """What this process holds at one moment."""

    processes: dict[int, str]
    threads: dict[int, str]
    descriptors: dict[int, str]
    names: frozenset[str]

    @classmethod
    def now(cls) -> "Holdings":
        """Take stock."""
        helper_processes, helper_descriptors = _helpers()
        processes = {pid: words for pid, words in descendants().items() if pid not in helper_processes}
        threads = {thread.native_id or 0: thread.name for thread in threading.enumerate()}
        for task in os.listdir("/proc/self/task"):
            threads.setdefault(int(task), "(not a Python thread)")
        descriptors = {number: target for number, target in _descriptors().items() if number not in helper_descriptors}
        return cls(processes, threads, descriptors, frozenset(os.listdir("/dev/shm")))

    def beyond(self, before: "Holdings") -> list[str]:
        """Say what is held now that was not held ``before``, one line each."""
        found = [f"process {pid}: {words}" for pid, words in self.processes.items() if pid not in before.processes]
        found += [f"thread {tid}: {name}" for tid, name in self.threads.items() if tid not in before.threads]
        found += [
            f"descriptor {number}: {target}"
            for number, target in self.descriptors.items()
            if before.descriptors.get(number) != target and not _lives_on(target)
        ]
        found += [f"/dev/shm/{name}" for name in self.names - before.names if not _used_elsewhere(name)]
        return found


def left_over(before: Holdings) -> list[str]:
    """Return what is held beyond ``before`` once `SETTLE` seconds have passed, or as soon as nothing is."""
    deadline = time.monotonic() + SETTLE
    pause = 0.001
    found = Holdings.now().beyond(before)
    while found and time.monotonic() < deadline:
        _let_go()
        time.sleep(pause)
        pause = min(2 * pause, 0.1)
        found = Holdings.now().beyond(before)
    return found


def descendants() -> dict[int, str]:
    """Return the living and the unreaped descendants of this process with their command lines."""
    parents: dict[int, int] = {}
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                # The command between parentheses may itself hold spaces and parentheses.
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            parents[int(entry)] = int(fields[1])
    found: dict[int, str] = {}
    family = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family and pid not in family}
        if not more:
            return found
        family |= more
        found |= {pid: _describe(pid) for pid in more}


def _describe(pid: int) -> str:
    try:
        words = Path("/proc", str(pid), "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
        waits = Path("/proc", str(pid), "wchan").read_text()
    except OSError:
        return "(gone)"
    return f"{words or '(ended, not reaped)'} [{waits}]"


def _descriptors() -> dict[int, str]:
    found = {}
    for entry in os.listdir("/proc/self/fd"):
        try:
            found[int(entry)] = os.readlink(f"/proc/self/fd/{entry}")
        except OSError:
            continue  # the listing's own descriptor
    return found


def _helpers() -> tuple[set[int], set[int]]:
    """Return the pids and the descriptors of the resource tracker and the fork server."""
    pids, descriptors = set(), set()
    for library in LIBRARIES:
        tracker = getattr(sys.modules.get(f"{library}.resource_tracker"), "_resource_tracker", None)
        pids.add(getattr(tracker, "_pid", None))
        descriptors.add(getattr(tracker, "_fd", None))
        server = getattr(sys.modules.get(f"{library}.forkserver"), "_forkserver", None)
        pids.add(getattr(server, "_forkserver_pid", None))
        pids |= _standing_by(getattr(server, "_forkserver_pid", None))
        descriptors.add(getattr(server, "_forkserver_alive_fd", None))
    return pids, descriptors  # type: ignore[return-value]


def _standing_by(server: int | None) -> set[int]:
    """Return the child that a fork server keeps in reserve."""
    found = set()
    for pid in os.listdir("/proc") if server is not None else ():
        if pid.isdigit():
            try:
                name, parent = (Path("/proc", pid, file).read_text() for file in ("comm", "stat"))
            except OSError:
                continue
            if name == "rsmp-standby\n" and int(parent.rpartition(")")[2].split()[1]) == server:
                found.add(int(pid))
    return found


def _lives_on(target: str) -> bool:
    """Whether a descriptor of ``target`` is meant to live as long as the process."""
    kept = ("/memfd:rsmp-arena", "/memfd:rsmp-heap", "/memfd:rsmp-waits", "/dev/shm/pym-")
    return target.startswith(kept) or target in ("/dev/urandom", "/dev/null")


def _used_elsewhere(name: str) -> bool:
    """Whether a process that is no descendant of ours maps or has open ``/dev/shm/name``."""
    try:
        # By inode: a semaphore is mapped under the name it had before it got its own.
        status = os.stat(f"/dev/shm/{name}")
    except OSError:
        return True
    if stat.S_ISDIR(status.st_mode):
        return True  # a folder is nothing that either library makes
    ours = {os.getpid(), *descendants()}
    mapped = f" {status.st_ino} "
    for entry in os.listdir("/proc"):
        if entry.isdigit() and int(entry) not in ours:
            try:
                maps = Path("/proc", entry, "maps").read_text(errors="replace")
                if any(mapped in line for line in maps.splitlines() if "/dev/shm/" in line):
                    return True
                if any(
                    os.stat(f"/proc/{entry}/fd/{fd}").st_ino == status.st_ino for fd in os.listdir(f"/proc/{entry}/fd")
                ):
                    return True
            except OSError:
                continue
    return False


def _let_go() -> None:
    """Collect garbage and reap what has ended, as the library does whenever a process is started."""
    gc.collect()
    for library in LIBRARIES:
        active_children = getattr(sys.modules.get(library), "active_children", None)
        if active_children is not None:
            active_children()
        sharer = sys.modules.get(f"{library}.resource_sharer")
        if sharer is not None:
            sharer.stop(timeout=SETTLE)
