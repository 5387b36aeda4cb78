//! The private format of values inside rsmp's own shared memory: the exact builtins, tag by tag.
//!
//! It never leaves the machine or the version, so it has neither. What it cannot say (an instance, a set, an integer of
//! more than 64 bits) is left to pickle, as a whole message that starts with `PICKLE`.
//!
//! ```text
//! value   = NONE | FALSE | TRUE | INT8 i8 | INT32 i32 | INT64 i64 | FLOAT f64
//!         | STR length utf-8 | BYTES length bytes | LIST length value* | TUPLE length value* | DICT length (value value)*
//!         | REF length                             (the n-th value that was marked REMEMBER, counted from 0)
//! length  = u8 below 254 | 254 u32 | 255 u64       (little endian)
//! ```
//!
//! A tag with `REMEMBER` set gives its value the next number, before its items come: that is how identity and cycles
//! travel.

use crate::error::{Error, Result};

const NONE: u8 = 0;
const FALSE: u8 = 1;
const TRUE: u8 = 2;
const INT8: u8 = 3;
const INT32: u8 = 4;
const INT64: u8 = 5;
const FLOAT: u8 = 6;
const STR: u8 = 7;
const BYTES: u8 = 8;
const LIST: u8 = 9;
const TUPLE: u8 = 10;
const DICT: u8 = 11;
const REF: u8 = 12;
const REMEMBER: u8 = 0x80;

/// First byte of a message whose rest is a pickle.
pub const PICKLE: u8 = 0x7f;

const LENGTH32: u8 = 254;
const LENGTH64: u8 = 255;

/// One step of a value: a scalar, or the head of a container whose items follow.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Token<'a> {
    None,
    Bool(bool),
    Int(i64),
    Float(f64),
    Str(&'a [u8]),
    Bytes(&'a [u8]),
    List(usize),
    Tuple(usize),
    /// Pairs, so twice as many values follow.
    Dict(usize),
    Ref(usize),
}

/// Appends `token` to `out`; `remember` gives it a number.
#[allow(clippy::inline_always)] // what the token is is known where it is written
#[inline(always)]
pub fn write(out: &mut Vec<u8>, token: Token<'_>, remember: bool) {
    let flag = if remember { REMEMBER } else { 0 };
    match token {
        Token::None => out.push(NONE),
        Token::Bool(false) => out.push(FALSE),
        Token::Bool(true) => out.push(TRUE),
        Token::Int(value) => write_int(out, value),
        Token::Float(value) => {
            out.push(FLOAT);
            out.extend_from_slice(&value.to_le_bytes());
        }
        Token::Str(text) => write_bytes(out, STR | flag, text),
        Token::Bytes(bytes) => write_bytes(out, BYTES | flag, bytes),
        Token::List(length) => write_length(out, LIST | flag, length),
        Token::Tuple(length) => write_length(out, TUPLE | flag, length),
        Token::Dict(length) => write_length(out, DICT | flag, length),
        Token::Ref(number) => write_length(out, REF, number),
    }
}

/// Takes the number of the token at `position` back, which nothing refers to. The ones after it are others then, so it is
/// done for all or for none.
#[inline]
pub fn forget(out: &mut [u8], position: usize) {
    out[position] &= !REMEMBER;
}

#[inline]
fn write_int(out: &mut Vec<u8>, value: i64) {
    if let Ok(small) = i8::try_from(value) {
        out.extend_from_slice(&[INT8, small.cast_unsigned()]);
    } else if let Ok(middle) = i32::try_from(value) {
        let [a, b, c, d] = middle.to_le_bytes();
        out.extend_from_slice(&[INT32, a, b, c, d]);
    } else {
        out.push(INT64);
        out.extend_from_slice(&value.to_le_bytes());
    }
}

#[inline]
fn write_bytes(out: &mut Vec<u8>, tag: u8, bytes: &[u8]) {
    write_length(out, tag, bytes.len());
    out.extend_from_slice(bytes);
}

#[inline]
fn write_length(out: &mut Vec<u8>, tag: u8, length: usize) {
    match u8::try_from(length) {
        Ok(short) if short < LENGTH32 => out.extend_from_slice(&[tag, short]),
        _ => write_long_length(out, tag, length),
    }
}

#[cold]
fn write_long_length(out: &mut Vec<u8>, tag: u8, length: usize) {
    if let Ok(middle) = u32::try_from(length) {
        out.extend_from_slice(&[tag, LENGTH32]);
        out.extend_from_slice(&middle.to_le_bytes());
    } else {
        out.extend_from_slice(&[tag, LENGTH64]);
        out.extend_from_slice(&(length as u64).to_le_bytes());
    }
}

/// Reads tokens one after the other. Garbage is an error, never a panic or an allocation.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    rest: &'a [u8],
}

