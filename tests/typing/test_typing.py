"""Users keep the types they have: mypy and, where it is installed, pyright read `program.py`.

Lines marked ``# error`` must be reported, all others must not. The sources of the package itself are checked by
``mypy --strict python/rsmp``; what users see are the stubs in ``python/rsmp-stubs``.
"""

import importlib.util
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
PROGRAM = HERE / "program.py"
STUBS = HERE.parents[1] / "python" / "rsmp-stubs"

pytestmark = pytest.mark.rsmp_only("there is nothing to check in typeshed")


@pytest.fixture
def folder(tmp_path):
    """A folder outside the sources with the program in it."""
    shutil.copy(PROGRAM, tmp_path)
    return tmp_path


def expected_lines():
    return {n for n, line in enumerate(PROGRAM.read_text().splitlines(), 1) if line.endswith("# error")}


def test_mypy(folder):
    pytest.importorskip("mypy", reason="needs mypy, which `make test` installs")
    command = [sys.executable, "-m", "mypy", "--strict", "--cache-dir", os.devnull, "program.py"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    reported = {int(match[1]) for match in re.finditer(r"^program\.py:(\d+): error", ran.stdout, re.MULTILINE)}
    assert reported == expected_lines(), ran.stdout + ran.stderr


def test_pyright(folder):
    if importlib.util.find_spec("basedpyright") is None:
        pytest.skip("needs basedpyright, which `make test` installs where it can be had")
    (folder / "pyrightconfig.json").write_text(
        json.dumps({"typeCheckingMode": "standard", "pythonPlatform": "Linux", "pythonVersion": "3.11"})
    )
    command = [sys.executable, "-m", "basedpyright", "--outputjson", "--pythonpath", sys.executable, "program.py"]
    ran = subprocess.run(command, cwd=folder, capture_output=True, text=True)
    found = json.loads(ran.stdout)["generalDiagnostics"]
    reported = {entry["range"]["start"]["line"] + 1 for entry in found if entry["severity"] == "error"}
    assert reported == expected_lines(), ran.stdout


@pytest.mark.skipif(not STUBS.is_dir(), reason="compares source trees, which an installed package does not have")
def test_there_is_a_stub_for_every_module():
    package = STUBS.parent / "rsmp"
    modules = {path.relative_to(package).with_suffix("") for path in package.rglob("*.py")}
    public = {path for path in modules if not path.name.startswith("_") or path.name == "__init__"}
    assert public - {Path("popen_spawn_win32")} == {
        path.relative_to(STUBS).with_suffix("") for path in STUBS.rglob("*.pyi")
    }


def test_the_stubs_name_only_what_is_there():
    for path in sorted(STUBS.rglob("*.pyi")):
        parts = [part for part in path.relative_to(STUBS).with_suffix("").parts if part != "__init__"]
        module = importlib.import_module(".".join(["rsmp", *parts]))
        names = re.findall(
            r"^(?:class|def) (\w+)|^from .* import \w+ as (\w+)$|^(\w+):", path.read_text(), re.MULTILINE
        )
        missing = [name for group in names for name in group if name and not hasattr(module, name)]
        assert not missing, path
