"""Kill storms by hand: ``python tests/faults/storm.py SECONDS [METHOD...]``; ``RSMP_SLOW=10`` beside other work.

One storm of each kind at a time, for every start method in turn; what they did is printed, with the seed.
"""

import os
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

import harness

STORMS = {
    "queue_cases": "producers_and_consumers_are_killed_at_random",
    "pool_cases": "workers_killed_at_random_while_they_return_results",
    "sync_cases": "users_are_killed_at_random",
}


def main() -> None:
    seconds, *methods = sys.argv[1:]
    os.environ["RSMP_STRESS"] = seconds
    failed = 0
    for method in methods or ["fork", "spawn", "forkserver"]:
        for module, name in STORMS.items():
            function = next(case for case in harness.cases(module) if case.__name__ == name)
            try:
                outcome = " ".join(harness.check(function, method, "rsmp").split())
            except AssertionError as error:
                failed += 1
                outcome = f"FAILED: {error}"
            print(f"{method:10} {name.replace('_', ' ')}, {seconds} s: {outcome}", flush=True)
    sys.exit(failed != 0)


if __name__ == "__main__":
    main()
