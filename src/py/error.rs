//! The one conversion of the engine's errors to Python exceptions.

use pyo3::exceptions::{PyEOFError, PyMemoryError, PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use rsmp_core::error::Kind;

/// `From<rsmp_core::Error> for PyErr` cannot be written here (orphan rule), so `?` goes through this wrapper.
#[derive(Debug)]
pub(crate) struct Failure(rsmp_core::Error);

pub(crate) type Outcome<T> = Result<T, Failure>;

impl From<rsmp_core::Error> for Failure {
    fn from(error: rsmp_core::Error) -> Self {
        Self(error)
    }
}

impl From<Failure> for PyErr {
    fn from(Failure(error): Failure) -> Self {
        match error.kind() {
            // OSError(errno, message) picks the subclass, BrokenPipeError and so on, by itself.
            Kind::Os(errno) => PyOSError::new_err((errno.raw_os_error(), error.to_string())),
            Kind::OutOfMemory => PyMemoryError::new_err(error.to_string()),
            Kind::EndOfStream => PyEOFError::new_err(error.to_string()),
            Kind::Closed => PyOSError::new_err("handle is closed"),
            Kind::NotOwner(why) => pyo3::exceptions::PyAssertionError::new_err(why.to_string()),
            Kind::OwnerDied { pid } => owner_died(error.to_string(), *pid),
            Kind::Corrupt(_) => PyOSError::new_err(error.to_string()),
            _ => PyValueError::new_err(error.to_string()),
        }
    }
}

/// `rsmp.synchronize.OwnerDiedError`.
fn owner_died(message: String, pid: u32) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    Python::attach(|py| match CLASS.import(py, "rsmp.synchronize", "OwnerDiedError") {
        Ok(class) => PyErr::from_type(class.clone(), (message, pid)),
        Err(error) => error,
    })
}
