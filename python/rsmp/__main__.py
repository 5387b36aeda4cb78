"""``python -m rsmp [-m module | -c code | script] args...``: run an unmodified program on rsmp.

The program finds what it would find under the plain interpreter: ``sys.argv``, ``sys.path[0]``, its own ``__main__``,
tracebacks that begin with its own frames, and the exit status. Options of the interpreter go before ``-m rsmp`` and
reach the children as usual. ``python -m rsmp doctor PID`` says why a program hangs (`rsmp._doctor`), unless there is a
script called ``doctor``.
"""

from __future__ import annotations

import builtins
import os
import runpy
import sys
from importlib.machinery import BuiltinImporter, SourceFileLoader, SourcelessFileLoader
from types import CodeType, ModuleType, TracebackType
from typing import Any, NoReturn

from rsmp._child import file_names
from rsmp._install import take_over

__all__ = ["main"]

USAGE = """\
usage: python -m rsmp [-m module | -c code | script] [argument]...
       python -m rsmp doctor [--json] PID

Runs a program with rsmp in place of multiprocessing, in its children too.
A script is a file, a directory or zip file with a __main__.py, or - for the standard input.
The doctor says why the program with that PID hangs; a script called doctor goes before it.
"""


def main(arguments: list[str]) -> None:
    """Run the program that ``arguments`` name, which follow ``python -m rsmp`` on the command line."""
    if arguments[:1] == ["doctor"] and not os.path.exists("doctor"):
        from rsmp import _doctor

        sys.exit(_doctor.main(arguments[1:]))
    take_over()
    _replace_main()
    try:
        _run(arguments)
    except SystemExit:
        raise
    except BaseException as error:
        _hide_our_frames(error)
        raise


def _run(arguments: list[str]) -> None:
    first, rest = (arguments[0], arguments[1:]) if arguments else ("--help", [])
    if first[:2] in ("-c", "-m"):
        # As for the interpreter, the value may follow at once: -mmodule.
        if not first[2:] and not rest:
            _stop(f"Argument expected for the {first[:2]} option\n{USAGE}")
        value, rest = (first[2:], rest) if first[2:] else (rest[0], rest[1:])
        sys.argv[:] = [first[:2], *rest]
        if first.startswith("-m"):
            runpy._run_module_as_main(value)  # type: ignore[attr-defined]
        else:
            _set_path("")
            _execute(compile(value, "<string>", "exec", dont_inherit=True))
    elif first == "-":
        sys.argv[:] = arguments
        _set_path("")
        _execute(compile(sys.stdin.read(), "<stdin>", "exec", dont_inherit=True), file="<stdin>")
    elif first in ("-h", "--help"):
        sys.stdout.write(USAGE)
    elif first.startswith("-"):
        _stop(f"unknown option {first}\n{USAGE}")
    else:
        sys.argv[:] = arguments
        _run_script(first)


def _run_script(name: str) -> None:
    # Not normalised: the interpreter leaves what the user wrote as it is.
    path = os.path.join(os.getcwd(), name)
    if _is_container(path):
        if sys.flags.safe_path:
            sys.path.insert(0, path)
        else:
            _set_path(path)
        runpy._run_module_as_main("__main__", False)  # type: ignore[attr-defined]
        return
    _set_path(os.path.dirname(os.path.realpath(path)))
    compiled = path.endswith(".pyc")
    loader = SourcelessFileLoader("__main__", path) if compiled else SourceFileLoader("__main__", path)
    try:
        data = loader.get_data(path)
    except OSError as error:
        _stop(f"can't open file {path!r}: [Errno {error.errno}] {error.strerror}")
    code = loader.get_code("__main__") if compiled else compile(data, path, "exec", dont_inherit=True)
    assert code is not None
    _execute(code, file=path, loader=loader)


def _is_container(path: str) -> bool:
    """Whether ``path`` is something modules can be imported from: a directory or a zip file."""
    for hook in sys.path_hooks:
        try:
            hook(path)
        except ImportError:
            continue
        return True
    return False


def _set_path(entry: str) -> None:
    # ``-m rsmp`` has put the current directory there, unless told not to (-P).
    if not sys.flags.safe_path:
        sys.path[0] = entry


def _replace_main() -> None:
    """Put a new ``__main__`` in place, as empty as the interpreter starts it."""
    fresh = ModuleType("__main__")
    fresh.__dict__.update(__builtins__=builtins, __loader__=BuiltinImporter)
    if sys.version_info < (3, 14):
        fresh.__annotations__ = {}
    # The functions of this file need the module they are in.
    main.__dict__["module"] = sys.modules["__main__"]
    sys.modules["__main__"] = sys.modules["__mp_main__"] = fresh


def _execute(code: CodeType, file: str | None = None, loader: Any = None) -> None:
    namespace = sys.modules["__main__"].__dict__
    if file is not None:
        namespace.update(file_names(file))
    if loader is not None:
        namespace["__loader__"] = loader
    exec(code, namespace)


def _hide_our_frames(error: BaseException) -> None:
    """Have ``error`` reported as if the program had been run directly.

    The interpreter reports it, with whatever ``sys.excepthook`` is by now, and chooses the exit status.
    """
    traceback = error.__traceback__
    while traceback is not None and traceback.tb_frame.f_code.co_filename == __file__:
        traceback = traceback.tb_next
    hook = sys.excepthook

    def report(kind: type[BaseException], value: BaseException, whole: TracebackType | None) -> None:
        if value is error:
            whole = sys.last_traceback = traceback
            value.__traceback__ = traceback
        hook(kind, value, whole)

    sys.excepthook = report


def _stop(message: str) -> NoReturn:
    sys.stderr.write(f"{sys.executable}: {message}\n")
    sys.exit(2)


if __name__ == "__main__":
    main(sys.argv[1:])
