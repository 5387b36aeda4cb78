//! Anonymous shared memory: `memfd_create(2)`, `mmap(2)`.
//!
//! # Safety
//! A `Mapping` owns its address range until dropped and hands out raw pointers only: peers write the same pages, so no
//! Rust reference to the bytes may exist. Words are reached as atomics (see `shm`).
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::mem::MaybeUninit;
use core::ptr::{self, NonNull};
use core::slice;
use std::io::IoSlice;
use std::os::fd::{AsFd, OwnedFd};

use rustix::fs::{FallocateFlags, MemfdFlags, SealFlags};
use rustix::io::Errno;
use rustix::mm::{Advice, MapFlags, ProtFlags};

use crate::atomic::AtomicU64;
use crate::error::{Error, Kind, Result};

mod limits;

pub const PAGE: usize = 4096;
const PIECE: u64 = 4 << 20;
/// Parts written by one call.
const VECTOR: usize = 64;

/// A new memory file that can grow and never shrink.
pub fn create(name: &str) -> Result<OwnedFd> {
    let op = "create shared memory";
    let flags = MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING;
    // Kernels before 6.3 do not know NOEXEC_SEAL.
    let file = match rustix::fs::memfd_create(name, flags | MemfdFlags::NOEXEC_SEAL) {
        Err(Errno::INVAL) => rustix::fs::memfd_create(name, flags),
        other => other,
    }
    .map_err(|errno| Error::os(op, errno))?;
    rustix::fs::fcntl_add_seals(&file, SealFlags::SHRINK).map_err(|errno| Error::os(op, errno))?;
    Ok(file)
}

/// Allocates `[offset, offset + len)` now, so that touching it later cannot fail with SIGBUS; grows the file to it.
///
/// A request beyond what the machine (or the control group) has left fails: the kernel would grant it page by page and
/// kill some process when it runs out half-way.
pub fn allocate(file: impl AsFd, offset: u64, len: u64) -> Result<()> {
    if !limits::allow(len) {
        return Err(refused(Errno::NOMEM));
    }
    let end = offset + len;
    let mut start = offset;
    // In pieces: the kernel drops all it did when a signal arrives, and a signal may arrive every few milliseconds.
    while start < end {
        let piece = (end - start).min(PIECE);
        match rustix::fs::fallocate(&file, FallocateFlags::empty(), start, piece) {
            Ok(()) => start += piece,
            Err(Errno::INTR) => {}
            Err(errno) => return Err(refused(errno)),
        }
    }
    Ok(())
}

/// As `allocate` for whole pages that have no memory yet; it then holds `parts`, one after the other, at its start.
///
/// The kernel neither clears what is written at once nor takes a page fault for it: half the time of doing it in two steps.
pub fn allocate_filled(file: impl AsFd, offset: u64, len: u64, parts: &[&[u8]]) -> Result<()> {
    debug_assert!(len.is_multiple_of(PAGE as u64) && parts.iter().map(|part| part.len() as u64).sum::<u64>() <= len);
    if !limits::allow(len) {
        return Err(refused(Errno::NOMEM));
    }
    // So that the file never ends within a page, of which the kernel might clear the rest when the file grows.
    let last = PAGE as u64;
    allocate(&file, offset + len - last, last)?;
    let mut start = offset;
    // In pieces: who else allocates in the file, or gives back, waits for the end of each.
    let mut pieces = parts.iter().flat_map(|part| part.chunks(PIECE as usize)).peekable();
    while pieces.peek().is_some() {
        let mut room = PIECE as usize;
        let mut slices = Vec::new();
        while slices.len() < VECTOR
            && let Some(piece) = pieces.next_if(|piece| piece.len() <= room)
        {
            room -= piece.len();
            slices.push(IoSlice::new(piece));
        }
        let mut left = slices.as_mut_slice();
        while !left.is_empty() {
            match rustix::io::pwritev(&file, left, start) {
                Ok(0) => return Err(refused(Errno::NOSPC)),
                Ok(written) => {
                    start += written as u64;
                    IoSlice::advance_slices(&mut left, written);
                }
                Err(Errno::INTR) => {}
                Err(errno) => return Err(refused(errno)),
            }
        }
    }
    // What no part filled.
    allocate(&file, start, offset + len - start)
}

