//! Descriptors by number, as Python code owns them.
//!
//! # Safety
//! A number proves nothing: the code that owns it may close it at any time, and the kernel may give the number to another
//! file. What keeps memory safe is that the engine only ever reads, writes, polls and closes what Python code named, as
//! `os.read(number)` would, and never maps such a file. What it maps it `adopt`s: descriptors that one part of the engine
//! passed to another through the start of a process.
#![allow(unsafe_code)]

use std::os::fd::{BorrowedFd, FromRawFd, OwnedFd, RawFd};

use rustix::io::Errno;

use crate::error::{Error, Result};

/// The descriptor with this number, for the length of one call.
pub fn borrow<'call>(number: RawFd) -> Result<BorrowedFd<'call>> {
    if number < 0 {
        return Err(Error::os("use a descriptor", Errno::BADF));
    }
    // SAFETY: not -1; the rest as the header says.
    Ok(unsafe { BorrowedFd::borrow_raw(number) })
}

/// Closes the descriptor with this number.
pub fn close(number: RawFd) -> Result<()> {
    if number < 0 {
        return Err(Error::os("close a descriptor", Errno::BADF));
    }
    // SAFETY: the caller gives up the number, as the header says.
    match unsafe { rustix::io::try_close(number) } {
        // The kernel has closed it all the same.
        Ok(()) | Err(Errno::INTR) => Ok(()),
        Err(errno) => Err(Error::os("close a descriptor", errno)),
    }
}

/// Takes the descriptor with this number over from whatever passed it on, to close it in the end.
pub fn adopt(number: RawFd) -> Result<OwnedFd> {
    rustix::io::fcntl_getfd(borrow(number)?).map_err(|errno| Error::os("take over a descriptor", errno))?;
    // SAFETY: it is open, and the caller gives up the number.
    Ok(unsafe { OwnedFd::from_raw_fd(number) })
}
