//! `epoll(7)`: many descriptors watched for reading, each with a mark.

use core::mem::MaybeUninit;
use std::os::fd::{AsFd, OwnedFd};

use rustix::event::epoll::{self, CreateFlags, Event, EventData, EventFlags};
use rustix::io::Errno;
use rustix::time::Timespec;

use crate::clock::Deadline;
use crate::error::{Error, Result};

#[derive(Debug)]
pub struct Epoll {
    epoll: OwnedFd,
}

impl Epoll {
    pub fn new() -> Result<Self> {
        let epoll = epoll::create(CreateFlags::CLOEXEC).map_err(|errno| Error::os("make an epoll", errno))?;
        Ok(Self { epoll })
    }

    /// Watches `file` under `mark`. Remove it before closing it: a forked child may hold the same open file.
    pub fn add(&self, file: impl AsFd, mark: u64) -> Result<()> {
        epoll::add(&self.epoll, file, EventData::new_u64(mark), EventFlags::IN)
            .map_err(|errno| Error::os("watch a descriptor", errno))
    }

    pub fn remove(&self, file: impl AsFd) -> Result<()> {
        epoll::delete(&self.epoll, file).map_err(|errno| Error::os("stop watching a descriptor", errno))
    }

    /// The marks of what is readable; waits until `deadline`, and returns nothing when a signal comes first.
    pub fn wait(&self, deadline: Deadline) -> Result<Vec<u64>> {
        let timeout = deadline.remaining().map(|left| Timespec {
            tv_sec: left.as_secs().try_into().unwrap_or(i64::MAX),
            tv_nsec: left.subsec_nanos().into(),
        });
        let mut space = [MaybeUninit::<Event>::uninit(); 32];
        match epoll::wait(&self.epoll, &mut space, timeout.as_ref()) {
            Ok((ready, _)) => Ok(ready.iter().map(|event| event.data.u64()).collect()),
            Err(Errno::INTR) => Ok(Vec::new()),
            Err(errno) => Err(Error::os("wait for descriptors", errno)),
        }
    }
}
