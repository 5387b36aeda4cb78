"""What runs in a child from its first instruction to its last.

Shared by the three start methods. A spawned child imports little more than this file: parts of the standard package
(``spawn``, ``util``, ``reduction``) are used only if something has imported them, and may have replaced functions in
them. The order at the end is that of Python 3.13 on every version: the target, threads, exit handlers, then the
finalizers of ``multiprocessing.util``; output is flushed after the last of them.
"""

from __future__ import annotations

import atexit
import io
import itertools
import os
import sys
import threading
from types import ModuleType

from rsmp import _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, NoReturn

__all__ = ["bootstrap", "close_stdin", "load", "prepare_fork", "run_forked", "spawn_main"]

_process: Any = _stdlib.load("process")
_context: Any = _stdlib.load("context")


def spawn_main(pipe_handle: int, parent_pid: int | None = None, tracker_fd: int | None = None) -> None:
    """Be the child whose data are in the file ``pipe_handle``; exit with its exit code."""
    del parent_pid  # Windows only
    _stdlib.when_loaded("resource_tracker", lambda module: setattr(module._resource_tracker, "_fd", tracker_fd))
    with open(pipe_handle, "rb") as file:
        process, data = load(file)
    sys.exit(bootstrap(process, data["rsmp_parent_sentinel"]))


def run_forked(start: Callable[..., int], *arguments: Any) -> NoReturn:
    """Run a forked child: ``start(*arguments)`` gives its exit code. Never returns into the frames of the parent."""
    code = 1
    try:
        # What the parent registered is the parent's to run.
        atexit._clear()
        atexit.register(_stdlib.load("util")._exit_function)
        code = start(*arguments)
    except SystemExit as leaving:
        # The main module leaves while it is imported.
        code = _exit_code(leaving)
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        try:
            atexit._run_exitfuncs()
            _flush()
        finally:
            os._exit(code)


def prepare_fork() -> None:
    """Make here, before a fork, what every child would otherwise make of pages that it must copy first."""
    global _nothing
    if _nothing is None and sys.stdin is not None:
        try:  # noqa: SIM105
            _nothing = io.TextIOWrapper(io.BufferedReader(io.FileIO(0, closefd=False)), encoding="utf-8")
        except (OSError, ValueError):
            pass


# Reads descriptor 0, which is empty in children.
_nothing: io.TextIOWrapper | None = None


def load(file: BinaryIO) -> tuple[Any, dict[str, Any]]:
    """Return the process object in ``file``, after preparing this process for it, and the data that prepared it."""
    # The pure Python part of pickle is not needed to read.
    from _pickle import load as unpickle

    current = _process.current_process()
    current._inheriting = True
    try:
        data = unpickle(file)
        lifeline = data.get("rsmp_lifeline")
        if lifeline is not None:
            from rsmp import _rsmp

            _rsmp.tie_to_lifeline(lifeline)
            os.close(lifeline)
        prepare(data)
        return unpickle(file), data
    finally:
        del current._inheriting


class Inherited:
    """A descriptor that this process was started with; the standard stand-in imports much of the package."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    def detach(self) -> int:
        """Return the descriptor; it is the caller's from now on."""
        return self.fd


def prepare(data: dict[str, Any]) -> None:
    """Do what the standard ``spawn.prepare`` does with ``data`` to get this process ready to unpickle its object."""
    spawn = _stdlib.loaded("spawn")
    if spawn is not None:
        spawn.prepare(data)
        return
    current = _process.current_process()
    for name in ("name", "authkey"):
        if name in data:
            setattr(current, name, data[name])
    if data.get("log_to_stderr"):
        _stdlib.load("util").log_to_stderr()
    if "log_level" in data:
        _stdlib.load("util").get_logger().setLevel(data["log_level"])
    if "sys_path" in data:
        sys.path = data["sys_path"]
    if "sys_argv" in data:
        sys.argv = data["sys_argv"]
    if "dir" in data:
        os.chdir(data["dir"])
    if "orig_dir" in data:
        _process.ORIGINAL_DIR = data["orig_dir"]
    if data.get("start_method") is not None:
        _context._default_context.set_start_method(data["start_method"], force=True)
    path = data.get("init_main_from_path", "")
    if path.endswith(".py") and "init_main_from_name" not in data and os.path.isfile(path):
        _import_script(path)
    elif path or "init_main_from_name" in data:
        main = {name: value for name, value in data.items() if name.startswith("init_main_from")}
        _stdlib.load("spawn").prepare(main)


def _import_script(path: str) -> None:
    """Make the script at ``path`` this process's main module, under the name ``__mp_main__``."""
    current = sys.modules["__main__"]
    # IPython's launcher does not protect its call of main; a forked child may have the module already.
    if os.path.basename(path) == "ipython.py" or getattr(current, "__file__", None) == path:
        return
    _kept.append(current)
    module = ModuleType("__mp_main__")
    module.__dict__.update(__file__=path, __cached__=None, __package__="")
    with open(path, "rb") as file:
        source = file.read()
    name = sys.argv[0]
    sys.argv[0] = path
    sys.modules["__mp_main__"] = module
    try:
        exec(compile(source, path, "exec", dont_inherit=True), module.__dict__)
    finally:
        sys.argv[0] = name
    sys.modules["__main__"] = module


_kept: list[ModuleType] = []


def bootstrap(process: Any, parent_sentinel: int) -> int:
    """Become ``process``, run it and return the exit code.

    ``parent_sentinel`` is a process descriptor of the parent. Tools replace `BaseProcess._bootstrap`, and classes
    override it: theirs is then called instead.
    """
    own = not _stdlib.replaced(_process, type(process)._bootstrap)
    return _run(process, parent_sentinel) if own else process._bootstrap(parent_sentinel=parent_sentinel)


def _run(process: Any, parent_sentinel: int) -> int:
    """Do what `BaseProcess._bootstrap` does in Python 3.13: exit handlers run later."""
    code = 1
    try:
        _become(process, parent_sentinel)
        _info("child process calling self.run()")
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
        _info("process exiting with exitcode %d", code)
        _flush()
    return code


def _become(process: Any, parent_sentinel: int) -> None:
    method = process._start_method
    if method is not None and _context._default_context._actual_context is not _context._concrete_contexts[method]:
        _context._force_start_method(method)
    close_stdin()
    # The old object goes only after the hooks below have run.
    old_process = _process._current_process
    _process._process_counter = itertools.count(1)
    _process._children = set()
    _process._current_process = process
    _process._parent_process = _process._ParentProcess(process._parent_name, process._parent_pid, parent_sentinel)
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


def _info(message: str, *arguments: object) -> None:
    util = _stdlib.loaded("util")
    if util is not None and util._logger is not None:
        util.info(message, *arguments)


def close_stdin() -> None:
    """Replace the standard input, which is the parent's, by nothing."""
    if sys.stdin is None or sys.stdin is _nothing:
        return
    try:  # noqa: SIM105 (contextlib is an import)
        sys.stdin.close()
    except (OSError, ValueError):
        pass
    try:
        descriptor = os.open(os.devnull, os.O_RDONLY)
        if descriptor == 0 and _nothing is not None:
            sys.stdin = _nothing
        else:
            sys.stdin = open(descriptor, encoding="utf-8", closefd=False)  # noqa: SIM115
    except (OSError, ValueError):
        pass


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 (contextlib is an import)
            stream.flush()
        except (AttributeError, ValueError):
            pass


_stdlib.unannotate(__name__)
