//! The fork server's table: requests in, children watched, exit codes out.
//!
//! The server itself forks (that takes an interpreter); this is everything around it. One thread, one `epoll`.
//!
//! Once it has been asked, it keeps one child in reserve, the standby, forked and waiting at the control socket in the
//! server's place. A request then costs the client no fork: the standby takes it, hands the status descriptor back to the
//! server, which will report how it ended, and the server forks the next standby meanwhile.
//!
//! | standby | who reads the control socket | what ends the state                                                    |
//! |---------|------------------------------|------------------------------------------------------------------------|
//! | none    | the server                   | nothing is asked at once: fork a standby                                |
//! | waiting | the standby                  | it took a request (its status comes on the channel), or it died         |

use std::collections::HashMap;
use std::io::IoSlice;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

use rustix::io::Errno;

use super::protocol;
use super::request::Request;
use crate::clock::Deadline;
use crate::error::{Kind, Result};
use crate::sys::child::{self, Name, Reaped};
use crate::sys::epoll::Epoll;
use crate::sys::{descriptor, poll, seqpacket};

/// Mark the control socket and the standby's channel among the events; children are marked by the number of their
/// process descriptor.
const CONTROL: u64 = u64::MAX;
const CHANNEL: u64 = u64::MAX - 1;

#[derive(Debug)]
pub struct Server {
    control: OwnedFd,
    epoll: Epoll,
    children: HashMap<u64, Forked>,
    standby: Option<Reserve>,
    /// Somebody has asked since the last standby could not be forked.
    busy: bool,
    /// Both ends of the channel of a standby that is about to be forked.
    channel: Option<(OwnedFd, OwnedFd)>,
}

#[derive(Debug)]
struct Forked {
    process: OwnedFd,
    /// None while it stands by.
    status: Option<OwnedFd>,
}

/// The standby as the server knows it.
#[derive(Debug)]
struct Reserve {
    mark: u64,
    channel: OwnedFd,
}

/// What there is to do.
#[derive(Debug)]
pub enum Event {
    Asked(Box<Request>),
    /// Fork a standby.
    StandBy,
    /// The last client is gone.
    Done,
}

impl Server {
    pub fn new(control: OwnedFd) -> Result<Self> {
        let epoll = Epoll::new()?;
        epoll.add(&control, CONTROL)?;
        Ok(Self { control, epoll, children: HashMap::new(), standby: None, busy: false, channel: None })
    }

    /// Waits until `deadline` for something to do; reaps and reports children meanwhile.
    pub fn next(&mut self, deadline: Deadline) -> Result<Option<Event>> {
        if self.standby.is_none() && self.busy {
            if let Some(event) = self.step(Deadline::PASSED)? {
                return Ok(Some(event));
            }
            if self.standby.is_none() {
                self.channel = Some(seqpacket::pair()?);
                return Ok(Some(Event::StandBy));
            }
        }
        self.step(deadline)
    }

