"""``make fuzz``: build the fuzzers with the address sanitizer and run each for a while.

``python tools/fuzz.py [SECONDS] [TARGET...]``. libFuzzer comes as source with its crate, and a stable compiler has the
coverage passes too; only the sanitizer's flag is not stable, hence ``RUSTC_BOOTSTRAP``. What fails is kept in
``target/fuzz/found``, what is worth keeping of the inputs goes to ``fuzz/corpus``.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parents[1] / "fuzz"
OUTPUT = HERE.parent / "target" / "fuzz"
TRIPLE = "x86_64-unknown-linux-gnu"
FLAGS = [
    "-Zsanitizer=address",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
]
TARGETS = ["frames", "scalars", "tokens", "requests"]


def run(program: Path, *arguments: str) -> int:
    """Run a fuzzer; its memory is limited, for whatever an input announces."""
    options = ["-malloc_limit_mb=256", "-max_len=4096", f"-artifact_prefix={OUTPUT / 'found'}/"]
    # Leaks are looked for by the tests, which count descriptors and slabs.
    environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0"}
    return subprocess.run(["nice", "-n", "19", str(program), *options, *arguments], env=environment).returncode


def main() -> int:
    seconds, *targets = sys.argv[1:] or ["60"]
    environment = {**os.environ, "RUSTC_BOOTSTRAP": "1", "RUSTFLAGS": " ".join(FLAGS), "CARGO_TARGET_DIR": str(OUTPUT)}
    build = ["cargo", "build", "--quiet", "--release", "--target", TRIPLE]
    subprocess.run(build, cwd=HERE, env=environment, check=True)
    (OUTPUT / "found").mkdir(exist_ok=True)
    failed = 0
    for target in targets or TARGETS:
        program = OUTPUT / TRIPLE / "release" / target
        kept = HERE / "corpus" / target
        with tempfile.TemporaryDirectory() as found, tempfile.TemporaryDirectory() as merged:
            failed += run(program, f"-max_total_time={seconds}", "-print_final_stats=1", found, str(kept)) != 0
            if run(program, "-set_cover_merge=1", merged, found, str(kept)) == 0:
                shutil.rmtree(kept)
                shutil.copytree(merged, kept)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
