"""What runs in a child from its first instruction to its last.

Shared by the three start methods. A spawned child imports little more than this file: parts of the standard package
(``spawn``, ``util``, ``reduction``) are used only if something has imported them, and may have replaced functions in
them. The order at the end is that of Python 3.13 on every version: the target, threads, exit handlers, then the
finalizers of ``multiprocessing.util``; output is flushed after the last of them.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import atexit
import io
import itertools
import marshal
import os
import sys
from _frozen_importlib_external import MAGIC_NUMBER
from types import ModuleType

from rsmp import _deferred, _stand_ins, _stdlib

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, BinaryIO, NoReturn

__all__ = [
    "admit_interrupts",
    "admits_interrupts",
    "bootstrap",
    "close_stdin",
    "code_version",
    "explain",
    "file_names",
    "hold_interrupts",
    "load",
    "prepare_fork",
    "run_forked",
    "spawn_main",
    "starts_with_interrupts_held",
]

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
    global _status
    _status = None
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
            # As the kernel does; a number that is too large would raise here and go on in the parent's frames.
            code &= 0xFF
            if _status is not None:
                from rsmp import _rsmp

                _rsmp.announce(_status, code)
            os._exit(code)


def admits_interrupts() -> bool:
    """Whether Ctrl-C reaches this thread and what it starts."""
    return _signal.SIGINT not in _signal.pthread_sigmask(_signal.SIG_BLOCK, ())


def hold_interrupts() -> None:
    """Put off Ctrl-C for this thread and for what it starts.

    A daemon that is just starting has nothing to be interrupted: whoever starts it gets Ctrl-C too, and ends it.
    """
    try:
        _signal.pthread_sigmask(_signal.SIG_BLOCK, (_signal.SIGINT,))
    except BaseException:
        # It runs the handlers of signals that have come, after blocking this one.
        _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))
        raise


def admit_interrupts() -> None:
    """Let Ctrl-C through again; raises KeyboardInterrupt if it was pressed meanwhile."""
    global _held
    _held = False
    _signal.pthread_sigmask(_signal.SIG_UNBLOCK, (_signal.SIGINT,))


def starts_with_interrupts_held() -> None:
    """Say in a child that its start put off Ctrl-C: it is let through right before the child runs."""
    global _held
    _held = True


_held = False


def announce_to(status: int) -> None:
    """Have this child of the fork server announce its exit code at ``status``."""
    global _status
    _status = status


_status: int | None = None


def prepare_fork() -> io.TextIOWrapper | None:
    """Make here, before a fork, the empty standard input: children would have to copy many pages for it."""
    global _nothing
    if _nothing is None:
        try:  # noqa: SIM105 (contextlib is an import)
            _nothing = open(os.open(os.devnull, os.O_RDONLY), encoding="utf-8", closefd=False)  # noqa: SIM115
        except OSError:
            pass
    return _nothing


# An empty standard input for children, which inherit its descriptor.
_nothing: io.TextIOWrapper | None = None


class _Nobody:
    """Stands for the process object in a rehearsal."""

    _start_method = "forkserver"
    _parent_name = "MainProcess"
    _parent_pid = 0

    @staticmethod
    def _after_fork() -> None:
        pass


def prepare_rehearsal() -> None:
    """Make in the fork server what `rehearse` needs in each child."""
    global _part
    # The pure Python part of pickle, which brings re and enum, is not needed to write and to read.
    dumps = _stand_ins.c_pickle().dumps

    # Executed here, not in each child: setting the start method looks at it.
    _ = _stdlib.load("reduction").HAVE_SEND_HANDLE
    current = _process.current_process()
    part = {"name": current.name, "authkey": bytes(current.authkey), "sys_path": sys.path, "sys_argv": sys.argv}
    part |= {"dir": os.getcwd(), "orig_dir": _process.ORIGINAL_DIR, "start_method": "forkserver"}
    _part = dumps(part) + dumps(_Nobody())


_part = b""


def rehearse() -> None:
    """Go through the motions of a child, without effect, so that the memory they need is there when it counts."""
    current = _process._current_process
    with io.BytesIO(_part) as file:
        nobody, _ = load(file)
    _become(nobody, -1)
    _process._current_process = current
    _process._parent_process = None
    _flush()


def load(file: BinaryIO) -> tuple[Any, dict[str, Any]]:
    """Return the process object in ``file``, after preparing this process for it, and the data that prepared it."""
    unpickle = _stand_ins.c_pickle().load
    current = _process.current_process()
    current._inheriting = True
    try:
        data = unpickle(file)
        if data.get("rsmp_held"):
            starts_with_interrupts_held()
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
    if spawn is not None and _stdlib.replaced(spawn, spawn.prepare):
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
    if data.get("sys_path", sys.path) != sys.path:
        sys.path = data["sys_path"]
    if "sys_argv" in data:
        sys.argv = data["sys_argv"]
    if "dir" in data:
        os.chdir(data["dir"])
    if "orig_dir" in data:
        _process.ORIGINAL_DIR = data["orig_dir"]
    method = data.get("start_method")
    if method is not None and _context._default_context._actual_context is not _context._concrete_contexts.get(method):
        _context._default_context.set_start_method(method, force=True)
    _import_main(data.get("init_main_from_name"), data.get("init_main_from_path"), data.get("rsmp_main_code"))


def _import_main(name: str | None, path: str | None, packed: bytes | None) -> None:
    """Import the parent's main module under the name ``__mp_main__``, unless this process has it already.

    ``packed``: its code, if the parent has it (`_main_code`).
    """
    current = sys.modules["__main__"]
    if name is not None:
        # A __main__.py would run the program once more.
        if name.endswith("__main__") or getattr(current.__spec__, "name", None) == name:
            return
        _stdlib.load("spawn").prepare({"init_main_from_name": name})
    elif path is not None and getattr(current, "__file__", None) != path:
        if path.endswith(".py") and os.path.isfile(path):
            _import_script(path, packed)
        else:
            _stdlib.load("spawn").prepare({"init_main_from_path": path})


def file_names(path: str) -> dict[str, Any]:
    """Return what a main module knows of the file that it is."""
    return {"__file__": path} if sys.version_info >= (3, 15) else {"__file__": path, "__cached__": None}


def _import_script(path: str, packed: bytes | None) -> None:
    # IPython's launcher does not protect its call of main.
    if os.path.basename(path) == "ipython.py":
        return
    _kept.append(sys.modules["__main__"])
    module = ModuleType("__mp_main__")
    module.__dict__.update(file_names(path), __package__="")
    code = _unpacked(path, packed)
    name = sys.argv[0]
    sys.argv[0] = path
    sys.modules["__mp_main__"] = module
    try:
        exec(code, module.__dict__)
    finally:
        sys.argv[0] = name
    sys.modules["__main__"] = module


_kept: list[ModuleType] = []


def code_version() -> bytes:
    """Return what two interpreters have in common if one runs the code of the other."""
    return MAGIC_NUMBER + bytes((sys.flags.optimize & 0xFF,))


def _unpacked(path: str, packed: bytes | None) -> Any:
    """Return the code in ``packed`` if it is for this interpreter, else what the file compiles to."""
    version = code_version()
    if packed is not None and packed.startswith(version):
        return marshal.loads(packed[len(version) :])
    with open(path, "rb") as file:
        return compile(file.read(), path, "exec", dont_inherit=True)


def bootstrap(process: Any, parent_sentinel: int) -> int:
    """Become ``process``, run it and return the exit code.

    ``parent_sentinel`` is a process descriptor of the parent. Tools replace `BaseProcess._bootstrap`, and classes
    override it: theirs is then called instead.
    """
    if not _stdlib.replaced(_process, type(process)._bootstrap):
        return _run(process, parent_sentinel)
    if _held:
        admit_interrupts()
    return process._bootstrap(parent_sentinel=parent_sentinel)  # type: ignore[no-any-return]


def _run(process: Any, parent_sentinel: int) -> int:
    """Do what `BaseProcess._bootstrap` does in Python 3.13: exit handlers run later."""
    code = 1
    try:
        _become(process, parent_sentinel)
        _info("child process calling self.run()")
        # A pool's worker lets Ctrl-C through itself.
        if _held and not getattr(process._target, "admits_interrupts", False):
            admit_interrupts()
        process.run()
        code = 0
    except BaseException as error:
        code = explain(process, error)
    finally:
        threading = _deferred.executed("threading")
        if threading is not None:
            threading._shutdown()
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
    threading = _deferred.executed("threading")
    if threading is not None:
        threading.main_thread()._set_native_id()
    process._after_fork()
    del old_process


def explain(process: Any, error: BaseException) -> int:
    """Return the exit code of a process that ``error`` ends, and show it unless it is a way to leave."""
    if isinstance(error, SystemExit):
        return _exit_code(error)
    import traceback

    sys.stderr.write(f"Process {process.name}:\n")
    traceback.print_exception(error)
    return 1


def _exit_code(leaving: SystemExit) -> int:
    if leaving.code is None:
        return 0
    if isinstance(leaving.code, int):
        return leaving.code if leaving.code.bit_length() < 32 else leaving.code & 0xFF
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
    try:  # noqa: SIM105
        sys.stdin.close()
    except (OSError, ValueError):
        pass
    prepare_fork()
    if _nothing is not None:
        sys.stdin = _nothing


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        try:  # noqa: SIM105 (contextlib is an import)
            stream.flush()
        except (AttributeError, ValueError):
            pass


_stdlib.unannotate(__name__)
