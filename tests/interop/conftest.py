"""Both libraries are under test here, whichever is asked for."""

import pytest

import rsmp.forkserver


@pytest.fixture(scope="session", autouse=True)
def _both_helpers(_helpers: None) -> None:
    """Start what lives as long as the program in rsmp too, so that no test is blamed for it."""
    rsmp.forkserver.ensure_running()
