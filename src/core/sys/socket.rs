//! Stream descriptors: making pairs of them, reading and writing, passing descriptors over them.
//!
//! Reads and writes return the bare errno: what `AGAIN` and `INTR` mean depends on where in a message they happen.

use core::mem::MaybeUninit;
use std::io::{IoSlice, IoSliceMut};
use std::os::fd::{BorrowedFd, OwnedFd};

use rustix::io::{Errno, ReadWriteFlags};
use rustix::net::{
    AddressFamily, RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage,
    SendFlags, SocketFlags, SocketType,
};
use rustix::pipe::PipeFlags;

use crate::atomic::{AtomicU8, Ordering};
use crate::clock::Deadline;
use crate::error::{Error, Kind, Result};
use crate::sys::poll::{self, Interest};

/// Two connected stream sockets.
pub fn pair() -> Result<(OwnedFd, OwnedFd)> {
    rustix::net::socketpair(AddressFamily::UNIX, SocketType::STREAM, SocketFlags::CLOEXEC, None)
        .map_err(|errno| Error::os("create a pair of sockets", errno))
}

/// The reading and the writing end of a pipe.
pub fn pipe() -> Result<(OwnedFd, OwnedFd)> {
    rustix::pipe::pipe_with(PipeFlags::CLOEXEC).map_err(|errno| Error::os("create a pipe", errno))
}

/// How a descriptor is best read without waiting; found out by trying, so that nobody pays for a descriptor's type
/// before it is used.
#[derive(Debug, Default)]
pub struct Transport(AtomicU8);

impl Transport {
    /// `recv(2)` with its own flag; the first thing tried.
    const SOCKET: u8 = 0;
    /// `preadv2(2)` with its own flag: pipes, since Linux 6.4 or so.
    const PIPE: u8 = 1;
    /// `poll(2)`, then `read(2)`.
    const OTHER: u8 = 2;

    fn is_socket(&self) -> bool {
        self.0.load(Ordering::Relaxed) == Self::SOCKET
    }

    fn is_no_socket(&self) {
        self.0.store(Self::PIPE, Ordering::Relaxed);
    }

    /// The descriptor was replaced by another.
    pub fn forget(&self) {
        self.0.store(Self::SOCKET, Ordering::Relaxed);
    }
}

/// Reads what is there; `AGAIN` when nothing is, whatever mode the descriptor is in.
pub fn try_read(fd: BorrowedFd<'_>, transport: &Transport, space: &mut [u8]) -> core::result::Result<usize, Errno> {
    loop {
        match transport.0.load(Ordering::Relaxed) {
            Transport::SOCKET => match rustix::net::recv(fd, &mut *space, RecvFlags::DONTWAIT) {
                Err(Errno::NOTSOCK) => transport.is_no_socket(),
                outcome => return outcome.map(|(count, _)| count),
            },
            Transport::PIPE => {
                let outcome = rustix::io::preadv2(fd, &mut [IoSliceMut::new(space)], u64::MAX, ReadWriteFlags::NOWAIT);
                match outcome {
                    Err(Errno::OPNOTSUPP | Errno::SPIPE | Errno::NOSYS | Errno::INVAL) => {
                        transport.0.store(Transport::OTHER, Ordering::Relaxed);
                    }
                    outcome => return outcome,
                }
            }
            _ => {
                return match poll::one(fd, Interest::Read, Deadline::PASSED) {
                    Ok(true) => rustix::io::read(fd, space),
                    _ => Err(Errno::AGAIN),
                };
            }
        }
    }
}

/// Reads into `space` what is there, waiting for the first byte if the descriptor's mode is to wait.
pub fn read(fd: BorrowedFd<'_>, space: &mut [MaybeUninit<u8>]) -> core::result::Result<usize, Errno> {
    rustix::io::read(fd, space).map(|(read, _)| read.len())
}

