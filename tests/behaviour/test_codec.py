"""What a message looks like after the trip is what pickle would have made of it."""

import contextlib
import pickle
import random
import string
import sys
from typing import Any

import pytest

from rsmp import _rsmp

keeps_keys = pytest.mark.skipif(
    not getattr(sys, "_is_gil_enabled", lambda: True)(),
    reason="on a free-threaded interpreter every message is a pickle, which keeps no keys",
)


def trip(value: Any) -> Any:
    return _rsmp._decode(_rsmp._encode(value))


def shape(value: Any) -> Any:
    """Describe a graph: types, values, and which positions hold the same object."""
    numbers: dict[int, int] = {}
    keep = []

    def walk(node: Any) -> Any:
        if isinstance(node, (bool, int, float, type(None))):
            return (type(node).__name__, repr(node))
        if id(node) in numbers:
            return ("same as", numbers[id(node)])
        if (isinstance(node, (str, bytes)) and len(node) <= 1) or node == ():
            return (type(node).__name__, node)
        numbers[id(node)] = len(numbers)
        keep.append(node)
        if isinstance(node, dict):
            return (type(node).__name__, [(walk(k), walk(v)) for k, v in node.items()])
        if isinstance(node, (list, tuple)):
            return (type(node).__name__, [walk(item) for item in node])
        return (type(node).__name__, node)

    return walk(value)


class Graphs:
    """Random values with shared parts and cycles."""

    def __init__(self, seed: int) -> None:
        self.random = random.Random(seed)
        self.pool: list[Any] = []

    def text(self) -> str:
        alphabet = self.random.choice([string.ascii_letters, "äöü߀", "😀𝄞x", "\x00\x7f"])
        return "".join(self.random.choice(alphabet) for _ in range(self.random.choice([0, 1, 2, 9, 300])))

    def scalar(self) -> Any:
        return self.random.choice(
            [
                lambda: None,
                lambda: self.random.random() < 0.5,
                lambda: self.random.randrange(-(2**70), 2**70) >> self.random.randrange(70),
                lambda: self.random.choice([0.0, -0.0, 1.5, float("inf"), 5e-324]),
                self.text,
                lambda: self.text().encode(),
            ]
        )()

    def value(self, depth: int) -> Any:
        if self.pool and self.random.random() < 0.15:
            return self.random.choice(self.pool)
        if depth == 0 or self.random.random() < 0.3:
            made = self.scalar()
        else:
            kind = self.random.choice("ltd")
            count = self.random.choice([0, 1, 2, 5])
            if kind == "l":
                made = []
                self.pool.append(made)
                made.extend(self.value(depth - 1) for _ in range(count))
            elif kind == "t":
                made = tuple(self.value(depth - 1) for _ in range(count))
            else:
                made = {}
                self.pool.append(made)
                for _ in range(count):
                    made[self.random.choice([self.text(), self.random.randrange(300), (1, self.text())])] = self.value(
                        depth - 1
                    )
        self.pool.append(made)
        return made


@pytest.mark.parametrize("seed", range(400))
def test_random_graphs_arrive_as_pickle_would_deliver_them(seed):
    value = Graphs(seed).value(4)
    assert shape(trip(value)) == shape(pickle.loads(pickle.dumps(value)))


def test_identity_inside_a_message_is_kept():
    inner, word = [1], "".join(["wo", "rd"])
    back = trip([inner, inner, {word: word}, (inner, word)])
    assert back[0] is back[1] is back[3][0]
    assert next(iter(back[2])) is back[2]["word"] is back[3][1]


def test_equal_keys_stay_as_many_objects_as_they_were():
    """Also when they are those of the message before."""
    one, other = "".join(["wo", "rd"]), "".join(["w", "ord"])
    for _ in range(3):
        back = trip([{one: 1}, {other: 2}, {one: 3}])
        first, second, third = (next(iter(each)) for each in back)
        assert first == second == "word"
        assert first is third is not second


@keeps_keys
def test_keys_of_a_stream_are_made_once():
    names = ["id", "di", "idx", "name", "names", "number", "value", "values", "timestamp", "x" * 32]
    first, second = trip(dict.fromkeys(names)), trip(dict.fromkeys(names))
    assert all(one is other for one, other in zip(first, second, strict=True))


@keeps_keys
def test_keys_that_are_alike_have_places_of_their_own():
    names = [f"feature_{number}" for number in range(100)]
    first, second = trip(dict.fromkeys(names)), trip(dict.fromkeys(names))
    assert sum(one is other for one, other in zip(first, second, strict=True)) > 25


def test_keys_are_theirs_whatever_keys_came_before():
    draw = random.Random(5)
    letters = ["a", "b", "\0", "~", "\x7f", "\x80", "é", "€", "\U0001f600"]
    for length in [*range(40), 253, 254, 255, 256, 300] * 8:
        alphabet = draw.choice([letters[:5], letters])
        keys = ["".join(draw.choices(alphabet, k=length)) for _ in range(4)]
        message = {key: number for number, key in enumerate(keys)}
        back = trip([message, message.copy()])
        assert back == [message, message]
        assert [hash(key) for key in back[0]] == [hash(key) for key in message]


def test_keys_that_differ_all_the_time_hold_no_memory():
    before = sys.getallocatedblocks()
    for number in range(20_000):
        trip({f"key {number}": number})
    assert sys.getallocatedblocks() - before < 2_000


def test_cycles_are_kept():
    ring: list[Any] = []
    ring.append({"ring": ring})
    back = trip(ring)
    assert back[0]["ring"] is back
    held: list[Any] = []
    pair = (held, 1)
    held.append(pair)
    back_pair = trip(pair)
    assert back_pair[0][0] is back_pair


def test_subclasses_and_instances_keep_their_type():
    from collections import OrderedDict
    from enum import IntEnum

    for value in [OrderedDict(a=1), True, IntEnum("Colour", "red").__class__, {1, 2}, bytearray(b"x"), 1j, range(3)]:
        back = trip([value])[0]
        assert back == value and type(back) is type(value)


def test_very_deep_values_are_pickled_and_too_deep_ones_raise():
    deep: list[Any] = []
    for _ in range(150):
        deep = [deep]
    assert trip(deep) == deep
    for _ in range(100_000):
        deep = [deep]
    with pytest.raises(RecursionError):
        _rsmp._encode(deep)


def test_an_unpicklable_part_raises_as_pickle_does():
    with pytest.raises((AttributeError, pickle.PicklingError)):
        _rsmp._encode([1, lambda: None])


@pytest.mark.parametrize("seed", range(300))
def test_garbage_raises_and_never_crashes(seed):
    source = random.Random(seed)
    message = bytearray(_rsmp._encode(Graphs(seed).value(3)))
    if message[0] == 0x7F:
        return  # a pickle: its decoder is the interpreter's
    for _ in range(source.choice([1, 3])):
        message[source.randrange(len(message))] = source.randrange(0x7F)
    del message[source.randrange(len(message) + 1) :]
    if message[:1] == b"\x7f":
        return
    with contextlib.suppress(OSError, ValueError, TypeError):
        _rsmp._decode(bytes(message))