    fn step(&mut self, deadline: Deadline) -> Result<Option<Event>> {
        for mark in self.epoll.wait(deadline)? {
            match mark {
                CHANNEL => self.hear_standby()?,
                CONTROL => match Request::receive(&self.control) {
                    Ok(None) => {}
                    Ok(Some(request)) => {
                        self.busy = true;
                        return Ok(Some(Event::Asked(request)));
                    }
                    Err(error) if *error.kind() == Kind::EndOfStream => return Ok(Some(Event::Done)),
                    Err(error) => return Err(error),
                },
                mark => self.reap(mark)?,
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
        self.watch(process, Some(status))?;
        Ok(())
    }

    /// Takes charge of the forked standby `pid`, which reads the control socket from now on.
    pub fn standing_by(&mut self, pid: i32) -> Result<()> {
        let Some((channel, _)) = self.channel.take() else { return Ok(()) };
        let Ok(process) = child::open(pid) else {
            child::kill_unwatched(pid);
            self.busy = false;
            return Ok(());
        };
        let mark = self.watch(process, None)?;
        self.epoll.remove(&self.control)?;
        self.epoll.add(&channel, CHANNEL)?;
        self.standby = Some(Reserve { mark, channel });
        Ok(())
    }

    /// Does without a standby until somebody asks again: it could not be forked.
    pub fn no_standby(&mut self) {
        self.channel = None;
        self.busy = false;
    }

    /// In the forked standby: keeps what it needs, closes the rest.
    pub fn into_standby(self) -> Result<Option<Standby>> {
        let Some((_, channel)) = self.channel else { return Ok(None) };
        Ok(Some(Standby {
            control: self.control,
            channel,
            process: child::open_self()?,
            name: Name::set(c"rsmp-standby"),
        }))
    }

    fn watch(&mut self, process: OwnedFd, status: Option<OwnedFd>) -> Result<u64> {
        let mark = process.as_raw_fd().unsigned_abs().into();
        self.epoll.add(&process, mark)?;
        self.children.insert(mark, Forked { process, status });
        Ok(mark)
    }

    /// The standby has taken a request, or is gone.
    fn hear_standby(&mut self) -> Result<()> {
        let Some(standby) = &self.standby else { return Ok(()) };
        match seqpacket::receive(&standby.channel, 1) {
            Ok(None) => return Ok(()),
            Ok(Some(message)) => {
                self.busy = true;
                if let Some(forked) = self.children.get_mut(&standby.mark) {
                    forked.status = message.descriptors.into_iter().next();
                }
            }
            // Unless it failed by itself, it left because the last client did: look before forking another.
            Err(_) => self.busy = false,
        }
        self.epoll.remove(&standby.channel)?;
        self.epoll.add(&self.control, CONTROL)?;
        self.standby = None;
        Ok(())
    }

    fn reap(&mut self, mark: u64) -> Result<()> {
        if self.standby.as_ref().is_some_and(|standby| standby.mark == mark) {
            // What it said last comes before its end.
            self.hear_standby()?;
        }
        let Some(forked) = self.children.get(&mark) else { return Ok(()) };
        let code = match child::reap(&forked.process)? {
            Reaped::Running => return Ok(()),
            Reaped::Ended(code) => Some(code),
            // A preloaded module reaps behind our back.
            Reaped::NotOurs => child::exit_code_after_reaping(&forked.process),
        };
        self.epoll.remove(&forked.process)?;
        if let (Some(code), Some(Forked { status: Some(status), .. })) = (code, self.children.remove(&mark)) {
            tell(&status, code.into(), &[]);
        }
        Ok(())
    }
}

/// The standby's own side.
#[derive(Debug)]
pub struct Standby {
    control: OwnedFd,
    channel: OwnedFd,
    process: OwnedFd,
    /// What `ps` shows again once it has a task.
    name: Name,
}

impl Standby {
    /// Waits for a request until `deadline` and accepts it. `Some(None)`: there is nothing more to wait for.
    pub fn next(&self, deadline: Deadline) -> Result<Option<Option<Box<Request>>>> {
        let mut set = poll::Set::with_capacity(2);
        set.push(self.control.as_fd());
        set.push(self.channel.as_fd());
        if set.wait(deadline)? == 0 {
            return Ok(None);
        }
        match Request::receive(&self.control) {
            Ok(Some(request)) => {
                self.accept(&request);
                Ok(Some(Some(request)))
            }
            // The server never writes to the channel: it is gone.
            Ok(None) if set.ready().any(|position| position == 1) => Ok(Some(None)),
            Ok(None) => Ok(None),
            Err(error) if *error.kind() == Kind::EndOfStream => Ok(Some(None)),
            Err(error) => Err(error),
        }
    }

    fn accept(&self, request: &Request) {
        // The server first: it has to report the end, however soon that is.
        self.name.restore();
        let _ = seqpacket::send(&self.channel, &[IoSlice::new(b"+")], &[request.status.as_fd()]);
        tell(&request.status, child::own_pid().into(), &[self.process.as_fd()]);
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
