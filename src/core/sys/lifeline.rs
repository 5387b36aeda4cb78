//! The lifeline: children that die with the process that holds the other end, however it dies.
//!
//! It is a pipe. The parent alone holds the write end and never writes; each child has an open file of its own on the
//! read end and asks the kernel for `SIGKILL` instead of `SIGIO` when something happens there (`O_ASYNC`, `F_SETSIG`).
//! The one thing that can happen is that the write end is closed, because its holder is gone.
//!
//! `PR_SET_PDEATHSIG` would not do: it fires when the *thread* that started the child ends, and a child of the fork server
//! is not a child of the process it belongs to.
//!
//! # Safety
//! `fcntl` is called with commands that take an integer.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use rustix::event::{PollFd, PollFlags};
use rustix::fs::{Mode, OFlags};
use rustix::io::Errno;
use rustix::process::Signal;

use super::descriptor;
use crate::error::{Error, Result};

/// From `linux/fcntl.h`; the libc crate does not have it.
const F_SETSIG: i32 = 10;

/// Both ends: what children are given and what keeps them alive.
#[derive(Debug)]
pub struct Lifeline {
    read: OwnedFd,
    write: Mutex<Option<OwnedFd>>,
}

impl Lifeline {
    pub fn new() -> Result<Self> {
        let (read, write) = descriptor::pipe()?;
        Ok(Self { read, write: Mutex::new(Some(write)) })
    }

    /// The end that children are given.
    #[must_use]
    pub fn reader(&self) -> BorrowedFd<'_> {
        self.read.as_fd()
    }

    /// Closes the write end in this process: a fork of the holder, which must not keep the line alive.
    pub fn cut(&self) {
        *self.write.lock() = None;
    }
}

/// Ties this process to the lifeline whose read end it was given. Dies at once when the write end is closed already.
///
/// Returns the descriptor that must stay open.
pub fn tie(read: impl AsFd) -> Result<OwnedFd> {
    let op = "tie to the parent's lifeline";
    // The owner and signal of O_ASYNC belong to the open file, which siblings share: open the pipe anew.
    let path = format!("/proc/self/fd/{}", read.as_fd().as_raw_fd());
    let own = rustix::fs::open(path, OFlags::RDONLY | OFlags::NONBLOCK | OFlags::CLOEXEC, Mode::empty())
        .map_err(|errno| Error::os(op, errno))?;
    let pid = rustix::process::getpid().as_raw_nonzero().get();
    control(&own, libc::F_SETOWN, pid).map_err(|errno| Error::os(op, errno))?;
    control(&own, F_SETSIG, libc::SIGKILL).map_err(|errno| Error::os(op, errno))?;
    control(&own, libc::F_SETFL, libc::O_ASYNC | libc::O_NONBLOCK).map_err(|errno| Error::os(op, errno))?;
    // The parent may have died before the kernel knew whom to tell. Only the end that was open then reports it: a FIFO
    // that is opened without a writer waits for the first one.
    let mut polled = [PollFd::new(&read, PollFlags::IN)];
    let now = rustix::time::Timespec { tv_sec: 0, tv_nsec: 0 };
    if rustix::event::poll(&mut polled, Some(&now)) == Ok(1) {
        let _ = rustix::process::kill_process(rustix::process::getpid(), Signal::KILL);
    }
    Ok(own)
}

fn control(file: &OwnedFd, command: i32, value: i32) -> core::result::Result<(), Errno> {
    // SAFETY: the commands used here take an integer and touch no memory.
    if unsafe { libc::fcntl(file.as_raw_fd(), command, value) } == -1 {
        return Err(Errno::from_io_error(&std::io::Error::last_os_error()).unwrap_or(Errno::INVAL));
    }
    Ok(())
}
