//! Waiting for descriptors: `poll(2)`.

use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec};
use rustix::io::Errno;

use crate::clock::Deadline;
use crate::error::{Error, Result};

/// What a descriptor is waited for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Interest {
    Read,
    Write,
}

impl Interest {
    fn flags(self) -> PollFlags {
        match self {
            Self::Read => PollFlags::IN,
            Self::Write => PollFlags::OUT,
        }
    }
}

/// Waits for one descriptor. `false`: not ready, because the deadline passed or a signal came.
///
/// A descriptor whose other end is gone, or that is none, is ready: the read that follows says what is the matter.
pub fn one(fd: BorrowedFd<'_>, interest: Interest, deadline: Deadline) -> Result<bool> {
    let mut set = [PollFd::from_borrowed_fd(fd, interest.flags())];
    poll(&mut set, deadline).map(|count| count > 0)
}

/// Several descriptors waited for together, for reading.
#[derive(Debug, Default)]
pub struct Set<'fd> {
    entries: Vec<PollFd<'fd>>,
}

impl<'fd> Set<'fd> {
    #[must_use]
    pub fn with_capacity(capacity: usize) -> Self {
        Self { entries: Vec::with_capacity(capacity) }
    }

    pub fn push(&mut self, fd: BorrowedFd<'fd>) {
        self.entries.push(PollFd::from_borrowed_fd(fd, Interest::Read.flags()));
    }

    /// Waits until one is ready and returns how many are; zero when the deadline passed or a signal came.
    pub fn wait(&mut self, deadline: Deadline) -> Result<usize> {
        poll(&mut self.entries, deadline)
    }

    /// The positions of those that were ready, in the order they were pushed.
    pub fn ready(&self) -> impl Iterator<Item = usize> + '_ {
        self.entries.iter().enumerate().filter(|(_, entry)| !entry.revents().is_empty()).map(|(position, _)| position)
    }
}

fn poll(set: &mut [PollFd<'_>], deadline: Deadline) -> Result<usize> {
    // The most seconds a timespec takes is never soon enough to matter.
    let timeout = deadline.remaining().map(|left| Timespec {
        tv_sec: i64::try_from(left.as_secs()).unwrap_or(i64::MAX),
        tv_nsec: left.subsec_nanos().into(),
    });
    match rustix::event::poll(set, timeout.as_ref()) {
        Ok(count) => Ok(count),
        Err(Errno::INTR) => Ok(0),
        Err(errno) => Err(Error::os("wait for descriptors", errno)),
    }
}
