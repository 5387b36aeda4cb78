"""``make demo``: run the examples, unmodified, on ``multiprocessing`` and on rsmp; compare outputs, show times.

Each program runs three times on each, in turns; the table has the medians.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
EXAMPLES = ROOT / "examples"
LIMIT = 120.0
"""Seconds that one run may take."""


@dataclass
class Run:
    """What a program printed and wrote, and how long it took."""

    output: str
    status: int | str
    files: dict[str, bytes] = field(repr=False)
    seconds: float = field(compare=False)


def run(example: Path, library: list[str]) -> Run:
    """Run one example in an empty folder."""
    with tempfile.TemporaryDirectory() as folder:
        begun = time.monotonic()
        command = [sys.executable, *library, str(example)]
        try:
            ran = subprocess.run(
                command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=LIMIT
            )
            output, status = ran.stdout, ran.returncode
        except subprocess.TimeoutExpired as hung:
            output, status = str(hung.stdout or ""), f"no end after {LIMIT:.0f} s"
        seconds = time.monotonic() - begun
        files = {path.name: path.read_bytes() for path in Path(folder).iterdir()}
        return Run(output, status, files, seconds)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="examples to run (default: all)")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--output", type=Path, default=ROOT / ".demo", help="where files that examples write are kept")
    options = parser.parse_args()
    examples = sorted(EXAMPLES.glob("*.py"))
    if options.names:
        examples = [path for path in examples if path.stem in options.names]
    options.output.mkdir(exist_ok=True)

    rows = []
    for example in examples:
        print(f"--- {example.relative_to(ROOT)}")
        standard, ours = [], []
        for _ in range(options.runs):
            standard.append(run(example, []))
            ours.append(run(example, ["-m", "rsmp"]))
        same = all(each == standard[0] and each.status == 0 for each in standard + ours)
        print(standard[0].output, end="")
        if not same:
            print("DIFFERENT under rsmp:")
            print(*{f"exit status {each.status}\n{each.output}" for each in ours if each != standard[0]}, sep="\n")
        for name, data in ours[0].files.items():
            (options.output / name).write_bytes(data)
        times = [statistics.median(each.seconds for each in runs) for runs in (standard, ours)]
        rows.append((example.stem, *times, same))

    print(f"\n{'program':20} {'multiprocessing':>15} {'rsmp':>9} {'ratio':>7}  output")
    for name, standard_time, our_time, same in rows:
        ratio = standard_time / our_time
        said = "same" if same else "DIFFERENT"
        print(f"{name:20} {standard_time:13.2f} s {our_time:7.2f} s {ratio:6.2f}x  {said}")
    different = [name for name, *_, same in rows if not same]
    written = sorted(path.name for path in options.output.iterdir())
    if written:
        print(f"\nwritten to {options.output.relative_to(ROOT)}: {', '.join(written)}")
    print(f"\n{len(rows) - len(different)} of {len(rows)} programs print and write the same on both")
    return 1 if different else 0


if __name__ == "__main__":
    sys.exit(main())
