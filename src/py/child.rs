//! `rsmp._child` for a forked child in which nobody has replaced anything: the same steps without Python frames.
//!
//! What a child touches first, it has to copy page by page; each Python function on the way costs two to five pages. So
//! everything that can be made or looked up is made here before the fork, in `Forked::prepare`, and the steps after it read.

use std::os::fd::RawFd;

use pyo3::exceptions::{PyAttributeError, PyOSError, PySystemExit, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PySet, PyString};
use rsmp_core::sys::process;

use crate::process::tie_to_lifeline;
use crate::threading::Threading;

/// A child about to be forked: its process object and what it needs in its first moments.
pub(crate) struct Forked<'py> {
    process: Bound<'py, PyAny>,
    /// What `parent_process()` returns there.
    parent: Bound<'py, PyAny>,
    /// The context to be chosen there, if it is not chosen already.
    context: Option<Bound<'py, PyAny>>,
    counter: Bound<'py, PyAny>,
    children: Bound<'py, PySet>,
    lifeline: Option<RawFd>,
    /// The start puts off Ctrl-C.
    held: bool,
    world: &'static World,
    threading: Option<&'static Threading>,
}

impl<'py> Forked<'py> {
    /// Prepares a child for `process`; `None` where somebody has replaced a function on the way.
    ///
    /// `lifeline` is what a daemon hangs on; with `held` the child lets Ctrl-C through before it runs.
    pub(crate) fn prepare(process: &Bound<'py, PyAny>, lifeline: Option<RawFd>, held: bool) -> PyResult<Option<Self>> {
        let py = process.py();
        let (world, threading) = (World::get(py)?, Threading::imported(py)?);
        let ordinary = threading.map_or(Ok(true), |threading| threading.is_ordinary(py))?;
        if !ordinary || !world.is_ordinary(process)? {
            return Ok(None);
        }
        let state = world.process.bind(py);
        let Some(class) = state.get_item("_ParentProcess")? else { return Ok(None) };
        let (name, pid) = (process.getattr(world.name(py, Name::Starter))?, process.getattr("_parent_pid")?);
        Ok(Some(Self {
            process: process.clone(),
            parent: class.call1((name, pid, py.None()))?,
            context: world.context_to_choose(process)?,
            counter: world.count.bind(py).call1((1,))?,
            children: PySet::empty(py)?,
            lifeline,
            held,
            world,
            threading,
        }))
    }

    /// Forks, by what `os.fork` is now; `sentinel` is the process descriptor of this process. Never returns in the child.
    pub(crate) fn fork(&self, sentinel: RawFd) -> PyResult<i32> {
        let py = self.process.py();
        let world = self.world;
        self.parent.setattr(world.name(py, Name::Sentinel), sentinel)?;
        let fork = match &world.fork {
            Some(fork) => fork.bind(py).clone(),
            None => world.os.bind(py).as_any().get_item(world.name(py, Name::Fork))?,
        };
        let parent = std::process::id();
        let forked = fork.call0().and_then(|pid| pid.extract());
        if std::process::id() == parent {
            return forked;
        }
        // A signal handler may have raised in the child, where nothing is to go on in the frames of the parent.
        match forked {
            Ok(0) => self.run(),
            _ => process::exit(1),
        }
    }

    /// In the child: be the process, to the end.
    fn run(&self) -> ! {
        let (py, world) = (self.process.py(), self.world);
        // A panic must not go on in the frames of the parent.
        let _end = End;
        let code = self.live().unwrap_or_else(|error| world.report(py, &error));
        let code = world.end(py, code) & 0xFF;
        if let Ok(Some(exit)) = world.os.bind(py).get_item(world.name(py, Name::Exit))
            && !exit.is(&world.own_exit)
        {
            let _ = exit.call1((code,));
        }
        process::exit(code)
    }

    /// The life of the child up to its exit code.
    fn live(&self) -> PyResult<i32> {
        let (py, world) = (self.process.py(), self.world);
        if let Some(lifeline) = self.lifeline {
            tie_to_lifeline(lifeline)?;
        }
        // What the parent registered is the parent's to run.
        world.clear_handlers.call0(py)?;
        let ran = self.become_process().and_then(|()| {
            world.inform(py, "child process calling self.run()")?;
            if self.held && !self.admits_interrupts()? {
                world.admit_interrupts.call0(py)?;
            }
            self.process.call_method0(world.name(py, Name::Run)).map(drop)
        });
        let code = match ran {
            Ok(()) => 0,
            Err(error) => world.explain.call1(py, (&self.process, error.into_value(py)))?.extract(py)?,
        };
        // The child may have imported it.
        if let Some(threading) = Threading::imported(py)? {
            threading.wait_for_threads(py, world.handlers(py)?)?;
        }
        world.inform(py, &format!("process exiting with exitcode {code}"))?;
        Ok(code)
    }

