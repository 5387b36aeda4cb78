//! `rsmp.synchronize`: one file per class over the primitive of the same name in `rsmp_core::sync`.
//!
//! Each object is empty until `_open` or `_restore` gives it a cell, so that Python classes derive from it in any way.
//! Taking what is free happens attached to the interpreter; only a wait detaches, in `block`. What locks and semaphores
//! have in common stands in `held`.

use std::sync::OnceLock;

use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rsmp_core::Deadline;
use rsmp_core::shm::arena::{self, Cell};
use rsmp_core::shm::waits::Kind;

use crate::arena as pickles;
use crate::error::Failure;

mod barrier;
mod condition;
mod event;
mod fast;
mod held;
mod lock;
mod rlock;
mod semaphore;
#[cfg(not(any(Py_3_14, Py_GIL_DISABLED, py_sys_config = "Py_TRACE_REFS")))]
mod special;

pub(crate) use barrier::Barrier;
pub(crate) use condition::Condition;
pub(crate) use event::Event;
pub(crate) use held::Primitive;
pub(crate) use lock::Lock;
pub(crate) use rlock::RLock;
pub(crate) use semaphore::Semaphore;

/// Completes the classes of the module.
pub(crate) fn complete(py: Python<'_>) -> PyResult<()> {
    fast::add_methods::<Lock>(&py.get_type::<Lock>())?;
    fast::add_methods::<RLock>(&py.get_type::<RLock>())?;
    fast::add_methods::<Semaphore>(&py.get_type::<Semaphore>())
}

const TOO_MANY: &str = "semaphore or lock released too many times";

/// The standard `RECURSIVE_MUTEX` and `SEMAPHORE`.
const KIND_RECURSIVE: u8 = 0;
const KIND_SEMAPHORE: u8 = 1;

/// The shared memory of an object, once it has some.
#[derive(Default)]
pub(crate) struct Place(OnceLock<Cell>);

impl Place {
    #[inline]
    fn get(&self) -> PyResult<&Cell> {
        self.0.get().ok_or_else(Self::empty)
    }

    /// As `get`, for what is called so often that an error unmade counts.
    #[inline]
    fn cell(&self) -> Option<&Cell> {
        self.0.get()
    }

    #[cold]
    fn empty() -> PyErr {
        PyAttributeError::new_err("__init__() was not called")
    }

    /// Gives the object, a `kind`, `len` bytes of memory, zero, before `fill` writes to them.
    #[inline]
    fn open(&self, kind: Kind, len: usize, fill: impl FnOnce(&Cell)) -> PyResult<()> {
        let cell = arena::allocate(len).map_err(Failure::from)?;
        fill(&cell);
        cell.tag(kind);
        self.set(cell)
    }

    /// The picklable state of `object`, whose place this is.
    fn share<'py>(&self, object: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
        pickles::share(object, self.get()?)
    }

    /// Gives the object the memory behind the `state` that `share` gave.
    fn restore(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        self.set(pickles::restore(state)?)
    }

    fn set(&self, cell: Cell) -> PyResult<()> {
        self.0.set(cell).map_err(|_| PyRuntimeError::new_err("already initialised"))
    }
}

/// The argument `block` of `acquire`, true when it is left out.
pub(crate) enum Block<'py> {
    Default,
    Given(Bound<'py, PyAny>),
}

impl<'a, 'py> FromPyObject<'a, 'py> for Block<'py> {
    type Error = PyErr;

    fn extract(object: Borrowed<'a, 'py, PyAny>) -> PyResult<Self> {
        Ok(Self::Given(object.to_owned()))
    }
}

impl Block<'_> {
    #[inline]
    fn blocks(self) -> PyResult<bool> {
        match self {
            Self::Default => Ok(true),
            // An int until 3.11, any truth value since.
            #[cfg(not(Py_3_12))]
            Self::Given(given) => given.extract::<i32>().map(|given| given != 0),
            #[cfg(Py_3_12)]
            Self::Given(given) => given.is_truthy(),
        }
    }
}

/// A timeout in seconds, `None` for ever, as the standard library takes it: negative is none at all.
#[inline]
fn seconds(timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<f64>> {
    timeout.map(PyAnyMethods::extract).transpose()
}

#[inline]
fn deadline(block: Block<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<Option<Deadline>> {
    let timeout = seconds(timeout)?;
    Ok(block.blocks()?.then(|| Deadline::from_seconds(timeout)))
}
