"""Every fault case, for every start method; and that the standard library hangs or fails where a case says so."""

import time

import harness
import pytest

MODULES = ["pool_cases", "queue_cases", "sync_cases", "process_cases", "connection_cases", "limit_cases"]
CASES = [function for module in MODULES for function in harness.cases(module)]


# What the standard library is shown to fail, with fork and all at once.
CONTRAST = [
    "a_worker_ends_in_a_task",
    "the_only_worker_is_killed_again_and_again",
    "results_that_do_not_travel",
    "a_base_exception_is_the_task_s_error",
    "a_consumer_is_killed_while_it_waits",
    "a_child_is_joined_before_its_items_are_taken",
    "waiters_of_a_condition_are_killed",
    "waiters_of_an_event_are_killed",
    "items_that_do_not_travel",
    "the_parent_is_killed",
]


@pytest.mark.parametrize("function", [harness.parameter(case) for case in CASES])
def test_survives(ctx, mp, function):
    harness.check(function, ctx.get_start_method(), mp.__name__)


@pytest.mark.rsmp_only("it runs the cases on the standard library itself, whatever is under test")
def test_the_standard_library_does_not():
    """The contrast: none of these passes there within the time that rsmp takes for it, many times over."""
    runs = [harness.Run(function, "fork", "multiprocessing") for function in CASES if function.__name__ in CONTRAST]
    assert len(runs) == len(CONTRAST)
    deadline = time.monotonic() + 5
    for run in runs:
        status, _, error = run.end(max(deadline - time.monotonic(), 0.1))
        run.kill_all()
        # It hangs, or an assertion of the case fails: not something that only rsmp has.
        if run.function.standard == "hangs":
            # Some cases give up on a result themselves.
            assert status is None or error.rstrip().endswith("TimeoutError"), (
                f"{run.function.__name__} comes to an end: {error}"
            )
        else:
            assert status == 1 and "AssertionError" in error, f"{run.function.__name__}: {status} {error}"
