//! Named shared memory, `shm_open(3)`: what `multiprocessing.shared_memory` is made of.
//!
//! The `shared_memory` crate opens and maps; it unlinks what it created when the mapping goes, which a segment here never
//! does: a name lives until somebody unlinks it. What the crate has no option for (another mode, `O_CREAT` without
//! `O_EXCL`) is created through rustix first and then mapped by the crate like any existing segment.
//!
//! # Safety
//! As for an anonymous `Mapping`: an address range that peers write too, so only raw pointers leave this file.
#![allow(unsafe_code)]

use core::ptr;
use std::os::fd::OwnedFd;

use rustix::fs::Mode;
use rustix::io::Errno;
use rustix::rand::GetRandomFlags;
use rustix::shm::OFlags;
use shared_memory::{Shmem, ShmemConf, ShmemError};

use crate::error::{Error, Result};

/// The mode the crate creates with, `rw-------`.
pub const MODE: u32 = 0o600;

/// Random bytes in a name, at most: a file's name has up to 255 characters.
const RANDOM: usize = 127;
const DIGITS: &[u8; 16] = b"0123456789abcdef";

/// A named segment mapped into this process; dropping it unmaps and leaves the name.
pub struct Segment {
    mapping: Shmem,
}

// SAFETY: the mapping is memory that any thread may reach; the crate's handle is a descriptor, an address and a length,
// none of which belongs to a thread. What synchronises the bytes is the business of those who share them.
unsafe impl Send for Segment {}
// SAFETY: as above; `&self` only reads the address and the length.
unsafe impl Sync for Segment {}

impl Segment {
    /// A new segment of `size` > 0 zero bytes under `name`, which must not exist yet.
    pub fn create(name: &str, size: usize, mode: u32) -> Result<Self> {
        if mode != MODE {
            return Self::create_with_mode(name, size, mode);
        }
        let mut mapping =
            ShmemConf::new().os_id(name).size(size).create().map_err(|error| failed("create shared memory", &error))?;
        mapping.set_owner(false);
        Ok(Self { mapping })
    }

    /// Maps the whole segment `name`.
    pub fn open(name: &str) -> Result<Self> {
        let op = "open shared memory";
        match ShmemConf::new().os_id(name).open() {
            Ok(mapping) => Ok(Self { mapping }),
            // Either the name is not valid or the segment is empty, which mmap refuses.
            Err(ShmemError::MapOpenFailed(errno)) if is_invalid(errno) && exists(name) => {
                Err(Error::invalid(op, "cannot mmap an empty file"))
            }
            Err(error) => Err(failed(op, &error)),
        }
    }

    /// As `open`, creating an empty segment first where there is none.
    pub fn open_or_create(name: &str, mode: u32) -> Result<Self> {
        rustix::shm::open(name, OFlags::CREATE | OFlags::RDWR, Mode::from_bits_truncate(mode))
            .map_err(|errno| Error::os("open shared memory", errno))?;
        Self::open(name)
    }

    fn create_with_mode(name: &str, size: usize, mode: u32) -> Result<Self> {
        let op = "create shared memory";
        let flags = OFlags::CREATE | OFlags::EXCL | OFlags::RDWR;
        let file =
            rustix::shm::open(name, flags, Mode::from_bits_truncate(mode)).map_err(|errno| Error::os(op, errno))?;
        let mapped = rustix::fs::ftruncate(&file, size as u64)
            .map_err(|errno| Error::os(op, errno))
            .and_then(|()| Self::open(name));
        if mapped.is_err() {
            let _ = rustix::shm::unlink(name);
        }
        mapped
    }

    /// Removes `name`; mappings of the segment stay as they are.
    pub fn unlink(name: &str) -> Result<()> {
        rustix::shm::unlink(name).map_err(|errno| Error::os("unlink shared memory", errno))
    }

    /// A descriptor of the segment `name`: the crate keeps its own to itself.
    pub fn descriptor(name: &str) -> Result<OwnedFd> {
        rustix::shm::open(name, OFlags::RDWR, Mode::empty()).map_err(|errno| Error::os("open shared memory", errno))
    }

    /// Where the segment is mapped.
    #[must_use]
    pub fn base(&self) -> *mut u8 {
        self.mapping.as_ptr()
    }

    /// Its size in bytes, never 0.
    #[must_use]
    #[allow(clippy::len_without_is_empty)]
    pub fn len(&self) -> usize {
        self.mapping.len()
    }

    /// Copies `bytes` to `offset`; `false`, and nothing copied, if they do not fit into the segment.
    #[inline]
    #[must_use]
    pub fn copy_in(&self, offset: usize, bytes: &[u8]) -> bool {
        let inside = self.contains(offset, bytes.len());
        if inside {
            // SAFETY: the destination is in bounds; `bytes` is this process's own memory, so the two do not overlap.
            unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), self.base().add(offset), bytes.len()) }
        }
        inside
    }

    /// Copies from `offset` into `bytes`; `false`, and nothing copied, if the segment ends before.
    #[inline]
    #[must_use]
    pub fn copy_out(&self, offset: usize, bytes: &mut [u8]) -> bool {
        let inside = self.contains(offset, bytes.len());
        if inside {
            // SAFETY: as in `copy_in`, the other way round.
            unsafe { ptr::copy_nonoverlapping(self.base().add(offset), bytes.as_mut_ptr(), bytes.len()) }
        }
        inside
    }

    #[inline]
    fn contains(&self, offset: usize, len: usize) -> bool {
        offset.checked_add(len).is_some_and(|end| end <= self.len())
    }
}

/// `prefix` and the digits of so many `random` bytes: a name that most likely nobody has.
pub fn random_name(prefix: &str, random: usize) -> Result<String> {
    let op = "name shared memory";
    let mut bytes = [0_u8; RANDOM];
    let bytes = bytes.get_mut(..random).ok_or_else(|| Error::invalid(op, "the name is too long"))?;
    rustix::rand::getrandom(&mut *bytes, GetRandomFlags::empty()).map_err(|errno| Error::os(op, errno))?;
    let mut name = String::with_capacity(prefix.len() + 2 * bytes.len());
    name.push_str(prefix);
    for byte in bytes {
        name.extend([*byte >> 4, *byte & 15].map(|digit| char::from(DIGITS[usize::from(digit)])));
    }
    Ok(name)
}

fn is_invalid(errno: u32) -> bool {
    errno == Errno::INVAL.raw_os_error().unsigned_abs()
}

fn exists(name: &str) -> bool {
    rustix::shm::open(name, OFlags::RDONLY, Mode::empty()).is_ok()
}

fn failed(op: &'static str, error: &ShmemError) -> Error {
    match *error {
        ShmemError::MappingIdExists => Error::os(op, Errno::EXIST),
        ShmemError::MapCreateFailed(errno) | ShmemError::MapOpenFailed(errno) | ShmemError::UnknownOsError(errno) => {
            Error::os(op, Errno::from_raw_os_error(errno.cast_signed()))
        }
        _ => Error::invalid(op, error.to_string()),
    }
}
