//! `rsmp.heap`: blocks of anonymous shared memory.
//!
//! # Safety
//! A `Block` hands out its address range through the buffer protocol. Every view holds a reference to the `Block`, which
//! is never closed while it exists.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use rsmp_core::shm::region::Region;
use rsmp_core::sys::memory;

use crate::error::{Failure, Outcome};

/// `len` bytes of shared memory, zero at first, in a memory file of their own.
#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
pub(crate) struct Block {
    region: Region,
    len: usize,
}

#[pymethods]
impl Block {
    /// A new block of `len` bytes, MemoryError if there is no memory for all of it now; or the block behind
    /// `descriptor`, which stays the caller's.
    #[new]
    #[pyo3(signature = (len, descriptor = None))]
    fn new(len: usize, descriptor: Option<RawFd>) -> PyResult<Self> {
        let size = len.max(1);
        let region = match descriptor {
            None => Region::create("rsmp-block", size, size),
            Some(negative @ ..0) => return Err(PyValueError::new_err(format!("{negative} is no descriptor"))),
            Some(descriptor) => {
                // SAFETY: the caller owns the descriptor and keeps it open for the call.
                let file = unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?;
                Region::attach(file, size)
            }
        };
        Ok(Self { region: region.map_err(Failure::from)?, len })
    }

    /// The descriptor of the memory file; it stays the block's.
    fn fileno(&self) -> RawFd {
        self.region.file().as_raw_fd()
    }

    fn __len__(&self) -> usize {
        self.len
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let block = slf.get();
        let base = block.region.pointer(0, block.len).cast::<c_void>();
        // SAFETY: `view` is the caller's to fill in; the range stays mapped as long as the block, which the view holds.
        let filled = unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), base, block.len.cast_signed(), 0, flags) };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

/// A new memory file of `size` zero bytes, the caller's descriptor.
#[pyfunction]
pub(crate) fn memory_file(size: u64) -> Outcome<RawFd> {
    let file = memory::create("rsmp-heap")?;
    memory::allocate(&file, 0, size)?;
    Ok(file.into_raw_fd())
}
