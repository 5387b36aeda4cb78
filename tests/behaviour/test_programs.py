"""Whole programs: several kinds of objects, processes and threads at once, for each start method."""

import itertools
import logging
import logging.handlers
import os
import queue
import sys
import threading
import time

import pytest
from process_helpers import started

from under_test import mp as library


def finish(*processes):
    for process in processes:
        process.join(50)
        assert process.exitcode == 0
        process.close()


def close(*queues):
    for each in queues:
        each.close()
        if hasattr(each, "join_thread"):
            each.join_thread()


def increment(source, target):
    while (item := source.get()) is not None:
        target.put(item + 1)
    target.put(None)


def test_a_chain_of_stages(ctx):
    queues = [ctx.Queue(10) for _ in range(4)]
    stages = [started(ctx, increment, *pair) for pair in itertools.pairwise(queues)]

    def feed():
        for item in range(200):
            queues[0].put(item)
        queues[0].put(None)

    feeder = threading.Thread(target=feed)
    feeder.start()
    found = []
    while (item := queues[-1].get(timeout=30)) is not None:
        found.append(item)
    feeder.join()
    finish(*stages)
    assert found == [item + 3 for item in range(200)]
    close(*queues)


def pass_token(before, after, rounds):
    for _ in range(rounds):
        token = before.recv()
        token.append(os.getpid())
        after.send(token)


def test_a_ring_of_pipes(ctx):
    pipes = [ctx.Pipe(duplex=False) for _ in range(4)]
    members = [started(ctx, pass_token, pipes[n][0], pipes[n + 1][1], 20) for n in range(3)]
    pids = [process.pid for process in members]
    token = []
    for number in range(1, 21):
        pipes[0][1].send(token)
        token = pipes[3][0].recv()
        assert token == pids * number
    finish(*members)
    for ends in pipes:
        for end in ends:
            end.close()


def square(x):
    return x * x


def use_a_pool(method, sender):
    with library.get_context(method).Pool(2) as pool:
        sender.send(pool.map(square, range(10)))
        pool.close()
        pool.join()


