"""How much memory a measurement used at most: its process and all descendants together, watched from outside.

Counted are the private memory of the processes (their proportional set size without shared memory) and the shared
memory they hold: the larger of what they have mapped (each page once) and what the memory files they have open
occupy. Not counted is what the kernel keeps for them: pipe buffers, page tables. A peak shorter than the pause between
two looks is missed.

Processes stand still while they are looked at: with fewer CPUs than they need, one that lost its own to the look would
be sent messages meanwhile, and the next look would find them.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import platform
import signal
import time
from collections.abc import Iterator
from pathlib import Path

PAUSE = 0.003
"""Seconds between two looks."""
MEMORY_FILES = ("/memfd:", "/dev/shm/", "/dev/zero")
KCMP = {"x86_64": 312, "aarch64": 272}.get(platform.machine())
"""The number of the system call that compares what two processes have,"""
KCMP_VM = 1
"""and what it is to compare: their memory (kcmp(2))."""
libc = ctypes.CDLL(None)


def session(leader: int) -> list[int]:
    """Return the processes of the session that ``leader`` leads."""
    found = []
    for entry in os.listdir("/proc"):
        if entry.isdigit():
            try:
                # The command between parentheses may itself hold spaces and parentheses.
                fields = Path("/proc", entry, "stat").read_text().rpartition(")")[2].split()
            except OSError:
                continue
            if int(fields[3]) == leader and fields[0] != "Z":
                found.append(int(entry))
    return found


def have_one_memory(parent: int, child: int) -> bool:
    """Whether a child is between vfork and exec: what it has is its parent's, and would be counted twice."""
    return KCMP is not None and libc.syscall(KCMP, parent, child, KCMP_VM, 0, 0) == 0


def family(leader: int) -> list[int]:
    """Return ``leader`` and its descendants, but those whose parent has ended or whose memory is their parent's.

    Cheaper than `session`: a look takes a CPU from those it looks at.
    """
    found = [leader]
    for pid in found:
        with contextlib.suppress(OSError):  # ended meanwhile
            for task in os.listdir(f"/proc/{pid}/task"):
                with contextlib.suppress(OSError):
                    children = map(int, Path(f"/proc/{pid}/task/{task}/children").read_text().split())
                    found += [child for child in children if not have_one_memory(pid, child)]
    return found


def sizes(pid: int) -> tuple[int, int]:
    """Return a process's proportional share of all memory and of shared memory, in KiB."""
    share = shared = 0
    with open(f"/proc/{pid}/smaps_rollup") as lines:
        for line in lines:
            if line.startswith("Pss:"):
                share = int(line.split()[1])
            elif line.startswith("Pss_Shmem:"):
                shared = int(line.split()[1])
    return share, shared


def memory_files(pid: int) -> dict[tuple[int, int], int]:
    """Return what the memory files that a process has open occupy, in KiB, by device and inode."""
    found = {}
    for entry in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{entry}"
        try:
            if os.readlink(path).startswith(MEMORY_FILES):
                status = os.stat(path)
                found[status.st_dev, status.st_ino] = status.st_blocks // 2
        except OSError:
            continue
    return found


def used(leader: int) -> int:
    """Return what a process and its descendants use now, in KiB."""
    private = mapped = 0
    files: dict[tuple[int, int], int] = {}
    for pid in family(leader):
        try:
            share, shared = sizes(pid)
            files |= memory_files(pid)
        except OSError:
            continue  # ended meanwhile
        private += share - shared
        mapped += shared
    return private + max(mapped, sum(files.values()))


@contextlib.contextmanager
def standing_still(group: int) -> Iterator[None]:
    """Stop the processes of a group meanwhile."""
    with contextlib.suppress(ProcessLookupError):  # ended meanwhile
        os.killpg(group, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(group, signal.SIGCONT)


class Peak:
    """The most that a process and its descendants used, in KiB, at the moments when `look` was called.

    The process leads a group of its own.
    """

    def __init__(self, leader: int) -> None:
        self.leader = leader
        self.kib = 0

    def look(self) -> None:
        """Look once, then pause."""
        with standing_still(self.leader):
            self.kib = max(self.kib, used(self.leader))
        time.sleep(PAUSE)
