"""What the engine does not do, seen from outside: no threads, no files, no descriptors, no busy waiting."""

import os
import re
import shutil
import subprocess
import sys
import time

import pytest

pytestmark = pytest.mark.rsmp_only("the standard library has feeder threads and named semaphores")

BEGIN, END = "evidence begins", "evidence ends"


def trace(program, tmp_path):
    """Run ``program``, which writes `BEGIN` and `END` to its standard error, and return the system calls between."""
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("counts system calls with strace, which is not installed")
    path = tmp_path / "calls"
    marked = f"import os, rsmp\n{program}".replace("BEGIN", f"os.write(2, b'{BEGIN}')").replace(
        "END", f"os.write(2, b'{END}')"
    )
    ran = subprocess.run([strace, "-f", "-o", path, sys.executable, "-c", marked], capture_output=True, text=True)
    if "Operation not permitted" in ran.stderr:
        pytest.skip("counts system calls with strace, which may not trace in this container (CAP_SYS_PTRACE)")
    assert ran.returncode == 0, ran.stderr
    text = path.read_text()
    between = text[text.index(BEGIN) : text.index(END)].splitlines()[1:-1]
    return [match[1] for line in between if (match := re.match(r"\d+ +(\w+)\(", line))]


CREATES = re.compile(r"open|creat|memfd|socket|pipe|eventfd|epoll_create|dup|pidfd|shm|signalfd|timerfd|unlink")
STARTS = re.compile(r"clone|fork|vfork")


@pytest.mark.parametrize("kind", ["Lock", "RLock", "Semaphore", "BoundedSemaphore", "Event", "Condition", "Barrier"])
def test_a_lock_makes_no_file_and_no_descriptor(tmp_path, kind):
    make = "rsmp.Barrier(2)" if kind == "Barrier" else f"rsmp.{kind}()"
    calls = trace(f"kept = [{make}]\nBEGIN\nkept += [{make} for _ in range(200)]\nEND", tmp_path)
    assert not [call for call in calls if CREATES.search(call)]


def test_an_uncontended_lock_makes_no_system_call(tmp_path):
    program = "lock = rsmp.Lock()\nwith lock: pass\nBEGIN\nfor _ in range(100):\n    with lock: pass\nEND"
    assert not [call for call in trace(program, tmp_path) if call == "futex"]


@pytest.mark.parametrize("kind", ["Queue()", "JoinableQueue()", "SimpleQueue()", "Queue(10)"])
def test_put_and_get_start_no_thread(tmp_path, kind):
    program = (
        f"q = rsmp.{kind}\nq.put(0)\nq.get()\nBEGIN\nfor n in range(100):\n    q.put(n)\n    assert q.get() == n\nEND\n"
        "import threading\nassert threading.active_count() == 1 == len(os.listdir('/proc/self/task'))\nq.close()"
    )
    calls = trace(program, tmp_path)
    assert not [call for call in calls if STARTS.search(call) or call in ("read", "readv", "sendmsg", "recvmsg")]


def use_locks(locks, sender):
    for lock in locks[::1000]:
        with lock:
            pass
    sender.send((len(locks), len(os.listdir("/proc/self/fd"))))


def test_ten_thousand_locks_take_no_descriptors(ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    first = ctx.Lock()
    before = len(os.listdir("/proc/self/fd"))
    names = set(os.listdir("/dev/shm"))
    locks = [ctx.Lock() for _ in range(10_000)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert not {name for name in set(os.listdir("/dev/shm")) - names if name.startswith("sem.mp-")}
    process = ctx.Process(target=use_locks, args=(locks, sender))
    process.start()
    count, descriptors = receiver.recv()
    process.join()
    assert count == 10_000 and descriptors < 40
    receiver.close()
    sender.close()
    del first


def get_one(queue, sender):
    sender.send("ready")
    queue.get()


def test_a_blocked_get_costs_no_cpu(ctx):
    queue = ctx.Queue()
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=get_one, args=(queue, sender))
    process.start()
    assert receiver.recv() == "ready"
    time.sleep(0.5)
    before = cpu_seconds(process.pid)
    time.sleep(2.0)
    spent = cpu_seconds(process.pid) - before
    queue.put(1)
    process.join()
    # The kernel counts in ticks of 10 ms.
    assert spent <= 0.02
    for each in (queue, receiver, sender):
        each.close()


def cpu_seconds(pid):
    with open(f"/proc/{pid}/stat") as file:
        fields = file.read().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
