"""Starting a fresh interpreter, and what it runs first."""

from __future__ import annotations

import io
import sys

from rsmp import _rsmp, _stdlib
from rsmp._child import spawn_main  # noqa: F401 (a name of the standard module)
from rsmp._install import installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


def pickled(
    popen: Any, process_obj: Any, main_code: Callable[[str], bytes | None] | None = None, **extra: Any
) -> bytes:
    """Return what a child unpickles: the data that prepare it, with ``extra`` in them, then its process object.

    Descriptors that ``process_obj`` needs are registered with ``popen``. ``main_code`` packs the code of a child's main
    module, whose path it is given.
    """
    context = _stdlib.load("context")
    reduction = _stdlib.load("reduction")
    preparation = _standard.get_preparation_data(process_obj._name)
    preparation.update((f"rsmp_{name}", value) for name, value in extra.items())
    if main_code is not None and "init_main_from_path" in preparation:
        preparation["rsmp_main_code"] = main_code(preparation["init_main_from_path"])
    file = io.BytesIO()
    context.set_spawning_popen(popen)
    try:
        reduction.dump(preparation, file)
        reduction.dump(process_obj, file)
    except Exception as error:
        from rsmp import _pickling

        _pickling.explain(error, process_obj)
        raise
    finally:
        context.set_spawning_popen(None)
    return file.getvalue()


def tracker_descriptor() -> int:
    """Return the resource tracker's pipe, starting the tracker unless it runs; it is not woken to find that out."""
    tracker = _stdlib.load("resource_tracker")
    descriptor: int | None = tracker._resource_tracker._fd
    if descriptor is None:
        from rsmp import resource_tracker

        resource_tracker.start()
        descriptor = tracker._resource_tracker._fd
    if descriptor is None or not _rsmp.has_reader(descriptor):
        descriptor = tracker.getfd()
    return descriptor


def command_line(**kwds: Any) -> tuple[list[str], bool]:
    """Return the command line of a child, and whether it is rsmp's own: a tool may have replaced `get_command_line`."""
    make = sys.modules[__name__].__dict__["get_command_line"]
    if _stdlib.replaced(_standard, _standard.get_command_line):
        make = _standard.get_command_line
    own = make is _own_get_command_line and not getattr(sys, "frozen", False)
    return make(**kwds), own


def get_command_line(**kwds: Any) -> list[str]:
    """Return the command line of a child whose `spawn_main` gets ``kwds``."""
    if getattr(sys, "frozen", False):
        return _standard.get_command_line(**kwds)  # type: ignore[no-any-return]
    arguments = ", ".join(f"{name}={value!r}" for name, value in kwds.items())
    program = f"from rsmp._child import spawn_main; spawn_main({arguments})"
    if installed():
        program = f"from rsmp._install import take_over; take_over(); {program}"
    options = _stdlib.load("util")._args_from_interpreter_flags()
    return [_standard.get_executable(), *options, "-c", program, "--multiprocessing-fork"]


_own_get_command_line = get_command_line
_stdlib.unannotate(__name__)
