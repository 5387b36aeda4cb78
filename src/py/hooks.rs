//! Whether a connection's hooks are its own: the private methods that a subclass, or an assignment to an instance or to
//! the class, may replace, and that the standard methods go through.
//!
//! # Safety
//! Takes an instance's dictionary through the C API, with a reference to the instance held.
#![allow(unsafe_code)]

use core::ptr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyString, PyType};

use crate::connection::Connection;
use crate::version::Known;

#[derive(Clone, Copy, Debug)]
pub(crate) enum Hook {
    SendBytes,
    Send,
    RecvBytes,
    Recv,
    Poll,
    Close,
}

impl Hook {
    const ALL: [Self; 6] = [Self::SendBytes, Self::Send, Self::RecvBytes, Self::Recv, Self::Poll, Self::Close];
}

const NAMES: [&str; 6] = ["_send_bytes", "_send", "_recv_bytes", "_recv", "_poll", "_close"];

/// What an untouched connection is measured by.
struct Own {
    names: [Py<PyString>; NAMES.len()],
    methods: [Py<PyAny>; NAMES.len()],
}

static OWN: PyOnceLock<Own> = PyOnceLock::new();
/// The standard class: it does by the hooks what the native one does by itself.
static STANDARD: PyOnceLock<Py<PyAny>> = PyOnceLock::new();

/// The class last found to replace nothing.
static UNTOUCHED: Known = Known::nothing();

/// Whether neither the class nor the instance replaces any of `hooks`.
pub(crate) fn are_own(connection: &Bound<'_, Connection>, hooks: &[Hook]) -> PyResult<bool> {
    let py = connection.py();
    let class = connection.get_type();
    if !UNTOUCHED.is(&class) {
        if own(py)?.differ(&class, hooks)? {
            return Ok(false);
        }
        if !own(py)?.differ(&class, &Hook::ALL)? {
            UNTOUCHED.remember(&class);
        }
    }
    // SAFETY: the object is alive; the result is a new reference, or null with an exception set.
    let attributes = unsafe {
        let dict = ffi::PyObject_GenericGetDict(connection.as_ptr(), ptr::null_mut());
        Bound::from_owned_ptr_or_err(py, dict)?.cast_into_unchecked::<PyDict>()
    };
    if attributes.is_empty() {
        return Ok(true);
    }
    for &hook in hooks {
        if attributes.contains(&own(py)?.names[hook as usize])? {
            return Ok(false);
        }
    }
    Ok(true)
}

/// The standard class's method `name`, which goes through the hooks.
pub(crate) fn inherited<'py>(py: Python<'py>, name: &str) -> PyResult<Bound<'py, PyAny>> {
    let standard = STANDARD.get_or_try_init(py, || {
        let module = py.import("rsmp._stdlib")?.getattr("load")?.call1(("connection",))?;
        module.getattr("Connection").map(Bound::unbind)
    })?;
    standard.bind(py).getattr(name)
}

/// Imports nothing: connections are closed while the interpreter shuts down too.
fn own(py: Python<'_>) -> PyResult<&Own> {
    OWN.get_or_try_init(py, || {
        let class = py.get_type::<Connection>();
        let names = NAMES.map(|name| PyString::intern(py, name));
        let methods = names.iter().map(|name| class.getattr(name).map(Bound::unbind)).collect::<PyResult<Vec<_>>>()?;
        Ok(Own {
            names: names.map(Bound::unbind),
            methods: methods.try_into().map_err(|_| PyRuntimeError::new_err("hooks"))?,
        })
    })
}

impl Own {
    /// Whether the class replaces any of `hooks`.
    fn differ(&self, class: &Bound<'_, PyType>, hooks: &[Hook]) -> PyResult<bool> {
        for &hook in hooks {
            if !class.getattr(&self.names[hook as usize])?.is(&self.methods[hook as usize]) {
                return Ok(true);
            }
        }
        Ok(false)
    }
}