impl<'a> Reader<'a> {
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self { rest: message }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.rest.is_empty()
    }

    /// The next token and whether it takes a number.
    #[allow(clippy::inline_always)] // called for every value; a token that is passed on is written and read once more
    #[inline(always)]
    pub fn token(&mut self) -> Result<(Token<'a>, bool)> {
        let [tag] = self.array()?;
        let remember = tag & REMEMBER != 0;
        let token = match tag & !REMEMBER {
            INT8 => {
                let [value] = self.array()?;
                Token::Int(i64::from(value.cast_signed()))
            }
            INT32 => Token::Int(i64::from(i32::from_le_bytes(self.array()?))),
            INT64 => Token::Int(i64::from_le_bytes(self.array()?)),
            STR => Token::Str(self.counted()?),
            NONE => Token::None,
            FALSE => Token::Bool(false),
            TRUE => Token::Bool(true),
            FLOAT => Token::Float(f64::from_le_bytes(self.array()?)),
            BYTES => Token::Bytes(self.counted()?),
            LIST => Token::List(self.items(1)?),
            TUPLE => Token::Tuple(self.items(1)?),
            DICT => Token::Dict(self.items(2)?),
            REF => Token::Ref(self.length()?),
            _ => return Err(garbage("unknown tag")),
        };
        Ok((token, remember))
    }

    /// The next token if it is an integer, which most items are; it has no number.
    #[inline]
    pub fn int(&mut self) -> Option<i64> {
        let (&tag, rest) = self.rest.split_first()?;
        let (value, rest) = match tag {
            INT8 => rest.split_first_chunk().map(|(byte, rest)| (i64::from(i8::from_le_bytes(*byte)), rest))?,
            INT32 => rest.split_first_chunk().map(|(bytes, rest)| (i64::from(i32::from_le_bytes(*bytes)), rest))?,
            INT64 => rest.split_first_chunk().map(|(bytes, rest)| (i64::from_le_bytes(*bytes), rest))?,
            _ => return None,
        };
        self.rest = rest;
        Some(value)
    }

    /// The next token if it is a string of fewer than 254 bytes, and whether it has a number.
    #[inline]
    pub fn short_text(&mut self) -> Option<(&'a [u8], bool)> {
        let (&[tag, length], rest) = self.rest.split_first_chunk()?;
        if tag & !REMEMBER != STR || length >= LENGTH32 {
            return None;
        }
        let (text, rest) = rest.split_at_checked(usize::from(length))?;
        self.rest = rest;
        Some((text, tag & REMEMBER != 0))
    }

    #[inline]
    fn array<const N: usize>(&mut self) -> Result<[u8; N]> {
        let (head, rest) = self.rest.split_first_chunk::<N>().ok_or_else(|| garbage("it is cut short"))?;
        self.rest = rest;
        Ok(*head)
    }

    #[inline]
    fn length(&mut self) -> Result<usize> {
        let [short] = self.array()?;
        match short {
            LENGTH32 => Ok(u32::from_le_bytes(self.array()?) as usize),
            LENGTH64 => usize::try_from(u64::from_le_bytes(self.array()?)).map_err(|_| garbage("length out of range")),
            _ => Ok(usize::from(short)),
        }
    }

    #[inline]
    fn counted(&mut self) -> Result<&'a [u8]> {
        let length = self.length()?;
        let (head, rest) = self.rest.split_at_checked(length).ok_or_else(|| garbage("it is cut short"))?;
        self.rest = rest;
        Ok(head)
    }

    /// The length of a container. Each item takes at least a byte, so a length the rest cannot hold is a lie, and
    /// nothing is allocated for it.
    #[inline]
    fn items(&mut self, bytes_each: usize) -> Result<usize> {
        let length = self.length()?;
        match length.checked_mul(bytes_each) {
            Some(least) if least <= self.rest.len() => Ok(length),
            _ => Err(garbage("it is cut short")),
        }
    }
}

