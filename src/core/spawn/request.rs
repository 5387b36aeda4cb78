//! A request as the fork server reads it.

use std::os::fd::OwnedFd;

use rustix::io::Errno;

use super::protocol::{self, Header};
use crate::error::Result;
use crate::sys::seqpacket;

/// A process to fork.
#[derive(Debug)]
pub struct Request {
    pub status: OwnedFd,
    /// The process that asked.
    pub parent: OwnedFd,
    /// A client's end of the control socket: the child may ask for children of its own.
    pub control: OwnedFd,
    pub tracker: OwnedFd,
    pub lifeline: Option<OwnedFd>,
    pub payload: Payload,
    pub inherited: Vec<OwnedFd>,
}

/// What the child unpickles.
#[derive(Debug)]
pub enum Payload {
    Inline(Vec<u8>),
    File(OwnedFd),
}

impl Request {
    /// Takes the next request from the control socket; never waits. `None`: there is none, or it makes no sense, and its
    /// sender finds its status descriptor closed. The error is `EndOfStream` when the last client is gone.
    pub fn receive(control: &OwnedFd) -> Result<Option<Box<Self>>> {
        let message = seqpacket::receive(control, protocol::LONGEST_MESSAGE)?;
        Ok(message.and_then(|message| Self::read(message).ok()).map(Box::new))
    }

    fn read(message: seqpacket::Message) -> Result<Self> {
        let (header, start) = Header::decode(&message.bytes, message.descriptors.len())?;
        let mut descriptors = message.descriptors.into_iter();
        // The header and the number of descriptors agree.
        let mut next = || descriptors.next().ok_or_else(|| crate::Error::os("read a fork request", Errno::BADF));
        let (status, parent, control, tracker) = (next()?, next()?, next()?, next()?);
        let lifeline = header.lifeline.then(&mut next).transpose()?;
        let payload = if header.file {
            Payload::File(next()?)
        } else {
            let mut bytes = message.bytes;
            bytes.drain(..start);
            Payload::Inline(bytes)
        };
        Ok(Self { status, parent, control, tracker, lifeline, payload, inherited: descriptors.collect() })
    }
}