    /// Whether the target lets Ctrl-C through itself, as a pool's worker does.
    fn admits_interrupts(&self) -> PyResult<bool> {
        let target = self.process.getattr("_target")?;
        target.getattr_opt("admits_interrupts")?.map_or(Ok(false), |admits| admits.is_truthy())
    }

    fn become_process(&self) -> PyResult<()> {
        let (py, world) = (self.process.py(), self.world);
        if let Some(context) = &self.context {
            world.default_context.setattr(py, world.name(py, Name::ActualContext), context)?;
        }
        world.close_stdin(py)?;
        let state = world.process.bind(py);
        // The old object goes only after the hooks below have run.
        let old = state.get_item(world.name(py, Name::CurrentProcess))?;
        state.set_item(world.name(py, Name::ProcessCounter), &self.counter)?;
        state.set_item(world.name(py, Name::Children), &self.children)?;
        state.set_item(world.name(py, Name::CurrentProcess), &self.process)?;
        state.set_item(world.name(py, Name::ParentProcess), &self.parent)?;
        if let Some(threading) = self.threading {
            threading.set_native_id(py)?;
        }
        world.run_after_fork(py)?;
        drop(old);
        Ok(())
    }
}

/// Ends the process when it goes out of scope.
struct End;

impl Drop for End {
    fn drop(&mut self) {
        process::exit(1);
    }
}

/// The names that are looked up in children, made once.
#[derive(Clone, Copy)]
enum Name {
    ActualContext,
    CurrentProcess,
    ProcessCounter,
    Children,
    ParentProcess,
    Run,
    Stdin,
    Stdout,
    Stderr,
    Close,
    Flush,
    Exit,
    Finalizers,
    AfterForkers,
    Data,
    Logger,
    Excepthook,
    Fork,
    Bootstrap,
    AfterFork,
    StartMethod,
    Starter,
    ExitFunction,
    ForceStartMethod,
    Sentinel,
    Count,
}

const NAMES: [&str; Name::Count as usize] = [
    "_actual_context",
    "_current_process",
    "_process_counter",
    "_children",
    "_parent_process",
    "run",
    "stdin",
    "stdout",
    "stderr",
    "close",
    "flush",
    "_exit",
    "_finalizer_registry",
    "_afterfork_registry",
    "data",
    "_logger",
    "excepthook",
    "fork",
    "_bootstrap",
    "_after_fork",
    "_start_method",
    "_parent_name",
    "_exit_function",
    "_force_start_method",
    "_sentinel",
];

/// The modules a child deals with, by their dictionaries, and functions of theirs.
struct World {
    names: Vec<Py<PyString>>,
    process: Py<PyDict>,
    util: Py<PyDict>,
    context: Py<PyDict>,
    sys: Py<PyDict>,
    os: Py<PyDict>,
    default_context: Py<PyAny>,
    contexts: Py<PyDict>,
    explain: Py<PyAny>,
    admit_interrupts: Py<PyAny>,
    count: Py<PyAny>,
    /// The empty standard input.
    nothing: Py<PyAny>,
    /// How to fork where that takes more than `os.fork`.
    fork: Option<Py<PyAny>>,
    own_exit: Py<PyAny>,
    clear_handlers: Py<PyAny>,
    count_handlers: Py<PyAny>,
    run_handlers: Py<PyAny>,
    /// None of the functions below had been replaced when they were looked up.
    untouched: bool,
    exit_function: Py<PyAny>,
    force_start_method: Py<PyAny>,
    bootstrap: Py<PyAny>,
    /// `_after_fork` of rsmp's processes, and that of those which ask the default context for it.
    after_fork: Py<PyAny>,
    default_after_fork: Py<PyAny>,
    own_default_context: Py<PyAny>,
}

static WORLD: PyOnceLock<World> = PyOnceLock::new();

