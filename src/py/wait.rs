//! `connection.wait`: which of several objects is ready to be read.

use std::os::fd::RawFd;

use pyo3::exceptions::{PyAttributeError, PyKeyError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyInt, PyList};
use rsmp_core::Deadline;
use rsmp_core::shm::waits::{Kind, What};
use rsmp_core::sys::foreign;
use rsmp_core::sys::poll::Set;

use crate::block;
use crate::error::Failure;

/// Up to this many objects are searched for a repeated one by looking at each.
const FEW: usize = 16;

/// Return those of the objects that are ready to be read, waiting `timeout` seconds for the first.
///
/// The objects are connections, sockets, process sentinels, or anything with `fileno()`.
#[pyfunction]
#[pyo3(signature = (object_list, timeout=None))]
pub(crate) fn wait<'py>(object_list: &Bound<'py, PyAny>, timeout: Option<f64>) -> PyResult<Bound<'py, PyList>> {
    let py = object_list.py();
    let mut objects = Vec::new();
    let mut numbers: Vec<RawFd> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for object in object_list.try_iter()? {
        let object = object?;
        let number = number(&object)?;
        let repeated = if numbers.len() < FEW { numbers.contains(&number) } else { seen.contains(&number) };
        if repeated {
            let object = object.repr()?;
            return Err(PyKeyError::new_err(format!("{object} (FD {number}) is already registered")));
        }
        numbers.push(number);
        if numbers.len() == FEW {
            seen.extend(numbers.iter().copied());
        } else if numbers.len() > FEW {
            seen.insert(number);
        }
        objects.push(object);
    }
    let mut set = Set::with_capacity(numbers.len());
    for &number in &numbers {
        set.push(foreign::borrow(number).map_err(Failure::from)?);
    }
    let ready = PyList::empty(py);
    let first = numbers.first().map_or(0, |number| u64::from(number.unsigned_abs()));
    let what = What::new(Kind::Any, first, numbers.len() as u64);
    let found =
        block::until_for(py, what, Deadline::from_seconds(timeout), |until| Ok((set.wait(until)? > 0).then_some(())))?;
    if found.is_some() {
        for position in set.ready() {
            ready.append(&objects[position])?;
        }
    }
    Ok(ready)
}

/// The descriptor behind an object, by the rules of `selectors`.
fn number(object: &Bound<'_, PyAny>) -> PyResult<RawFd> {
    let py = object.py();
    let number = if object.is_instance_of::<PyInt>() {
        object.extract::<RawFd>()?
    } else {
        let asked = object.call_method0(intern!(py, "fileno")).and_then(|number| {
            if number.is_instance_of::<PyInt>() {
                return number.extract::<RawFd>();
            }
            py.get_type::<PyInt>().call1((number,))?.extract::<RawFd>()
        });
        match asked {
            Ok(number) => number,
            Err(error)
                if error.is_instance_of::<PyAttributeError>(py)
                    || error.is_instance_of::<PyTypeError>(py)
                    || error.is_instance_of::<PyValueError>(py) =>
            {
                return Err(PyValueError::new_err(format!("Invalid file object: {}", object.repr()?)));
            }
            Err(error) => return Err(error),
        }
    };
    if number < 0 {
        return Err(PyValueError::new_err(format!("Invalid file descriptor: {number}")));
    }
    Ok(number)
}