fn refused(errno: Errno) -> Error {
    let op = "allocate shared memory";
    match errno {
        // FBIG: RLIMIT_FSIZE counts memory files too.
        Errno::NOSPC | Errno::NOMEM | Errno::FBIG => Error::new(op, Kind::OutOfMemory),
        errno => Error::os(op, errno),
    }
}

/// A random number, to tell one piece of shared memory from all others.
pub fn random() -> Result<u64> {
    let mut bytes = [0_u8; 8];
    rustix::rand::getrandom(&mut bytes, rustix::rand::GetRandomFlags::empty())
        .map_err(|errno| Error::os("get random bytes", errno))?;
    Ok(u64::from_ne_bytes(bytes))
}

/// Fills `buffer` from the start of a memory file, without mapping it. `false` when the file is shorter.
pub fn peek(file: impl AsFd, buffer: &mut [u8]) -> Result<bool> {
    rustix::io::pread(file, &mut *buffer, 0)
        .map(|read| read == buffer.len())
        .map_err(|errno| Error::os("read shared memory", errno))
}

/// Fills `buffer` from `offset` on; returns how many bytes there were.
pub fn peek_at(file: impl AsFd, buffer: &mut [u8], offset: u64) -> Result<usize> {
    rustix::io::pread(file, buffer, offset).map_err(|errno| Error::os("read shared memory", errno))
}

/// Gives the pages of `[offset, offset + len)` back to the system; they read as zero afterwards.
pub fn give_back(file: impl AsFd, offset: u64, len: u64) -> Result<()> {
    rustix::fs::fallocate(file, FallocateFlags::PUNCH_HOLE | FallocateFlags::KEEP_SIZE, offset, len)
        .map_err(|errno| Error::os("give back shared memory", errno))
}

/// The size of a memory file in bytes.
pub fn size(file: impl AsFd) -> Result<u64> {
    rustix::fs::fstat(file)
        .map(|stat| stat.st_size.unsigned_abs())
        .map_err(|errno| Error::os("read the size of shared memory", errno))
}

/// Asks for huge pages behind the part of `space` that can have them, if it has at least `least` bytes: filling fresh
/// small pages costs several times more than the bytes themselves.
pub fn prefer_huge_pages(space: &mut [MaybeUninit<u8>], least: usize) {
    if space.len() < least {
        return;
    }
    let start = space.as_mut_ptr();
    let skip = start.align_offset(PAGE);
    let len = (space.len() - skip) & !(PAGE - 1);
    // SAFETY: the advice concerns whole pages inside `space` and changes neither their contents nor their validity. That it
    // may not be taken (an old kernel, a private policy) is no error.
    let _ = unsafe { rustix::mm::madvise(start.add(skip).cast::<c_void>(), len, Advice::LinuxHugepage) };
}

/// What tells a memory file from every other one that is open anywhere.
pub fn identity(file: impl AsFd) -> Result<u64> {
    rustix::fs::fstat(file).map(|stat| stat.st_ino).map_err(|errno| Error::os("identify shared memory", errno))
}

/// The memory a memory file holds, in bytes; less than its size where it has holes.
pub fn held(file: impl AsFd) -> Result<u64> {
    rustix::fs::fstat(file)
        .map(|stat| stat.st_blocks.unsigned_abs() * 512)
        .map_err(|errno| Error::os("read the size of shared memory", errno))
}

/// Maps the pages of `len` bytes at `address` at once: one by one at the first touch takes three times as long.
///
/// # Safety
/// They lie in one mapping.
pub unsafe fn touch(address: NonNull<u8>, len: usize) {
    let within = address.as_ptr() as usize % PAGE;
    // SAFETY: the caller's promise; advice changes no contents, and not taken it only costs time.
    let _ = unsafe {
        rustix::mm::madvise(address.as_ptr().sub(within).cast::<c_void>(), len + within, Advice::LinuxPopulateWrite)
    };
}

