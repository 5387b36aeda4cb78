"""What a record says: tables, a summary, a picture, and the blocks in README.md and docs/performance.md.

``python benches/report.py [RECORD]`` prints the table of a record, by default of the latest one that covers the whole
suite; ``--readme`` puts it into README.md and docs/performance.md.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent
RECORDS = HERE / "record"
STANDARD, OURS = "multiprocessing", "rsmp"
BEGIN, END = "<!-- benchmarks: written by benches/report.py -->", "<!-- end of benchmarks -->"

Record = dict[str, Any]
Result = dict[str, Any]


def duration(seconds: float) -> str:
    """Write a time per operation with three digits."""
    for factor, unit in ((1e9, "ns"), (1e6, "us"), (1e3, "ms")):
        if seconds * factor < 999.5:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds:.3g} s"


def factor(value: float) -> str:
    """Write a ratio."""
    return f"{value:.2f}x" if value < 9.995 else f"{value:.1f}x"


def spread(values: list[float]) -> float:
    """Return half the range between the quartiles, relative to the median."""
    if len(values) < 2:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / 2 / middle


def medians(result: Result) -> dict[str, float]:
    """Return the median time per operation of each library."""
    return {name: statistics.median(values) for name, values in result["seconds"].items()}


def ratio(result: Result) -> float | None:
    """Return how many times faster than the standard library we are."""
    found = medians(result)
    return found[STANDARD] / found[OURS] if STANDARD in found and OURS in found else None


def verdict(result: Result) -> str:
    """Say which goal is met."""
    reached, floor, aim = ratio(result), result["goals"]["floor"], result["goals"]["aim"]
    if reached is None or floor is None:
        return ""
    if reached < floor:
        return "SLOWER" if reached < 1 else "BELOW"
    return "aim" if reached >= aim else "floor"


def fastest_rival(result: Result) -> tuple[str, float] | None:
    """Return the fastest of the others and its time."""
    others = {name: value for name, value in medians(result).items() if name not in (STANDARD, OURS)}
    return min(others.items(), key=lambda each: each[1]) if others else None


def memory_ratio(result: Result) -> float | None:
    """Return our peak of memory relative to the standard library's."""
    peaks = {name: statistics.median(values) for name, values in result["memory_kib"].items()}
    return peaks[OURS] / peaks[STANDARD] if STANDARD in peaks and OURS in peaks else None


def missed(record: Record) -> list[Result]:
    """Return the cases below their floor."""
    return [result for result in record["cases"] if verdict(result) in ("BELOW", "SLOWER")]


def place(record: Record) -> str:
    """Say where the numbers come from."""
    where = record["machine"]
    words = f"{where['cpu']}, {where['cores']} CPUs, Linux {where['kernel']}, Python {where['python']}"
    return f"{words}, commit {where['commit']}, {where['date']} UTC, load {where['load']} before"


HEAD = f"{'scenario':14}{'case':30}{'standard':>16}{'rsmp':>16}{'ratio':>8}  {'floor':>5} {'aim':>4}  {'met':6}"


def line(result: Result) -> str:
    """Return a case in one line of text."""
    found, cells = medians(result), [f"{result['scenario']:14}{result['case']:30}"]
    for name in (STANDARD, OURS):
        values = result["seconds"].get(name)
        cells.append(f"{duration(found[name]):>10} {f'±{spread(values):.0%}':>5}" if values else f"{'-':>16}")
    reached, goals = ratio(result), result["goals"]
    cells.append(f"{factor(reached) if reached else '':>8}")
    cells.append(f"  {goals['floor'] or '':>5} {goals['aim'] or '':>4}  {verdict(result):6}")
    return "".join(cells)


def table(record: Record) -> str:
    """Return the whole result as text: the pair, the limit, the fastest rival, memory."""
    lines = [f"{HEAD}  {'limit':>8} {'of it':>6}  {'fastest other':31} {'rsmp is':>7}  memory"]
    for result in record["cases"]:
        found, limit = medians(result), result["goals"]["limit"]
        cells = [line(result)]
        above = factor(found[OURS] / limit) if limit and OURS in found else ""
        cells.append(f"{duration(limit) if limit else '':>8} {above:>6}")
        rival = fastest_rival(result)
        if rival and OURS in found:
            cells.append(f"{rival[0]:20} {duration(rival[1]):>10} {factor(rival[1] / found[OURS]):>7}")
        else:
            cells.append(" " * 39)
        peak = memory_ratio(result)
        cells.append(f"{peak:6.2f}" if peak else "")
        lines.append("  ".join(cells))
    return "\n".join(lines)


