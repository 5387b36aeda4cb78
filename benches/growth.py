"""``make bench-plots``: how the cost of an operation grows, and pictures of it in docs/plots/.

Four questions, each asked of rsmp and of the standard library: the cost of a message by the number of producers, by the
number of messages queued, by its size, and the cost of a lock by the number of locks. A flat line is what there should
be; the program names those that bend.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PLOTS = HERE.parent / "docs" / "plots"
ROUNDS = 5
"""Of ours; the standard library is there for comparison and takes part in the first two."""
LIMIT = 150.0
"""Seconds that one measurement may take."""
BENT = 2.0
"""A cost that grows by more than this factor from its lowest, to the right of it, is named."""
MEMORY_PER_BYTE = 8
"""A payload is measured only if so many times its size is free."""
SERIES = ("multiprocessing", "rsmp")

Points = dict[str, float]
"""Seconds per operation, by what was measured."""


def spent(function: Callable[[], Any]) -> float:
    """Return the seconds of processor time that ``function`` takes: one process, so that is what it costs."""
    begun = time.process_time()
    function()
    return time.process_time() - begun


def producers(name: str, count: int) -> Points:
    """Return the cost of a message from ``count`` producers to one consumer."""
    from harness import library, peers, timed
    from scenarios.queue import produce

    # As many from each: its first message costs a new process some page faults and a wake.
    chosen, each = library(name), 4_096
    queue = chosen.queue()
    with peers(chosen.context(), produce, *[(queue, range(each))] * count) as ends:

        def work() -> None:
            for end in ends:
                end.send("go")
            total = sum(queue.get() for _ in range(each * count))
            assert total == count * sum(range(each))

        return {"put and get": timed(work) / (each * count)}


def queued(name: str, count: int) -> Points:
    """Return the cost of putting ``count`` ints into an empty queue and of getting them afterwards."""
    from harness import library

    chosen = library(name)
    times = max(10_000 // count, 1)
    put = get = 0.0
    first = chosen.queue()
    first.put(0)
    assert first.get() == 0
    for _ in range(times):
        queue = chosen.queue()

        def fill(queue: Any = queue) -> None:
            for number in range(count):
                queue.put(number)

        def drain(queue: Any = queue) -> None:
            for number in range(count):
                assert queue.get() == number

        put += spent(fill)
        get += spent(drain)
    return {"put": put / times / count, "get": get / times / count}


def payload(name: str, size: int) -> Points:
    """Return the cost of a message of ``size`` bytes, as bytes and as an array."""
    import numpy
    from harness import library
    from scenarios.queue import stream

    chosen, count = library(name), min(max(2**29 // size, 4), 5_000)
    found = {}
    if size <= 2**28:
        found["bytes"] = stream(chosen, count, b"x" * size, size) / count
    found["numpy array"] = stream(chosen, count, numpy.ones(size // 8), size) / count
    return found


def locks(name: str, count: int) -> Points:
    """Return the cost of making one of ``count`` locks, of taking each in turn, and of letting go of them."""
    from harness import library

    context, made = library(name).context(), []
    context.Lock()  # the first one imports what they all need
    times = max(1_000 // count, 1)
    create = use = 0.0
    for _ in range(times):
        made.clear()
        create += spent(lambda: made.extend(context.Lock() for _ in range(count)))

        def work() -> None:
            for lock in made:
                lock.acquire()
                lock.release()

        work()
        use += spent(work)
    return {"create": create / times / count, "acquire + release": use / times / count}


QUESTIONS: dict[str, tuple[Callable[[str, int], Points], dict[str, list[int]], str]] = {
    "producers": (
        producers,
        {name: [1, 2, 4, 8, 16, 32, 64] for name in SERIES},
        "producers",
    ),
    "queued": (
        queued,
        {"multiprocessing": [10**n for n in range(1, 7)], "rsmp": [10**n for n in range(1, 8)]},
        "messages queued",
    ),
    "payload": (
        payload,
        {name: [8 * 8**n for n in range(9)] + [2**30] for name in SERIES},
        "bytes in a message",
    ),
    "locks": (
        locks,
        {name: [1, 10, 100, 1_000, 10_000] for name in SERIES},
        "locks",
    ),
}


def free_memory() -> int:
    """Return the bytes that can be had."""
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return 0


def measure(question: str, name: str, size: int) -> Points | str:
    """Run one measurement in a process of its own; a string says what went wrong."""
    if question == "payload" and size * MEMORY_PER_BYTE > free_memory():
        return "too little memory is free"
    command = [sys.executable, str(HERE / "growth.py"), "--one", question, name, str(size)]
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"}
    try:
        ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, env=environment)
    except subprocess.TimeoutExpired:
        return f"no end after {LIMIT:.0f} s"
    if ran.returncode:
        return (ran.stderr.strip().splitlines() or [f"exit status {ran.returncode}"])[-1]
    found: Points = json.loads(ran.stdout.splitlines()[-1])
    return found


def ask(question: str, rounds: int) -> dict[str, dict[str, list[tuple[int, float]]]]:
    """Return the answers: by library, by what was measured, the cost at each size.

    The lowest of all rounds: whatever else the machine does only adds to it, and it is the shape that is asked for.
    """
    from report import duration

    _, sizes, _ = QUESTIONS[question]
    answers: dict[str, dict[str, list[tuple[int, float]]]] = {name: {} for name in SERIES}
    for size in sorted({size for each in sizes.values() for size in each}):
        taken: dict[tuple[str, str], list[float]] = {}
        able = [name for name in SERIES if size in sizes[name]]
        # Large ones are slow, and steady.
        for number in range(rounds if size < 10**6 else min(rounds, 2)):
            taking_part = [name for name in able if name == "rsmp" or number < 2]
            for name in taking_part if number % 2 == 0 else reversed(taking_part):
                found = measure(question, name, size)
                if isinstance(found, str):
                    print(f"  {question} {size:>13,} {name}: {found}", flush=True)
                    break
                for what, seconds in found.items():
                    taken.setdefault((name, what), []).append(seconds)
        for (name, what), values in sorted(taken.items()):
            answers[name].setdefault(what, []).append((size, min(values)))
            print(f"  {question} {size:>13,} {name:16} {what:18} {duration(min(values))}", flush=True)
    return answers


def cost(question: str, size: int, seconds: float) -> float:
    """Return what should stay flat: beyond the smallest messages that is the cost of a byte."""
    return seconds / max(size, 4096) if question == "payload" else seconds


def bends(question: str, answers: dict[str, dict[str, list[tuple[int, float]]]]) -> list[str]:
    """Say where a cost of ours grows."""
    found = []
    for what, points in answers["rsmp"].items():
        costs = [(size, cost(question, size, seconds)) for size, seconds in points]
        lowest = costs[0]
        for size, value in costs:
            lowest = min(lowest, (size, value), key=lambda each: each[1])
            if value > BENT * lowest[1]:
                found.append(f"{question}: {what}: {value / lowest[1]:.1f}x as much at {size:,} as at {lowest[0]:,}")
    return found


def draw(question: str, answers: dict[str, dict[str, list[tuple[int, float]]]], title: str) -> Path:
    """Write the picture of an answer."""
    import matplotlib

    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "rsmp"
    from matplotlib import pyplot
    from report import duration

    figure, axes = pyplot.subplots(figsize=(7, 4), layout="constrained")
    for name, colour in zip(SERIES, ("#999999", "#2a7f62"), strict=True):
        for (what, points), style in zip(sorted(answers[name].items()), ("o-", "s--", "^:"), strict=False):
            axes.plot(*zip(*points, strict=True), style, color=colour, label=f"{name}: {what}", markersize=4)
    axes.set_xscale("log", base=2 if question in ("producers", "payload") else 10)
    axes.set_yscale("log")
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:,.0f}")
    axes.yaxis.set_major_formatter(lambda value, _: duration(value))
    axes.tick_params(axis="x", labelsize=7)
    axes.set_xlabel(QUESTIONS[question][2])
    axes.set_ylabel(f"{'processor time' if question in ('queued', 'locks') else 'time'} per operation")
    axes.grid(which="major", linewidth=0.3)
    axes.legend(fontsize=7)
    axes.set_title(title, fontsize=7)
    PLOTS.mkdir(parents=True, exist_ok=True)
    path = PLOTS / f"{question}.svg"
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return path


def main() -> int:
    """Ask, draw and name what bends."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", nargs=3, metavar=("QUESTION", "LIBRARY", "SIZE"), help=argparse.SUPPRESS)
    parser.add_argument("--questions", default=",".join(QUESTIONS))
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    options = parser.parse_args()
    if options.one:
        question, name, size = options.one
        print(json.dumps(QUESTIONS[question][0](name, int(size))))
        return 0
    from report import place
    from run import machine

    bent, where = [], place({"machine": machine(list(SERIES))})
    for question in options.questions.split(","):
        answers = ask(question, options.rounds)
        (PLOTS / f"{question}.json").parent.mkdir(parents=True, exist_ok=True)
        (PLOTS / f"{question}.json").write_text(json.dumps({"machine": where, "seconds": answers}, indent=1) + "\n")
        try:
            print(f"drawn: {draw(question, answers, where).relative_to(HERE.parent)}\n")
        except ImportError:
            print("not drawn: that takes matplotlib\n")
        bent += bends(question, answers)
    print("\n".join(bent) if bent else f"nothing bends: no cost grows {BENT:.0f}-fold")
    return 0


if __name__ == "__main__":
    sys.exit(main())