impl World {
    fn get(py: Python<'_>) -> PyResult<&'static Self> {
        WORLD.get_or_try_init(py, || Self::find(py))
    }

    fn find(py: Python<'_>) -> PyResult<Self> {
        let borrowed = py.import("rsmp._stdlib")?;
        let standard = |name: &str| borrowed.call_method1("load", (name,));
        let dictionary = |module: &Bound<'_, PyAny>| -> PyResult<Py<PyDict>> {
            Ok(module.getattr("__dict__")?.cast_into::<PyDict>()?.unbind())
        };
        let (process, util, context) = (standard("process")?, standard("util")?, standard("context")?);
        let handlers = py.import("atexit")?;
        let child = py.import("rsmp._child")?;
        let own_context = py.import("rsmp.context")?;
        let base = process.getattr("BaseProcess")?;
        let mut untouched = true;
        let mut own = |module: &Bound<'_, PyAny>, owner: &Bound<'_, PyAny>, name: &str| -> PyResult<Py<PyAny>> {
            let function = owner.getattr(name)?;
            untouched &= !borrowed.call_method1("replaced", (module, &function))?.is_truthy()?;
            Ok(function.unbind())
        };
        Ok(Self {
            names: NAMES.iter().map(|name| PyString::intern(py, name).unbind()).collect(),
            exit_function: own(&util, &util, "_exit_function")?,
            force_start_method: own(&context, &context, "_force_start_method")?,
            bootstrap: own(&process, &base, "_bootstrap")?,
            untouched,
            after_fork: py.import("rsmp.process")?.getattr("Forked")?.getattr("_after_fork")?.unbind(),
            default_after_fork: own_context.getattr("Process")?.getattr("_after_fork")?.unbind(),
            own_default_context: own_context.getattr("_default_context")?.unbind(),
            default_context: context.getattr("_default_context")?.unbind(),
            contexts: context.getattr("_concrete_contexts")?.cast_into::<PyDict>()?.unbind(),
            process: dictionary(&process)?,
            util: dictionary(&util)?,
            context: dictionary(&context)?,
            sys: dictionary(py.import("sys")?.as_any())?,
            os: dictionary(py.import("os")?.as_any())?,
            explain: child.getattr("explain")?.unbind(),
            admit_interrupts: child.getattr("admit_interrupts")?.unbind(),
            nothing: child.call_method0("prepare_fork")?.unbind(),
            count: py.import("itertools")?.getattr("count")?.unbind(),
            fork: if py.version_info() >= (3, 14) {
                Some(py.import("rsmp.popen_fork")?.getattr("_fork")?.unbind())
            } else {
                None
            },
            own_exit: py.import("posix")?.getattr("_exit")?.unbind(),
            clear_handlers: handlers.getattr("_clear")?.unbind(),
            count_handlers: handlers.getattr("_ncallbacks")?.unbind(),
            run_handlers: handlers.getattr("_run_exitfuncs")?.unbind(),
        })
    }

    /// Whether nobody has replaced one of the steps between the fork and the end of `process`.
    fn is_ordinary(&self, process: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = process.py();
        let is = |module: &Py<PyDict>, name: Name, own: &Py<PyAny>| -> PyResult<bool> {
            Ok(module.bind(py).get_item(self.name(py, name))?.is_some_and(|function| function.is(own)))
        };
        Ok(self.untouched
            && !self.nothing.is_none(py)
            && is(&self.util, Name::ExitFunction, &self.exit_function)?
            && is(&self.context, Name::ForceStartMethod, &self.force_start_method)?
            && process.get_type().getattr(self.name(py, Name::Bootstrap))?.is(&self.bootstrap)
            && self.has_own_hook(process)?)
    }

    fn has_own_hook(&self, process: &Bound<'_, PyAny>) -> PyResult<bool> {
        let py = process.py();
        let name = self.name(py, Name::AfterFork);
        let hook = process.getattr(name)?;
        if !hook.is(&self.default_after_fork) {
            return Ok(hook.is(&self.after_fork));
        }
        let context = self.own_default_context.bind(py).call_method0("get_context")?;
        Ok(context.getattr("Process")?.getattr(name)?.is(&self.after_fork))
    }

