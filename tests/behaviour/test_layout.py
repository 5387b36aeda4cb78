"""How much of the engine a program has in its memory."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.rsmp_only("the standard library's engine is the interpreter")

PROGRAM = """
import rsmp
with rsmp.Lock():
    rsmp.Value("i").value += 1
mapped, engine = [], False
for line in open("/proc/self/smaps"):
    name, *fields = line.split()
    if not name.endswith(":"):
        engine = "/_rsmp." in line and fields[0] == "r-xp"
    elif engine and name in ("Size:", "Rss:"):
        mapped.append(int(fields[0]))
print(*mapped)
"""


def test_a_program_with_a_lock_and_a_value_maps_less_than_half_of_the_engine():
    engine = importlib.util.find_spec("rsmp._rsmp").origin
    if b".text.often" not in Path(engine).read_bytes():
        pytest.skip("the engine was linked by a linker of the builder's choice, without src/py/layout.ld")
    ran = subprocess.run([sys.executable, "-c", PROGRAM], capture_output=True, text=True, check=True)
    size, resident = map(int, ran.stdout.split())
    # More than half: the linker did not know the functions of src/py/layout.ld; `make layout` writes it anew.
    assert resident < size / 2
