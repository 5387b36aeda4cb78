"""Chunks of a map: what arrives is what a list of arguments and a list of results, pickled each, would have given."""

import math

import pytest
from pool_helpers import make

shared = []


def same(x):
    return x


def double(x):
    return x * 2


def number_or_list(x):
    return [x] if x % 5 == 3 else x


def appended(x):
    shared.append(x)
    return shared


def numbers_then_appended(x):
    if x < 4:
        return x
    shared.append(x)
    return shared


def fill(item):
    item.append(len(item))
    return len(item)


def number_or_lambda(x):
    return (lambda: x) if x == 7 else x


def fail_late(x):
    if x == 7:
        raise KeyError(x)
    return x


def stop(x):
    if x == 3:
        raise StopIteration("at three")
    return x


def pair(x, y=0, z=0):
    return (x, y, z)


@pytest.fixture
def pool(ctx):
    with make(ctx, 1) as pool:
        yield pool


NUMBERS = [0, -1, 255, 2**31, -(2**63), 2**63, 2**200, 1.5, -0.0, math.inf, True, False, None]


@pytest.mark.parametrize(
    "items",
    [
        range(20),
        NUMBERS,
        [*range(5), "text", b"bytes", *range(5)],
        [1, [2], (3,), {4: 5}, {6}, 7],
        ["text"] * 10,
        [*NUMBERS, 1 + 2j, *NUMBERS],
        [()],
        [],
    ],
    ids=lambda items: str(len(items)),
)
def test_what_arrives_is_what_was_returned(pool, items):
    results = pool.map(same, items, chunksize=10)
    assert results == list(items) and list(map(repr, results)) == list(map(repr, items))


def test_numbers_that_are_not_only_numbers(pool):
    class_of = pool.map(type, [1, True, 1.0, None], chunksize=4)
    assert class_of == [int, bool, float, type(None)]


def test_results_of_several_kinds_keep_their_order(pool):
    assert pool.map(number_or_list, range(50), chunksize=50) == [number_or_list(x) for x in range(50)]


@pytest.mark.parametrize(("function", "whole"), [(appended, 0), (numbers_then_appended, 4)])
def test_an_object_returned_again_and_again_is_one_and_in_its_last_state(ctx, function, whole):
    with make(ctx, 1) as pool:
        results = pool.map(function, range(8), chunksize=8)
    assert results[:whole] == list(range(whole))
    assert all(result is results[whole] for result in results[whole:])
    assert results[whole] == list(range(whole, 8))


def test_an_argument_that_comes_again_is_the_object_that_an_earlier_call_changed(pool):
    item = []
    assert pool.map(fill, [item, item, [], item], chunksize=4) == [1, 2, 1, 3]


def test_an_argument_that_holds_the_others(pool):
    items = [1, 2]
    items.append(items)
    results = pool.map(same, items, chunksize=3)
    assert results[:2] == [1, 2] and results[2][2] is results[2]


def test_a_result_that_cannot_be_pickled_is_its_chunks_error(mp, pool):
    with pytest.raises(mp.pool.MaybeEncodingError):
        pool.map(number_or_lambda, range(10), chunksize=10)
    assert pool.map(number_or_lambda, range(5), chunksize=5) == [0, 1, 2, 3, 4]


def test_a_failure_in_the_middle_is_its_chunks_error(pool):
    with pytest.raises(KeyError, match="7"):
        pool.map(fail_late, range(10), chunksize=10)
    with pytest.raises(KeyError, match="7"):
        list(pool.imap(fail_late, range(20), chunksize=10))


def test_arguments_are_spread(pool):
    assert pool.starmap(pair, [(1,), (1, 2), (1, 2, 3), [4, 5]], chunksize=4) == [
        (1, 0, 0),
        (1, 2, 0),
        (1, 2, 3),
        (4, 5, 0),
    ]
    assert pool.starmap(double, [("a",), ("b",)], chunksize=2) == ["aa", "bb"]
    with pytest.raises(TypeError):
        pool.starmap(pair, [(1,), 2], chunksize=2)


class Listed(list):
    def __iter__(self):
        return iter(["quite", "other", "items"])


@pytest.mark.parametrize(
    "items",
    [
        range(10, -11, -3),
        range(2**63 - 3, 2**63 + 3),
        range(-(2**63) - 3, -(2**63) + 3),
        range(0),
        (1, "a", 2.5, None, 2**80, (1, 2), 7),
        Listed([1, 2, 3]),
        {3: 4, 5: 6},
        "letters",
        b"bytes",
    ],
    ids=lambda items: type(items).__name__ + str(len(items)),
)
@pytest.mark.parametrize("chunksize", [2, 3])
def test_every_iterable_is_cut_alike(mp, items, chunksize):
    with make(mp, 2) as pool:
        assert pool.map(same, items, chunksize=chunksize) == list(items)
        assert list(pool.imap(same, items, chunksize=chunksize)) == list(items)


def test_items_that_are_one_object_are_one_in_their_chunk(pool):
    one, other = (1, [2]), (1, [2])
    results = pool.map(same, [one, one, other, (one, other)], chunksize=4)
    assert results[0] is results[1] and results[0] is not results[2] and results[3] == (one, other)
    assert results[3][0] is results[0] and results[3][1] is results[2]


def test_lists_as_arguments_are_spread_too(pool):
    assert pool.starmap(pair, [[n, n] for n in range(5)], chunksize=2) == [(n, n, 0) for n in range(5)]


@pytest.mark.rsmp_only("the standard pool takes it for the end of the chunk")
def test_a_stop_iteration_is_an_error(pool):
    with pytest.raises(StopIteration, match="at three"):
        pool.map(stop, range(6), chunksize=6)
