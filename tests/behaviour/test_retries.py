"""``Pool(retries=n)``: a task whose worker died is run again, up to ``n`` times, then ends with WorkerLostError."""

from __future__ import annotations

import os
import signal
import threading
import time
from typing import Any

import pytest
from pool_helpers import make, wait_until

from under_test import submodule

pool_module = submodule("pool")

pytestmark = pytest.mark.rsmp_only("the standard pool waits for ever for the results of a dead worker")


def note(folder: Any, item: Any) -> int:
    """Leave word that the task is run; return how often it has been."""
    runs = len(os.listdir(folder / str(item)))
    (folder / str(item) / str(runs)).touch()
    return runs + 1


@pytest.fixture
def folder(tmp_path: Any) -> Any:
    for item in range(40):
        (tmp_path / str(item)).mkdir()
    return tmp_path


def runs(folder: Any, item: Any) -> int:
    return len(os.listdir(folder / str(item)))


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def survive_at(folder: Any, item: int, attempt: int) -> int:
    if note(folder, item) < attempt:
        die()
    return item * item


def one_in_four_dies_once(task: tuple[Any, int]) -> int:
    folder, item = task
    return survive_at(folder, item, 2 if item % 4 == 3 else 1)


def one_in_four_dies_once_spread(folder: Any, item: int) -> int:
    return one_in_four_dies_once((folder, item))


def always_die(folder: Any) -> None:
    note(folder, 0)
    die()


def fail(folder: Any) -> None:
    note(folder, 0)
    raise LookupError("its own")


def leave_at_first(folder: Any) -> str:
    if note(folder, 0) == 1:
        os._exit(7)
    return "done"


def die_with_large(task: tuple[Any, int, bytes]) -> bytes:
    folder, item, data = task
    if note(folder, item) == 1:
        die()
    return data[::-1]


@pytest.mark.parametrize("attempt", [1, 2, 3])
def test_a_lost_task_is_run_again(ctx: Any, folder: Any, attempt: int) -> None:
    with make(ctx, 2, retries=2) as pool:
        assert pool.apply(survive_at, (folder, 5, attempt)) == 25
        assert runs(folder, 5) == attempt
        assert pool.apply_async(survive_at, (folder, 6, attempt)).get(30) == 36


def test_it_ends_with_the_error_when_it_was_lost_too_often(ctx: Any, folder: Any) -> None:
    with make(ctx, 2, retries=2) as pool:
        with pytest.raises(pool_module.WorkerLostError, match="2 before") as caught:
            pool.apply(always_die, (folder,))
        assert caught.value.exitcode == -signal.SIGKILL
        assert runs(folder, 0) == 3
        assert pool.apply(survive_at, (folder, 1, 1)) == 1


def test_without_retries_it_is_run_once(ctx: Any, folder: Any) -> None:
    with make(ctx, 1) as pool:
        with pytest.raises(pool_module.WorkerLostError) as caught:
            pool.apply(always_die, (folder,))
        assert "before" not in str(caught.value)
        assert runs(folder, 0) == 1


def test_a_task_that_raises_is_not_run_again(ctx: Any, folder: Any) -> None:
    with make(ctx, 1, retries=5) as pool, pytest.raises(LookupError, match="its own"):
        pool.apply(fail, (folder,))
    assert runs(folder, 0) == 1


def test_a_worker_that_leaves_loses_its_task_too(ctx: Any, folder: Any) -> None:
    with make(ctx, 1, retries=1) as pool:
        assert pool.apply_async(leave_at_first, (folder,)).get(30) == "done"


@pytest.mark.parametrize("chunksize", [None, 1, 7])
def test_of_a_map_only_the_lost_items_are_run_again(ctx: Any, folder: Any, chunksize: int | None) -> None:
    with make(ctx, 2, retries=1) as pool:
        tasks = [(folder, item) for item in range(20)]
        assert pool.map(one_in_four_dies_once, tasks, chunksize) == [item * item for item in range(20)]
    assert [runs(folder, item) for item in range(20)] == [1, 1, 1, 2] * 5


def test_starmap_and_the_iterators_run_lost_items_again(ctx: Any, folder: Any) -> None:
    squares = [item * item for item in range(30)]
    with make(ctx, 2, retries=1) as pool:
        tasks = [(folder, item) for item in range(10)]
        assert pool.starmap(one_in_four_dies_once_spread, tasks) == squares[:10]
        tasks = [(folder, item) for item in range(10, 20)]
        assert list(pool.imap(one_in_four_dies_once, tasks, chunksize=3)) == squares[10:20]
        tasks = [(folder, item) for item in range(20, 30)]
        assert sorted(pool.imap_unordered(one_in_four_dies_once, tasks, buffersize=4)) == squares[20:30]
    assert [runs(folder, item) for item in range(30)] == [2 if item % 4 == 3 else 1 for item in range(30)]


def test_each_task_has_its_own_retries(ctx: Any, folder: Any) -> None:
    with make(ctx, 2, retries=1) as pool:
        results = [pool.apply_async(survive_at, (folder, item, 2)) for item in range(6)]
        assert [result.get(60) for result in results] == [item * item for item in range(6)]
    assert [runs(folder, item) for item in range(6)] == [2] * 6


def test_the_arguments_are_those_that_were_sent(ctx: Any, folder: Any) -> None:
    large = [bytes([item]) * (300_000 + item) for item in range(3)]
    with make(ctx, 2, retries=1) as pool:
        data = bytearray(b"as it was")
        result = pool.apply_async(die_with_large, ((folder, 9, data),))
        data[:] = b"other"
        assert result.get(30) == b"as it was"[::-1]
        tasks = [(folder, item, large[item]) for item in range(3)]
        assert pool.map(die_with_large, tasks) == large


def test_callbacks_are_called_once(ctx: Any, folder: Any) -> None:
    found: list[Any] = []
    called = threading.Event()
    with make(ctx, 1, retries=1) as pool:
        pool.apply_async(survive_at, (folder, 2, 2), callback=lambda value: (found.append(value), called.set()))
        assert called.wait(30)
        lost = pool.apply_async(always_die, (folder,), error_callback=found.append)
        lost.wait(30)
    assert found[0] == 4
    assert [type(each) for each in found[1:]] == [pool_module.WorkerLostError]


def test_a_worker_killed_while_it_waits_costs_no_retry(ctx: Any, folder: Any) -> None:
    with make(ctx, 1, retries=1) as pool:
        for item in range(3):
            # The last result may be from a worker that the pool is just taking down.
            wait_until(lambda: pool._pool)
            os.kill(pool._pool[0].pid, signal.SIGKILL)
            assert pool.apply_async(survive_at, (folder, item, 2)).get(30) == item * item


@pytest.mark.parametrize("retries", [-1, 1.5, "1", None, 2**32])
def test_what_is_no_number_of_retries_is_refused(ctx: Any, retries: Any) -> None:
    with pytest.raises(ValueError, match="retries"):
        ctx.Pool(1, retries=retries)


def test_closing_waits_for_tasks_that_are_run_again(ctx: Any, folder: Any) -> None:
    pool = ctx.Pool(2, retries=1)
    results = [pool.apply_async(survive_at, (folder, item, 2)) for item in range(4)]
    pool.close()
    pool.join()
    assert [result.get(0) for result in results] == [0, 1, 4, 9]
