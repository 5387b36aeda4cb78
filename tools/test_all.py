"""``make test-all``: the Python tests and the interpreter's own with every supported CPython on this machine.

Each interpreter gets a wheel of its own and a virtual environment ``.venv-3.X``; the one that runs this file is tested
by ``make test``, which comes first.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SUPPORTED = ("3.11", "3.12", "3.13", "3.14", "3.15")


def interpreter(version: str) -> str | None:
    """Return a CPython ``version`` that runs, from PATH or from pyenv."""
    candidates = [shutil.which(f"python{version}")]
    if pyenv := shutil.which("pyenv"):
        root = Path(subprocess.run([pyenv, "root"], capture_output=True, text=True).stdout.strip())
        candidates += sorted(map(str, root.glob(f"versions/{version}.*/bin/python{version}")), reverse=True)
    check = "import ensurepip, sys; print(f'{sys.version_info[0]}.{sys.version_info[1]}')"
    for candidate in filter(None, candidates):
        said = subprocess.run([candidate, "-c", check], capture_output=True, text=True)
        if said.returncode == 0 and said.stdout.strip() == version:
            return candidate
    return None


def prepare(version: str, executable: str) -> Path:
    """Build a wheel for the interpreter, install it into ``.venv-3.X`` and return the Python there."""
    environment = ROOT / f".venv-{version}"
    python = environment / "bin" / "python"
    if not python.exists():
        subprocess.run([executable, "-m", "venv", str(environment)], check=True)
    wheels = ROOT / "target" / "wheels" / version
    shutil.rmtree(wheels, ignore_errors=True)
    maturin = [sys.executable, "-m", "maturin", "build", "--release", "--quiet"]
    subprocess.run([*maturin, "--interpreter", str(python), "--out", str(wheels)], check=True, cwd=ROOT)
    pip = [str(python), "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run([*pip, "pytest", "pytest-timeout", "numpy", "mypy"], check=True)
    subprocess.run([*pip, "--force-reinstall", "--no-deps", *map(str, wheels.glob("*.whl"))], check=True)
    return python


def main() -> int:
    status = subprocess.run([sys.executable, "tools/test.py"], cwd=ROOT).returncode
    own = f"{sys.version_info[0]}.{sys.version_info[1]}"
    for version in SUPPORTED:
        if version == own:
            continue
        executable = interpreter(version)
        if executable is None:
            print(f"\nCPython {version}: not on this machine")
            continue
        print(f"\nCPython {version}: {executable}", flush=True)
        python = prepare(version, executable)
        command = [sys.executable, "tools/test.py", "--only", "python", "--only", "cpython", "--python", str(python)]
        status |= subprocess.run(command, cwd=ROOT, env=os.environ | {"VIRTUAL_ENV": str(python.parents[1])}).returncode
    return status


if __name__ == "__main__":
    sys.exit(main())
