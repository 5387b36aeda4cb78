"""What the fuzzer of the authentication exchange has found worth keeping, run once (`fuzz/authentication.py`)."""

import sys
from pathlib import Path

import pytest

FUZZ = Path(__file__).resolve().parents[2] / "fuzz"
CORPUS = FUZZ / "corpus" / "authentication"

pytestmark = pytest.mark.rsmp_only("the standard library stops at an assertion for what is no challenge")


@pytest.fixture(scope="module")
def exchange():
    sys.path.insert(0, str(FUZZ))
    try:
        import authentication
    finally:
        sys.path.remove(str(FUZZ))
    return authentication


def test_nobody_is_let_in_for_a_wrong_answer(exchange):
    inputs = sorted(CORPUS.iterdir())
    assert len(inputs) > 10
    let_in = [path.name for path in inputs if exchange.attempt(path.read_bytes())]
    assert let_in and len(let_in) < len(inputs)


def test_the_right_answers_of_this_version_are_let_in(exchange):
    new = sys.version_info >= (3, 12)
    let_in = {name for name, data in exchange.seeds().items() if exchange.attempt(data)}
    assert let_in >= ({"server-new", "client-new"} if new else {"server-old", "client-old"})
    assert not any(name.startswith(("refused", "server-weak", "client-weak", "announces")) for name in let_in)


def test_what_is_no_challenge_is_refused_by_an_error_of_its_own(exchange):
    assert exchange.attempt((CORPUS / "no-challenge").read_bytes()) is False
