//! Messages over a descriptor: a pipe, a socket, anything that reads and writes a stream.
//!
//! Each function goes on until it is done (`Some`), or must be called again (`None`): a signal came and its handlers
//! should run, or `until` passed. The progress is in the arguments.
//!
//! A descriptor in non-blocking mode that is not ready is an error between messages, as in the standard library;
//! inside one it is waited for, because giving up there would leave both sides out of step.

use core::mem::MaybeUninit;
use std::io::IoSlice;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::outgoing::FEW;
use super::{Outgoing, Prefix};
use crate::clock::Deadline;
use crate::error::{Error, Kind as Failed, Result};
use crate::shm::waits::{self, Kind, What};
use crate::sync::spin::Spin;
use crate::sys::poll::{self, Interest};
use crate::sys::socket::{self, Transport};

const SEND: &str = "send";
const RECEIVE: &str = "receive";

/// How long the other side may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as it takes: the kernel waits, and a signal ends its wait.
    Endless,
    /// To the deadline: look before each read.
    Bounded,
}

/// Where a message comes from.
#[derive(Debug)]
pub struct Source<'call> {
    pub fd: BorrowedFd<'call>,
    pub transport: &'call Transport,
    pub spin: &'call Spin,
    pub patience: Patience,
    /// Whether it has spun for the message: the kernel waits from then on.
    pub has_spun: bool,
}

/// Which bytes of a message are to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Part {
    /// The first after its length, where the standard library calls an end of the stream an end of file.
    First,
    /// Later ones, where the message is cut short by it.
    Later,
}

/// What `Source::next` read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Next {
    /// A message of this length, into the space it was given.
    Whole(usize),
    /// Only the length of the message: it is longer than that space.
    Length(u64),
}

/// Writes `message`. Where the descriptor blocks, this does: beyond `until`, but not beyond a signal.
pub fn write(
    fd: BorrowedFd<'_>,
    transport: &Transport,
    message: &mut Outgoing<'_>,
    until: Deadline,
) -> Result<Option<()>> {
    let mut space = [0; FEW];
    while !message.is_complete() {
        let written = if let Some(bytes) = message.gathered(&mut space) {
            socket::write(fd, transport, &[IoSlice::new(bytes)])
        } else {
            let (slices, count) = message.remaining();
            socket::write(fd, transport, &slices[..count])
        };
        match written {
            Ok(written) => message.advance(written),
            Err(Errno::INTR) => return Ok(None),
            Err(Errno::AGAIN) if message.has_started() => {
                if !poll::one(fd, Interest::Write, until)? {
                    return Ok(None);
                }
            }
            Err(errno) => return Err(Error::os(SEND, errno)),
        }
    }
    Ok(Some(()))
}

impl Source<'_> {
    /// Reads the next message, or only its length if it is longer than `space`. `filled` starts at 0.
    pub fn next(
        &mut self,
        prefix: &mut Prefix,
        space: &mut [MaybeUninit<u8>],
        filled: &mut usize,
        until: Deadline,
    ) -> Result<Option<Next>> {
        let length = loop {
            if let Some(length) = prefix.length()? {
                break length;
            }
            match self.read_prefix(prefix) {
                Ok(0) if prefix.is_between_parts() => return Err(Error::new(RECEIVE, Failed::EndOfStream)),
                Ok(0) => return Err(cut_short()),
                Ok(count) => prefix.advance(count),
                Err(Errno::AGAIN) if !prefix.is_empty() || self.patience == Patience::Bounded => {
                    if !poll::one(self.fd, Interest::Read, until)? {
                        return Ok(None);
                    }
                }
                Err(Errno::INTR) => return Ok(None),
                Err(errno) => return Err(Error::os(RECEIVE, errno)),
            }
        };
        match usize::try_from(length).ok().and_then(|length| space.get_mut(..length)) {
            Some(space) => Ok(self.fill(Part::First, space, filled, until)?.map(|()| Next::Whole(space.len()))),
            None => Ok(Some(Next::Length(length))),
        }
    }

    /// Reads into `space[*filled..]` until it is full; `filled` starts at 0.
    pub fn fill(
        &self,
        part: Part,
        space: &mut [MaybeUninit<u8>],
        filled: &mut usize,
        until: Deadline,
    ) -> Result<Option<()>> {
        while *filled < space.len() {
            let rest = &mut space[*filled..];
            let outcome = if self.patience == Patience::Endless {
                socket::read_all(self.fd, self.transport, rest)
            } else if poll::one(self.fd, Interest::Read, until)? {
                socket::read(self.fd, rest)
            } else {
                return Ok(None);
            };
            match outcome {
                Ok(0) if *filled == 0 && part == Part::First => return Err(Error::new(RECEIVE, Failed::EndOfStream)),
                Ok(0) => return Err(cut_short()),
                Ok(count) => *filled += count,
                Err(Errno::INTR) => return Ok(None),
                Err(Errno::AGAIN) => {
                    if !poll::one(self.fd, Interest::Read, until)? {
                        return Ok(None);
                    }
                }
                Err(errno) => return Err(Error::os(RECEIVE, errno)),
            }
        }
        Ok(Some(()))
    }

    /// Waits for something to read, the end of the stream included.
    pub fn wait(&self, until: Deadline) -> Result<Option<()>> {
        let look = || match poll::one(self.fd, Interest::Read, Deadline::PASSED) {
            Ok(false) => None,
            outcome => Some(outcome),
        };
        let ready = match self.spin.until(until, look) {
            Some(outcome) => outcome?,
            None => poll::one(self.fd, Interest::Read, until)?,
        };
        Ok(ready.then_some(()))
    }

    fn read_prefix(&mut self, prefix: &mut Prefix) -> core::result::Result<usize, Errno> {
        if self.patience == Patience::Bounded {
            return socket::try_read(self.fd, self.transport, prefix.space());
        }
        let announced = || waits::begin(What::on(Kind::Receive, self.fd), false);
        if !self.has_spun {
            self.has_spun = true;
            let look = || match socket::try_read(self.fd, self.transport, prefix.space()) {
                Err(Errno::AGAIN) => None,
                outcome => Some(outcome),
            };
            return self.spin.until(Deadline::NEVER, look).unwrap_or_else(|| {
                // A thread's first announcement takes a while, too. What signal came meanwhile would not end the kernel's
                // wait: its handlers run first.
                drop(announced());
                Err(Errno::INTR)
            });
        }
        let _wait = announced();
        socket::read_some(self.fd, self.transport, prefix.space())
    }
}

fn cut_short() -> Error {
    Error::corrupt(RECEIVE, "got end of file during message")
}
