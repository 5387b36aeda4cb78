"""Faults around processes: parents that die, starts that leave nothing, interrupts."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import harness
from harness import Within, case, is_running, kill, raises, wait_until

from under_test import submodule


def sleep(*_):
    time.sleep(60)


def spawn_program(name, ctx, **options):
    command = [sys.executable, os.path.join(harness.HERE, "harness.py"), "process_cases", name, ctx.get_start_method()]
    pipe = subprocess.PIPE
    return subprocess.Popen(command, stdout=pipe, stderr=pipe, text=True, start_new_session=True, **options)


def get_for_ever(q):
    q.get()


def have_a_child(ctx_name, q):
    from under_test import mp

    child = mp.get_context(ctx_name).Process(target=sleep, daemon=True)
    child.start()
    q.put(child.pid)
    sleep()


def family(ctx):
    """Start one child of every kind, say who they are, and wait to be killed."""
    q = ctx.Queue()
    lasting = ctx.Process(target=have_a_child, args=(ctx.get_start_method(), q))
    daemon = ctx.Process(target=sleep, daemon=True)
    getter = ctx.Process(target=get_for_ever, args=(ctx.Queue(),), daemon=True)
    ignoring = ctx.Process(target=ignore_and_sleep, daemon=True)
    for process in (lasting, daemon, getter, ignoring):
        process.start()
    busy, idle = ctx.Pool(2), ctx.Pool(2)
    busy.map_async(sleep, range(4), 1)
    manager = ctx.Manager()
    shared = manager.list([1])
    assert shared[0] == 1
    pids = {"lasting": [lasting.pid, q.get(timeout=20)], "daemon": [daemon.pid], "getter": [getter.pid]}
    pids["ignoring"] = [ignoring.pid]
    for name, pool in (("busy", busy), ("idle", idle)):
        pids[name] = [process.pid for process in pool._pool]
    pids["manager"] = [manager._process.pid]
    if ctx.get_start_method() == "forkserver":
        pids["forkserver"] = [submodule("forkserver")._forkserver._forkserver_pid]
    time.sleep(0.2)
    print(json.dumps(pids), flush=True)
    sleep()


def ignore_and_sleep():
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGIO):
        signal.signal(number, signal.SIG_IGN)
    sleep()


@case(standard="fails", limit=30)
def the_parent_is_killed(ctx):
    names = set(os.listdir("/dev/shm"))
    program = spawn_program("family", ctx)
    line = program.stdout.readline()
    assert line, program.stderr.read()
    family = json.loads(line)
    everybody = [pid for pids in family.values() for pid in pids]
    assert all(map(is_running, everybody))
    program.kill()
    died = time.monotonic()
    program.wait()
    # The fork server stays for the child that lives on, which may ask it for children.
    lasting = ("lasting", "forkserver")
    doomed = [pid for name, pids in family.items() if name not in lasting for pid in pids]
    while any(map(is_running, doomed)) and time.monotonic() - died < 1:
        time.sleep(0.01)
    left = [name for name, pids in family.items() if name not in lasting and any(map(is_running, pids))]
    assert not left, f"alive after a second: {left}"
    time.sleep(0.2)
    assert all(map(is_running, family["lasting"])), "a child that is no daemon, and its daemon, live on"
    os.kill(family["lasting"][0], signal.SIGKILL)
    rest = [family["lasting"][1], *family.get("forkserver", [])]
    wait_until(lambda: not any(map(is_running, rest)), 1.0)
    wait_until(lambda: not (set(os.listdir("/dev/shm")) - names), 3.0)


def nothing():
    pass


def exit_with(code):
    os._exit(code)


@case()
def many_starts_leave_nothing(ctx):
    submodule("resource_tracker").ensure_running()
    fork = ctx.get_start_method() == "fork"

    def start(count):
        for n in range(count // 5):
            processes = [ctx.Process(target=exit_with, args=(n % 100,)) for _ in range(5)]
            for process in processes:
                process.start()
            for process in processes:
                process.join()
                assert process.exitcode == n % 100

    def held():
        return sorted(os.listdir("/proc/self/fd"))

    start(5)
    before = held()
    few = 400 if fork else 40 if ctx.get_start_method() == "spawn" else 200
    # Ten thousand by hand: RSMP_STARTS=10000 RSMP_SLOW=30.
    start(int(os.environ.get("RSMP_STARTS", few)))
    wait_until(lambda: len(held()) <= len(before), 2)
    children = Path(f"/proc/self/task/{os.getpid()}/children").read_text().split()
    states = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] for pid in children]
    assert "Z" not in states
    # Killed, dropped without a join, closed without a start: the same.
    for _ in range(20):
        process = ctx.Process(target=sleep)
        process.start()
        kill(process)
        assert process.exitcode == -signal.SIGKILL
        ctx.Process(target=nothing).start()
        ctx.Process(target=nothing).close()
    del process
    submodule("process").active_children()

    def settled():
        submodule("process").active_children()
        return len(held()) <= len(before)

    wait_until(settled, 5)


def interrupted(ctx):
    """A program that is interrupted in a call of its pool."""
    pool = ctx.Pool(2)
    call = os.environ["CALL"]
    while len(set(pool.map(pid_of, range(4), 1))) < 2:
        pass
    print("ready", flush=True)
    if call == "map":
        pool.map(sleep, range(4), 1)
    elif call == "with":
        with pool:
            pool.apply_async(sleep).get()
    elif call == "imap":
        list(pool.imap(sleep, range(4)))
    else:
        sleep()


def pid_of(_):
    time.sleep(0.02)
    return os.getpid()


@case(standard="fails")
def an_interrupt_ends_a_program_with_a_pool(ctx):
    for call in ("map", "with", "imap", "sleep"):
        program = spawn_program("interrupted", ctx, env={**os.environ, "CALL": call})
        assert program.stdout.readline() == "ready\n", program.stderr.read()
        time.sleep(0.15)
        # To the whole group, as a terminal does.
        os.killpg(program.pid, signal.SIGINT)
        with Within(1.0):
            _, error = program.communicate(timeout=10)
        assert error.count("Traceback (") == 1 and error.rstrip().endswith("KeyboardInterrupt"), (call, error)
        assert program.returncode in (1, -signal.SIGINT), (call, program.returncode)


def started(ctx):
    """A program that is interrupted while the workers of its pool start."""
    submodule("pool")
    print("ready", flush=True)
    with ctx.Pool(2) as pool:
        pool.map(sleep, range(4), 1)


@case(standard="fails", limit=40)
def an_interrupt_while_workers_start_ends_a_program_once(ctx):
    # Not at once: the interpreter may lose what comes in the middle of an import.
    for after in (10, 40, 80, 160, 320):
        program = spawn_program("started", ctx)
        assert program.stdout.readline() == "ready\n", program.stderr.read()
        time.sleep(after / 1000)
        os.killpg(program.pid, signal.SIGINT)
        with Within(1.5):
            _, error = program.communicate(timeout=10)
        assert error.count("Traceback (") == 1 and error.rstrip().endswith("KeyboardInterrupt"), (after, error)


def raise_interrupt():
    raise KeyboardInterrupt("in the initializer")


@case(standard="hangs")
def an_interrupted_initializer_breaks_the_pool(ctx):
    pool = ctx.Pool(1, initializer=raise_interrupt)
    error = raises(ctx.ProcessError, pool.apply_async(nothing).get, 10)
    assert "in the initializer" in str(error.__cause__)
    pool.terminate()
    pool.join()


def report_the_mask(q):
    q.put(signal.SIGINT in signal.pthread_sigmask(signal.SIG_BLOCK, ()))


@case()
def interrupts_reach_whoever_runs(ctx):
    """What puts off Ctrl-C during a start is over when the child runs; a mask of the program's own stays."""
    q = ctx.Queue()
    for daemon in (False, True):
        child = ctx.Process(target=report_the_mask, args=(q,), daemon=daemon)
        child.start()
        assert q.get(timeout=20) is False
        child.join()
    with ctx.Pool(1) as pool:
        assert pool.apply(signal.pthread_sigmask, (signal.SIG_BLOCK, ())) == set()
    assert signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGINT,)) == set()
    if ctx.get_start_method() != "forkserver":
        child = ctx.Process(target=report_the_mask, args=(q,), daemon=True)
        child.start()
        assert q.get(timeout=20) is True
        child.join()


def die_of(number):
    os.kill(os.getpid(), number)
    time.sleep(10)


@case()
def exit_codes_of_killed_children(ctx):
    for number in (signal.SIGKILL, signal.SIGSEGV, signal.SIGTERM, signal.SIGABRT, signal.SIGUSR1):
        child = ctx.Process(target=die_of, args=(number,))
        child.start()
        with Within(5):
            child.join()
        assert child.exitcode == -number
        child.close()


@case(standard="fails")
def the_fork_server_is_killed(ctx):
    """Its idle children live; the next start makes a new server."""
    child = ctx.Process(target=sleep, daemon=True)
    child.start()
    if ctx.get_start_method() == "forkserver":
        server = submodule("forkserver")._forkserver._forkserver_pid
        os.kill(server, signal.SIGKILL)
        time.sleep(0.1)
    other = ctx.Process(target=nothing)
    other.start()
    with Within(10):
        other.join()
        assert other.exitcode == 0
        child.kill()
        child.join()
    assert not is_running(child.pid)
