//! Python objects that are a single number or string, and back.

use pyo3::IntoPyObjectExt;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyString};
use rsmp_core::frame::scalar::Scalar;

/// The object as a scalar, if it is exactly that: the C pickler, too, saves these before it looks for reducers.
pub(crate) fn from_object<'a>(object: &'a Bound<'_, PyAny>) -> Option<Scalar<'a>> {
    if let Ok(int) = object.cast_exact::<PyInt>() {
        return int.extract().ok().map(Scalar::Int);
    }
    if let Ok(text) = object.cast_exact::<PyString>() {
        return text.to_str().ok().map(Scalar::Str);
    }
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return Some(Scalar::Bytes(bytes.as_bytes()));
    }
    if let Ok(float) = object.cast_exact::<PyFloat>() {
        return Some(Scalar::Float(float.value()));
    }
    if let Ok(truth) = object.cast_exact::<PyBool>() {
        return Some(Scalar::Bool(truth.is_true()));
    }
    object.is_none().then_some(Scalar::None)
}

pub(crate) fn to_object<'py>(py: Python<'py>, scalar: Scalar<'_>) -> PyResult<Bound<'py, PyAny>> {
    match scalar {
        Scalar::None => Ok(py.None().into_bound(py)),
        Scalar::Bool(value) => value.into_bound_py_any(py),
        Scalar::Int(value) => value.into_bound_py_any(py),
        Scalar::Float(value) => value.into_bound_py_any(py),
        Scalar::Str(text) => Ok(PyString::new(py, text).into_any()),
        Scalar::Bytes(bytes) => Ok(PyBytes::new(py, bytes).into_any()),
    }
}