/// `len` words of shared memory at `address`.
///
/// # Safety
/// They are mapped for `'a`, aligned to 8, and every process reaches them as atomics.
#[must_use]
pub unsafe fn words<'a>(address: NonNull<u8>, len: usize) -> &'a [AtomicU64] {
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(address.as_ptr().cast(), len) }
}

/// `len` bytes of shared memory at `address` that belong to this process alone.
///
/// # Safety
/// They are mapped for `'a`, and by the protocol of the memory's users nobody writes them in that time.
#[must_use]
pub unsafe fn own_bytes<'a>(address: NonNull<u8>, len: usize) -> &'a [u8] {
    // SAFETY: the caller's promise.
    unsafe { slice::from_raw_parts(address.as_ptr(), len) }
}

/// A writable mapping, unmapped when dropped: of the first `len` bytes of a memory file, shared, or what `from_raw` was given.
///
/// `len` may lie beyond the end of the file: the address range is then reserved, and becomes usable as the file grows.
#[derive(Debug)]
pub struct Mapping {
    base: NonNull<u8>,
    len: usize,
}

// SAFETY: the mapping is memory that any thread may reach; what synchronises access to it lies with the structures
// placed in it, which are written for concurrent processes.
unsafe impl Send for Mapping {}
// SAFETY: as above; the methods only hand out addresses.
unsafe impl Sync for Mapping {}

impl Mapping {
    pub fn new(file: impl AsFd, len: usize) -> Result<Self> {
        Self::part(file, 0, len)
    }

    /// `[offset, offset + len)` of the file; `offset` is a multiple of the page.
    pub fn part(file: impl AsFd, offset: u64, len: usize) -> Result<Self> {
        let prot = ProtFlags::READ | ProtFlags::WRITE;
        let flags = MapFlags::SHARED | MapFlags::NORESERVE;
        // SAFETY: the kernel picks an unused range (null hint, no MAP_FIXED), so no existing memory is affected.
        let base = unsafe { rustix::mm::mmap(ptr::null_mut(), len, prot, flags, file, offset) }
            .map_err(|errno| Error::os("map shared memory", errno))?;
        let base = NonNull::new(base.cast::<u8>()).ok_or_else(|| Error::new("map shared memory", Kind::OutOfMemory))?;
        Ok(Self { base, len })
    }

    /// Takes over a range from a mapping that was forgotten.
    ///
    /// # Safety
    /// `[base, base + len)` is exactly the range of a mapping, and nobody else will unmap it.
    #[must_use]
    pub unsafe fn from_raw(base: NonNull<u8>, len: usize) -> Self {
        Self { base, len }
    }

    /// Maps the pages of `[offset, offset + len)`, which the file has, at once: one by one at the first touch takes longer.
    pub fn touch(&self, offset: usize, len: usize) {
        if offset <= self.len && len <= self.len - offset {
            // SAFETY: the range lies in the mapping.
            unsafe { touch(self.base.add(offset), len) };
        }
    }

    #[must_use]
    pub fn base(&self) -> NonNull<u8> {
        self.base
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: the range was mapped by `new` and nothing that borrows it outlives `self`. An error is not possible
        // for a range that mmap returned, and there would be nobody to tell.
        let _ = unsafe { rustix::mm::munmap(self.base.as_ptr().cast::<c_void>(), self.len) };
    }
}

/// Writes all of `bytes` to the start of a file; its position stays where it is.
pub fn write_at_start(file: impl AsFd, bytes: &[u8]) -> Result<()> {
    let op = "write to shared memory";
    let mut written = 0;
    while written < bytes.len() {
        match rustix::io::pwrite(&file, &bytes[written..], written as u64) {
            Ok(count) => written += count,
            Err(Errno::INTR) => {}
            Err(Errno::NOSPC | Errno::NOMEM) => return Err(Error::new(op, Kind::OutOfMemory)),
            Err(errno) => return Err(Error::os(op, errno)),
        }
    }
    Ok(())
}
