//! Watching a child from its parent: when it ends, and with which exit code.

use core::time::Duration;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use parking_lot::Mutex;
use rustix::io::Errno;

use super::protocol;
use crate::clock::Deadline;
use crate::error::{Kind, Result};
use crate::sys::child::{self, Reaped};
use crate::sys::{descriptor, seqpacket};

/// What is reported when nobody can say how the child ended.
pub const UNKNOWN_EXIT: i32 = 255;

/// Longest time a fork server that is alive takes to report a child that has ended.
const REPORTED: Duration = Duration::from_secs(1);

/// A child that was started by this process, or by the fork server for it.
#[derive(Debug)]
pub struct Watch {
    process: OwnedFd,
    source: Source,
    /// Kept because the kernel gives the exit code once, and several threads may ask.
    code: Mutex<Option<i32>>,
}

#[derive(Debug)]
enum Source {
    /// A child of process `parent`.
    Kernel { parent: i32 },
    /// The fork server's child. The exit code comes here: from the child itself right before it ends, else from the
    /// server, which reaps it.
    Server { status: OwnedFd, announced: Option<i32> },
}

/// What there is to know about a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Outcome {
    Exited(i32),
    /// This process is a fork of the parent: the child is not its to wait for.
    NotOurs,
}

impl Watch {
    /// Watches the child `pid` of this process.
    ///
    /// It may be gone already, where nobody needs to reap it (`SIGCHLD` ignored) or another thread did: an event that
    /// has happened then stands for it.
    pub fn child(pid: i32) -> Result<Self> {
        let source = Source::Kernel { parent: child::own_pid() };
        match child::open(pid) {
            Ok(process) => Ok(Self { process, source, code: Mutex::new(None) }),
            Err(error) if *error.kind() == Kind::Os(Errno::SRCH) => {
                let process = descriptor::event()?;
                descriptor::raise_event(&process)?;
                Ok(Self { process, source, code: Mutex::new(Some(UNKNOWN_EXIT)) })
            }
            Err(error) => Err(error),
        }
    }

    /// Watches `process`, whose exit code comes to `status`, unless it was `announced` already.
    #[must_use]
    pub fn relayed(process: OwnedFd, status: OwnedFd, announced: Option<i32>) -> Self {
        Self { process, source: Source::Server { status, announced }, code: Mutex::new(None) }
    }

    /// The process descriptor.
    #[must_use]
    pub fn process(&self) -> BorrowedFd<'_> {
        self.process.as_fd()
    }

    /// The exit code, once the child has ended; waits for it until `deadline`.
    pub fn outcome(&self, deadline: Deadline) -> Result<Option<Outcome>> {
        if let Source::Kernel { parent } = self.source {
            // Before the lock: a fork may have copied it in the hands of a thread that is not here.
            if parent != child::own_pid() {
                return Ok(Some(Outcome::NotOurs));
            }
        }
        let asks_kernel = matches!(self.source, Source::Kernel { .. });
        // Reaping never waits, so whoever will not wait either can go on to it.
        if !(asks_kernel && deadline == Deadline::PASSED) && child::wait(&self.process, deadline)?.is_none() {
            return Ok(None);
        }
        if let Source::Server { status, announced: None } = &self.source {
            // It has ended, so the server reports it at once: even a caller who will not wait gets the code.
            if child::wait(status, deadline.max(Deadline::after(REPORTED)))?.is_none() {
                // The server is gone, and a child of the child keeps the other end open.
                return Ok(child::exit_code_after_reaping(&self.process).map(Outcome::Exited));
            }
        }
        let mut code = self.code.lock();
        if code.is_none() {
            *code = match &self.source {
                Source::Kernel { .. } => self.reap()?,
                Source::Server { announced: Some(code), .. } => Some(*code),
                Source::Server { status, .. } => relayed(status)?,
            };
        }
        Ok(code.map(Outcome::Exited))
    }

    fn reap(&self) -> Result<Option<i32>> {
        Ok(match child::reap(&self.process)? {
            Reaped::Ended(code) => Some(code),
            Reaped::Running => None,
            Reaped::NotOurs => Some(child::exit_code_after_reaping(&self.process).unwrap_or(UNKNOWN_EXIT)),
        })
    }
}

/// The exit code the fork server has sent.
fn relayed(status: &OwnedFd) -> Result<Option<i32>> {
    match seqpacket::receive(status, 8) {
        Ok(message) => message.map(|message| protocol::read_reply(&message.bytes).map(|code| code as i32)).transpose(),
        // The server died first.
        Err(error) if *error.kind() == Kind::EndOfStream => Ok(Some(UNKNOWN_EXIT)),
        Err(error) => Err(error),
    }
}
