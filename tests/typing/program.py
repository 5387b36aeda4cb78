"""What a user's checker must make of rsmp; mypy and pyright read it, nothing runs it."""

import multiprocessing
import multiprocessing.pool
import multiprocessing.queues
import multiprocessing.shared_memory
from collections.abc import Callable
from typing import assert_type

import rsmp as mp
from rsmp.connection import Client, Connection, Listener, wait
from rsmp.context import BaseContext, SpawnContext
from rsmp.managers import BaseManager, DictProxy, SyncManager
from rsmp.pool import AsyncResult, ThreadPool, WorkerLostError
from rsmp.queues import Queue
from rsmp.shared_memory import SharedMemory
from rsmp.synchronize import Event, Lock


def text(number: int) -> str:
    return str(number)


def takes_standard(queue: "multiprocessing.Queue[int]", process: multiprocessing.Process) -> None: ...


def takes_ours(queue: "mp.Queue[int]", process: mp.Process, context: BaseContext) -> None: ...


def processes() -> None:
    process = mp.Process(target=text, args=(1,), kwargs={"number": 1}, name="name", daemon=True)
    assert_type(process, multiprocessing.Process)
    assert_type(process.exitcode, int | None)
    mp.Process(no_such_argument=1)  # error
    queue: mp.Queue[int] = mp.Queue()
    takes_standard(queue, process)
    takes_ours(multiprocessing.Queue(), multiprocessing.Process(), mp.get_context())
    assert_type(mp.get_context("spawn"), SpawnContext)
    mp.set_start_method("no such method", force=1)  # error
    mp.install()
    mp.set_forkserver_preload(["json"], on_error="warn")
    mp.set_forkserver_preload(["json"], on_error="no such thing")  # error


def queues() -> None:
    queue: Queue[str] = mp.get_context("fork").Queue()
    assert_type(queue.get(timeout=1.0), str)
    queue.put(1)  # error
    simple: mp.SimpleQueue[bytes] = mp.SimpleQueue()
    assert_type(simple.get(), bytes)


def pools() -> None:
    with mp.Pool(2, retries=1) as pool:
        assert_type(pool.map(text, [1, 2]), list[str])
        assert_type(pool.apply_async(text, (1,)), AsyncResult[str])
        for found in pool.imap(text, range(3), buffersize=10):
            assert_type(found, str)
        standard: multiprocessing.pool.Pool = pool
        del standard
        pool.map(text, ["text"])  # error
    with mp.get_context("fork").Pool(2, retries=1) as pool:
        assert_type(pool.map(text, [1, 2]), list[str])
    mp.get_context().Pool(2, no_such_argument=1)  # error
    with ThreadPool() as threads:
        assert_type(threads.apply(text, (1,)), str)
    try:
        pass
    except WorkerLostError as error:
        caught: multiprocessing.ProcessError = error
        del caught


def connections() -> None:
    ours, theirs = mp.Pipe()
    assert_type(ours.poll(), bool)
    ours.send(1)
    theirs.close()
    with Listener(("localhost", 0), authkey=b"key") as listener:
        accepted: Connection = listener.accept()
        wait([accepted, 5], timeout=1.0)
    Client("address", authkey="text")  # error


def the_rest() -> None:
    lock: Lock = mp.Lock()
    event: Event = mp.Event()
    lock.acquire(timeout=1.0)
    with mp.Lock(robust=True), mp.get_context("spawn").RLock(robust=True):
        pass
    for state in mp.inspect_locks():
        assert_type(state.holder.pid if state.holder else 0, int)
    assert_type(event.is_set(), bool)
    value = mp.Value("i", 1)
    value.value += 1
    memory = SharedMemory(create=True, size=10, track=False)
    other: multiprocessing.shared_memory.SharedMemory = memory
    assert_type(other.buf is None, bool)
    manager = mp.Manager()
    assert_type(manager, SyncManager)
    shared: DictProxy[str, int] = manager.dict({"one": 1})
    assert_type(shared["one"], int)
    BaseManager.register("name", callable=text)
    start: Callable[..., object] = mp.Manager
    del start
