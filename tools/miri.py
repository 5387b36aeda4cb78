"""``make miri``: run the queue and the locks under Miri, which checks every access to memory.

``python tools/miri.py [SEEDS] [WORD]``: each seed is another schedule of the threads (16 by default); a word chooses
the cases whose names have it. Miri comes by ``rustup`` with a nightly compiler of its own in ``target/miri``; the
installed ones stay as they are.
"""

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
OUTPUT = ROOT / "target" / "miri"


def main() -> int:
    seeds = int(sys.argv[1]) if len(sys.argv) > 1 else 16
    OUTPUT.mkdir(parents=True, exist_ok=True)
    environment = {
        **os.environ,
        "RUSTUP_HOME": str(OUTPUT / "rustup"),
        "RUSTUP_TOOLCHAIN": "nightly",
        "CARGO_TARGET_DIR": str(OUTPUT),
        "MIRI_SYSROOT": str(OUTPUT / "sysroot"),
    }
    install = ["rustup", "toolchain", "install", "nightly", "--no-self-update", "--profile=minimal"]
    subprocess.run([*install, "--component=miri", "--component=rust-src"], env=environment, check=True)
    subprocess.run(["cargo", "miri", "setup", "--quiet"], env=environment, check=True)
    # The cases read the clock and open a file; a process that dies in one of them leaves what it has.
    environment["MIRIFLAGS"] = f"-Zmiri-disable-isolation -Zmiri-ignore-leaks -Zmiri-many-seeds=0..{seeds}"
    run = ["cargo", "miri", "run", "--quiet", "--", *sys.argv[2:]]
    return subprocess.run(run, cwd=ROOT / "tests" / "core" / "miri", env=environment).returncode


if __name__ == "__main__":
    sys.exit(main())
