"""Starting a fresh interpreter, and what it runs first."""

from __future__ import annotations

import io
import os
import sys
from typing import Any

from rsmp import _child, _rsmp, _stdlib
from rsmp._install import installed

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def pickled(popen: Any, process_obj: Any, **extra: Any) -> bytes:
    """Return what a child unpickles: the data that prepare it, with ``extra`` in them, then its process object.

    Descriptors that ``process_obj`` needs are registered with ``popen``.
    """
    context = _stdlib.load("context")
    reduction = _stdlib.load("reduction")
    preparation = _standard.get_preparation_data(process_obj._name)
    preparation.update((f"rsmp_{name}", value) for name, value in extra.items())
    file = io.BytesIO()
    context.set_spawning_popen(popen)
    try:
        reduction.dump(preparation, file)
        reduction.dump(process_obj, file)
    finally:
        context.set_spawning_popen(None)
    return file.getvalue()


def get_command_line(**kwds: Any) -> list[str]:
    """Return the command line of a child whose `spawn_main` gets ``kwds``."""
    if getattr(sys, "frozen", False):
        return _standard.get_command_line(**kwds)  # type: ignore[no-any-return]
    arguments = ", ".join(f"{name}={value!r}" for name, value in kwds.items())
    program = f"from rsmp.spawn import spawn_main; spawn_main({arguments})"
    if installed():
        program = f"from rsmp._install import take_over; take_over(); {program}"
    options = _stdlib.load("util")._args_from_interpreter_flags()
    return [_standard.get_executable(), *options, "-c", program, "--multiprocessing-fork"]


def spawn_main(pipe_handle: int, parent_pid: int | None = None, tracker_fd: int | None = None) -> None:
    """Be the child whose data are in the file ``pipe_handle``; exit with its exit code."""
    _stdlib.load("resource_tracker")._resource_tracker._fd = tracker_fd
    with open(pipe_handle, "rb") as file:
        process, data = _child.load(file)
    if data["rsmp_lifeline"] is not None:
        _rsmp.tie_to_lifeline(data["rsmp_lifeline"])
        os.close(data["rsmp_lifeline"])
    sys.exit(_child.bootstrap(process, data["rsmp_parent_sentinel"]))
