//! `rsmp.heap`: blocks of anonymous shared memory.
//!
//! # Safety
//! A `Block` hands out its address range through the buffer protocol. Every view holds a reference to the `Block`, which
//! keeps its memory as long as it exists.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use std::os::fd::{AsRawFd, BorrowedFd, IntoRawFd, RawFd};

use pyo3::exceptions::PyValueError;
use pyo3::ffi;
use pyo3::prelude::*;
use rsmp_core::shm::arena::{self, Cell, MAX_CELL};
use rsmp_core::shm::region::Region;
use rsmp_core::sys::memory;

use crate::arena as pickles;
use crate::error::{Failure, Outcome};

/// `len` bytes of shared memory, zero at first: a cell of the arena or, when large, a memory file of its own.
#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
pub(crate) struct Block {
    place: Place,
    len: usize,
}

enum Place {
    Cell(Cell),
    Region(Region),
}

#[pymethods]
#[allow(clippy::needless_pass_by_value)] // the slots of the buffer protocol
impl Block {
    /// A new block of `len` bytes, `MemoryError` if there is no memory for all of it now; or another process's, by the
    /// state of its cell or by its `descriptor`, which stays the caller's.
    #[new]
    #[pyo3(signature = (len, *, cell = None, descriptor = None))]
    fn new(len: usize, cell: Option<&Bound<'_, PyAny>>, descriptor: Option<RawFd>) -> PyResult<Self> {
        let size = len.max(1);
        let place = match (cell, descriptor) {
            (Some(state), _) => Place::Cell(pickles::restore(state)?),
            (None, Some(descriptor)) => Place::Region(attach(descriptor, size)?),
            (None, None) if size <= MAX_CELL => Place::Cell(arena::allocate(size).map_err(Failure::from)?),
            (None, None) => Place::Region(Region::create("rsmp-block", size, size).map_err(Failure::from)?),
        };
        Ok(Self { place, len })
    }

    /// The picklable state of the block's cell; None if it has a memory file of its own.
    fn _share<'py>(slf: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match &slf.get().place {
            Place::Cell(cell) => Ok(Some(pickles::share(slf.as_any(), cell)?.into_any())),
            Place::Region(_) => Ok(None),
        }
    }

    /// The descriptor of the memory file that the block is in.
    fn fileno(&self) -> RawFd {
        match &self.place {
            Place::Cell(cell) => cell.arena().file().as_raw_fd(),
            Place::Region(region) => region.file().as_raw_fd(),
        }
    }

    fn __len__(&self) -> usize {
        self.len
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let block = slf.get();
        let base = match &block.place {
            Place::Cell(cell) if cell.len() >= block.len => cell.address().as_ptr(),
            Place::Cell(_) => return Err(PyValueError::new_err("the block is larger than its cell")),
            Place::Region(region) => region.pointer(0, block.len),
        };
        // SAFETY: `view` is the caller's to fill in; the range stays mapped as long as the block, which the view holds.
        let filled = unsafe {
            ffi::PyBuffer_FillInfo(view, slf.as_ptr(), base.cast::<c_void>(), block.len.cast_signed(), 0, flags)
        };
        if filled == 0 { Ok(()) } else { Err(PyErr::fetch(slf.py())) }
    }
}

fn attach(descriptor: RawFd, size: usize) -> PyResult<Region> {
    if descriptor < 0 {
        return Err(PyValueError::new_err("negative file descriptor"));
    }
    // SAFETY: the caller owns the descriptor and keeps it open for the call.
    let file = unsafe { BorrowedFd::borrow_raw(descriptor) }.try_clone_to_owned()?;
    if memory::size(&file).map_err(Failure::from)? < size as u64 {
        return Err(PyValueError::new_err("the memory file is smaller than the block"));
    }
    Ok(Region::attach(file, size).map_err(Failure::from)?)
}

/// A new memory file of `size` zero bytes, the caller's descriptor.
#[pyfunction]
pub(crate) fn memory_file(size: u64) -> Outcome<RawFd> {
    let file = memory::create("rsmp-heap")?;
    memory::allocate(&file, 0, size)?;
    Ok(file.into_raw_fd())
}
