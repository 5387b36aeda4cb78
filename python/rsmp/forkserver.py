"""The fork server: a process with everything imported that forks children on request.

It is asked through a socket without a name that this process, and every child the server forks, inherits: nothing to
find, guess or authenticate. The same server serves children of children. It preloads ``__main__`` as well as the
modules of `set_forkserver_preload`, and ends when the last process that could ask it is gone.
"""

from __future__ import annotations

import _signal  # type: ignore[import-not-found]
import gc
import io
import os
import sys

from rsmp import _child, _rsmp, _stdlib, spawn
from rsmp._install import installed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_standard = _stdlib.mirror(__name__)


def __getattr__(name: str) -> Any:
    return getattr(_standard, name)


class ForkServer(_standard.ForkServer):  # type: ignore[name-defined,misc]
    """This process's access to its fork server.

    What to preload and which descriptors this process inherited is shared with the standard `ForkServer`.
    """

    def __init__(self) -> None:
        modules, on_error = self._preload_modules, self._preload_on_error
        super().__init__()
        self._preload_modules, self._preload_on_error = modules, on_error
        # The clients' end of the control socket: open in every process that may ask the server.
        self._forkserver_alive_fd: Any = None
        self._forkserver_pid: Any = None
        self._watch: _rsmp.Child | None = None

    def set_forkserver_preload(self, modules_names: list[str], *, on_error: str = "ignore") -> None:
        """Have the server, once it is started, import the modules.

        ``on_error`` says what becomes of one that cannot be imported: "ignore" it, "warn" (`ImportWarning`), or "fail":
        the server then ends with its traceback, and starting a process raises `EOFError`. Came with Python 3.15.
        Raises `TypeError` for names that are no strings, `ValueError` for another ``on_error``.
        """
        if on_error not in ("ignore", "warn", "fail"):
            raise ValueError(f"on_error must be 'ignore', 'warn', or 'fail', not {on_error!r}")
        super().set_forkserver_preload(modules_names)
        self._preload_on_error = on_error

    @property
    def _preload_modules(self) -> list[str]:
        return _standard._forkserver._preload_modules  # type: ignore[no-any-return]

    @_preload_modules.setter
    def _preload_modules(self, modules: list[str]) -> None:
        _standard._forkserver._preload_modules = modules

    @property
    def _preload_on_error(self) -> str:
        return getattr(_standard._forkserver, "_preload_on_error", "ignore")

    @_preload_on_error.setter
    def _preload_on_error(self, on_error: str) -> None:
        _standard._forkserver._preload_on_error = on_error

    @property
    def _inherited_fds(self) -> list[int] | None:
        return _standard._forkserver._inherited_fds  # type: ignore[no-any-return]

    @_inherited_fds.setter
    def _inherited_fds(self, descriptors: list[int] | None) -> None:
        if descriptors is not None:
            _standard._forkserver._inherited_fds = descriptors

    def launch(self, popen: Any, payload: bytes, daemon: bool) -> None:
        """Have the server fork the child of ``popen``, which unpickles ``payload``; adopt it."""
        while True:
            self.ensure_running()
            tracker = spawn.tracker_descriptor()
            if popen._ask(self._forkserver_alive_fd, tracker, popen._fds, payload, daemon):
                return
            with self._lock:
                self._forget()

    def connect_to_new_process(self, fds: Any) -> tuple[int, int]:
        """Have the server fork a child; return two descriptors.

        From the first its pid and then its exit code can be read (`read_signed`); what the child unpickles is to be
        written to the second. Raises `ValueError` for too many ``fds``.
        """
        while True:
            self.ensure_running()
            tracker = spawn.tracker_descriptor()
            descriptors = _rsmp.request_process(self._forkserver_alive_fd, tracker, list(fds))
            if descriptors is not None:
                return descriptors
            with self._lock:
                self._forget()

    def ensure_running(self) -> None:
        """Start the server unless it runs. A child of the server shares it."""
        with self._lock:
            spawn.tracker_descriptor()
            if self._forkserver_alive_fd is not None:
                if self._watch is None or self._watch.poll() is None:
                    return
                self._forget()
            server, clients = _rsmp.message_pair()
            try:
                pid = self._start(server)
            except BaseException:
                os.close(clients)
                raise
            finally:
                os.close(server)
            self._watch = _rsmp.Child()
            self._watch._adopt(pid)
            self._forkserver_pid = pid
            self._forkserver_alive_fd = clients

    def _start(self, server: int) -> int:
        modules = self._preload_modules
        data = spawn.get_preparation_data("ignore") if modules else {}
        keep = ("sys_path", "sys_argv", "init_main_from_path", "init_main_from_name")
        data = {name: data[name] for name in keep if name in data}
        held = _child.admits_interrupts()
        on_error = self._preload_on_error
        program = f"from rsmp.forkserver import serve; serve({server}, {modules!r}, {data!r}, {held}, {on_error!r})"
        if installed():
            program = f"from rsmp._install import take_over; take_over(); {program}"
        if getattr(sys, "frozen", False):
            # The text by which the hooks of frozen programs know a fork server.
            program = f"{_stdlib.import_main('forkserver')}; {program}"
        util = _stdlib.load("util")
        executable = spawn.get_executable()
        line = [executable, *util._args_from_interpreter_flags(), "-c", program]
        if held:
            _child.hold_interrupts()
        try:
            pid: int = util.spawnv_passfds(executable, line, [server])
        finally:
            if held:
                _child.admit_interrupts()
        return pid

    def _forget(self) -> None:
        os.close(self._forkserver_alive_fd)
        self._forkserver_alive_fd = self._forkserver_pid = self._watch = None

    def _stop_unlocked(self) -> None:
        if self._forkserver_alive_fd is None:
            return
        # Closing the last client's end asks the server to stop.
        watch = self._watch
        self._forget()
        if watch is not None:
            watch.wait()


