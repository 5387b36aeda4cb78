//! The layout of a `ShareableList` in its segment, the standard library's to the byte.
//!
//! | offset                | what                                                                  |
//! |-----------------------|-----------------------------------------------------------------------|
//! | 0                     | number of items `n`, 64 bits                                          |
//! | 8                     | `n + 1` offsets into the data area, 64 bits each: where items start   |
//! | 8 (n + 2)             | the data area: 8 bytes per item, more for `str` and `bytes`           |
//! | behind the data       | `n` formats of the `struct` module, 8 bytes each, filled up with NUL  |
//! | behind the formats    | `n` codes, one byte each: how to turn the unpacked value into the item |
//!
//! Offsets are fixed when the list is made; a write changes format, code and data of one item, and nothing guards it:
//! as in the standard library, processes that write and read the same item agree among themselves. A process that dies
//! while writing leaves that item with an old or new format over old or new data. Reads copy first and check then, so a
//! torn item gives a wrong value or `None` here, never a wild access.

use core::str;
use std::borrow::Cow;

use crate::error::{Error, Result};
use crate::sys::segment::Segment;

const WORD: usize = 8;

/// One item; texts are UTF-8.
#[derive(Clone, Debug, PartialEq)]
pub enum Item<'a> {
    Int(i64),
    Float(f64),
    Bool(bool),
    None,
    Text(Cow<'a, [u8]>),
    Bytes(Cow<'a, [u8]>),
}

/// Where the items of one list are.
#[derive(Debug)]
pub struct List {
    /// `n + 1` offsets from the start of the data area.
    offsets: Vec<usize>,
}

impl List {
    /// The layout for `items`, each text with the room the standard library gives it.
    pub fn plan(items: &[Item<'_>]) -> Result<Self> {
        let mut offsets = Vec::with_capacity(items.len() + 1);
        let mut end = 0;
        offsets.push(end);
        for item in items {
            let room = item.room();
            if room > 9_999_999 {
                return Err(Error::invalid("lay out a list", "item too long: its format takes more than 8 characters"));
            }
            end += room;
            offsets.push(end);
        }
        Ok(Self { offsets })
    }

    /// Reads the layout of the list in `segment`.
    pub fn attach(segment: &Segment) -> Result<Self> {
        let corrupt = || Error::corrupt("attach to a list", "the shared memory does not hold a ShareableList");
        let count = read_word(segment, 0).filter(|count| *count < segment.len() / WORD).ok_or_else(corrupt)?;
        let mut offsets = Vec::with_capacity(count + 1);
        for index in 0..=count {
            let offset = read_word(segment, WORD * (1 + index)).ok_or_else(corrupt)?;
            if offset > segment.len() || offsets.last().is_some_and(|last| offset < *last) {
                return Err(corrupt());
            }
            offsets.push(offset);
        }
        let list = Self { offsets };
        if list.size() > segment.len() { Err(corrupt()) } else { Ok(list) }
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.offsets.len() - 1
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// Where items start in the data area, and where the last one ends.
    #[must_use]
    pub fn offsets(&self) -> &[usize] {
        &self.offsets
    }

    /// Bytes that the list takes.
    #[must_use]
    pub fn size(&self) -> usize {
        self.codes() + self.len()
    }

    fn data(&self) -> usize {
        WORD * (self.len() + 2)
    }

    fn formats(&self) -> usize {
        self.data() + self.offsets[self.len()]
    }

    fn codes(&self) -> usize {
        self.formats() + WORD * self.len()
    }

    /// Writes header and `items` into `segment`.
    pub fn store(&self, segment: &Segment, items: &[Item<'_>]) -> Result<()> {
        let header = core::iter::once(self.len()).chain(self.offsets.iter().copied());
        let mut inside = true;
        for (index, word) in header.enumerate() {
            inside &= segment.copy_in(WORD * index, &(word as u64).to_ne_bytes());
        }
        if !inside {
            return Err(Error::invalid("store a list", "the shared memory is too small"));
        }
        items.iter().enumerate().try_for_each(|(position, item)| self.set(segment, position, item))
    }

    /// The item at `position` < `len`; `None` if format and code are not a pair that rsmp or the standard library writes.
    #[inline]
    #[must_use]
    pub fn get(&self, segment: &Segment, position: usize) -> Option<Item<'static>> {
        let mut format = [0; WORD];
        let mut code = [0];
        let mut word = [0; WORD];
        let offset = self.data() + self.offsets[position];
        let inside = segment.copy_out(self.formats() + WORD * position, &mut format)
            && segment.copy_out(self.codes() + position, &mut code)
            && segment.copy_out(offset, &mut word);
        if !inside {
            return None;
        }
        match (&format, code[0]) {
            (b"q\0\0\0\0\0\0\0", 0) => Some(Item::Int(i64::from_ne_bytes(word))),
            (b"d\0\0\0\0\0\0\0", 0) => Some(Item::Float(f64::from_ne_bytes(word))),
            (b"xxxxxxx?", 0) => Some(Item::Bool(word[7] != 0)),
            (b"xxxxxx?x", 3) => Some(Item::None),
            (_, 1) => Some(Item::Text(read_bytes(segment, offset, format)?.into())),
            (_, 2) => Some(Item::Bytes(read_bytes(segment, offset, format)?.into())),
            _ => None,
        }
    }

    /// Replaces the item at `position` < `len`; a text must fit into the room its place was made with.
    #[inline]
    pub fn set(&self, segment: &Segment, position: usize, item: &Item<'_>) -> Result<()> {
        let start = self.offsets[position];
        let room = self.offsets[position + 1] - start;
        let mut word = [0; WORD];
        let (format, code, bytes): ([u8; WORD], u8, &[u8]) = match item {
            Item::Int(value) => {
                word = value.to_ne_bytes();
                (*b"q\0\0\0\0\0\0\0", 0, &word)
            }
            Item::Float(value) => {
                word = value.to_ne_bytes();
                (*b"d\0\0\0\0\0\0\0", 0, &word)
            }
            Item::Bool(value) => {
                word[7] = u8::from(*value);
                (*b"xxxxxxx?", 0, &word)
            }
            Item::None => (*b"xxxxxx?x", 3, &word),
            Item::Text(text) => (text_format(room), 1, text),
            Item::Bytes(bytes) => (text_format(room), 2, bytes),
        };
        if bytes.len() > room {
            return Err(Error::invalid("store an item", "bytes/str item exceeds available storage"));
        }
        let offset = self.data() + start;
        let inside = segment.copy_in(self.formats() + WORD * position, &format)
            && segment.copy_in(self.codes() + position, &[code])
            && segment.copy_in(offset, bytes)
            && (code == 0 || code == 3 || segment.copy_in(offset + bytes.len(), &vec![0; room - bytes.len()]));
        if inside { Ok(()) } else { Err(Error::corrupt("store an item", "the shared memory has shrunk")) }
    }
}

impl Item<'_> {
    fn room(&self) -> usize {
        let rounded = |len: usize| WORD * (len / WORD + 1);
        match self {
            // The standard library rounds the number of characters and cuts off a text whose UTF-8 form takes more.
            Item::Text(text) => {
                let room = rounded(str::from_utf8(text).map_or(text.len(), |text| text.chars().count()));
                if text.len() > room { rounded(text.len()) } else { room }
            }
            Item::Bytes(bytes) => rounded(bytes.len()),
            _ => WORD,
        }
    }
}

/// The `struct` format of a text with `len` <= 9,999,999 bytes of room.
fn text_format(len: usize) -> [u8; WORD] {
    let mut format = [0; WORD];
    let text = format!("{len}s");
    let shown = text.len().min(WORD);
    format[..shown].copy_from_slice(&text.as_bytes()[..shown]);
    format
}

fn read_word(segment: &Segment, offset: usize) -> Option<usize> {
    let mut word = [0; WORD];
    segment.copy_out(offset, &mut word).then(|| u64::from_ne_bytes(word))?.try_into().ok()
}

/// The bytes of format "%ds" at `offset`, without the NULs they are filled up with.
fn read_bytes(segment: &Segment, offset: usize, format: [u8; WORD]) -> Option<Vec<u8>> {
    let digits = format.iter().position(|byte| *byte == b's')?;
    if format[digits + 1..].iter().any(|byte| *byte != 0) {
        return None;
    }
    let len: usize = str::from_utf8(&format[..digits]).ok()?.parse().ok()?;
    if len > segment.len() {
        return None;
    }
    let mut bytes = vec![0; len];
    if !segment.copy_out(offset, &mut bytes) {
        return None;
    }
    let end = bytes.iter().rposition(|byte| *byte != 0).map_or(0, |last| last + 1);
    bytes.truncate(end);
    Some(bytes)
}