def test_a_pool_in_a_child(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    process = started(ctx, use_a_pool, ctx.get_start_method(), sender)
    assert receiver.recv() == [n * n for n in range(10)]
    finish(process)
    receiver.close()
    sender.close()


def log(queue_, number):
    logger = logging.getLogger("programs")
    logger.handlers = [logging.handlers.QueueHandler(queue_)]
    logger.setLevel(logging.INFO)
    logger.info("message %d", number)


def test_logging_through_a_queue(ctx):
    records = ctx.Queue()
    processes = [started(ctx, log, records, number, name=f"logger {number}") for number in range(3)]
    found = [records.get(timeout=30) for _ in processes]
    finish(*processes)
    assert sorted((record.getMessage(), record.processName) for record in found) == [
        (f"message {number}", f"logger {number}") for number in range(3)
    ]
    assert {record.process for record in found} != {os.getpid()}
    close(records)


shared = {}


def remember(**items):
    shared.update(items)


def remember_all(lock, value, results, event):
    remember(lock=lock, value=value, results=results, event=event)


def work_with_everything(number):
    assert shared["event"].wait(30)
    with shared["lock"]:
        shared["value"].value += number
    shared["results"].put(number)
    return number


def test_everything_reaches_the_workers_of_a_pool(ctx):
    lock, value, results, event = ctx.Lock(), ctx.Value("i", 0), ctx.Queue(), ctx.Event()
    with ctx.Pool(3, remember_all, (lock, value, results, event)) as pool:
        outcome = pool.map_async(work_with_everything, range(50), chunksize=2)
        event.set()
        assert outcome.get(30) == list(range(50))
        assert sorted(results.get(timeout=30) for _ in range(50)) == list(range(50))
        pool.close()
        pool.join()
    assert value.value == sum(range(50))
    close(results)


def exit_with(code):
    sys.exit(code)


@pytest.mark.rsmp_only("what one thread reaps another may wait for without end in the standard library")
def test_threads_start_and_join_processes(ctx):
    codes = queue.SimpleQueue()

    def start_some(first):
        for code in range(first, first + 4):
            process = started(ctx, exit_with, code)
            process.join(50)
            codes.put((code, process.exitcode))
            process.close()

    threads = [threading.Thread(target=start_some, args=(first,)) for first in (0, 10, 20)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    found = [codes.get() for _ in range(12)]
    assert all(code == exitcode for code, exitcode in found)


@pytest.mark.rsmp_only("a thread that loses the race for waitpid reads None in the standard library")
def test_several_threads_join_one_process(ctx):
    process = started(ctx, time.sleep, 0.2)
    seen = []

    def join():
        process.join(50)
        seen.append(process.exitcode)

    threads = [threading.Thread(target=join) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert seen == [0] * 4
    finish(process)


def put_pid(queue_):
    queue_.put(os.getpid())


@pytest.mark.filterwarnings("ignore:.*multi-threaded.*:DeprecationWarning")
def test_a_fork_in_the_middle_of_everything(mp):
    # Whatever other threads hold when a process is forked must not stop the child.
    ctx = mp.get_context("fork")
    busy, answers, lock, value = ctx.Queue(), ctx.Queue(), ctx.Lock(), ctx.Value("i", 0)
    stop = threading.Event()

    def disturb():
        while not stop.is_set():
            busy.put(b"x" * 1000)
            busy.get()
            with lock, value.get_lock():
                value.value += 1

    threads = [threading.Thread(target=disturb) for _ in range(2)]
    for thread in threads:
        thread.start()
    try:
        for _ in range(15):
            process = started(ctx, put_pid, answers)
            assert answers.get(timeout=30) == process.pid
            finish(process)
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    close(busy, answers)


def reduce_words(words, counts, lock):
    for word in words:
        with lock:
            counts[word] = counts.get(word, 0) + 1


def test_counting_in_a_manager(ctx):
    with ctx.Manager() as manager:
        counts, lock = manager.dict(), manager.Lock()
        finish(*[started(ctx, reduce_words, words, counts, lock) for words in ("aba", "bc", "acc")])
        assert dict(counts) == {"a": 3, "b": 2, "c": 3}


def rendezvous(barrier, condition, state, results):
    barrier.wait(30)
    with condition:
        state.value += 1
        if state.value == 3:
            condition.notify_all()
        else:
            assert condition.wait_for(lambda: state.value == 3, 30)
    results.put(state.value)


def test_barriers_conditions_and_values_together(ctx):
    barrier, condition, state, results = ctx.Barrier(3), ctx.Condition(), ctx.RawValue("i", 0), ctx.SimpleQueue()
    processes = [started(ctx, rendezvous, barrier, condition, state, results) for _ in range(3)]
    assert [results.get() for _ in range(3)] == [3, 3, 3]
    finish(*processes)
    close(results)


def fill_and_exit(results):
    for number in range(100):
        results.put((number, b"x" * 1000))
    # No clean-up but what the library does at the end of a process.


def test_a_daemon_ends_with_its_parent(ctx, tmp_path):
    method = ctx.get_start_method()
    program = tmp_path / "program.py"
    program.write_text(
        f"import {library.__name__} as mp, time, os\n"
        "def sleep(path):\n"
        "    open(path, 'w').write(str(os.getpid()))\n"
        "    time.sleep(60)\n"
        "if __name__ == '__main__':\n"
        f"    ctx = mp.get_context({method!r})\n"
        f"    process = ctx.Process(target=sleep, args=({str(tmp_path / 'pid')!r},), daemon=True)\n"
        "    process.start()\n"
        f"    while not os.path.exists({str(tmp_path / 'pid')!r}) or not open({str(tmp_path / 'pid')!r}).read():\n"
        "        time.sleep(0.01)\n"
    )
    import subprocess

    begun = time.monotonic()
    subprocess.run([sys.executable, program], check=True, timeout=30)
    assert time.monotonic() - begun < 20
    pid = int((tmp_path / "pid").read_text())
    deadline = time.monotonic() + 5
    while os.path.exists(f"/proc/{pid}") and time.monotonic() < deadline:
        time.sleep(0.01)
    assert not os.path.exists(f"/proc/{pid}")


def test_what_a_child_put_last_arrives_though_it_has_ended(ctx):
    results = ctx.Queue()
    process = started(ctx, fill_and_exit, results)
    found = [results.get(timeout=30) for _ in range(100)]
    finish(process)
    assert [number for number, _ in found] == list(range(100))
    close(results)