_forkserver = ForkServer()
ensure_running = _forkserver.ensure_running
get_inherited_fds = _forkserver.get_inherited_fds
connect_to_new_process = _forkserver.connect_to_new_process
set_forkserver_preload = _forkserver.set_forkserver_preload


def serve(control: int, modules: list[str], data: dict[str, Any], held: bool = False, on_error: str = "ignore") -> None:
    """Be the fork server at ``control`` until the last client is gone.

    ``held``: its start has put off Ctrl-C. ``on_error``: whether it is to "ignore" that a module cannot be imported, to
    "warn" or to "fail".
    """
    try:
        if held:
            _child.admit_interrupts()
        _preload(modules, data, on_error)
        _child.prepare_fork()
        _child.close_stdin()
        _child.prepare_rehearsal()
        # Ctrl-C goes to the whole group; the server stays for those who handle it.
        interrupt = _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    except KeyboardInterrupt:
        # So was whoever wanted it, who tells of it; the next to want a server starts another.
        sys.exit(1)
    server = _rsmp.ForkServer(control)
    gc.collect()
    gc.freeze()
    while (request := server.next()) is not None:
        try:
            pid = os.fork()
        except OSError as error:
            server.refuse(request, error.errno or 0)
            continue
        if pid == 0:
            _child.run_forked(_start_forked, server, request, interrupt)
        server.started(request, pid)
    sys.exit()


def _preload(modules: list[str], data: dict[str, Any], on_error: str) -> None:
    if "sys_path" in data:
        sys.path[:] = data["sys_path"]
    if "sys_argv" in data:
        sys.argv[:] = data["sys_argv"]
    if "__main__" in modules:
        _preload_main(data)
    for name in modules:
        try:
            __import__(name)
        except ImportError as error:
            if on_error == "fail":
                raise
            if on_error == "warn":
                import warnings

                warnings.warn(f"Failed to preload module {name!r}: {error}", ImportWarning, stacklevel=2)
    # Children would write out what is left in the buffers, each of them.
    _stdlib.load("util")._flush_std_streams()


def _preload_main(data: dict[str, Any]) -> None:
    process = _stdlib.load("process").current_process()
    process._inheriting = True
    main = {name: value for name, value in data.items() if name.startswith("init_main")}
    before = sys.modules["__main__"]
    try:
        spawn.prepare(main)
    except (Exception, SystemExit):
        # The child meets the same error again, where it can be reported.
        sys.modules["__main__"] = before
        sys.modules.pop("__mp_main__", None)
    finally:
        del process._inheriting


def _start_forked(server: Any, request: Any, interrupt: Any) -> int:
    if request.standby:
        # Whatever can be done before it is known what for: what a child touches first costs the most.
        _child.rehearse()
        request = server.stand_by()
        if request is None:
            os._exit(0)
    else:
        server.close()
    payload, (status, parent, control, tracker, lifeline, inherited) = request.enter()
    _child.announce_to(status)
    if lifeline is not None and _child.admits_interrupts():
        _child.hold_interrupts()
        _child.starts_with_interrupts_held()
    # Not through the signal module, whose enumerations are pages that every child would copy.
    _signal.signal(_signal.SIGINT, interrupt)
    if lifeline is not None:
        _rsmp.tie_to_lifeline(lifeline)
        os.close(lifeline)
    _forkserver._forkserver_alive_fd = control
    _standard._forkserver._inherited_fds = inherited
    _stdlib.load("resource_tracker")._resource_tracker._fd = tracker
    with io.BytesIO(payload) if isinstance(payload, bytes) else open(payload, "rb") as file:
        process, _ = _child.load(file)
    return _child.bootstrap(process, parent)


_stdlib.unannotate(__name__)
