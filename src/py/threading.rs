//! What a forked child asks of `threading`, if somebody has imported that: rsmp itself does without (`rsmp._stand_ins`).

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PySet, PyString};
use rsmp_core::sys::process;

use crate::deferred;

/// The module, by its dictionary, and functions of it.
pub(crate) struct Threading {
    module: Py<PyDict>,
    /// What is looked up in children, made once: each page that is written there is copied first.
    names: [Py<PyString>; Name::Count as usize],
    main_thread: Py<PyAny>,
    shutdown: Py<PyAny>,
    /// Neither function had been replaced when it was looked up.
    untouched: bool,
}

#[derive(Clone, Copy)]
enum Name {
    MainThread,
    NativeId,
    Atexits,
    ShutdownLocks,
    Shutdown,
    Count,
}

const NAMES: [&str; Name::Count as usize] =
    ["_main_thread", "_native_id", "_threading_atexits", "_shutdown_locks", "_shutdown"];

static THREADING: PyOnceLock<Threading> = PyOnceLock::new();

impl Threading {
    /// The module, if it has been imported.
    pub(crate) fn imported(py: Python<'_>) -> PyResult<Option<&'static Self>> {
        if let Some(known) = THREADING.get(py) {
            return Ok(Some(known));
        }
        match deferred::imported(py, "threading")? {
            Some(module) => THREADING.get_or_try_init(py, || Self::look_up(&module)).map(Some),
            None => Ok(None),
        }
    }

    fn look_up(module: &Bound<'_, PyAny>) -> PyResult<Self> {
        let replaced = module.py().import("rsmp._stdlib")?.getattr("replaced")?;
        let (main_thread, shutdown) = (module.getattr("main_thread")?, module.getattr("_shutdown")?);
        Ok(Self {
            module: module.getattr("__dict__")?.cast_into::<PyDict>()?.unbind(),
            names: NAMES.map(|name| PyString::intern(module.py(), name).unbind()),
            untouched: !replaced.call1((module, &main_thread))?.is_truthy()?
                && !replaced.call1((module, &shutdown))?.is_truthy()?,
            main_thread: main_thread.unbind(),
            shutdown: shutdown.unbind(),
        })
    }

    /// Whether nobody has replaced the functions that a child's start and end would call.
    pub(crate) fn is_ordinary(&self, py: Python<'_>) -> PyResult<bool> {
        let main_thread = self.module.bind(py).get_item(intern!(py, "main_thread"))?;
        Ok(self.untouched
            && main_thread.is_some_and(|function| function.is(&self.main_thread))
            && self.get(py, Name::Shutdown)?.is_some_and(|function| function.is(&self.shutdown)))
    }

    /// Tells the main thread, in a child, which thread of the system it is now.
    pub(crate) fn set_native_id(&self, py: Python<'_>) -> PyResult<()> {
        match self.get(py, Name::MainThread)? {
            Some(main) => main.setattr(self.names[Name::NativeId as usize].bind(py), process::thread_id()),
            None => Ok(()),
        }
    }

    /// Calls `threading._shutdown` unless there is nothing for it to do; from Python 3.13 on it alone knows.
    ///
    /// `handlers`: how many functions are to run at exit.
    pub(crate) fn wait_for_threads(&self, py: Python<'_>, handlers: usize) -> PyResult<()> {
        if let (Some(hooks), Some(locks)) = (self.get(py, Name::Atexits)?, self.get(py, Name::ShutdownLocks)?)
            && hooks.cast::<PyList>().is_ok_and(PyListMethods::is_empty)
            && locks.cast::<PySet>().is_ok_and(PySetMethods::is_empty)
            && handlers == 0
        {
            return Ok(());
        }
        self.get(py, Name::Shutdown)?.map_or(Ok(()), |shutdown| shutdown.call0().map(drop))
    }

    fn get<'py>(&self, py: Python<'py>, name: Name) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.module.bind(py).get_item(self.names[name as usize].bind(py))
    }
}
