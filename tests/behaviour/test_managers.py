"""Managers and proxies: every type, remote ones, custom ones, and what happens when a side goes away."""

import contextlib
import gc
import os
import queue
import signal
import subprocess
import sys
import threading
import time

import pytest

from under_test import mp as library
from under_test import submodule

managers = submodule("managers")


@pytest.fixture
def manager(ctx):
    with ctx.Manager() as manager:
        yield manager
    # pytest keeps the manager for a while.
    manager._process.close()


def fill(dictionary, items, namespace, value, array, nested):
    dictionary["pid"] = os.getpid()
    dictionary["items"] = items
    items.append("child")
    namespace.answer = 42
    value.value += 1
    array[0] = 7
    nested[0]["deep"] = True


def test_a_child_uses_proxies(ctx, manager):
    dictionary, items = manager.dict(a=1), manager.list(range(3))
    namespace, value, array = manager.Namespace(x=1), manager.Value("i", 4), manager.Array("i", [1, 2])
    nested = manager.list([manager.dict()])
    process = ctx.Process(target=fill, args=(dictionary, items, namespace, value, array, nested))
    process.start()
    process.join()
    assert process.exitcode == 0
    assert dictionary["pid"] == process.pid
    process.close()
    assert dictionary["items"][:] == items[:] == [0, 1, 2, "child"]
    assert (namespace.answer, value.value, array[0], nested[0]["deep"]) == (42, 5, 7, True)
    assert isinstance(dictionary["items"], managers.ListProxy)
    assert isinstance(nested[0], managers.DictProxy)


def double(number):
    return 2 * number


def test_every_type_of_a_sync_manager(ctx, manager):
    items = manager.Queue(2)
    items.put(1)
    items.put("two")
    with pytest.raises(queue.Full):
        items.put(3, timeout=0.01)
    assert (items.get(), items.get(), items.qsize(), items.empty()) == (1, "two", 0, True)
    with pytest.raises(queue.Empty):
        items.get_nowait()
    joinable = manager.JoinableQueue()
    joinable.put(None)
    joinable.get()
    joinable.task_done()
    joinable.join()
    event = manager.Event()
    assert not event.wait(0.01)
    event.set()
    assert event.is_set()
    for lock in (manager.Lock(), manager.RLock(), manager.Semaphore(1), manager.BoundedSemaphore(1)):
        with lock:
            pass
        assert lock.acquire() and lock.release() is None
    condition = manager.Condition()
    with condition:
        assert not condition.wait(0.01)
        condition.notify_all()
        assert condition.wait_for(lambda: True)
    barrier = manager.Barrier(1)
    assert (barrier.wait(), barrier.parties, barrier.n_waiting, barrier.broken) == (0, 1, 0, False)
    with manager.Pool(1) as pool:
        assert pool.apply(double, (3,)) == 6
        assert pool.map(double, [1, 2]) == [2, 4]
        assert pool.apply_async(double, (4,)).get() == 8
        assert list(pool.imap(double, range(3))) == [0, 2, 4]
    dictionary = manager.dict({"a": 1, "b": 2})
    assert sorted(dictionary) == sorted(dictionary.keys()) == ["a", "b"]
    assert dictionary.copy() == dict(dictionary.items()) == {"a": 1, "b": 2}
    del dictionary["a"]
    assert (len(dictionary), "a" in dictionary, dictionary.get("a", 5), str(dictionary)) == (1, False, 5, "{'b': 2}")
    items = manager.list([3, 1, 2])
    items.sort()
    items += [9]
    items *= 2
    assert items[:] == [1, 2, 3, 9, 1, 2, 3, 9]
    assert repr(items).startswith("<ListProxy object, typeid 'list' at 0x")


@pytest.mark.rsmp_only("set() came with Python 3.14")
def test_sets(manager):
    numbers = manager.set({1, 2})
    numbers.add(3)
    numbers |= {4}
    numbers -= {1}
    assert numbers & {2, 4, 9} == {2, 4}
    assert sorted(numbers) == [2, 3, 4] and 3 in numbers and len(numbers) == 3
    assert isinstance(numbers, managers.SetProxy)


class Counter:
    def __init__(self, start=0):
        self._count = start

    def next(self):
        self._count += 1
        return self._count

    def numbers(self):
        yield from range(self._count)

    def fail(self):
        raise LookupError("no such thing")

    def unpicklable(self):
        return lambda: None

    def _hidden(self):
        return "hidden"


class CustomManager(managers.BaseManager):
    pass


CustomManager.register("Counter", Counter)
CustomManager.register("Open", Counter, exposed=("next", "_hidden"))
CustomManager.register("Iterating", Counter, exposed=("numbers", "next"), method_to_typeid={"numbers": "Iterator"})
CustomManager.register("Iterator", proxytype=managers.IteratorProxy, create_method=False)