def losses(record: Record) -> Iterator[str]:
    """Say on which cases another library is faster, or ours uses more memory than the standard one."""
    for result in record["cases"]:
        name, found = f"{result['scenario']}: {result['case']}", medians(result)
        for other, seconds in sorted(found.items(), key=lambda each: each[1]):
            if OURS in found and seconds < found[OURS]:
                yield f"{name}: {other} is faster: {duration(seconds)} against {duration(found[OURS])}"


def heavier(record: Record) -> list[str]:
    """Say where the peak of memory is more than a hundredth above the standard library's."""
    found = []
    for result in record["cases"]:
        peak = memory_ratio(result)
        if peak is not None and peak > 1.01:
            found.append(f"{result['scenario']}: {result['case']} {peak:.2f}")
    return found


def summary(record: Record) -> str:
    """Count the goals that are met and name what is not."""
    with_goals = [result for result in record["cases"] if verdict(result)]
    floors = sum(verdict(result) in ("floor", "aim") for result in with_goals)
    aims = sum(verdict(result) == "aim" for result in with_goals)
    lines = [f"{len(with_goals)} cases with goals: {floors} reach the floor, {aims} the aim."]
    lines += [
        f"  below the floor: {result['scenario']}: {result['case']}: {factor(ratio(result) or 0)}, "
        f"floor {result['goals']['floor']}x"
        for result in missed(record)
    ]
    lost = list(losses(record))
    lines.append("Faster than rsmp:" if lost else "Nothing is faster than rsmp on any case it can run.")
    lines += [f"  {each}" for each in lost]
    watched = [result for result in record["cases"] if memory_ratio(result) is not None]
    more = heavier(record)
    lines.append(f"Peak memory above the standard library's on {len(more)} of {len(watched)} cases.")
    lines += [f"  {each}" for each in more]
    return "\n".join(lines)


