//! Messages over a descriptor: a pipe, a socket, anything that reads and writes a stream.
//!
//! Each function goes on until it is done (`Some`), or must be called again (`None`): a signal came and its handlers
//! should run, or `until` passed. The progress is in the arguments.
//!
//! A descriptor in non-blocking mode that is not ready is an error between messages, as in the standard library;
//! inside one it is waited for, because giving up there would leave both sides out of step.

use core::mem::MaybeUninit;
use std::os::fd::BorrowedFd;

use rustix::io::Errno;

use super::{Outgoing, Prefix};
use crate::clock::Deadline;
use crate::error::{Error, Kind, Result};
use crate::sys::poll::{self, Interest};
use crate::sys::socket::{self, Transport};

const SEND: &str = "send";
const RECEIVE: &str = "receive";

/// Writes `message`. Where the descriptor blocks, this does: beyond `until`, but not beyond a signal.
pub fn write(fd: BorrowedFd<'_>, message: &mut Outgoing<'_>, until: Deadline) -> Result<Option<()>> {
    while !message.is_complete() {
        let (slices, count) = message.remaining();
        match socket::write(fd, &slices[..count]) {
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

/// Reads the length of the next message.
pub fn read_prefix(
    fd: BorrowedFd<'_>,
    transport: &Transport,
    prefix: &mut Prefix,
    until: Deadline,
) -> Result<Option<u64>> {
    loop {
        if let Some(length) = prefix.length()? {
            return Ok(Some(length));
        }
        match socket::try_read(fd, transport, prefix.space()) {
            Ok(0) if prefix.is_between_parts() => return Err(Error::new(RECEIVE, Kind::EndOfStream)),
            Ok(0) => return Err(cut_short()),
            Ok(count) => prefix.advance(count),
            Err(Errno::INTR) => return Ok(None),
            Err(Errno::AGAIN) => {
                if prefix.is_empty() && socket::is_nonblocking(fd) {
                    return Err(Error::os(RECEIVE, Errno::AGAIN));
                }
                if !poll::one(fd, Interest::Read, until)? {
                    return Ok(None);
                }
            }
            Err(errno) => return Err(Error::os(RECEIVE, errno)),
        }
    }
}

/// How long a message whose beginning came may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Patience {
    /// As long as it takes: the kernel gathers it, and a signal or its end ends the wait.
    Endless,
    /// To the deadline: look before each read.
    Bounded,
}

/// Reads into `space[*filled..]` until it is full; the body of a message starts with `*filled` 0.
pub fn read_body(
    fd: BorrowedFd<'_>,
    transport: &Transport,
    space: &mut [MaybeUninit<u8>],
    filled: &mut usize,
    patience: Patience,
    until: Deadline,
) -> Result<Option<()>> {
    while *filled < space.len() {
        let rest = &mut space[*filled..];
        let outcome = if patience == Patience::Endless {
            socket::read_all(fd, transport, rest)
        } else if poll::one(fd, Interest::Read, until)? {
            socket::read(fd, rest)
        } else {
            return Ok(None);
        };
        match outcome {
            Ok(0) if *filled == 0 => return Err(Error::new(RECEIVE, Kind::EndOfStream)),
            Ok(0) => return Err(cut_short()),
            Ok(count) => *filled += count,
            Err(Errno::INTR) => return Ok(None),
            Err(Errno::AGAIN) => {
                if !poll::one(fd, Interest::Read, until)? {
                    return Ok(None);
                }
            }
            Err(errno) => return Err(Error::os(RECEIVE, errno)),
        }
    }
    Ok(Some(()))
}

fn cut_short() -> Error {
    Error::corrupt(RECEIVE, "got end of file during message")
}
