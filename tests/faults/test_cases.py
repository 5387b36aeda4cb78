"""Every fault case, for every start method; and that the standard library hangs or fails where a case says so."""

import harness
import pytest

MODULES = ["pool_cases", "queue_cases", "sync_cases", "process_cases", "connection_cases", "limit_cases"]
CASES = [function for module in MODULES for function in harness.cases(module)]


def name(function):
    return f"{function.__module__.removesuffix('_cases')}: {function.__name__.replace('_', ' ')}"


@pytest.mark.parametrize("function", CASES, ids=name)
def test_survives(request, ctx, mp, function):
    if mp.__name__ == "multiprocessing" and function.standard:
        pytest.skip(f"the standard library {function.standard}")
    harness.check(function, ctx.get_start_method(), mp.__name__)
