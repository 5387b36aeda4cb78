"""Fixtures of several files: both ends of a pipe."""

import pytest


@pytest.fixture
def pair(mp):
    first, second = mp.Pipe()
    with first, second:
        yield first, second


@pytest.fixture
def simplex(mp):
    receiver, sender = mp.Pipe(duplex=False)
    with receiver, sender:
        yield receiver, sender
