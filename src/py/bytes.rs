//! A `bytes` object that is filled before anyone else sees it, so that received bytes are not copied.
//!
//! # Safety
//! An `Unfinished` holds the only reference to its object, and nothing looks at the bytes before `finish`: until then they
//! may be written without the interpreter, and the object may move when it grows.
#![allow(unsafe_code)]

use core::mem::MaybeUninit;
use core::slice;

use pyo3::exceptions::PyMemoryError;
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::PyBytes;

unsafe extern "C" {
    fn _PyBytes_Resize(bytes: *mut *mut ffi::PyObject, size: ffi::Py_ssize_t) -> core::ffi::c_int;
}

/// Mappings of this size and more get huge pages: the faults of small ones cost more than filling them.
pub(crate) const HUGE: usize = 4 << 20;

pub(crate) struct Unfinished<'py> {
    py: Python<'py>,
    object: *mut ffi::PyObject,
    capacity: usize,
}

impl<'py> Unfinished<'py> {
    pub(crate) fn with_capacity(py: Python<'py>, capacity: usize) -> PyResult<Self> {
        let size = isize::try_from(capacity).map_err(|_| PyMemoryError::new_err(()))?;
        // SAFETY: a null source asks for an object whose bytes are not set yet.
        let object = unsafe { ffi::PyBytes_FromStringAndSize(core::ptr::null(), size) };
        if object.is_null() {
            return Err(PyErr::fetch(py));
        }
        let mut bytes = Self { py, object, capacity };
        rsmp_core::sys::memory::prefer_huge_pages(bytes.space(), HUGE);
        Ok(bytes)
    }

    /// All of the bytes, those that were written before a `grow` included.
    pub(crate) fn space(&mut self) -> &mut [MaybeUninit<u8>] {
        // SAFETY: the object has this many bytes and this is the only reference to it. An empty `bytes` is shared by
        // everyone, and nothing can be written to it.
        unsafe { slice::from_raw_parts_mut(ffi::PyBytes_AsString(self.object).cast(), self.capacity) }
    }

    pub(crate) fn grow(&mut self, capacity: usize) -> PyResult<()> {
        let size = isize::try_from(capacity).map_err(|_| PyMemoryError::new_err(()))?;
        // SAFETY: the only reference, never hashed; on failure the object is gone and the pointer is null.
        if unsafe { _PyBytes_Resize(&raw mut self.object, size) } < 0 {
            self.capacity = 0;
            return Err(PyErr::fetch(self.py));
        }
        self.capacity = capacity;
        rsmp_core::sys::memory::prefer_huge_pages(self.space(), HUGE);
        Ok(())
    }

    /// The object, once all of its bytes are written.
    pub(crate) fn finish(self) -> Bound<'py, PyBytes> {
        let object = core::mem::ManuallyDrop::new(self);
        // SAFETY: a new reference to a bytes object, which moves to the result.
        unsafe { Bound::from_owned_ptr(object.py, object.object).cast_into_unchecked() }
    }
}

impl Drop for Unfinished<'_> {
    fn drop(&mut self) {
        // SAFETY: the reference is ours; null after a failed `grow`.
        unsafe { ffi::Py_XDECREF(self.object) }
    }
}
