"""What runs in a child from its first instruction to its last.

Shared by the three start methods. The order at the end is that of Python 3.13 on every version: the target, threads,
exit handlers, then the finalizers of ``multiprocessing.util``; output is flushed after the last of them.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import os
import sys
import threading
from collections.abc import Callable
from typing import Any, BinaryIO, NoReturn

from rsmp import _rsmp, _stdlib

__all__ = ["bootstrap", "load", "run_forked"]

_process = _stdlib.load("process")
_standard_bootstrap = _process.BaseProcess._bootstrap


def run_forked(start: Callable[[], int]) -> NoReturn:
    """Run a forked child: ``start()`` gives its exit code. Never returns into the frames of the parent."""
    code = 1
    try:
        # What the parent registered is the parent's to run.
        atexit._clear()
        atexit.register(_stdlib.load("util")._exit_function)
        code = start()
    finally:
        try:
            atexit._run_exitfuncs()
            _flush()
        finally:
            os._exit(code)


def load(file: BinaryIO) -> tuple[Any, Any]:
    """Return the process object in ``file``, after preparing this process for it, and the data that prepared it."""
    spawn = _stdlib.load("spawn")
    pickle = _stdlib.load("reduction").pickle
    current = _process.current_process()
    current._inheriting = True
    try:
        data = pickle.load(file)
        spawn.prepare(data)
        return pickle.load(file), data
    finally:
        del current._inheriting


def bootstrap(process: Any, parent_sentinel: int) -> int:
    """Become ``process``, run it and return the exit code.

    ``parent_sentinel`` is a process descriptor of the parent. Tools replace `BaseProcess._bootstrap`, and classes
    override it: theirs is then called instead.
    """
    replaced = (
        type(process)._bootstrap is not _standard_bootstrap or _standard_bootstrap.__module__ != _process.__name__
    )
    if replaced or sys.version_info >= (3, 13):
        code: int = process._bootstrap(parent_sentinel=parent_sentinel)
        return code
    return _run(process, parent_sentinel)


def _run(process: Any, parent_sentinel: int) -> int:
    """Do what `BaseProcess._bootstrap` does, except for the exit handlers, which run later."""
    util = _stdlib.load("util")
    code = 1
    try:
        _become(process, parent_sentinel, util)
        util.info("child process calling self.run()")
        process.run()
        code = 0
    except SystemExit as leaving:
        code = _exit_code(leaving)
    except BaseException:
        import traceback

        sys.stderr.write(f"Process {process.name}:\n")
        traceback.print_exc()
    finally:
        threading._shutdown()  # type: ignore[attr-defined]
        util.info("process exiting with exitcode %d", code)
        _flush()
    return code


def _become(process: Any, parent_sentinel: int, util: Any) -> None:
    if process._start_method is not None:
        _stdlib.load("context")._force_start_method(process._start_method)
    util._close_stdin()
    # The old object goes only after the hooks below have run.
    old_process = _process._current_process
    parent = _process._ParentProcess(process._parent_name, process._parent_pid, parent_sentinel)
    vars(_process).update(
        _process_counter=itertools.count(1), _children=set(), _current_process=process, _parent_process=parent
    )
    threading.main_thread()._set_native_id()  # type: ignore[attr-defined]
    process._after_fork()
    del old_process


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code
    sys.stderr.write(f"{leaving.code}\n")
    return 1


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(AttributeError, ValueError):
            stream.flush()


os.register_at_fork(after_in_child=_rsmp.forget_lifeline)
