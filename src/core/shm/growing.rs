//! A memory file that grows without limit, mapped piece by piece as it does.
//!
//! The file is cut into extents: the first 1 MiB, then 1, 2, 4, ... MiB, so that each doubles the file. A process maps an
//! extent when it first reaches into it and keeps it mapped, so an address stays good as long as the file is open here,
//! no address space is reserved for what may never come, and no range that lies within an extent is ever torn.
//!
//! # Safety
//! As in `region`: offsets are checked, words are atomics, bytes are copied through raw pointers. Reading an offset that
//! was never allocated raises SIGBUS, so `allocate` comes before publishing an offset.
#![allow(unsafe_code)]

use core::mem::ManuallyDrop;
use core::ptr::{self, NonNull};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::atomic::{AtomicPtr, Ordering};
use crate::error::{Error, Result};
use crate::sys::memory::{self, Mapping};

/// Size of the first extent.
pub const FIRST: u64 = 1 << 20;
const EXTENTS: usize = 28;
/// The end of the last extent: 128 TiB.
pub const LIMIT: u64 = FIRST << (EXTENTS - 1);

#[derive(Debug)]
pub struct Growing {
    file: OwnedFd,
    first: NonNull<u8>,
    /// Where each extent is mapped in this process; null until it is.
    extents: [AtomicPtr<u8>; EXTENTS],
}

// SAFETY: `first` is the address of a mapping that any thread may reach; see `Mapping`.
unsafe impl Send for Growing {}
// SAFETY: as above.
unsafe impl Sync for Growing {}

impl Growing {
    /// A new file whose first `initial` bytes, at most `FIRST`, are usable and zero.
    pub fn create(name: &str, initial: usize) -> Result<Self> {
        let file = memory::create(name)?;
        memory::allocate(&file, 0, initial as u64)?;
        Self::attach(file)
    }

    /// Opens the file received from the process that created it.
    pub fn attach(file: OwnedFd) -> Result<Self> {
        let first = ManuallyDrop::new(Mapping::part(&file, 0, FIRST as usize)?).base();
        let extents = [const { AtomicPtr::new(ptr::null_mut()) }; EXTENTS];
        extents[0].store(first.as_ptr(), Ordering::Relaxed);
        Ok(Self { file, first, extents })
    }

    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.as_fd()
    }

    /// The address of offset 0; the first extent is always mapped.
    #[inline]
    #[must_use]
    pub fn first(&self) -> NonNull<u8> {
        self.first
    }

    /// Makes `[offset, offset + len)` usable.
    pub fn allocate(&self, offset: u64, len: u64) -> Result<()> {
        memory::allocate(&self.file, offset, len)
    }

    /// As `allocate` for whole pages without memory, with `parts` at their start.
    pub fn allocate_filled(&self, offset: u64, len: u64, parts: &[&[u8]]) -> Result<()> {
        memory::allocate_filled(&self.file, offset, len, parts)
    }

    /// Maps the pages of `[offset, offset + len)`, which are usable and within one extent, before they are filled.
    pub fn touch(&self, offset: u64, len: u64) {
        if let Ok(address) = self.pointer(offset, len) {
            // SAFETY: the range was checked to lie in a mapping.
            unsafe { memory::touch(address, len as usize) };
        }
    }

    /// Gives the pages of `[offset, offset + len)` back to the system.
    pub fn give_back(&self, offset: u64, len: u64) -> Result<()> {
        memory::give_back(&self.file, offset, len)
    }

    /// The address of `[offset, offset + len)`, which lies within one extent. Fails where the address space is used up.
    #[inline]
    pub fn pointer(&self, offset: u64, len: u64) -> Result<NonNull<u8>> {
        let extent = extent(offset);
        let (start, size) = bounds(extent);
        let within = offset - start;
        if extent >= EXTENTS || len > size - within {
            return Err(Error::corrupt("reach shared memory", "an offset lies outside the file"));
        }
        let base = self.extents[extent].load(Ordering::Acquire);
        let base = if base.is_null() { self.map(extent)? } else { base };
        // SAFETY: the mapping is `size` bytes long and the range was just checked to lie inside.
        Ok(unsafe { NonNull::new_unchecked(base.add(within as usize)) })
    }

    #[cold]
    fn map(&self, extent: usize) -> Result<*mut u8> {
        let (start, size) = bounds(extent);
        let mapping = Mapping::part(&self.file, start, size as usize)?;
        let base = mapping.base().as_ptr();
        let slot = &self.extents[extent];
        match slot.compare_exchange(ptr::null_mut(), base, Ordering::AcqRel, Ordering::Acquire) {
            Ok(_) => {
                core::mem::forget(mapping);
                Ok(base)
            }
            // Another thread was faster; this mapping goes.
            Err(theirs) => Ok(theirs),
        }
    }
}

impl Drop for Growing {
    fn drop(&mut self) {
        for (extent, base) in self.extents.iter_mut().enumerate() {
            if let Some(base) = NonNull::new(*base.get_mut()) {
                // SAFETY: `attach` or `map` took the range over from a mapping of exactly this size, and nothing that
                // borrows `self` is left.
                drop(unsafe { Mapping::from_raw(base, bounds(extent).1 as usize) });
            }
        }
    }
}

/// Where an allocation of `len` bytes goes when everything before `end` is taken: there, or at the start of the next
/// extent that holds it.
#[must_use]
pub fn place(end: u64, len: u64) -> u64 {
    let mut offset = end;
    loop {
        let (start, size) = bounds(extent(offset));
        if len <= size - (offset - start) {
            return offset;
        }
        offset = start + size;
    }
}

#[inline]
fn extent(offset: u64) -> usize {
    // 0 for the first, then one more for each doubling.
    (u64::BITS - (offset / FIRST).leading_zeros()) as usize
}

/// Offset and length.
#[inline]
fn bounds(extent: usize) -> (u64, u64) {
    if extent == 0 { (0, FIRST) } else { (FIRST << (extent - 1), FIRST << (extent - 1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn extents_tile_the_file() {
        let mut offset = 0;
        for index in 0..EXTENTS {
            let (start, size) = bounds(index);
            assert_eq!((start, extent(start), extent(start + size - 1)), (offset, index, index));
            offset += size;
        }
        assert_eq!(offset, LIMIT);
    }

    #[test]
    fn an_allocation_never_crosses_an_extent() {
        assert_eq!(place(0, FIRST), 0);
        assert_eq!(place(1, FIRST), FIRST);
        assert_eq!(place(FIRST - 8, 16), FIRST);
        assert_eq!(place(FIRST + 1, 3 << 30), 4 << 30);
    }

    #[test]
    fn addresses_stay_good_while_the_file_grows() {
        let file = Growing::create("rsmp-test", 4096).expect("file");
        let mut places = Vec::new();
        let mut end = 4096;
        for round in 0..40_u64 {
            let len = 4096 << (round % 10);
            let offset = place(end, len);
            end = offset + len;
            file.allocate(offset, len).expect("memory");
            let address = file.pointer(offset, len).expect("mapped");
            // SAFETY: in bounds, allocated, and only this test uses it.
            unsafe { address.cast::<u64>().write(round) };
            places.push((offset, address));
        }
        for (round, (offset, address)) in (0..).zip(places) {
            // SAFETY: as above.
            assert_eq!(unsafe { address.cast::<u64>().read() }, round);
            assert_eq!(file.pointer(offset, 8).expect("mapped"), address);
        }
        assert!(file.pointer(LIMIT, 1).is_err());
        assert!(file.pointer(FIRST - 1, 2).is_err());
    }
}