def short_table(record: Record) -> str:
    """Return the result in Markdown, as README.md shows it."""
    lines = [
        f"Medians of alternating runs on {place(record)}; `make bench` repeats it.",
        "",
        "| per operation | standard library | rsmp | ratio | fastest other library |",
        "|---|--:|--:|--:|---|",
    ]
    for result in record["cases"]:
        found, reached, rival = medians(result), ratio(result), fastest_rival(result)
        cells = [f"{result['scenario'].replace('_', ' ')}: {result['case']}"]
        cells += [duration(found[name]) if name in found else "" for name in (STANDARD, OURS)]
        cells.append(factor(reached) if reached else "")
        cells.append(f"{rival[0].replace('_', '-')} {duration(rival[1])}" if rival else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def full_table(record: Record) -> str:
    """Return the result in Markdown with goals, limits and memory, as docs/performance.md shows it."""
    lines = [
        f"{place(record)}.",
        "",
        "| per operation | standard | rsmp | ratio | floor | aim | met | limit | of it | what the limit is | memory |",
        "|---|--:|--:|--:|--:|--:|---|--:|--:|---|--:|",
    ]
    for result in record["cases"]:
        found, goals, reached, peak = medians(result), result["goals"], ratio(result), memory_ratio(result)
        cells = [f"{result['scenario'].replace('_', ' ')}: {result['case']}"]
        for name in (STANDARD, OURS):
            cells.append(f"{duration(found[name])} ±{spread(result['seconds'][name]):.0%}" if name in found else "")
        cells += [factor(reached) if reached else "", str(goals["floor"] or ""), str(goals["aim"] or "")]
        cells.append(verdict(result))
        limit = goals["limit"]
        cells += [duration(limit), factor(found[OURS] / limit)] if limit and OURS in found else ["", ""]
        cells += [goals["why"], f"{peak:.2f}" if peak else ""]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def every_library(record: Record) -> str:
    """Return the medians of all libraries in Markdown."""
    names = list(record["machine"]["libraries"])
    lines = [
        "| per operation | " + " | ".join(name.replace("_", "-") for name in names) + " |",
        "|---|" + "--:|" * len(names),
    ]
    for result in record["cases"]:
        found = medians(result)
        cells = [f"{result['scenario'].replace('_', ' ')}: {result['case']}"]
        for name in names:
            cells.append(duration(found[name]) if name in found else "failed" if name in result["errors"] else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def every_peak(record: Record) -> str:
    """Return the peaks of memory of all libraries in Markdown."""
    names = list(record["machine"]["libraries"])
    lines = [
        "| MiB | " + " | ".join(name.replace("_", "-") for name in names) + " |",
        "|---|" + "--:|" * len(names),
    ]
    for result in record["cases"]:
        peaks = {name: statistics.median(values) / 1024 for name, values in result["memory_kib"].items()}
        cells = [f"{result['scenario'].replace('_', ' ')}: {result['case']}"]
        lines.append(f"| {' | '.join(cells + [f'{peaks[name]:.0f}' if name in peaks else '' for name in names])} |")
    return "\n".join(lines)


def document(record: Record, picture_name: str | None) -> str:
    """Return a record as a page of Markdown."""
    versions = ", ".join(f"{name} {version}" for name, version in record["machine"]["libraries"].items())
    parts = ["# Benchmarks", f"{versions}.", full_table(record), f"```\n{summary(record)}\n```"]
    if picture_name:
        parts.insert(2, f"![ratios to the standard library]({picture_name})")
    parts += ["## Every library", every_library(record), "## Peak memory", every_peak(record)]
    return "\n\n".join(parts) + "\n"


def picture(record: Record, path: Path) -> bool:
    """Draw the ratios to the standard library; False if there is nothing to draw with."""
    try:
        import matplotlib
    except ImportError:
        return False
    matplotlib.use("svg")
    matplotlib.rcParams["svg.hashsalt"] = "rsmp"
    from matplotlib import pyplot

    shown = [result for result in record["cases"] if ratio(result)][::-1]
    if not shown:
        return False
    figure, axes = pyplot.subplots(figsize=(10, 0.26 * len(shown) + 1.2), layout="constrained")
    colours = {"aim": "#2a7f62", "floor": "#7fb69a", "BELOW": "#d99a2b", "SLOWER": "#c0392b", "": "#999999"}
    for row, result in enumerate(shown):
        found, goals = medians(result), result["goals"]
        axes.barh(row, (ratio(result) or 1) - 1, left=1, height=0.62, color=colours[verdict(result)])
        for goal, style in ((goals["floor"], ":"), (goals["aim"], "-")):
            if goal:
                axes.plot([goal, goal], [row - 0.42, row + 0.42], "k", linestyle=style, linewidth=1.2)
        rivals = [found[STANDARD] / value for name, value in found.items() if name not in (STANDARD, OURS)]
        axes.plot(rivals, [row] * len(rivals), "o", color="#35506b", markersize=3.5, alpha=0.7)
    axes.set_xscale("log")
    axes.axvline(1, color="k", linewidth=0.8)
    axes.xaxis.set_major_formatter(lambda value, _: f"{value:g}x")
    axes.set_yticks(range(len(shown)), [f"{each['scenario']}: {each['case']}" for each in shown], fontsize=7.5)
    axes.set_ylim(-0.7, len(shown) - 0.3)
    axes.set_xlabel("times as fast as multiprocessing; dotted: floor, line: aim, dots: other libraries", fontsize=8)
    axes.grid(axis="x", which="both", linewidth=0.3)
    axes.set_title(place(record), fontsize=7.5)
    figure.savefig(path, metadata={"Date": None})
    pyplot.close(figure)
    return True


def write(record: Record, suffix: str = "") -> list[Path]:
    """Keep a record as JSON, Markdown and SVG; return the files."""
    RECORDS.mkdir(exist_ok=True)
    where = record["machine"]
    cpu = re.sub(r"[^a-z0-9]+", "-", where["cpu"].lower()).strip("-")
    stem = f"{where['date'].split()[0]}-{cpu}-{where['cores']}cpu-python{where['python']}{suffix}"
    paths = [RECORDS / f"{stem}.{kind}" for kind in ("json", "md", "svg")]
    paths[0].write_text(json.dumps(record, indent=1) + "\n")
    drawn = picture(record, paths[2])
    paths[1].write_text(document(record, paths[2].name if drawn else None))
    if not drawn:
        print("left out: the picture, which takes matplotlib")
    return paths if drawn else paths[:2]


def latest() -> Path:
    """Return the newest record of the whole suite."""
    whole = [path for path in RECORDS.glob("*.json") if not path.stem.endswith("-partial")]
    if not whole:
        sys.exit("no record yet: make bench")
    return max(whole, key=lambda path: json.loads(path.read_text())["machine"]["date"])


def fill(path: Path, text: str) -> None:
    """Replace what stands between the markers in a file."""
    before, begin, rest = path.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        sys.exit(f"{path.name} has no place for the table: {BEGIN} ... {END}")
    path.write_text(f"{before}{BEGIN}\n{text}\n{END}{after}")
    print(f"written: {path.relative_to(ROOT)}")


def main() -> int:
    """Show a record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("record", nargs="?", type=Path, help="a JSON file (default: the latest of the whole suite)")
    parser.add_argument("--readme", action="store_true", help="put the tables into README.md and docs/performance.md")
    options = parser.parse_args()
    record = json.loads((options.record or latest()).read_text())
    print(f"{place(record)}\n\n{table(record)}\n\n{summary(record)}")
    if options.readme:
        fill(ROOT / "README.md", short_table(record))
        fill(ROOT / "docs" / "performance.md", f"{full_table(record)}\n\n```\n{summary(record)}\n```")
    return 0


if __name__ == "__main__":
    sys.exit(main())