def test_custom_types(ctx):
    with CustomManager(ctx=ctx) as manager:
        counter = manager.Counter(5)
        assert counter.next() == 6
        assert not hasattr(counter, "_hidden")
        assert counter._callmethod("next") == 7
        with pytest.raises(managers.RemoteError, match="not in exposed"):
            counter._callmethod("_hidden")
        with pytest.raises(LookupError, match="no such thing"):
            counter.fail()
        with pytest.raises(managers.RemoteError, match="Unserializable message"):
            counter.unpicklable()
        assert manager.Open()._hidden() == "hidden"
        iterating = manager.Iterating(3)
        assert list(iterating.numbers()) == [0, 1, 2]
        assert manager._number_of_objects() >= 2
        del counter, iterating
        with pytest.raises(managers.RemoteError):
            manager.Counter(1, 2, 3)
    with pytest.raises(library.ProcessError, match="has shut down"):
        manager.start()


@pytest.mark.rsmp_only("the standard library loses it")
def test_an_exception_tells_where_it_was_raised(ctx):
    with CustomManager(ctx=ctx) as manager, pytest.raises(LookupError) as raised:
        manager.Counter().fail()
    assert "in fail" in str(raised.value.__cause__)


@pytest.mark.may_leave("the server accepts until its process ends")
def test_a_remote_manager(ctx):
    shared = queue.Queue()

    class Serving(managers.BaseManager):
        pass

    class Using(managers.BaseManager):
        pass

    Serving.register("get_queue", callable=lambda: shared)
    Using.register("get_queue")
    server = Serving(("127.0.0.1", 0), authkey=b"secret").get_server()
    thread = threading.Thread(target=serve, args=(server,))
    thread.start()
    using = Using(server.address, authkey=b"secret")
    using.connect()
    remote = using.get_queue()
    remote.put({"x": [1, 2]})
    assert shared.get() == {"x": [1, 2]}
    wrong = Using(server.address, authkey=b"wrong")
    with pytest.raises(library.AuthenticationError):
        wrong.connect()
    remote.put("still there")
    assert shared.get() == "still there"
    del remote
    server.stop_event.set()
    thread.join()
    server.listener.close()
    library.current_process().__dict__.pop("_manager_server", None)


def serve(server):
    with contextlib.suppress(SystemExit):
        server.serve_forever()


