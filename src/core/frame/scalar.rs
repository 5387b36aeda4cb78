//! The pickle of a single number, string or `None`, as the C pickler writes it for protocols 4 and 5.
//!
//! Most small messages are one of these, and setting up a pickler and an unpickler costs more than the rest of such a
//! message. Reading recognises what is written here, and the older protocols' forms of it; anything else is left to the
//! interpreter.

const PROTO: u8 = 0x80;
const FRAME: u8 = 0x95;
const MEMOIZE: u8 = 0x94;
const BINPUT: u8 = b'q';
const STOP: u8 = b'.';
const NONE: u8 = b'N';
const TRUE: u8 = 0x88;
const FALSE: u8 = 0x89;
const BININT1: u8 = b'K';
const BININT2: u8 = b'M';
const BININT: u8 = b'J';
const LONG1: u8 = 0x8a;
const BINFLOAT: u8 = b'G';
const SHORT_BINUNICODE: u8 = 0x8c;
const BINUNICODE: u8 = b'X';
const SHORT_BINBYTES: u8 = b'C';
const BINBYTES: u8 = b'B';

/// Frames of fewer bytes are not marked as such.
const SHORTEST_FRAME: usize = 4;
/// Longer strings lie outside the frame.
const LONGEST_TEXT: usize = 60 << 10;

const FRAME_HEAD: usize = 9;

#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Scalar<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a str),
    Bytes(&'a [u8]),
}

/// Appends the pickle of `scalar`; `false` if it has to be pickled otherwise.
pub fn write(scalar: Scalar<'_>, protocol: u8, out: &mut Vec<u8>) -> bool {
    if !(4..=5).contains(&protocol) {
        return false;
    }
    let start = out.len();
    out.extend_from_slice(&[PROTO, protocol]);
    match scalar {
        Scalar::None => out.push(NONE),
        Scalar::Bool(value) => out.push(if value { TRUE } else { FALSE }),
        Scalar::Int(value) => write_int(value, out),
        Scalar::Float(value) => {
            open_frame(10, out);
            out.push(BINFLOAT);
            out.extend_from_slice(&value.to_be_bytes());
        }
        Scalar::Str(text) => return write_text(start, [SHORT_BINUNICODE, BINUNICODE], text.as_bytes(), out),
        Scalar::Bytes(bytes) => return write_text(start, [SHORT_BINBYTES, BINBYTES], bytes, out),
    }
    out.push(STOP);
    true
}

fn write_int(value: i64, out: &mut Vec<u8>) {
    if let Ok(byte) = u8::try_from(value) {
        out.extend_from_slice(&[BININT1, byte]);
    } else if let Ok(short) = u16::try_from(value) {
        open_frame(4, out);
        out.push(BININT2);
        out.extend_from_slice(&short.to_le_bytes());
    } else if let Ok(word) = i32::try_from(value) {
        open_frame(6, out);
        out.push(BININT);
        out.extend_from_slice(&word.to_le_bytes());
    } else {
        // As few bytes as keep the sign.
        let spare = value.leading_zeros().max(value.leading_ones()) - 1;
        let len = 8 - spare as usize / 8;
        open_frame(3 + len, out);
        out.extend_from_slice(&[LONG1, len as u8]);
        out.extend_from_slice(&value.to_le_bytes()[..len]);
    }
}

fn write_text(start: usize, [short, long]: [u8; 2], text: &[u8], out: &mut Vec<u8>) -> bool {
    if text.len() > LONGEST_TEXT {
        out.truncate(start);
        return false;
    }
    if let Ok(len) = u8::try_from(text.len()) {
        open_frame(4 + text.len(), out);
        out.extend_from_slice(&[short, len]);
    } else {
        open_frame(7 + text.len(), out);
        out.push(long);
        out.extend_from_slice(&(text.len() as u32).to_le_bytes());
    }
    out.extend_from_slice(text);
    out.extend_from_slice(&[MEMOIZE, STOP]);
    true
}

fn open_frame(len: usize, out: &mut Vec<u8>) {
    debug_assert!(len >= SHORTEST_FRAME);
    out.push(FRAME);
    out.extend_from_slice(&(len as u64).to_le_bytes());
}

/// The scalar that `pickle` is the pickle of.
#[must_use]
pub fn read(pickle: &[u8]) -> Option<Scalar<'_>> {
    let [PROTO, 2..=5, rest @ ..] = pickle else { return None };
    let rest = match rest {
        [FRAME, framed @ ..] => {
            let (len, body) = framed.split_at_checked(FRAME_HEAD - 1)?;
            (u64::from_le_bytes(len.try_into().ok()?) == body.len() as u64).then_some(body)?
        }
        rest => rest,
    };
    match rest {
        [NONE, STOP] => Some(Scalar::None),
        [TRUE, STOP] => Some(Scalar::Bool(true)),
        [FALSE, STOP] => Some(Scalar::Bool(false)),
        [BININT1, byte, STOP] => Some(Scalar::Int((*byte).into())),
        [BININT2, a, b, STOP] => Some(Scalar::Int(u16::from_le_bytes([*a, *b]).into())),
        [BININT, a, b, c, d, STOP] => Some(Scalar::Int(i32::from_le_bytes([*a, *b, *c, *d]).into())),
        [LONG1, len, digits @ .., STOP] if digits.len() == usize::from(*len) => read_long(digits).map(Scalar::Int),
        [BINFLOAT, digits @ .., STOP] => Some(Scalar::Float(f64::from_be_bytes(digits.try_into().ok()?))),
        [SHORT_BINUNICODE, len, rest @ ..] => read_str(read_text(usize::from(*len), rest)?),
        [BINUNICODE, a, b, c, d, rest @ ..] => {
            read_str(read_text(u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest)?)
        }
        [SHORT_BINBYTES, len, rest @ ..] => read_text(usize::from(*len), rest).map(Scalar::Bytes),
        [BINBYTES, a, b, c, d, rest @ ..] => {
            read_text(u32::from_le_bytes([*a, *b, *c, *d]) as usize, rest).map(Scalar::Bytes)
        }
        _ => None,
    }
}

fn read_long(digits: &[u8]) -> Option<i64> {
    let sign = if *digits.last()? >= 0x80 { 0xff } else { 0 };
    let mut bytes = [sign; 8];
    bytes.get_mut(..digits.len())?.copy_from_slice(digits);
    Some(i64::from_le_bytes(bytes))
}

fn read_str(text: &[u8]) -> Option<Scalar<'_>> {
    // Lone surrogates are no UTF-8 to Rust, but they are to pickle.
    core::str::from_utf8(text).ok().map(Scalar::Str)
}

/// The first `len` bytes if nothing but the end follows.
fn read_text(len: usize, rest: &[u8]) -> Option<&[u8]> {
    let (text, end) = rest.split_at_checked(len)?;
    matches!(end, [STOP] | [MEMOIZE, STOP] | [BINPUT, _, STOP]).then_some(text)
}
