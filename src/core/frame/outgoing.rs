//! A message on its way out.

use core::array;
use std::io::IoSlice;

use super::Header;

/// How many pieces a message may consist of.
const PARTS: usize = 3;

/// A header and up to three pieces of a message, and how far they were written.
#[derive(Debug)]
pub struct Outgoing<'a> {
    header: Header,
    parts: [&'a [u8]; PARTS],
    length: usize,
    written: usize,
}

impl<'a> Outgoing<'a> {
    #[must_use]
    pub fn new(message: &'a [u8]) -> Self {
        Self::of_parts([message, &[], &[]])
    }

    /// A message whose bytes lie in several places, so that none has to be copied.
    #[must_use]
    pub fn of_parts(parts: [&'a [u8]; PARTS]) -> Self {
        let length = parts.iter().map(|part| part.len()).sum();
        Self { header: Header::new(length), parts, length, written: 0 }
    }

    /// Bytes that are no message by themselves: no header.
    #[must_use]
    pub fn raw(bytes: &'a [u8]) -> Self {
        Self { header: Header::none(), ..Self::new(bytes) }
    }

    /// Whether some of it was written, so that stopping now would leave the peer in the middle of a message.
    #[must_use]
    pub fn has_started(&self) -> bool {
        self.written > 0
    }

    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.written == self.header.as_bytes().len() + self.length
    }

    /// What is still to be written, and how many of the slices that are.
    #[must_use]
    pub fn remaining(&self) -> ([IoSlice<'_>; PARTS + 1], usize) {
        let mut skip = self.written;
        let mut count = 0;
        let mut slices = array::from_fn(|_| IoSlice::new(&[]));
        for part in core::iter::once(self.header.as_bytes()).chain(self.parts) {
            let rest = &part[skip.min(part.len())..];
            skip -= part.len() - rest.len();
            if !rest.is_empty() {
                slices[count] = IoSlice::new(rest);
                count += 1;
            }
        }
        (slices, count)
    }

    /// `count` more bytes were written.
    pub fn advance(&mut self, count: usize) {
        self.written += count;
    }
}