def test_a_proxy_in_every_thread(manager):
    items = manager.list()
    threads = [threading.Thread(target=items.append, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(items) == list(range(8))


def test_objects_go_with_their_proxies(manager):
    before = manager._number_of_objects()
    items = [manager.list() for _ in range(5)]
    assert manager._number_of_objects() == before + 5
    items[0].append(items[1])
    del items
    deadline = time.monotonic() + 5
    while manager._number_of_objects() > before and time.monotonic() < deadline:
        time.sleep(0.01)
    assert manager._number_of_objects() == before
    assert manager._debug_info() == ""


def test_an_initializer(ctx):
    manager = managers.SyncManager(ctx=ctx)
    manager.start(initializer=os.chdir, initargs=("/",))
    manager.shutdown()
    with pytest.raises(TypeError, match="must be a callable"):
        managers.SyncManager(ctx=ctx).start(initializer=5)


@pytest.mark.rsmp_only("the standard library waits for ever")
def test_shutdown_does_not_wait_for_a_server_that_hangs(ctx):
    manager = managers.SyncManager(ctx=ctx, shutdown_timeout=0.3)
    manager.start()
    os.kill(manager._process.pid, signal.SIGSTOP)
    started = time.monotonic()
    manager.shutdown()
    assert time.monotonic() - started < 5
    assert not manager._process.is_alive()


@pytest.mark.rsmp_only("the standard library's server ends by a request, and is terminated if none comes through")
def test_a_forked_server_ends_without_a_client(mp):
    manager = managers.SyncManager(ctx=mp.get_context("fork"))
    manager._Client = None
    manager.start()
    manager.shutdown()
    assert manager._process.exitcode == 0


@pytest.mark.parametrize("name", ["accepter", "serve_forever", "shutdown", "serve_client", "handle_request"])
def test_a_forked_server_with_a_replaced_method_ends_by_itself(mp, monkeypatch, name):
    original = getattr(managers.Server, name)
    monkeypatch.setattr(managers.Server, name, lambda *args: original(*args))
    manager = mp.get_context("fork").Manager()
    assert manager.list([1])[:] == [1]
    manager.shutdown()
    assert manager._process.exitcode == 0


def event_descriptors():
    return {int(name) for name in os.listdir("/proc/self/fd") if is_event(f"/proc/self/fd/{name}")}


def is_event(path):
    return os.path.islink(path) and os.readlink(path) == "anon_inode:[eventfd]"


def test_a_manager_whose_descriptors_became_files_ends_its_server_and_leaves_the_files(mp, tmp_path):
    before = event_descriptors()
    manager = mp.get_context("fork").Manager()
    replaced = event_descriptors() - before
    with open(tmp_path / "file", "wb", buffering=0) as file:
        for descriptor in replaced:
            os.dup2(file.fileno(), descriptor)
        manager.shutdown()
        assert manager._process.exitcode == 0
        del manager
        gc.collect()
        for descriptor in replaced:
            os.write(descriptor, b".")
            os.close(descriptor)
    assert (tmp_path / "file").read_bytes() == b"." * len(replaced)


@pytest.mark.rsmp_only("the standard server leaves the threads that accepted, and serves again, too")
def test_a_server_may_serve_again(mp):
    server = managers.SyncManager().get_server()
    for _ in range(2):
        before = getattr(server, "stop_event", None)
        thread = threading.Thread(target=serve, args=(server,))
        thread.start()
        while getattr(server, "stop_event", None) is before:
            time.sleep(0.01)
        client = managers.SyncManager(server.address, mp.current_process().authkey)
        client.connect()
        assert client.list([1])[:] == [1]
        server.stop_event.set()
        thread.join()
    server.listener.close()
    mp.current_process().__dict__.pop("_manager_server", None)


def test_a_killed_server(ctx):
    manager = ctx.Manager()
    items = manager.list([1])
    os.kill(manager._process.pid, signal.SIGKILL)
    manager._process.join()
    with pytest.raises((EOFError, ConnectionError, OSError)):
        items.append(2)
    with pytest.raises((ConnectionError, FileNotFoundError)):
        manager.list()
    manager.shutdown()


def test_ctrl_c_does_not_reach_a_server_that_just_started(ctx):
    for _ in range(5):
        manager = ctx.Manager()
        os.kill(manager._process.pid, signal.SIGINT)
        assert manager.list([1])[:] == [1]
        manager.shutdown()


def test_a_server_killed_before_it_serves(ctx):
    manager = ctx.Manager()
    os.kill(manager._process.pid, signal.SIGKILL)
    with pytest.raises((EOFError, ConnectionError, FileNotFoundError)):
        manager.list()
    manager.shutdown()


def test_a_server_class_may_tidy_up_when_it_is_stopped(mp):
    server = managers.Server({}, ("127.0.0.1", 0), b"secret", "pickle")
    server.stop_event = threading.Event()
    ours, theirs = mp.Pipe()
    assert server.shutdown(ours) is None
    assert theirs.recv() == ("#RETURN", None) and server.stop_event.is_set()
    server.listener.close()


INTERRUPTED = """if 1:
    import os, signal
    import {library} as mp
    interrupt = [True]
    def press():
        if interrupt:
            interrupt.clear()
            os.kill(os.getpid(), signal.SIGINT)
    os.register_at_fork(after_in_parent=press)
    from {library}.managers import SyncManager
    manager = SyncManager(ctx=mp.get_context("fork"))
    try:
        manager.start()
    except KeyboardInterrupt:
        print("interrupted", mp.active_children())
    manager.start()
    print(manager.list([1])[:])
    manager.shutdown()
"""


@pytest.mark.rsmp_only("the standard library leaves the server running")
def test_ctrl_c_during_the_start(mp):
    program = INTERRUPTED.format(library=mp.__name__)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60)
    assert (ran.stdout, ran.stderr) == ("interrupted []\n[1]\n", "")


@pytest.mark.may_leave("the server accepts until its process ends")
@pytest.mark.rsmp_only("the standard server accepts no more")
def test_no_thread_for_a_client(monkeypatch):
    server = managers.Server({}, ("127.0.0.1", 0), b"secret", "pickle")
    serving = threading.Thread(target=serve, args=(server,))
    serving.start()
    start = threading.Thread.start
    refused = []

    def limited(self):
        if not refused:
            refused.append(self)
            raise RuntimeError("can't start new thread")
        start(self)

    monkeypatch.setattr(threading.Thread, "start", limited)
    manager = managers.BaseManager(server.address, b"secret")
    with pytest.raises((EOFError, ConnectionError)):
        manager.connect()
    manager.connect()
    server.stop_event.set()
    serving.join()
    server.listener.close()
    library.current_process().__dict__.pop("_manager_server", None)


PARENT = """if 1:
    import os, time
    import {library}.managers
    if __name__ == "__main__":
        manager = {library}.get_context("{method}").Manager()
        items = manager.list()
        print(manager._process.pid, flush=True)
        os.kill(os.getpid(), 9)
"""


@pytest.mark.rsmp_only("the standard library leaves the server running for ever")
@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_server_goes_with_the_process_that_started_it(method, tmp_path):
    program = tmp_path / "parent.py"
    program.write_text(PARENT.format(library=library.__name__, method=method))
    with subprocess.Popen([sys.executable, program], stdout=subprocess.PIPE, text=True) as parent:
        pid = int(parent.stdout.readline())
    deadline = time.monotonic() + 5
    while running(pid):
        assert time.monotonic() < deadline, "the server is still there"
        time.sleep(0.05)


def running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_shared_memory_managers(ctx):
    with managers.SharedMemoryManager(ctx=ctx) as manager:
        memory, items = manager.SharedMemory(100), manager.ShareableList([1, "two"])
        names = {memory.name, items.shm.name}
        assert names <= set(os.listdir("/dev/shm"))
        assert (memory.size, list(items)) == (100, [1, "two"])
        memory.close()
        items.shm.close()
    assert not names & set(os.listdir("/dev/shm"))
