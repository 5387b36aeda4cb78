"""The harness: which library is under test, a context per start method, a check that nothing is left over.

``pytest tests --mp=rsmp`` (the default) or ``--mp=multiprocessing``, the oracle, or any other module with that API.
"""

import ctypes
import importlib
import os
import signal
from collections.abc import Generator, Iterator
from types import ModuleType
from typing import Any

import pytest

import leaks

FAILED = pytest.StashKey[bool]()
START_METHODS = ("fork", "spawn", "forkserver")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--mp", default="rsmp", metavar="MODULE", help="the library under test (default: rsmp)")


def pytest_configure(config: pytest.Config) -> None:
    # In the environment, and before anything starts the fork server: children ask for it too (under_test.py).
    os.environ["RSMP_UNDER_TEST"] = config.getoption("--mp")
    # A shell that runs this in the background has it ignored, and so would every child.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    config.addinivalue_line("markers", "rsmp_only(reason): what the standard library does not promise, or gets wrong")
    config.addinivalue_line("markers", "may_leave(reason): the test leaves something behind on purpose")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if config.getoption("--mp") != "multiprocessing":
        return
    for item in items:
        for mark in item.iter_markers("rsmp_only"):
            item.add_marker(pytest.mark.skip(reason=f"rsmp only: {mark.args[0]}"))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if report.when == "call":
        item.stash[FAILED] = report.failed
    return report


@pytest.fixture(scope="session")
def mp(pytestconfig: pytest.Config) -> ModuleType:
    """The library under test."""
    return importlib.import_module(pytestconfig.getoption("--mp"))


@pytest.fixture(params=START_METHODS)
def ctx(request: pytest.FixtureRequest, mp: ModuleType) -> Any:
    """A context of the library under test, one test per start method."""
    return mp.get_context(request.param)


@pytest.fixture(scope="session")
def _helpers(mp: ModuleType) -> None:
    """Start what lives as long as the program, so that no test is blamed for it."""
    ctypes.CFUNCTYPE(None)(int)  # keeps its library open, in some builds
    importlib.import_module(f"{mp.__name__}.resource_tracker").ensure_running()
    importlib.import_module(f"{mp.__name__}.forkserver").ensure_running()


@pytest.fixture(autouse=True)
def leave_nothing(request: pytest.FixtureRequest, _helpers: None) -> Iterator[None]:
    """Fail a test that leaves a process, a thread, a descriptor or a name in /dev/shm; end the processes."""
    before = leaks.Holdings.now()
    yield
    # pytest would hold the values of the other fixtures, which are done by now, a little longer.
    request.node.funcargs.clear()
    found = leaks.left_over(before)
    for pid in leaks.Holdings.now().processes.keys() - before.processes.keys():
        try:
            os.kill(pid, signal.SIGKILL)
            os.waitpid(pid, 0)
        except (ProcessLookupError, ChildProcessError):
            pass
    # A failed test's traceback keeps what it used.
    failed = request.node.stash.get(FAILED, False)
    if found and not failed and request.node.get_closest_marker("may_leave") is None:
        pytest.fail("left over:\n  " + "\n  ".join(found), pytrace=False)
