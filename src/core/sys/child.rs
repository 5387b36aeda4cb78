//! Other processes through a `pidfd_open(2)` descriptor: waiting, reaping, signalling.
//!
//! A process descriptor names one process for ever, where a pid is used again, and it can be polled with everything else.
//!
//! # Safety
//! `ioctl` is given a structure of the size encoded in the request number; `raw_signal` hands the kernel any number,
//! which checks it.
#![allow(unsafe_code)]

use core::ffi::CStr;
use core::mem;
use std::ffi::CString;
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use rustix::io::Errno;
use rustix::process::{Pid, PidfdFlags, Signal, WaitId, WaitIdOptions};

use super::poll::{self, Interest};
use crate::clock::Deadline;
use crate::error::{Error, Result};

/// What reaping a process found.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reaped {
    /// It has not ended.
    Running,
    /// It ended: the exit status, or minus the signal that killed it.
    Ended(i32),
    /// It is no child of this process, or somebody else has reaped it.
    NotOurs,
}

/// Opens a descriptor of process `pid`.
pub fn open(pid: i32) -> Result<OwnedFd> {
    let op = "open a process descriptor";
    let pid = Pid::from_raw(pid).ok_or_else(|| Error::os(op, Errno::SRCH))?;
    rustix::process::pidfd_open(pid, PidfdFlags::empty()).map_err(|errno| Error::os(op, errno))
}

/// Opens a descriptor of this process, for the children that want to know when it ends.
pub fn open_self() -> Result<OwnedFd> {
    open(own_pid())
}

/// Whether the process has ended; waits for it until `deadline`. `None`: not yet, or a signal came.
pub fn wait(process: impl AsFd, deadline: Deadline) -> Result<Option<()>> {
    Ok(poll::one(process.as_fd(), Interest::Read, deadline)?.then_some(()))
}

/// Takes the exit code of a child that has ended; never waits.
pub fn reap(process: impl AsFd) -> Result<Reaped> {
    let options = WaitIdOptions::EXITED | WaitIdOptions::NOHANG;
    loop {
        return match rustix::process::waitid(WaitId::PidFd(process.as_fd()), options) {
            Ok(None) => Ok(Reaped::Running),
            Ok(Some(status)) => {
                let killed = status.terminating_signal().map(|signal| -signal);
                Ok(Reaped::Ended(status.exit_status().or(killed).unwrap_or(0)))
            }
            Err(Errno::CHILD) => Ok(Reaped::NotOurs),
            Err(Errno::INTR) => continue,
            Err(errno) => Err(Error::os("reap a process", errno)),
        };
    }
}

/// The exit code of a process that somebody else has reaped, from kernels that keep it (6.15).
#[must_use]
pub fn exit_code_after_reaping(process: impl AsFd) -> Option<i32> {
    const GET_INFO: libc::Ioctl = 0xC040_FF0B; // _IOWR(0xFF, 11, 64 bytes)
    const EXIT: u64 = 1 << 3;

    #[repr(C)]
    #[derive(Default)]
    struct Info {
        mask: u64,
        cgroup: u64,
        ids: [u32; 11],
        status: i32,
    }
    const { assert!(mem::size_of::<Info>() == 64) };

    let mut info = Info { mask: EXIT, ..Info::default() };
    // SAFETY: the request encodes 64 bytes, the size of `info`, which lives across the call.
    let outcome = unsafe { libc::ioctl(process.as_fd().as_raw_fd(), GET_INFO, &raw mut info) };
    if outcome != 0 || info.mask & EXIT == 0 {
        return None;
    }
    let status = info.status;
    Some(if libc::WIFSIGNALED(status) { -libc::WTERMSIG(status) } else { libc::WEXITSTATUS(status) })
}

/// Sends `signal` to the process. `false`: it has ended already.
pub fn signal(process: impl AsFd, signal: i32) -> Result<bool> {
    let op = "send a signal";
    if signal == 0 {
        return Err(Error::os(op, Errno::INVAL));
    }
    // SAFETY: not zero; the kernel refuses numbers that are no signal.
    let signal = unsafe { Signal::from_raw_unchecked(signal) };
    match rustix::process::pidfd_send_signal(process, signal) {
        Ok(()) => Ok(true),
        Err(Errno::SRCH) => Ok(false),
        Err(errno) => Err(Error::os(op, errno)),
    }
}

/// The pid of this process.
#[must_use]
pub fn own_pid() -> i32 {
    rustix::process::getpid().as_raw_nonzero().get()
}

/// Kills and reaps a child that could not be watched.
pub fn kill_unwatched(pid: i32) {
    if let Some(pid) = Pid::from_raw(pid) {
        let _ = rustix::process::kill_process(pid, Signal::KILL);
        let _ = rustix::process::waitpid(Some(pid), rustix::process::WaitOptions::empty());
    }
}

/// The name under which this thread was known before it took another.
#[derive(Debug)]
pub struct Name(Option<CString>);

impl Name {
    /// Names this thread; `ps` shows the name of a process's first thread.
    #[must_use]
    pub fn set(name: &CStr) -> Self {
        let before = rustix::thread::name().ok();
        let _ = rustix::thread::set_name(name);
        Self(before)
    }

    pub fn restore(&self) {
        if let Some(name) = &self.0 {
            let _ = rustix::thread::set_name(name);
        }
    }
}
