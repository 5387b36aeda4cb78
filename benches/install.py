"""Install what the benchmarks compare with. What cannot be installed is named; the benchmarks leave it out."""

import subprocess
import sys
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
REQUIREMENTS = Path(__file__).with_name("requirements.txt")


def install(*arguments: str) -> str | None:
    """Return why pip could not install something, in one line."""
    ran = subprocess.run([*PIP, *arguments], capture_output=True, text=True)
    if ran.returncode == 0:
        return None
    lines = [line for line in ran.stderr.splitlines() if line.startswith("ERROR:")]
    return lines[-1].removeprefix("ERROR: ") if lines else f"pip ended with status {ran.returncode}"


def main() -> int:
    """Install all at once, or one by one if that fails."""
    if install("-r", str(REQUIREMENTS)) is None:
        return 0
    for line in REQUIREMENTS.read_text().splitlines():
        requirement = line.partition("#")[0].strip()
        if requirement and (why := install(requirement)):
            print(f"left out: {requirement} could not be installed: {why}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
