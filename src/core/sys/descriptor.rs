//! File descriptors: event counters.

use std::os::fd::{AsFd, OwnedFd};

use rustix::event::{EventfdFlags, PollFd, PollFlags};
use rustix::io::Errno;
use rustix::pipe::PipeFlags;
use rustix::time::Timespec;

use crate::error::{Error, Result};

/// A new `eventfd(2)`, not readable.
pub fn event() -> Result<OwnedFd> {
    rustix::event::eventfd(0, EventfdFlags::CLOEXEC | EventfdFlags::NONBLOCK)
        .map_err(|errno| Error::os("create an event descriptor", errno))
}

/// Makes an event descriptor readable until `clear_event`.
pub fn raise_event(event: impl AsFd) -> Result<()> {
    match rustix::io::write(event, &1_u64.to_ne_bytes()) {
        // AGAIN: the counter is at its maximum, so it is readable already.
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(Error::os("raise an event descriptor", errno)),
    }
}

/// Makes an event descriptor unreadable again.
pub fn clear_event(event: impl AsFd) -> Result<()> {
    match rustix::io::read(event, &mut [0_u8; 8]) {
        Ok(_) | Err(Errno::AGAIN) => Ok(()),
        Err(errno) => Err(Error::os("clear an event descriptor", errno)),
    }
}

/// Writes all of `bytes` to a descriptor that blocks.
pub fn write_all(file: impl AsFd, mut bytes: &[u8]) -> Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(&file, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(errno) => return Err(Error::os("write to a descriptor", errno)),
        }
    }
    Ok(())
}

/// Writes `bytes`, at most as many as a pipe takes in one piece, to a descriptor that blocks; `None` if a signal came first.
pub fn write_once(file: impl AsFd, bytes: &[u8]) -> Result<Option<()>> {
    match rustix::io::write(file, bytes) {
        Ok(_) => Ok(Some(())),
        Err(Errno::INTR) => Ok(None),
        Err(errno) => Err(Error::os("write to a descriptor", errno)),
    }
}

/// A pipe: what to read from and what to write to.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::os("make a pipe", errno))
}

/// Keeps a descriptor from programs that this one turns into or starts.
pub fn close_on_exec(descriptor: impl AsFd) -> Result<()> {
    rustix::io::fcntl_setfd(descriptor, rustix::io::FdFlags::CLOEXEC)
        .map_err(|errno| Error::os("mark a descriptor to be closed on exec", errno))
}

/// Whether anybody has the other end of a pipe open to read what is written to `pipe`.
pub fn has_reader(pipe: impl AsFd) -> Result<bool> {
    let mut polled = [PollFd::new(&pipe, PollFlags::OUT)];
    let now = Timespec { tv_sec: 0, tv_nsec: 0 };
    rustix::event::poll(&mut polled, Some(&now)).map_err(|errno| Error::os("look at a pipe", errno))?;
    Ok(!polled[0].revents().intersects(PollFlags::ERR | PollFlags::HUP | PollFlags::NVAL))
}
