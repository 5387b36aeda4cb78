"""The examples print and write the same under ``multiprocessing`` and under ``python -m rsmp``."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(example, folder, *library):
    folder.mkdir()
    ran = subprocess.run([sys.executable, *library, example], cwd=folder, capture_output=True, text=True, timeout=50)
    return ran.stdout, ran.stderr, ran.returncode, {path.name: path.read_bytes() for path in folder.iterdir()}


@pytest.mark.rsmp_only("it runs the examples on both libraries itself, whatever is under test")
@pytest.mark.parametrize("example", sorted(EXAMPLES.glob("*.py")), ids=lambda path: path.stem)
def test_an_example_does_the_same_on_both(example, tmp_path):
    if example.stem.startswith("numpy") and importlib.util.find_spec("numpy") is None:
        pytest.skip("the example needs numpy, which `make test` installs")
    standard = run(example, tmp_path / "standard")
    assert standard[1:3] == ("", 0)
    assert run(example, tmp_path / "rsmp", "-m", "rsmp") == standard
