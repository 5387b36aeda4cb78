"""The harness itself: children see the library under test, and what is left over is found."""

import os
import subprocess
import threading

import leaks
from under_test import mp as library


def report(sender):
    sender.send((library.__name__, library.current_process().name))


def test_children_know_the_library_under_test(mp, ctx):
    receiver, sender = ctx.Pipe(duplex=False)
    process = ctx.Process(target=report, args=(sender,), name="reporter")
    process.start()
    assert receiver.recv() == (mp.__name__, "reporter")
    process.join()
    assert process.exitcode == 0
    process.close()
    receiver.close()
    sender.close()


def test_a_leak_is_found(monkeypatch):
    monkeypatch.setattr(leaks, "SETTLE", 0.0)
    before = leaks.Holdings.now()
    child = subprocess.Popen(["sleep", "60"], stdin=subprocess.PIPE)
    leave = threading.Event()
    thread = threading.Thread(target=leave.wait, name="left behind")
    thread.start()
    with open("/dev/shm/rsmp-test-leak", "w"):
        found = "\n".join(leaks.left_over(before))
    os.unlink("/dev/shm/rsmp-test-leak")
    leave.set()
    thread.join()
    child.kill()
    child.communicate()
    for expected in (f"process {child.pid}", "left behind", "pipe:", "/dev/shm/rsmp-test-leak"):
        assert expected in found
