//! A region: one memory file and its mapping in this process.
//!
//! # Safety
//! Every access goes through an offset that is checked against the mapping. Words are atomics; bytes are copied through
//! raw pointers, because a peer may write them at any time and a `&[u8]` would promise that nobody does.
//! Reading an offset beyond what was allocated raises SIGBUS, so `allocate` comes before publishing an offset.
#![allow(unsafe_code)]

use core::ptr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::atomic::{AtomicU32, AtomicU64};
use crate::error::Result;
use crate::sys::memory::{self, Mapping};

#[derive(Debug)]
pub struct Region {
    file: OwnedFd,
    mapping: Mapping,
}

impl Region {
    /// A new region with address space for `reserve` bytes, of which the first `initial` are usable and zero.
    pub fn create(name: &str, reserve: usize, initial: usize) -> Result<Self> {
        let file = memory::create(name)?;
        memory::allocate(&file, 0, initial as u64)?;
        Self::attach(file, reserve)
    }

    /// Maps the region behind `file`, received from the process that created it.
    pub fn attach(file: OwnedFd, reserve: usize) -> Result<Self> {
        let mapping = Mapping::new(&file, reserve)?;
        Ok(Self { file, mapping })
    }

    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// Bytes of address space.
    #[must_use]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.mapping.is_empty()
    }

    /// Makes `[offset, offset + len)` usable; the file grows to it.
    pub fn allocate(&self, offset: usize, len: usize) -> Result<()> {
        memory::allocate(&self.file, offset as u64, len as u64)
    }

    /// Maps the pages of `[offset, offset + len)`, which are usable, before they are filled.
    pub fn touch(&self, offset: usize, len: usize) {
        self.mapping.touch(offset, len);
    }

    /// Gives the pages of `[offset, offset + len)` back to the system.
    pub fn give_back(&self, offset: usize, len: usize) -> Result<()> {
        memory::give_back(&self.file, offset as u64, len as u64)
    }

    /// The address of `[offset, offset + len)`.
    ///
    /// # Panics
    /// If the range is not inside the mapping: offsets read from shared memory are validated before they get here.
    #[inline]
    #[must_use]
    pub fn pointer(&self, offset: usize, len: usize) -> *mut u8 {
        let end = offset.checked_add(len);
        assert!(end.is_some_and(|end| end <= self.mapping.len()), "offset {offset}+{len} is outside the region");
        // SAFETY: the range was just checked to lie inside the mapping.
        unsafe { self.mapping.base().as_ptr().add(offset) }
    }

    /// The 32-bit word at `offset`, a multiple of 4.
    #[inline]
    #[must_use]
    pub fn word32(&self, offset: usize) -> &AtomicU32 {
        let address = self.pointer(offset, 4);
        assert!(offset.is_multiple_of(4), "offset {offset} is not aligned");
        // SAFETY: in bounds and aligned (the mapping starts on a page), alive as long as `self`, and every process
        // reaches the word as an atomic.
        unsafe { AtomicU32::from_ptr(address.cast::<u32>()) }
    }

    /// The 64-bit word at `offset`, a multiple of 8.
    #[inline]
    #[must_use]
    pub fn word64(&self, offset: usize) -> &AtomicU64 {
        let address = self.pointer(offset, 8);
        assert!(offset.is_multiple_of(8), "offset {offset} is not aligned");
        // SAFETY: as in `word32`.
        unsafe { AtomicU64::from_ptr(address.cast::<u64>()) }
    }

    /// Copies `bytes` to `offset`.
    #[inline]
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) {
        let address = self.pointer(offset, bytes.len());
        // SAFETY: the destination is in bounds; `bytes` is this process's own memory, so the two do not overlap. A peer
        // that writes there at the same time garbles bytes, which the protocols above rule out by ownership.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address, bytes.len()) }
    }

    /// Copies from `offset` into `bytes`.
    #[inline]
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) {
        let address = self.pointer(offset, bytes.len());
        // SAFETY: as in `copy_in`, the other way round.
        unsafe { ptr::copy_nonoverlapping(address, bytes.as_mut_ptr(), bytes.len()) }
    }
}
