//! The fork server's table: requests in, children watched, exit codes out.
//!
//! The server itself forks (that takes an interpreter); this is everything around it. One thread, one `epoll`.

use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::protocol::{self, Header};
use crate::clock::Deadline;
use crate::error::{Kind, Result};
use crate::sys::child::{self, Reaped};
use crate::sys::epoll::Epoll;
use crate::sys::{descriptor, seqpacket};

/// Marks the control socket among the events; children are marked by the number of their descriptor.
const CONTROL: u64 = u64::MAX;

#[derive(Debug)]
pub struct Server {
    control: OwnedFd,
    epoll: Epoll,
    children: HashMap<u64, Forked>,
}

#[derive(Debug)]
struct Forked {
    process: OwnedFd,
    status: OwnedFd,
}

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

/// What happened.
#[derive(Debug)]
pub enum Event {
    Asked(Box<Request>),
    /// The last client is gone.
    Done,
}

impl Server {
    pub fn new(control: OwnedFd) -> Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&control, CONTROL)?;
        Ok(Self { control, epoll, children: HashMap::new() })
    }

    /// Waits for a request until `deadline`; reaps and reports children meanwhile.
    pub fn next(&mut self, deadline: Deadline) -> Result<Option<Event>> {
        for mark in self.epoll.wait(deadline)? {
            if mark == CONTROL {
                match seqpacket::receive(&self.control, protocol::LONGEST_MESSAGE) {
                    Ok(Some(message)) => {
                        // What makes no sense is dropped, and its sender finds its status descriptor closed.
                        if let Ok(request) = Request::read(message) {
                            return Ok(Some(Event::Asked(Box::new(request))));
                        }
                    }
                    Ok(None) => {}
                    Err(error) if *error.kind() == Kind::EndOfStream => return Ok(Some(Event::Done)),
                    Err(error) => return Err(error),
                }
            } else {
                self.reap(mark)?;
            }
        }
        Ok(None)
    }

    /// Takes charge of the forked child `pid` and tells who asked for it.
    pub fn started(&mut self, status: OwnedFd, pid: i32) -> Result<()> {
        let process = match child::open(pid) {
            Ok(process) => process,
            Err(error) => {
                child::kill_unwatched(pid);
                refused(&status, if let Kind::Os(errno) = error.kind() { *errno } else { Errno::NOMEM }.raw_os_error());
                return Ok(());
            }
        };
        tell(&status, pid.into(), &[process.as_fd()]);
        let mark = mark(&process);
        self.epoll.add(&process, mark)?;
        self.children.insert(mark, Forked { process, status });
        Ok(())
    }

    fn reap(&mut self, mark: u64) -> Result<()> {
        let Some(forked) = self.children.get(&mark) else { return Ok(()) };
        let code = match child::reap(&forked.process)? {
            Reaped::Running => return Ok(()),
            Reaped::Ended(code) => Some(code),
            // A preloaded module reaps behind our back.
            Reaped::NotOurs => child::exit_code_after_reaping(&forked.process),
        };
        self.epoll.remove(&forked.process)?;
        if let (Some(code), Some(forked)) = (code, self.children.remove(&mark)) {
            tell(&forked.status, code.into(), &[]);
        }
        Ok(())
    }
}

/// Tells who asked that the fork failed with `errno`.
pub fn refused(status: &OwnedFd, errno: i32) {
    tell(status, -i64::from(errno), &[]);
}

/// Sends one reply. Whoever asked may be gone: the child runs all the same.
fn tell(status: &OwnedFd, number: i64, descriptors: &[BorrowedFd<'_>]) {
    let bytes = protocol::reply(number);
    match seqpacket::send(status, &[IoSlice::new(&bytes)], descriptors) {
        Err(error) if *error.kind() == Kind::Os(Errno::NOTSOCK) => {
            // `connect_to_new_process` hands out pipes.
            let _ = descriptor::write_all(status, &bytes);
        }
        _ => {}
    }
}

fn mark(process: &OwnedFd) -> u64 {
    process.as_raw_fd().unsigned_abs().into()
}

impl Request {
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
