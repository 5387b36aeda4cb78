"""The interpreter's own tests as part of ``pytest tests``; run.py alone shows more."""

import subprocess
import sys
from pathlib import Path

import pytest

METHODS = ("fork", "spawn", "forkserver")


@pytest.mark.timeout(900)
@pytest.mark.parametrize("method", METHODS)
def test_the_interpreters_own_suite(mp, method):
    pytest.importorskip(
        "test._test_multiprocessing",
        reason="runs CPython's own suite, which this interpreter comes without (libpython3-testsuite)",
    )
    if mp.__name__ not in ("rsmp", "multiprocessing"):
        pytest.skip(
            f"CPython's suite tests what `import multiprocessing` gives; nothing puts {mp.__name__} in its place"
        )
    plain = ["--plain"] if mp.__name__ == "multiprocessing" else []
    command = [sys.executable, str(Path(__file__).with_name("run.py")), "--methods", method, *plain]
    ran = subprocess.run(command, capture_output=True, text=True)
    print(ran.stdout)
    assert ran.returncode == 0, ran.stdout[-20000:] + ran.stderr
