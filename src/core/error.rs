//! The one error type of the engine.

use core::fmt;
use std::borrow::Cow;

use rustix::io::Errno;

pub type Result<T> = core::result::Result<T, Error>;

/// What failed (`op`, "grow queue memory") and why (`kind`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error {
    op: Cow<'static, str>,
    kind: Kind,
}

/// Why an operation failed. The binding maps each kind to one Python exception.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Kind {
    /// A system call failed.
    Os(Errno),
    /// Memory, address space or space on the memory file system ran out.
    OutOfMemory,
    /// The object was closed on this side.
    Closed,
    /// The other side is gone: nothing more will come.
    EndOfStream,
    /// An argument or a peer's announcement is out of range.
    Invalid(Cow<'static, str>),
    /// Released by a process or thread that does not hold it.
    NotOwner(Cow<'static, str>),
    /// A process died holding the object and its state needs looking at.
    OwnerDied { pid: u32 },
    /// Bytes from a peer or from shared memory make no sense.
    Corrupt(Cow<'static, str>),
}

impl Error {
    pub fn new(op: impl Into<Cow<'static, str>>, kind: Kind) -> Self {
        Self { op: op.into(), kind }
    }

    pub fn os(op: impl Into<Cow<'static, str>>, errno: Errno) -> Self {
        let kind = if errno == Errno::NOMEM { Kind::OutOfMemory } else { Kind::Os(errno) };
        Self::new(op, kind)
    }

    pub fn invalid(op: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(op, Kind::Invalid(why.into()))
    }

    pub fn corrupt(op: impl Into<Cow<'static, str>>, why: impl Into<Cow<'static, str>>) -> Self {
        Self::new(op, Kind::Corrupt(why.into()))
    }

    #[must_use]
    pub fn kind(&self) -> &Kind {
        &self.kind
    }

    #[must_use]
    pub fn op(&self) -> &str {
        &self.op
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "failed to {}: {}", self.op, self.kind)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Os(errno) => write!(f, "{errno}"),
            Self::OutOfMemory => f.write_str("out of memory"),
            Self::Closed => f.write_str("it is closed"),
            Self::EndOfStream => f.write_str("the other side is gone"),
            Self::Invalid(why) | Self::NotOwner(why) | Self::Corrupt(why) => f.write_str(why),
            Self::OwnerDied { pid } => write!(f, "process {pid} died while holding it"),
        }
    }
}

impl std::error::Error for Error {}
