//! The connection's wire format, the standard library's bit for bit.
//!
//! A message is its length and then its bytes. `header` and `outgoing` are state machines without I/O: they say what to
//! write or read next and are told how far it got. `stream` drives them over a descriptor.
//!
//! Nothing is read ahead: between two messages no byte is held here, so a poll of the descriptor tells the truth, and
//! the descriptor can be read by another process, or by the standard library, from the next message on.

pub mod compact;
mod header;
mod outgoing;
pub mod plain;
pub mod scalar;
pub mod stream;

pub use header::{HEADROOM, Header, LONGEST, Prefix, room, seal};
pub use outgoing::Outgoing;
