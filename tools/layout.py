"""``make layout``: put the functions of the engine that programs use beside each other, in ``src/py/layout.ld``.

The kernel maps a library in pieces of 64 KiB around what is touched. In the compiler's order a program that takes a
lock touches nearly every piece of the engine; in this one it touches five. The cases of the benchmarks are run, what
each of them calls is noted (``tools/layout.c``), and what the smallest ones call comes first, then what the next one
adds. What the file does not name follows in the compiler's order, so it need not be written anew for every change:
``tests/behaviour/test_layout.py`` says when it has to be.
"""

import json
import os
import platform
import re
import subprocess
import sys
import sysconfig
from collections import Counter
from collections.abc import Iterable, Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "target" / "layout"
SCRIPT = ROOT / "src" / "py" / "layout.ld"
BENCHES = ROOT / "benches"
MEASURE = BENCHES / "measure.py"
BUDGET = "0.05"
"""Seconds that a case is run for."""

HEAD = """\
/* Which functions of the engine come first, and in which order; see tools/layout.py, which writes this file. */
SECTIONS {
  .plt : {
    *(.plt)
  }
  .text.often : {
    *libc_nonshared.a:*(.text)
    *crtbegin*.o(.text)
    *(.text*.*ARGV_INIT_ARRAY*)
"""
TAIL = """\
  }
}
INSERT BEFORE .text;
"""


def functions(engine: Path) -> dict[int, tuple[str, int]]:
    """Return the functions in ``engine`` by their addresses: a pattern for the symbol, and the size."""
    told = subprocess.run(["nm", "--defined-only", "--print-size", engine], capture_output=True, text=True, check=True)
    found = re.findall(r"^([0-9a-f]+) ([0-9a-f]+) [tT] (\S+)$", told.stdout, re.MULTILINE)
    return {int(address, 16): (pattern(symbol), int(size, 16)) for address, size, symbol in sorted(found)}


def pattern(symbol: str) -> str:
    """Return a pattern for ``symbol`` that outlives the next build: without the hashes in it."""
    if symbol.startswith("_ZN"):
        return re.sub(r"17h[0-9a-f]{16}E.*$", "17h*", symbol)
    # The number at the end tells functions apart that had the same name before they were linked.
    return re.sub(r"Cs[0-9A-Za-z]+_", "Cs*_", re.sub(r"\.(llvm\.)?\d+$", "*", symbol))


def cases() -> list[tuple[str, str]]:
    """Return the scenarios and cases of the benchmarks."""
    named = "[(s, c.name) for s in harness.scenario_names() for c in harness.cases(s)]"
    program = f"import harness, json; print(json.dumps({named}))"
    told = subprocess.run([sys.executable, "-c", program], cwd=BENCHES, capture_output=True, text=True, check=True)
    return [(scenario, case) for scenario, case in json.loads(told.stdout)]


def record(engine: Path, symbols: Iterable[int]) -> Iterator[list[int]]:
    """Run the cases; yield the addresses of the functions that each of them calls."""
    OUTPUT.mkdir(parents=True, exist_ok=True)
    recorder, listed, table = OUTPUT / "record.so", OUTPUT / "functions", OUTPUT / "table"
    flags = ["-shared", "-fPIC", "-O1", "-Wall", "-Wextra", "-Werror"]
    subprocess.run(["cc", *flags, "-o", recorder, ROOT / "tools" / "layout.c", "-ldl"], check=True)
    listed.write_text("".join(f"{address:x}\n" for address in symbols))
    environment = {
        **os.environ,
        "LD_PRELOAD": str(recorder),
        "LAYOUT_FUNCTIONS": str(listed),
        "LAYOUT_TABLE": str(table),
    }
    for scenario, case in cases():
        print(f"{scenario}: {case}", flush=True)
        table.write_bytes(b"")
        command = [sys.executable, MEASURE, "rsmp", scenario, case, BUDGET]
        subprocess.run(command, env=environment, stdout=subprocess.DEVNULL, check=True)
        # An import alone does not load the engine: the table is empty.
        yield [address for address, ran in zip(symbols, table.read_bytes(), strict=False) if ran]


def ordered(calls: list[set[str]], sizes: dict[str, int], places: dict[str, int]) -> list[str]:
    """Return the functions of all ``calls``: again and again those of the case that needs the fewest bytes more."""
    order: dict[str, None] = {}
    while any(calls):
        least = min(filter(None, calls), key=lambda names: sum(sizes[name] for name in names))
        order |= dict.fromkeys(sorted(least, key=places.__getitem__))
        calls = [names - order.keys() for names in calls]
    return list(order)


def main() -> int:
    """Record, and write the file."""
    if platform.machine() != "x86_64":
        print("what runs can be recorded on x86-64 only")
        return 1
    engine = ROOT / "python" / "rsmp" / f"_rsmp{sysconfig.get_config_var('EXT_SUFFIX')}"
    symbols = functions(engine)
    calls = [{symbols[address][0] for address in called} for called in record(engine, symbols)]
    sizes: Counter[str] = Counter()
    places: dict[str, int] = {}
    for address, (name, size) in symbols.items():
        sizes[name] += size
        places.setdefault(name, address)
    order = ordered(calls, sizes, places)
    SCRIPT.write_text(HEAD + "".join(f"    *(.text*.{name})\n" for name in order) + TAIL)
    print(f"{SCRIPT.relative_to(ROOT)}: {len(order)} functions")
    return 0


if __name__ == "__main__":
    sys.exit(main())