/// As `read`, by the shortest way to it.
pub fn read_some(fd: BorrowedFd<'_>, transport: &Transport, space: &mut [u8]) -> core::result::Result<usize, Errno> {
    if transport.is_socket() {
        match rustix::net::recv(fd, &mut *space, RecvFlags::empty()) {
            Err(Errno::NOTSOCK) => transport.is_no_socket(),
            outcome => return outcome.map(|(count, _)| count),
        }
    }
    rustix::io::read(fd, space)
}

/// As `read`, but a socket waits until `space` is full.
pub fn read_all(
    fd: BorrowedFd<'_>,
    transport: &Transport,
    space: &mut [MaybeUninit<u8>],
) -> core::result::Result<usize, Errno> {
    if transport.is_socket() {
        match rustix::net::recv(fd, &mut *space, RecvFlags::WAITALL) {
            Err(Errno::NOTSOCK) => transport.is_no_socket(),
            outcome => return outcome.map(|(_, count)| count),
        }
    }
    read(fd, space)
}

/// Writes the slices, as one piece as far as the kernel takes them.
pub fn write(fd: BorrowedFd<'_>, transport: &Transport, slices: &[IoSlice<'_>]) -> core::result::Result<usize, Errno> {
    let [slice] = slices else { return rustix::io::writev(fd, slices) };
    if transport.is_socket() {
        match rustix::net::send(fd, slice, SendFlags::empty()) {
            Err(Errno::NOTSOCK) => transport.is_no_socket(),
            outcome => return outcome,
        }
    }
    rustix::io::write(fd, slice)
}

/// Sends `descriptors` with the byte `note` over a Unix socket. `None`: a signal came, or `until` passed.
pub fn send_descriptors(
    socket: BorrowedFd<'_>,
    descriptors: &[BorrowedFd<'_>],
    note: u8,
    until: Deadline,
) -> Result<Option<()>> {
    let op = "send descriptors";
    let message = SendAncillaryMessage::ScmRights(descriptors);
    let mut space = vec![MaybeUninit::uninit(); message.size()];
    let mut control = SendAncillaryBuffer::new(&mut space);
    if !descriptors.is_empty() && !control.push(message) {
        return Err(Error::invalid(op, "too many descriptors"));
    }
    loop {
        match rustix::net::sendmsg(socket, &[IoSlice::new(&[note])], &mut control, SendFlags::empty()) {
            Ok(_) => return Ok(Some(())),
            Err(Errno::INTR) => return Ok(None),
            Err(Errno::AGAIN) => {
                if !poll::one(socket, Interest::Write, until)? {
                    return Ok(None);
                }
            }
            Err(errno) => return Err(Error::os(op, errno)),
        }
    }
}

/// What came with one message: its descriptors (closed on exec), and the byte sent with them.
#[derive(Debug)]
pub struct Received {
    pub descriptors: Vec<OwnedFd>,
    pub note: Option<u8>,
    /// How many groups of descriptors there were; the other side sends one.
    pub groups: usize,
}

/// Receives up to `count` descriptors from a Unix socket. `None`: a signal came, or `until` passed.
pub fn receive_descriptors(socket: BorrowedFd<'_>, count: usize, until: Deadline) -> Result<Option<Received>> {
    let op = "receive descriptors";
    let mut space = vec![MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(count))];
    let mut control = RecvAncillaryBuffer::new(&mut space);
    let mut note = [0];
    loop {
        let message =
            rustix::net::recvmsg(socket, &mut [IoSliceMut::new(&mut note)], &mut control, RecvFlags::CMSG_CLOEXEC);
        let bytes = match message {
            Ok(message) => message.bytes,
            Err(Errno::INTR) => return Ok(None),
            Err(Errno::AGAIN) => {
                if poll::one(socket, Interest::Read, until)? {
                    continue;
                }
                return Ok(None);
            }
            Err(errno) => return Err(Error::os(op, errno)),
        };
        let mut descriptors = Vec::new();
        let mut groups = 0;
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
                groups += 1;
            }
        }
        if bytes == 0 && groups == 0 {
            return Err(Error::new(op, Kind::EndOfStream));
        }
        return Ok(Some(Received { descriptors, note: (bytes > 0).then_some(note[0]), groups }));
    }
}
