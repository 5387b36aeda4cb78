//! What the fork server and its clients say to each other: bytes in, bytes out, no descriptors touched.
//!
//! ```text
//! request   u32 length of the header | header, a pickle (so that either side may be written in Python) | payload
//!           with descriptors: status, parent, control, tracker [, lifeline] [, file], inherited...
//! replies   on the status descriptor, i64 each: the pid, with a process descriptor of it, or minus an errno;
//!           then the exit code, from the child when it is about to end and from the server when it has ended
//! ```
//! Integers are in the byte order of the machine. The payload is what the child unpickles; a large one comes as a file.

use serde::{Deserialize, Serialize};

use crate::error::{Error, Result};

/// The longest message: a request with everything inline stays well below a socket's buffer.
pub const LONGEST_MESSAGE: usize = 64 * 1024;

/// Payloads up to this many bytes travel inside the request.
pub const LONGEST_INLINE: usize = 48 * 1024;

/// Descriptors every request carries: status, parent, control, tracker.
pub const FIXED_DESCRIPTORS: usize = 4;

/// The header of a request: which descriptors follow the fixed ones.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Header {
    /// The child hangs on the lifeline that is passed.
    pub lifeline: bool,
    /// The payload is in a file that is passed, not behind the header.
    pub file: bool,
    /// Descriptors for the child's own use.
    pub inherited: u32,
}

impl Header {
    /// How many descriptors a request with this header carries.
    #[must_use]
    pub fn descriptors(&self) -> usize {
        FIXED_DESCRIPTORS + usize::from(self.lifeline) + usize::from(self.file) + self.inherited as usize
    }

    /// The bytes in front of the payload.
    pub fn encode(&self) -> Result<Vec<u8>> {
        let header = serde_pickle::to_vec(self, serde_pickle::SerOptions::new())
            .map_err(|error| Error::invalid("write a fork request", error.to_string()))?;
        let mut bytes = Vec::with_capacity(4 + header.len());
        bytes.extend_from_slice(&(header.len() as u32).to_ne_bytes());
        bytes.extend_from_slice(&header);
        Ok(bytes)
    }

    /// Reads the front of a request; gives the header and where the payload begins.
    pub fn decode(message: &[u8], descriptors: usize) -> Result<(Self, usize)> {
        let op = "read a fork request";
        let (length, rest) = message.split_first_chunk::<4>().ok_or_else(|| Error::corrupt(op, "it is cut short"))?;
        let length = u32::from_ne_bytes(*length) as usize;
        let header = rest.get(..length).ok_or_else(|| Error::corrupt(op, "it is cut short"))?;
        let header: Self = serde_pickle::from_slice(header, serde_pickle::DeOptions::new())
            .map_err(|error| Error::corrupt(op, error.to_string()))?;
        if header.descriptors() != descriptors {
            return Err(Error::corrupt(op, "descriptors are missing"));
        }
        Ok((header, 4 + length))
    }
}

/// The bytes of one reply.
#[must_use]
pub fn reply(number: i64) -> [u8; 8] {
    number.to_ne_bytes()
}

/// The number in one reply.
pub fn read_reply(bytes: &[u8]) -> Result<i64> {
    let bytes = bytes.try_into().map_err(|_| Error::corrupt("read the fork server's reply", "it is cut short"))?;
    Ok(i64::from_ne_bytes(bytes))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;

    #[test]
    fn a_request_survives_the_trip() {
        let header = Header { lifeline: true, file: false, inherited: 3 };
        let mut message = header.encode().unwrap();
        let start = message.len();
        message.extend_from_slice(b"payload");
        assert_eq!(Header::decode(&message, 8).unwrap(), (header, start));
    }

    #[test]
    fn every_truncation_is_an_error() {
        let message = Header::default().encode().unwrap();
        for length in 0..message.len() {
            assert!(Header::decode(&message[..length], FIXED_DESCRIPTORS).is_err());
        }
        assert!(Header::decode(&message, FIXED_DESCRIPTORS - 1).is_err());
    }

    #[test]
    fn replies_are_signed() {
        assert_eq!(read_reply(&reply(-9)).unwrap(), -9);
        assert!(read_reply(b"short").is_err());
    }
}
