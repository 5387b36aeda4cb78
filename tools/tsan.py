"""``make tsan``: run the engine's tests with the thread sanitizer, which sees the threads of one process.

``python tools/tsan.py [ROUNDS]``. The sanitizer must see the standard library, too, so that is compiled as well. Its
source comes by ``rustup`` with a compiler of its own in ``target/tsan``; the installed ones stay as they are. Both
flags are not stable, hence ``RUSTC_BOOTSTRAP``.
"""

import os
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "target" / "tsan"
TESTS = ["arena", "corpus", "frame", "list", "pool", "ring", "sync"]
"""All but the kill matrix, which is about processes and steps through its instructions."""

SUPPRESSED = """\
# The sanitizer does not know that pthread_mutex_timedlock has locked the mutex when it says EOWNERDEAD.
mutex:rsmp_core::sys::robust::tests::outlives_its_holder
"""


def compiler() -> tuple[str, str]:
    """Return the version of the compiler in use, and the machine it is for."""
    told = subprocess.run(["rustc", "-vV"], capture_output=True, text=True, check=True).stdout
    found = dict(re.findall(r"^(release|host): (.*)$", told, re.MULTILINE))
    return found["release"], found["host"]


def main() -> int:
    rounds = int(sys.argv[1]) if len(sys.argv) > 1 else 1
    version, triple = compiler()
    OUTPUT.mkdir(parents=True, exist_ok=True)
    suppressions = OUTPUT / "suppressions"
    suppressions.write_text(SUPPRESSED)
    environment = {
        **os.environ,
        "RUSTUP_HOME": str(OUTPUT / "rustup"),
        "RUSTUP_TOOLCHAIN": version,
        "RUSTC_BOOTSTRAP": "1",
        "RUSTFLAGS": "-Zsanitizer=thread",
        "CARGO_TARGET_DIR": str(OUTPUT),
        "TSAN_OPTIONS": f"suppressions={suppressions}",
    }
    install = ["rustup", "toolchain", "install", version, "--no-self-update"]
    subprocess.run([*install, "--profile=minimal", "--component=rust-src"], env=environment, check=True)
    only = [f"--test={test}" for test in TESTS]
    test = ["cargo", "test", "--quiet", "-Zbuild-std", f"--target={triple}", "--lib", *only, "--no-fail-fast"]
    return max(subprocess.run(test, cwd=ROOT, env=environment).returncode for _ in range(rounds))


if __name__ == "__main__":
    sys.exit(main())
