"""Very many objects made at once: from slices of arrays and from large messages."""

from __future__ import annotations

import gc
import os
import resource
import subprocess
import sys
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from under_test import mp as library

if TYPE_CHECKING:
    from collections.abc import Callable

COUNT = 1_000_000
HUGE_PAGES = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def page_faults(make: Callable[[], object]) -> int:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    made = make()
    faults = resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
    del made
    return faults


def run(program: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """Run a program that knows the library under test as ``mp``."""
    return subprocess.run(
        [sys.executable, "-c", f"import {library.__name__} as mp\n{program}"],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


# In a process of its own: elsewhere the objects may find room among those that other tests have freed.
RESIDENT = """
import gc, resource

def resident():
    with open("/proc/self/statm") as statm:
        return int(statm.read().split()[1]) * resource.getpagesize() >> 10

array = mp.Array("i", range(1_000_000))
array[:]
gc.collect()
before = resident()
for _ in range(5):
    kept = array[:]
    assert resident() > before + (20 << 10), (before, resident())
    del kept
assert resident() < before + (10 << 10), (before, resident())
"""


def test_the_memory_of_many_objects_is_given_back():
    done = run(RESIDENT)
    assert (done.returncode, done.stderr) == (0, "")


def test_some_of_many_objects_stay_as_long_as_they_are_used(mp):
    array = mp.Array("i", range(COUNT))
    some = [array[:][start::1000] for start in range(0, 1000, 100)]
    more = [[n, str(n)] for n in range(COUNT // 10)]
    for index, start in enumerate(range(0, 1000, 100)):
        assert some[index] == list(range(start, COUNT, 1000))
    assert more == [[n, str(n)] for n in range(COUNT // 10)]


def test_threads_make_many_objects_at_the_same_time(mp):
    array = mp.Array("d", [n / 2 for n in range(COUNT // 2)])
    expected = [n / 2 for n in range(COUNT // 2)]
    queue = mp.SimpleQueue()
    seen = []

    def slices() -> None:
        seen.extend([array[:] == expected for _ in range(5)])

    def messages() -> None:
        seen.extend([queue.get() == expected for _ in range(5)])

    def send() -> None:
        for _ in range(5):
            queue.put(expected)

    threads = [threading.Thread(target=work) for work in (slices, send, messages, slices)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [True] * 15
    queue.close()


def test_a_forked_child_has_and_frees_the_objects_of_its_parent(mp):
    array = mp.Array("i", range(COUNT))
    items = array[:]
    child = os.fork()
    if child == 0:
        code = 1
        try:
            right = items == list(range(COUNT))
            del items
            gc.collect()
            right = right and array[:] == list(range(COUNT))
            code = 0 if right else 2
        finally:
            os._exit(code)
    assert os.waitpid(child, 0)[1] == 0
    assert items == list(range(COUNT))


def test_many_objects_are_freed_by_the_allocator_that_they_are_from():
    """Also where the interpreter has none of its own, or one that checks what it is asked for."""
    program = (
        "array = mp.Array('i', range(600_000))\n"
        "for _ in range(3):\n"
        "    items = array[:]\n"
        "    assert items[-1] == 599_999\n"
    )
    for allocator in ("malloc", "malloc_debug", "pymalloc", "pymalloc_debug"):
        done = run(program, PYTHONMALLOC=allocator)
        assert (done.returncode, done.stderr) == (0, ""), allocator


@pytest.mark.rsmp_only("the standard library takes what the allocator gives")
@pytest.mark.skipif(
    not HUGE_PAGES.exists() or "[madvise]" not in HUGE_PAGES.read_text(),
    reason="needs huge pages that are only given to who asks for them (transparent_hugepage/enabled: madvise)",
)
def test_many_objects_take_few_page_faults(mp):
    if hasattr(sys, "_is_gil_enabled") and not sys._is_gil_enabled():
        pytest.skip("a free-threaded interpreter has another allocator")
    array = mp.Array("d", [0.5] * COUNT)
    usual = min(page_faults(lambda: [n / 2 for n in range(COUNT)]) for _ in range(3))
    # Machines that are slow to give huge pages are spared them for a while.
    assert any(page_faults(lambda: array[:]) < usual / 2 for _ in range(100))
