//! Passing descriptors over Unix sockets, for `rsmp.reduction`.

use std::os::fd::{IntoRawFd, RawFd};

use pyo3::exceptions::{PyAssertionError, PyRuntimeError};
use pyo3::prelude::*;
use rsmp_core::Deadline;
use rsmp_core::sys::{foreign, socket};

use crate::block;
use crate::error::Failure;

/// Sends `descriptors` over the Unix socket whose own number is `socket`.
#[pyfunction]
pub(crate) fn send_descriptors(py: Python<'_>, socket: RawFd, descriptors: Vec<RawFd>) -> PyResult<()> {
    let channel = foreign::borrow(socket).map_err(Failure::from)?;
    let borrowed: Vec<_> =
        descriptors.iter().map(|&number| foreign::borrow(number)).collect::<Result<_, _>>().map_err(Failure::from)?;
    let note = (descriptors.len() % 256) as u8;
    block::until(py, Deadline::NEVER, |until| socket::send_descriptors(channel, &borrowed, note, until)).map(drop)
}

/// Receives up to `count` descriptors; they are the caller's from then on.
#[pyfunction]
pub(crate) fn receive_descriptors(py: Python<'_>, socket: RawFd, count: usize) -> PyResult<Vec<RawFd>> {
    let channel = foreign::borrow(socket).map_err(Failure::from)?;
    let received = block::until(py, Deadline::NEVER, |until| socket::receive_descriptors(channel, count, until))?;
    let Some(received) = received else { return Err(PyRuntimeError::new_err("Invalid data received")) };
    if received.groups != 1 {
        return Err(PyRuntimeError::new_err(format!("received {} items of ancdata", received.groups)));
    }
    let Some(note) = received.note else { return Err(PyRuntimeError::new_err("Invalid data received")) };
    let came = received.descriptors.len();
    if came % 256 != usize::from(note) {
        return Err(PyAssertionError::new_err(format!("Len is {came} but msg[0] is {note}")));
    }
    Ok(received.descriptors.into_iter().map(IntoRawFd::into_raw_fd).collect())
}
