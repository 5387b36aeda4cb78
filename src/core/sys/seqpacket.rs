//! Message sockets (`AF_UNIX`, `SOCK_SEQPACKET`): whole messages with descriptors, several senders on one end.

use core::mem::MaybeUninit;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};

use super::poll::{self, Interest};
use crate::clock::Deadline;
use crate::error::{Error, Kind, Result};

/// The most descriptors one message may carry (`SCM_MAX_FD`).
pub const MOST_DESCRIPTORS: usize = 253;

/// One received message.
#[derive(Debug, Default)]
pub struct Message {
    pub bytes: Vec<u8>,
    pub descriptors: Vec<OwnedFd>,
}

/// Two connected ends.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::SEQPACKET, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::os("make a socket pair", errno))
}

/// Sends one message; never waits. `None`: the other side is busy.
pub fn send(socket: impl AsFd, parts: &[IoSlice<'_>], descriptors: &[BorrowedFd<'_>]) -> Result<Option<()>> {
    let op = "send a message";
    if descriptors.len() > MOST_DESCRIPTORS {
        return Err(Error::invalid(op, "too many fds"));
    }
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() {
        ancillary.push(SendAncillaryMessage::ScmRights(descriptors));
    }
    let flags = SendFlags::NOSIGNAL | SendFlags::DONTWAIT;
    match rustix::net::sendmsg(socket, parts, &mut ancillary, flags) {
        Ok(_) => Ok(Some(())),
        Err(Errno::AGAIN | Errno::INTR) => Ok(None),
        Err(Errno::PIPE | Errno::CONNRESET) => Err(Error::new(op, Kind::EndOfStream)),
        Err(errno) => Err(Error::os(op, errno)),
    }
}

/// Waits until `deadline` for room to send.
pub fn wait_for_room(socket: impl AsFd, deadline: Deadline) -> Result<()> {
    poll::one(socket.as_fd(), Interest::Write, deadline).map(drop)
}

/// Receives one message of at most `most` bytes; never waits. `None`: there is none yet.
pub fn receive(socket: impl AsFd, most: usize) -> Result<Option<Message>> {
    let op = "receive a message";
    let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_DESCRIPTORS))];
    let mut ancillary = RecvAncillaryBuffer::new(&mut space);
    let mut bytes = vec![0; most];
    let flags = RecvFlags::DONTWAIT | RecvFlags::CMSG_CLOEXEC;
    let length = match rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut bytes)], &mut ancillary, flags) {
        Ok(received) => received.bytes,
        Err(Errno::AGAIN | Errno::INTR) => return Ok(None),
        Err(Errno::CONNRESET) => 0,
        Err(errno) => return Err(Error::os(op, errno)),
    };
    let descriptors: Vec<OwnedFd> = ancillary
        .drain()
        .filter_map(|message| if let RecvAncillaryMessage::ScmRights(rights) = message { Some(rights) } else { None })
        .flatten()
        .collect();
    if length == 0 && descriptors.is_empty() {
        return Err(Error::new(op, Kind::EndOfStream));
    }
    bytes.truncate(length);
    Ok(Some(Message { bytes, descriptors }))
}