    fn context_to_choose<'py>(&self, process: &Bound<'py, PyAny>) -> PyResult<Option<Bound<'py, PyAny>>> {
        let py = process.py();
        let method = process.getattr(self.name(py, Name::StartMethod))?;
        if method.is_none() {
            return Ok(None);
        }
        let context = self.contexts.bind(py).as_any().get_item(method)?;
        let chosen = self.default_context.bind(py).getattr(self.name(py, Name::ActualContext))?;
        Ok((!chosen.is(&context)).then_some(context))
    }

    fn name<'py>(&self, py: Python<'py>, name: Name) -> &Bound<'py, PyString> {
        self.names[name as usize].bind(py)
    }

    /// Replaces the standard input, which is the parent's, by nothing.
    fn close_stdin(&self, py: Python<'_>) -> PyResult<()> {
        let sys = self.sys.bind(py);
        let Some(stdin) = sys.get_item(self.name(py, Name::Stdin))? else { return Ok(()) };
        if stdin.is_none() || stdin.is(&self.nothing) {
            return Ok(());
        }
        match stdin.call_method0(self.name(py, Name::Close)) {
            Err(error) if !error.is_instance_of::<PyOSError>(py) && !error.is_instance_of::<PyValueError>(py) => {
                Err(error)
            }
            // Closed already, or the descriptor is gone.
            _ => sys.set_item(self.name(py, Name::Stdin), &self.nothing),
        }
    }

    /// What `BaseProcess._after_fork` does.
    fn run_after_fork(&self, py: Python<'_>) -> PyResult<()> {
        let util = self.util.bind(py);
        if let Some(finalizers) = util.get_item(self.name(py, Name::Finalizers))? {
            finalizers.cast::<PyDict>()?.clear();
        }
        if let Some(registry) = util.get_item(self.name(py, Name::AfterForkers))?
            && !registry.getattr(self.name(py, Name::Data))?.cast::<PyDict>()?.is_empty()
            && let Some(run) = util.get_item("_run_after_forkers")?
        {
            run.call0()?;
        }
        Ok(())
    }

    /// Logs `message` if there is a logger.
    fn inform(&self, py: Python<'_>, message: &str) -> PyResult<()> {
        let util = self.util.bind(py);
        if util.get_item(self.name(py, Name::Logger))?.is_some_and(|logger| !logger.is_none())
            && let Some(info) = util.get_item("info")?
        {
            info.call1((message,))?;
        }
        Ok(())
    }

    fn handlers(&self, py: Python<'_>) -> PyResult<usize> {
        self.count_handlers.call0(py)?.extract(py)
    }

    /// Runs exit handlers and finalizers and writes out what is buffered. Returns the exit code.
    fn end(&self, py: Python<'_>, code: i32) -> i32 {
        let handled = self.run_handlers(py).and_then(|()| {
            self.flush(py, Name::Stdout)?;
            self.flush(py, Name::Stderr)
        });
        match handled {
            Ok(()) => code,
            Err(error) => self.report(py, &error),
        }
    }

    fn run_handlers(&self, py: Python<'_>) -> PyResult<()> {
        if self.handlers(py)? > 0 {
            self.run_handlers.call0(py)?;
        }
        // In the standard library the first of the handlers, so the last to run.
        if self.has_something_to_end(py)?
            && let Err(error) = self.exit_function.call0(py)
        {
            error.write_unraisable(py, Some(self.exit_function.bind(py)));
        }
        Ok(())
    }

    /// Whether `util._exit_function` would do anything: there are finalizers, children, or a logger to tell.
    fn has_something_to_end(&self, py: Python<'_>) -> PyResult<bool> {
        let (util, process) = (self.util.bind(py), self.process.bind(py));
        let finalizers = util.get_item(self.name(py, Name::Finalizers))?;
        let children = process.get_item(self.name(py, Name::Children))?;
        let logger = util.get_item(self.name(py, Name::Logger))?;
        Ok(finalizers.is_none_or(|all| all.cast::<PyDict>().map_or(true, |all| !all.is_empty()))
            || children.is_none_or(|all| all.cast::<PySet>().map_or(true, |all| !all.is_empty()))
            || logger.is_some_and(|logger| !logger.is_none()))
    }

    fn flush(&self, py: Python<'_>, stream: Name) -> PyResult<()> {
        let Some(stream) = self.sys.bind(py).get_item(self.name(py, stream))? else { return Ok(()) };
        match stream.call_method0(self.name(py, Name::Flush)) {
            Err(error)
                if !error.is_instance_of::<PyAttributeError>(py) && !error.is_instance_of::<PyValueError>(py) =>
            {
                Err(error)
            }
            _ => Ok(()),
        }
    }

    /// Shows an exception that came from the steps themselves, as an interpreter does at its end. Returns the exit code.
    fn report(&self, py: Python<'_>, error: &PyErr) -> i32 {
        if error.is_instance_of::<PySystemExit>(py) {
            let code = self.explain.call1(py, (py.None(), error.value(py)));
            return code.and_then(|code| code.extract(py)).unwrap_or(1);
        }
        if let Ok(Some(hook)) = self.sys.bind(py).get_item(self.name(py, Name::Excepthook)) {
            let shown = hook.call1((error.get_type(py), error.value(py), error.traceback(py)));
            if let Err(error) = shown {
                error.write_unraisable(py, None);
            }
        }
        1
    }
}
