//! The queue's words and bytes as Rust sees them.
//!
//! # Safety
//! `Ring` is made only over a file whose first `HEADER` bytes are allocated, and its first extent stays mapped as long as
//! it lives. All fields of `Header` are atomics. The mutexes are made before the magic number that `attach` looks for.
//! Bytes of the stream and of slabs are only copied; who may touch which is the protocol of `ring`.
#![allow(unsafe_code)]

use core::ptr::{self, NonNull};

use crate::error::Result;
use crate::ring::Ring;
use crate::ring::layout::{HEADER, Header, Side, Word};
use crate::sys::memory;
use crate::sys::robust::RobustMutex;

impl Ring {
    #[inline]
    pub(super) fn header(&self) -> &Header {
        // SAFETY: allocated and mapped (see above), page-aligned, and nothing but atomics.
        unsafe { self.file.first().cast::<Header>().as_ref() }
    }

    pub(super) fn make_mutexes(&self) -> Result<()> {
        let header = self.header();
        for side in [&header.put, &header.get] {
            // SAFETY: `create` calls this before anybody else knows of the file; the words are the mutex's place.
            unsafe { RobustMutex::initialise(NonNull::from(&side.mutex).cast())? }
        }
        // SAFETY: as above.
        unsafe { header.slabs.initialise(HEADER as u64) }
    }

    /// `len` words at `offset`.
    #[inline]
    pub(super) fn words(&self, offset: u64, len: usize) -> Result<&[Word]> {
        let address = self.file.pointer(offset, len as u64 * 8)?;
        debug_assert!(offset.is_multiple_of(8));
        // SAFETY: in bounds and aligned, mapped as long as `self`, and every process reaches them as atomics.
        Ok(unsafe { memory::words(address, len) })
    }

    #[inline]
    pub(super) fn copy_in(&self, offset: u64, bytes: &[u8]) -> Result<()> {
        let address = self.file.pointer(offset, bytes.len() as u64)?;
        // SAFETY: in bounds; `bytes` is memory of this process, so the two do not overlap.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), address.as_ptr(), bytes.len()) }
        Ok(())
    }

    /// Appends `len` bytes at `offset` to `out`, which has room for them.
    #[inline]
    pub(super) fn copy_out(&self, offset: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        let address = self.file.pointer(offset, len as u64)?;
        assert!(out.capacity() - out.len() >= len, "no room for what is copied out");
        // SAFETY: the source is in bounds, the destination has room for `len` bytes, which are initialised by the copy.
        unsafe {
            ptr::copy_nonoverlapping(address.as_ptr(), out.as_mut_ptr().add(out.len()), len);
            out.set_len(out.len() + len);
        }
        Ok(())
    }

    /// The payload of a lease.
    pub(super) fn leased(&self, offset: u64, len: u64) -> &[u8] {
        let address = self.file.pointer(offset, len).expect("a lease was mapped when it was taken");
        // SAFETY: in bounds and mapped as long as `self`. The slab is leased to this process, which is the only one to
        // touch it until the lease is dropped, so a shared reference over it holds what it promises.
        unsafe { memory::own_bytes(address, len as usize) }
    }
}

impl Side {
    #[inline]
    pub(super) fn mutex(&self) -> &RobustMutex {
        // SAFETY: `make_mutexes` made it there before the queue could be opened.
        unsafe { RobustMutex::at(NonNull::from(&self.mutex).cast()) }
    }
}
