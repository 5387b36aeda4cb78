//! What a queue's record holds for an object, and the object for a record: `codec`'s messages, but for the payloads that
//! are better copied as they are. The tag of a record says which.
//!
//! # Safety
//! A pickle in a lease is read through a `memoryview` of the leased memory, which is released before the lease goes. An
//! `Unfinished` is written by the copy alone.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::ptr;

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use pyo3::{ffi, intern};
use rsmp_core::frame::compact;
use rsmp_core::ring::Lease;

use crate::bytes::Unfinished;
use crate::{block, codec, pickle};

/// A message of `codec`.
const MESSAGE: u8 = 0;
/// The payload of a `bytes` object.
const BYTES: u8 = 1;
/// A pickle that somebody else made.
pub(crate) const PICKLE: u8 = 2;

/// Copies longer than this let other threads run meanwhile.
pub(crate) const LONG: usize = 64 << 10;

thread_local! {
    /// The scratch space of this thread's messages; empty while one is being encoded.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An object as a record's payload.
pub(crate) struct Encoded<'py> {
    tag: u8,
    scratch: Vec<u8>,
    /// The payload itself, where no copy is needed.
    bytes: Option<Bound<'py, PyBytes>>,
}

impl<'py> Encoded<'py> {
    pub(crate) fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            return Ok(Self { tag: BYTES, scratch: Vec::new(), bytes: Some(bytes.clone()) });
        }
        let mut encoded = Self { tag: MESSAGE, scratch: SCRATCH.take(), bytes: None };
        codec::encode(object, &mut encoded.scratch)?;
        Ok(encoded)
    }

    pub(crate) fn tag(&self) -> u8 {
        self.tag
    }

    pub(crate) fn payload(&self) -> &[u8] {
        self.bytes.as_ref().map_or(&self.scratch, |bytes| bytes.as_bytes())
    }
}

impl Drop for Encoded<'_> {
    fn drop(&mut self) {
        if self.scratch.capacity() > 0 {
            pickle::recycle(&mut self.scratch);
            SCRATCH.set(core::mem::take(&mut self.scratch));
        }
    }
}

/// The object of a record whose payload has been copied out.
pub(crate) fn decode<'py>(py: Python<'py>, tag: u8, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match tag {
        MESSAGE => codec::decode(py, payload),
        PICKLE => pickle::loads(py, payload),
        BYTES => Ok(PyBytes::new(py, payload).into_any()),
        _ => Err(unknown(tag)),
    }
}

/// The object of a record whose payload is still in shared memory.
pub(crate) fn decode_lease<'py>(py: Python<'py>, tag: u8, lease: &Lease) -> PyResult<Bound<'py, PyAny>> {
    let payload = lease.bytes();
    match tag {
        MESSAGE => match payload.split_first() {
            Some((&compact::PICKLE, pickled)) => loads_in_place(py, pickled),
            _ => codec::decode(py, payload),
        },
        PICKLE => loads_in_place(py, payload),
        BYTES => {
            let mut bytes = Unfinished::with_capacity(py, payload.len())?;
            let space = bytes.space();
            block::aside(py, || {
                // SAFETY: the space is this call's alone, of the same length, and not shared memory.
                unsafe { ptr::copy_nonoverlapping(payload.as_ptr(), space.as_mut_ptr().cast(), payload.len()) }
            });
            Ok(bytes.finish().into_any())
        }
        _ => Err(unknown(tag)),
    }
}

/// Unpickles from shared memory.
fn loads_in_place<'py>(py: Python<'py>, pickled: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let len = pickled.len().cast_signed();
    // SAFETY: the memory stays as it is until the lease goes; the view is released before that.
    let view = unsafe {
        let view = ffi::PyMemoryView_FromMemory(pickled.as_ptr().cast_mut().cast(), len, ffi::PyBUF_READ);
        Bound::from_owned_ptr_or_err(py, view)?
    };
    let object = pickle::loads_from(&view);
    view.call_method0(intern!(py, "release"))?;
    object
}

/// The payload as the pickle that the standard library would have sent.
pub(crate) fn as_pickle<'py>(py: Python<'py>, tag: u8, payload: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if tag == PICKLE {
        return Ok(PyBytes::new(py, payload));
    }
    let mut pickled = Vec::new();
    pickle::dumps(&decode(py, tag, payload)?, &mut pickled)?;
    Ok(PyBytes::new(py, &pickled))
}

fn unknown(tag: u8) -> PyErr {
    PyRuntimeError::new_err(format!("a record of the queue has the unknown tag {tag}"))
}
