//! `Buffer`: the memory of a large array that arrived.
//!
//! # Safety
//! A `Buffer` hands out its address range through the buffer protocol. Every view holds a reference to the `Buffer`, which
//! keeps its memory as long as it exists.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use core::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use rsmp_core::warm::Space;

use crate::block;
use crate::error::Failure;

/// Bytes of its own that may be written, as those of a `bytearray`. Its memory is used again when it is gone.
#[pyclass(frozen, module = "rsmp._rsmp")]
pub(crate) struct Buffer {
    space: Space,
    len: usize,
}

impl Buffer {
    /// A buffer that holds a copy of `bytes`.
    pub(crate) fn copy_of<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
        let space = block::aside(py, || {
            let space = Space::take(bytes.len())?;
            // SAFETY: the space is this call's alone, at least as long, and not shared memory.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), space.start().as_ptr(), bytes.len()) };
            Ok::<_, rsmp_core::Error>(space)
        });
        let buffer = Self { space: space.map_err(Failure::from)?, len: bytes.len() };
        Ok(Bound::new(py, buffer)?.into_any())
    }
}

#[pymethods]
impl Buffer {
    fn __len__(&self) -> usize {
        self.len
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let buffer = slf.get();
        let start = buffer.space.start().as_ptr().cast::<c_void>();
        // SAFETY: `view` is the caller's to fill in; the range stays mapped as long as the buffer, which the view holds.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), start, buffer.len.cast_signed(), 0, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}
