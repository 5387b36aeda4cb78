//! Asking the fork server for a child.

use std::io::IoSlice;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::protocol::{self, Header};
use super::watch::Watch;
use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::sys::{child, memory, seqpacket};

/// What to ask for.
#[derive(Debug)]
pub struct Order<'a> {
    /// This process's end of the control socket.
    pub control: BorrowedFd<'a>,
    /// The resource tracker's pipe.
    pub tracker: BorrowedFd<'a>,
    /// The child is to die with whoever holds the other end.
    pub lifeline: Option<BorrowedFd<'a>>,
    /// Descriptors for the child's own use.
    pub inherited: Vec<BorrowedFd<'a>>,
    /// What the child unpickles.
    pub payload: Source<'a>,
}

/// Where the child's payload comes from.
#[derive(Clone, Copy, Debug)]
pub enum Source<'a> {
    Bytes(&'a [u8]),
    /// A descriptor to read it from.
    File(BorrowedFd<'a>),
}

/// A request under way.
#[derive(Debug)]
pub struct Asking<'a> {
    order: Order<'a>,
    header: Vec<u8>,
    file: Option<OwnedFd>,
    parent: OwnedFd,
    status: OwnedFd,
    far_status: Option<OwnedFd>,
    /// The child was done before the server had told its pid.
    announced: Option<i32>,
}

impl<'a> Asking<'a> {
    pub fn new(order: Order<'a>) -> Result<Self> {
        let file = match order.payload {
            Source::Bytes(payload) if payload.len() > protocol::LONGEST_INLINE => Some(file_of(payload)?),
            _ => None,
        };
        let header = Header {
            lifeline: order.lifeline.is_some(),
            file: file.is_some() || matches!(order.payload, Source::File(_)),
            inherited: order.inherited.len() as u32,
        };
        let (status, far_status) = seqpacket::pair()?;
        let parent = child::open_self()?;
        Ok(Self {
            header: header.encode()?,
            order,
            file,
            parent,
            status,
            far_status: Some(far_status),
            announced: None,
        })
    }

    /// Sends the request, waiting for room until `deadline`. The error is `EndOfStream` when there is no server.
    pub fn send(&mut self, deadline: Deadline) -> Result<Option<()>> {
        let Some(far_status) = &self.far_status else { return Ok(Some(())) };
        let mut descriptors = vec![far_status.as_fd(), self.parent.as_fd(), self.order.control, self.order.tracker];
        descriptors.extend(self.order.lifeline);
        let (inline, file): (&[u8], _) = match (&self.file, self.order.payload) {
            (Some(file), _) => (&[], Some(file.as_fd())),
            (None, Source::File(file)) => (&[], Some(file)),
            (None, Source::Bytes(payload)) => (payload, None),
        };
        descriptors.extend(file);
        descriptors.extend(&self.order.inherited);
        let parts = [IoSlice::new(&self.header), IoSlice::new(inline)];
        if seqpacket::send(self.order.control, &parts, &descriptors)?.is_none() {
            return seqpacket::wait_for_room(self.order.control, deadline).map(|()| None);
        }
        // The server's copy is the last one: if the server dies, this end is told.
        self.far_status = None;
        Ok(Some(()))
    }

    /// Waits for the pid until `deadline`.
    pub fn reply(&mut self, deadline: Deadline) -> Result<Option<(i32, OwnedFd)>> {
        if child::wait(&self.status, deadline)?.is_none() {
            return Ok(None);
        }
        let op = "start a process through the fork server";
        let Some(message) = seqpacket::receive(&self.status, 8)? else { return Ok(None) };
        let number = protocol::read_reply(&message.bytes)?;
        if number < 0 {
            return Err(Error::os(op, rustix::io::Errno::from_raw_os_error(-(number as i32))));
        }
        let Some(process) = message.descriptors.into_iter().next() else {
            self.announced = Some(number as i32);
            return Ok(None);
        };
        Ok(Some((number as i32, process)))
    }

    /// Where the pid and the exit code arrive.
    #[must_use]
    pub fn into_status(self) -> OwnedFd {
        self.status
    }

    /// The started child.
    #[must_use]
    pub fn watch(self, process: OwnedFd) -> Watch {
        Watch::relayed(process, self.status, self.announced)
    }
}

/// In the child, right before it ends: tells who asked for it the exit code, sooner than the server can.
pub fn announce(status: BorrowedFd<'_>, code: i32) {
    // Whoever asked may be gone; a pipe (`connect_to_new_process`) is the server's to write.
    let _ = seqpacket::send(status, &[IoSlice::new(&protocol::reply((code & 0xff).into()))], &[]);
}

/// An anonymous file that holds `bytes`, to be read from its start.
pub fn file_of(bytes: &[u8]) -> Result<OwnedFd> {
    let file = memory::create("rsmp-payload")?;
    memory::write_at_start(&file, bytes)?;
    Ok(file)
}
