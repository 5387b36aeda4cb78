//! The pickle of one large `bytes` object, taken apart so that its contents are never copied.
//!
//! `protocol 4 or 5, BINBYTES, length, contents, MEMOIZE, STOP`: from 64 KiB on, that is what the C pickler
//! writes, so either side may be the standard library. (Shorter objects lie inside a frame of the pickle.)

/// The shortest contents that are pickled this way.
pub const LEAST: usize = 64 << 10;

/// Bytes before and after the contents.
pub const HEAD: usize = 7;
pub const TAIL: [u8; 2] = *b"\x94.";

const PROTO: u8 = 0x80;
const BINBYTES: u8 = b'B';

/// What stands before `length` bytes of contents; `None` if the C pickler writes something else.
#[must_use]
pub fn head(protocol: u8, length: usize) -> Option<[u8; HEAD]> {
    let short = u32::try_from(length).ok()?;
    if !(4..=5).contains(&protocol) || length < LEAST {
        return None;
    }
    let [a, b, c, d] = short.to_le_bytes();
    Some([PROTO, protocol, BINBYTES, a, b, c, d])
}

/// How long the contents are if a message of `length` bytes that begins with `head` is one large `bytes` object.
///
/// What ends the message is not known yet: it must turn out to be `TAIL`.
#[must_use]
pub fn contents(head: [u8; HEAD], length: usize) -> Option<usize> {
    let [PROTO, 4..=5, BINBYTES, a, b, c, d] = head else { return None };
    let contents = u32::from_le_bytes([a, b, c, d]) as usize;
    (contents >= LEAST && contents + HEAD + TAIL.len() == length).then_some(contents)
}
