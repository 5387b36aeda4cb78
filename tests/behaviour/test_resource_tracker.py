"""The tracker of named shared memory: it hears of every name, also when it is told of many at once."""

import os
import re
import subprocess
import sys
from multiprocessing import resource_tracker

import pytest

from under_test import mp as library


def run(program, **options):
    command = [sys.executable, *options.pop("flags", ()), "-c", program]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, **options)


def left_of(names):
    return [name for name in names if os.path.exists("/dev/shm/" + name)]


def test_a_killed_program_leaves_none_of_many_names():
    done = run(f"""if 1:
        import os, {library.__name__}.shared_memory as module
        kept = []
        for number in range(3000):
            memory = module.SharedMemory(create=True, size=1)
            memory.close()
            if number % 100:
                memory.unlink()
            else:
                kept.append(memory.name)
        print(*kept, flush=True)
        os.kill(os.getpid(), 9)
    """)
    names = done.stdout.split()
    assert len(names) == 30 and "30 leaked shared_memory objects" in done.stderr, done.stderr
    assert left_of(names) == []


def test_a_program_that_unlinks_hears_nothing_of_it():
    done = run(f"""if 1:
        import {library.__name__}.shared_memory as module
        for _ in range(3000):
            memory = module.SharedMemory(create=True, size=1)
            memory.close()
            memory.unlink()
    """)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


@pytest.mark.rsmp_only("from 3.14 on a standard program forgets the name by which it noticed that the tracker was dead")
def test_a_tracker_that_was_killed_is_started_again():
    done = run(f"""if 1:
        import os, signal, {library.__name__}.shared_memory as module
        from {library.__name__} import resource_tracker
        first = module.SharedMemory(create=True, size=1)
        pid = resource_tracker._resource_tracker._pid
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        second = module.SharedMemory(create=True, size=1)
        assert resource_tracker._resource_tracker._pid != pid
        for memory in (first, second):
            memory.close()
        first.unlink()
        print(second.name, flush=True)
        os.kill(os.getpid(), 9)
    """)
    assert "process died unexpectedly, relaunching" in done.stderr
    assert left_of(done.stdout.split()) == [] and done.stdout


@pytest.mark.rsmp_only("a package that is not installed is found by a path of the program's own")
def test_the_tracker_finds_a_package_that_is_not_installed(tmp_path):
    import rsmp

    (tmp_path / "here").symlink_to(os.path.dirname(os.path.dirname(rsmp.__file__)))
    done = run(
        f"""if 1:
        import sys
        sys.path.append({str(tmp_path / "here")!r})
        from rsmp import shared_memory
        memory = shared_memory.SharedMemory(create=True, size=1)
        memory.close()
        memory.unlink()
    """,
        flags=["-I", "-S"],
    )
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.rsmp_only("the standard library's tracker imports multiprocessing from there")
def test_what_lies_in_the_current_directory_is_not_imported(tmp_path):
    (tmp_path / "rsmp.py").write_text("raise SystemError('the wrong one')")
    done = run(
        """if 1:
        import os, sys
        sys.path.remove("")
        from rsmp import shared_memory
        print(shared_memory.SharedMemory(create=True, size=1).name, flush=True)
        os.kill(os.getpid(), 9)
    """,
        cwd=tmp_path,
    )
    assert "the wrong one" not in done.stderr and "1 leaked shared_memory object" in done.stderr
    assert left_of(done.stdout.split()) == [] and done.stdout


def in_the_middle_of_a_call(name, path):
    """What becomes of a segment that is made by what interrupts a call to the tracker that has not started yet."""
    done = run(f"""if 1:
        import os, {name}.shared_memory as module
        from {name} import resource_tracker
        try:
            with resource_tracker._resource_tracker._lock:
                module.SharedMemory({path!r}, create=True, size=1)
        except Exception as error:
            print(type(error).__name__, flush=True)
        module.SharedMemory(create=True, size=1)
        os.kill(os.getpid(), 9)
    """)
    if left := left_of([path]):
        os.unlink("/dev/shm/" + path)
    leaked = re.findall(r"There appear to be (\d+ leaked \w+)", done.stderr)
    return done.stdout, leaked, left


def test_what_comes_in_the_middle_of_a_call_to_the_tracker(mp):
    if not hasattr(resource_tracker._resource_tracker._lock, "_recursion_count"):
        pytest.skip(
            "in early releases of Python 3.11 the interpreter's tracker, which both libraries call,"
            " waits for itself when it is called in the middle of a call"
        )
    path = f"rsmp-test-{os.getpid()}"
    found = in_the_middle_of_a_call(library.__name__, path)
    assert found == in_the_middle_of_a_call("multiprocessing", path)
    assert found[1]


def said_of(name, messages):
    """What the tracker that ``name`` starts says of ``messages`` and of the end."""
    done = run(f"""if 1:
        import os, {name}.shared_memory as module
        from {name} import resource_tracker
        memory = module.SharedMemory(create=True, size=1)
        memory.close()
        memory.unlink()
        for message in {messages!r}:
            os.write(resource_tracker._resource_tracker._fd, message)
    """)
    # Where it says so is its own affair.
    return sorted(line for line in done.stderr.splitlines() if line and not line.startswith((" ", "Traceback")))


@pytest.mark.parametrize(
    "messages",
    [
        [b"REGISTER:/a-name:shared_memory\n" * 2, b"UNREGISTER:/a-name:shared_memory\n"],
        [b"UNREGISTER:/a-name:shared_memory\n"],
        [b"REGISTER:/a-name:shared_memory\n", b"UNREGISTER:/b:shared_memory\nREGISTER:/a-name:shared_memory\n"],
        [b"REGISTER:/a-name:semaphore\n", b"REGISTER:/b:shared_memory\n", b"REGISTER:/a-name:semaphore\n"],
        [b"REGISTER:/a", b"-name:shared_memory\nPROBE:0:noop\n", b"UNREGISTER:/a-name:shared_memory\n"],
        [b"REGISTER:/a-name:nothing\n"],
        [b"FORGET:/a-name:shared_memory\n"],
        [b"REGISTER:/a:name:shared_memory\n"],
        [b"REGISTER:/n\xc3\xa4me:shared_memory\n"],
        [b"\n", b" UNREGISTER:/a-name:shared_memory \n"],
        [b"REGISTER:/unfinished:shared_memory"],
    ],
    ids=lambda messages: messages[0].decode().strip()[:30],
)
def test_the_tracker_says_what_the_standard_one_says(mp, messages):
    assert said_of(library.__name__, messages) == said_of("multiprocessing", messages)


@pytest.mark.rsmp_only("a standard tracker imports everything when it starts, so there is no import to fail at the end")
def test_names_are_removed_though_the_tracker_can_import_nothing_any_more():
    done = run("""if 1:
        import os
        from rsmp import _stdlib, shared_memory
        _stdlib.import_main = lambda name: "raise MemoryError('nothing can be imported')"
        print(shared_memory.SharedMemory(create=True, size=1).name, flush=True)
        os.kill(os.getpid(), 9)
    """)
    assert "nothing can be imported" in done.stderr
    assert left_of(done.stdout.split()) == [] and done.stdout
