"""Limits of descriptors, address space and file size: an error that says so, and everything goes on."""

import contextlib
import errno
import gc
import os
import resource

from harness import case, raises, wait_until

from under_test import submodule

MIB = 1 << 20


def nothing():
    pass


def double(x):
    return 2 * x


def limit(kind, value):
    resource.setrlimit(kind, (value, resource.getrlimit(kind)[1]))


def size():
    return int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()


def held():
    return len(os.listdir("/proc/self/fd"))


@case(standard="fails")
def no_descriptors_left(ctx):
    # What the engine keeps open is opened before.
    ctx.Process(target=nothing).start()
    submodule("process").active_children()
    q, lock, value = ctx.Queue(), ctx.Lock(), ctx.Value("i")
    ends = ctx.Pipe()
    highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
    normal = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    makers = {
        "Pipe": ctx.Pipe,
        "Queue": ctx.Queue,
        "SimpleQueue": ctx.SimpleQueue,
        "Process": lambda: ctx.Process(target=nothing).start(),
        "Pool": lambda: ctx.Pool(1),
        "Manager": ctx.Manager,
        "Listener": submodule("connection").Listener,
    }
    for spare in range(4):
        for name, make in makers.items():
            submodule("process").active_children()
            limit(resource.RLIMIT_NOFILE, normal)
            before = held()
            limit(resource.RLIMIT_NOFILE, highest + spare)
            fillers = []
            try:
                while True:
                    fillers.append(os.dup(0))
            except OSError:
                pass
            for _ in range(spare):
                os.close(fillers.pop())
            made = []
            try:
                for _ in range(8):
                    made.append(make())
            except Exception as error:
                numbers = [getattr(it, "errno", None) for it in (error, error.__cause__, error.__context__)]
                assert errno.EMFILE in numbers or isinstance(error, (EOFError, FileNotFoundError)), (name, spare, error)
            else:
                assert name == "Process" and ctx.get_start_method() == "fork", (name, spare)
            # What is there works.
            q.put(1)
            assert q.get() == 1
            with lock:
                value.value += 1
            ends[0].send(2)
            assert ends[1].recv() == 2
            for filler in fillers:
                os.close(filler)
            limit(resource.RLIMIT_NOFILE, normal)
            for it in made:
                for method in ("terminate", "shutdown", "close"):
                    getattr(it, method, nothing)()
                if hasattr(it, "join") and hasattr(it, "_pool"):
                    it.join()
            made, it = [], None

            def settled(before=before):
                gc.collect()
                submodule("process").active_children()
                return held() <= before + 1

            try:
                wait_until(settled, 3)
            except AssertionError:
                raise AssertionError(
                    f"{name} with {spare} descriptors to spare left some: {before} -> {held()}"
                ) from None
    child = ctx.Process(target=nothing)
    child.start()
    child.join()
    assert child.exitcode == 0


@case(standard="hangs")
def workers_replaced_with_few_descriptors(ctx):
    """Each task comes back, or the pool says that it cannot start workers."""
    normal = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    for spare in (0, 1, 2, 3):
        pool = ctx.Pool(4, maxtasksperchild=1)
        highest = max(map(int, os.listdir("/proc/self/fd"))) + 1
        limit(resource.RLIMIT_NOFILE, highest - 3 + spare)
        results = [pool.apply_async(double, (number,)) for number in range(16)]
        try:
            assert [result.get(15) for result in results] == [2 * number for number in range(16)]
        except OSError as error:
            assert error.errno == errno.EMFILE, error
        except submodule("pool").BrokenPoolError:
            pass
        limit(resource.RLIMIT_NOFILE, normal)
        pool.terminate()
        pool.join()


@case(standard="hangs")
def no_address_space_left(ctx):
    q, far = ctx.Queue(), ctx.Queue()
    for each in (q, far):
        each.put(1)
        assert each.get() == 1
    big = bytes(64 * MIB)
    limit(resource.RLIMIT_AS, size() + 40 * MIB)
    far.put(big)  # needs memory, but no address for it here
    raises(MemoryError, far.get)
    raises(MemoryError, far.get)
    raises(MemoryError, q.put, [big, big])
    q.put("works")
    assert q.get() == "works"
    receiver, sender = ctx.Pipe()
    raises(MemoryError, sender.send, [big, 1])
    sender.send("works")
    assert receiver.recv() == "works"
    raises((MemoryError, OSError), ctx.Array, "b", 200 * MIB)
    locks = [ctx.Lock() for _ in range(1000)]
    assert all(lock.acquire(block=False) for lock in locks)
    limit(resource.RLIMIT_AS, resource.RLIM_INFINITY)
    assert len(far.get()) == 64 * MIB
    q.put(big)
    assert len(q.get()) == 64 * MIB


@case()
def little_address_space_from_the_start(ctx):
    """Everything works within two gigabytes, and with what is reserved counted."""
    limit(resource.RLIMIT_AS, size() + 2048 * MIB)
    q, lock, event, value = ctx.Queue(), ctx.Lock(), ctx.Event(), ctx.Value("i", 3)
    child = ctx.Process(target=use, args=(q, lock, event, value))
    child.start()
    assert q.get(timeout=20) == (3, 100_000)
    child.join()
    assert child.exitcode == 0
    with ctx.Pool(2) as pool:
        assert pool.map(double, range(100)) == [2 * n for n in range(100)]
        assert len(pool.apply(double, (bytes(MIB),))) == 2 * MIB


def use(q, lock, event, value):
    with lock:
        q.put((value.value, len(bytes(100_000))))
    event.set()


@case(standard="hangs")
def no_larger_files(ctx):
    q = ctx.Queue()
    pool = ctx.Pool(1, limit, (resource.RLIMIT_FSIZE, 8 * MIB))
    other = ctx.Pool(1)
    pool.apply(double, (1,))
    normal = resource.getrlimit(resource.RLIMIT_FSIZE)[0]
    limit(resource.RLIMIT_FSIZE, 8 * MIB)
    raises(MemoryError, q.put, bytes(20 * MIB))
    q.put("works")
    assert q.get() == "works"
    raises((MemoryError, OSError), ctx.Array, "b", 20 * MIB)
    raises(MemoryError, other.apply_async(double, (bytes(20 * MIB),)).get, 10)
    # Here the owner finds no room for what a worker has.
    raises(Exception, other.apply_async(bytes, (20 * MIB,)).get, 10)
    assert other.apply_async(double, (4,)).get(10) == 8
    raises((MemoryError, OSError), submodule("shared_memory").SharedMemory, create=True, size=20 * MIB)
    locks = []
    error = raises((MemoryError, OSError), locks.extend, (ctx.Lock() for _ in range(400_000)))
    assert locks and str(error)
    assert all(lock.acquire(block=False) for lock in locks[:1000])
    del locks
    limit(resource.RLIMIT_FSIZE, normal)
    # A worker that may not write more than that does not need to.
    with contextlib.suppress(MemoryError):
        assert len(pool.apply_async(bytes, (20 * MIB,)).get(10)) == 20 * MIB
    assert pool.apply_async(double, (4,)).get(10) == 8
    assert len(other.apply_async(bytes, (20 * MIB,)).get(10)) == 20 * MIB
    for it in (pool, other):
        it.terminate()
        it.join()