#[cold]
fn garbage(why: &'static str) -> Error {
    Error::corrupt("decode a message", why)
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// Walks a whole value; gives how many tokens it took.
    fn walk(reader: &mut Reader<'_>) -> Result<usize> {
        let (mut open, mut seen) = (1_usize, 0_usize);
        while open > 0 {
            open -= 1;
            seen += 1;
            open += match reader.token()?.0 {
                Token::List(n) | Token::Tuple(n) => n,
                Token::Dict(n) => 2 * n,
                _ => 0,
            };
        }
        Ok(seen)
    }

    #[test]
    fn lengths_of_every_width_come_back() {
        for length in [0, 1, 253, 254, 255, 256, 65_536, 1 << 20] {
            let text = vec![b'x'; length];
            let mut out = Vec::new();
            write(&mut out, Token::Bytes(&text), true);
            assert_eq!(Reader::new(&out).token().unwrap(), (Token::Bytes(&text[..]), true));
        }
    }

    #[test]
    fn a_number_taken_back_leaves_the_rest() {
        let mut out = Vec::new();
        write(&mut out, Token::Str(b"key"), true);
        forget(&mut out, 0);
        assert_eq!(Reader::new(&out).token().unwrap(), (Token::Str(&b"key"[..]), false));
    }

    #[test]
    fn a_container_longer_than_the_message_is_an_error_and_allocates_nothing() {
        let mut out = Vec::new();
        write(&mut out, Token::List(1 << 60), false);
        assert!(Reader::new(&out).token().is_err());
        let mut out = Vec::new();
        write(&mut out, Token::Dict(usize::MAX), false);
        assert!(Reader::new(&out).token().is_err());
    }

    proptest! {
        #[test]
        fn scalars_come_back(value: i64, float: f64, remember: bool, text in ".*") {
            let mut out = Vec::new();
            write(&mut out, Token::Int(value), false);
            write(&mut out, Token::Float(float), false);
            write(&mut out, Token::Str(text.as_bytes()), remember);
            let mut reader = Reader::new(&out);
            prop_assert_eq!(reader.clone().int(), Some(value));
            prop_assert_eq!(reader.token().unwrap().0, Token::Int(value));
            prop_assert_eq!(reader.int(), None);
            let Token::Float(back) = reader.token().unwrap().0 else { panic!("not a float") };
            prop_assert_eq!(back.to_bits(), float.to_bits());
            let short = (text.len() < 254).then_some((text.as_bytes(), remember));
            prop_assert_eq!(reader.clone().short_text(), short);
            prop_assert_eq!(reader.token().unwrap(), (Token::Str(text.as_bytes()), remember));
            prop_assert_eq!(reader.short_text(), None);
            prop_assert!(reader.is_empty());
        }

        #[test]
        fn garbage_is_an_error_and_never_a_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let mut reader = Reader::new(&bytes);
            while !reader.is_empty() && walk(&mut reader).is_ok() {}
        }
    }
}
