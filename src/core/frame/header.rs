//! What stands before a message: its length.
//!
//! | bytes                               | length of the message       |
//! |-------------------------------------|-----------------------------|
//! | `!i` n, n >= 0                      | n, up to 2 GiB - 1          |
//! | `!i` -1, then `!Q` n                | n, any                      |
//! | `!i` below -1, or `!Q` over LONGEST | none: the peer does not speak this format |

use crate::error::{Error, Result};

/// No message can be longer: it would not fit the address space. Only garbage announces it.
pub const LONGEST: u64 = 1 << 47;

const SHORT: usize = 4;
const LONG: usize = 12;

/// A reader gives this much memory to an announcement; the rest only follows bytes that really came.
const FIRST_ROOM: usize = 64 << 20;

/// The length of a message as it goes out.
#[derive(Clone, Copy, Debug)]
pub struct Header {
    bytes: [u8; LONG],
    len: usize,
}

impl Header {
    #[must_use]
    pub fn new(length: usize) -> Self {
        let mut bytes = [0xff; LONG];
        let len = if let Ok(short) = i32::try_from(length) {
            bytes[..SHORT].copy_from_slice(&short.to_be_bytes());
            SHORT
        } else {
            bytes[SHORT..].copy_from_slice(&(length as u64).to_be_bytes());
            LONG
        };
        Self { bytes, len }
    }

    /// No header at all.
    #[must_use]
    pub(super) fn none() -> Self {
        Self { bytes: [0; LONG], len: 0 }
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        &self.bytes[..self.len]
    }
}

/// The length of a message as it comes in, piece by piece.
#[derive(Clone, Debug, Default)]
pub struct Prefix {
    bytes: [u8; LONG],
    filled: usize,
}

impl Prefix {
    /// Whether nothing of the message has come yet.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.filled == 0
    }

    /// Whether what came so far ends where a part (the `!i`, the `!Q`) ends: the standard library calls an end of stream
    /// here an end of file, anywhere else a broken message.
    #[must_use]
    pub fn is_between_parts(&self) -> bool {
        self.filled == 0 || self.filled == SHORT
    }

    /// Where the bytes that are still missing go; empty once the prefix is complete.
    pub fn space(&mut self) -> &mut [u8] {
        let end = if self.filled < SHORT {
            SHORT
        } else if self.is_long() {
            LONG
        } else {
            self.filled
        };
        &mut self.bytes[self.filled..end]
    }

    /// `count` bytes were put into `space`.
    ///
    /// # Panics
    /// If that is more than there was space.
    pub fn advance(&mut self, count: usize) {
        assert!(count <= self.space().len(), "more was read than there was space for");
        self.filled += count;
    }

    /// The length of the message; `None` while bytes are missing.
    pub fn length(&self) -> Result<Option<u64>> {
        if self.filled < SHORT {
            return Ok(None);
        }
        let short = i32::from_be_bytes(array(&self.bytes[..SHORT]));
        if let Ok(length) = u64::try_from(short) {
            return Ok(Some(length));
        }
        if !self.is_long() {
            return Err(bad_length());
        }
        if self.filled < LONG {
            return Ok(None);
        }
        let length = u64::from_be_bytes(array(&self.bytes[SHORT..]));
        if length > LONGEST { Err(bad_length()) } else { Ok(Some(length)) }
    }

    fn is_long(&self) -> bool {
        self.filled >= SHORT && self.bytes[..SHORT] == [0xff; SHORT]
    }
}

/// How many bytes a message must leave free before it for `seal`.
pub const HEADROOM: usize = LONG;

/// Puts the header of the message that lies in `buffer` after `HEADROOM` bytes right before it; returns both.
///
/// # Panics
/// If there is no headroom.
#[must_use]
pub fn seal(buffer: &mut [u8]) -> &[u8] {
    let header = Header::new(buffer.len() - HEADROOM);
    let start = HEADROOM - header.len;
    buffer[start..HEADROOM].copy_from_slice(header.as_bytes());
    &buffer[start..]
}

/// How much memory to have for a message announced as `length` bytes when `received` of them have come.
#[must_use]
pub fn room(length: usize, received: usize) -> usize {
    length.min(received.saturating_mul(2).max(FIRST_ROOM))
}

fn bad_length() -> Error {
    Error::corrupt("receive", "bad message length")
}

fn array<const N: usize>(bytes: &[u8]) -> [u8; N] {
    let mut array = [0; N];
    array.copy_from_slice(bytes);
    array
}
