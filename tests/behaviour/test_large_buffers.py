"""Large arrays arrive as memory of their own: writable, apart from every other one, and kept by a forked child."""

from __future__ import annotations

import gc
import os
import pickle
from typing import Any

import pytest

numpy = pytest.importorskip("numpy", reason="needs numpy, which `make test` installs")

SIZES = [2**17 + 3, 2**20, 2**20 + 1]  # numbers of 8 bytes: 1 MiB and a bit, 8 MiB, and a bit


def double(array: Any) -> Any:
    return array * 2


def write_and_give_back(array: Any) -> Any:
    array += 1
    return array


@pytest.mark.parametrize("size", SIZES)
def test_an_array_from_a_queue_is_writable_and_its_own(mp: Any, size: int) -> None:
    queue = mp.Queue()
    original = numpy.arange(size, dtype=float)
    queue.put(original)
    queue.put(original)
    first, second = queue.get(timeout=30), queue.get(timeout=30)
    assert first.flags.writeable and first.flags.c_contiguous and first.flags.aligned
    first[:] = -1
    assert (second == original).all()
    assert first.shape == original.shape and first.dtype == original.dtype
    queue.close()
    queue.join_thread()


def test_memory_that_is_used_again_holds_nothing_of_the_array_before(mp: Any) -> None:
    queue = mp.Queue()
    kept = []
    for n in range(12):
        queue.put(numpy.full(2**18 + n * 1000, n, dtype=float))
        array = queue.get(timeout=30)
        assert array.size == 2**18 + n * 1000
        assert (array == n).all()
        if n % 3 == 0:
            kept.append((n, array))
        del array
        gc.collect()
    for n, array in kept:
        assert (array == n).all()
    queue.close()
    queue.join_thread()


def test_a_view_keeps_the_memory_when_the_array_is_gone(mp: Any) -> None:
    queue = mp.Queue()
    queue.put(numpy.arange(2**18, dtype=float))
    tail = queue.get(timeout=30)[-10:]
    gc.collect()
    for _ in range(3):
        queue.put(numpy.zeros(2**18))
        assert not queue.get(timeout=30).any()
    assert tail.tolist() == list(range(2**18 - 10, 2**18))
    queue.close()
    queue.join_thread()


def test_a_forked_child_has_the_array_and_its_writes_are_its_own(mp: Any) -> None:
    queue = mp.Queue()
    queue.put(numpy.full(2**19, 7.0))
    queue.get(timeout=30)  # dropped: its memory is used for the next one
    queue.put(numpy.full(2**19, 3.0))
    array = queue.get(timeout=30)
    child = os.fork()
    if child == 0:
        good = bool((array == 3).all())
        array[:] = 5
        os._exit(0 if good else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert (array == 3).all()
    queue.close()
    queue.join_thread()


def test_a_forked_child_receives_arrays_after_its_parent_dropped_some(mp: Any) -> None:
    queue, answers = mp.Queue(), mp.Queue()
    for n in range(4):
        queue.put(numpy.full(2**18, n, dtype=float))
        assert queue.get(timeout=30)[0] == n

    def child() -> None:
        for n in range(4):
            array = queue.get(timeout=30)
            array += 1
            answers.put(float(array.sum()) == (n + 1) * 2**18)

    process = mp.get_context("fork").Process(target=child)
    process.start()
    for n in range(4):
        queue.put(numpy.full(2**18, n, dtype=float))
    assert [answers.get(timeout=30) for _ in range(4)] == [True] * 4
    process.join()
    for used in (queue, answers):
        used.close()
        used.join_thread()


def test_results_of_a_pool_stay_what_they_were_while_more_come(ctx: Any) -> None:
    arrays = [numpy.full(2**17 + 5, n, dtype=float) for n in range(12)]
    with ctx.Pool(2) as pool:
        results = pool.map(double, arrays, chunksize=1)
        more = pool.map(write_and_give_back, arrays, chunksize=1)
    for n, (array, result, again) in enumerate(zip(arrays, results, more, strict=True)):
        assert (array == n).all()
        assert (result == 2 * n).all()
        assert (again == n + 1).all()
        result[0] = -1
    assert results[1][1] == 2


class Blob:
    """Offers its buffer as protocol 5 allows, and counts on what a plain pickle gives back."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, protocol: int) -> Any:
        return (Blob, (pickle.PickleBuffer(self.data) if protocol >= 5 else self.data,))


@pytest.mark.parametrize("size", [2**17, 2**21])
def test_the_buffer_of_another_type_arrives_as_a_bytearray(mp: Any, size: int) -> None:
    queue = mp.Queue()
    queue.put([Blob(bytearray(b"x" * size)), numpy.zeros(size)])
    blob, array = queue.get(timeout=30)
    assert type(blob.data) is bytearray
    assert blob.data == b"x" * size
    assert array.size == size and not array.any()
    queue.close()
    queue.join_thread()


def test_an_array_lies_in_memory_made_for_it(mp: Any) -> None:
    queue = mp.Queue()
    queue.put(numpy.zeros(2**18))
    array = queue.get(timeout=30)
    assert array.flags.writeable
    assert not array.flags.owndata
    with pytest.raises(ValueError, match="does not own"):
        array.resize(2**19)
    queue.close()
    queue.join_thread()
