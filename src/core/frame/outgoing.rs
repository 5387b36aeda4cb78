//! A message on its way out.

use core::array;
use std::io::IoSlice;

use super::Header;

/// How many pieces a message may consist of.
const PARTS: usize = 3;

/// Bytes that are sooner copied to one place than written from several.
pub(super) const FEW: usize = 256;

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

    /// What is still to be written, copied to one place, if it is little.
    #[must_use]
    pub(super) fn gathered<'b>(&self, space: &'b mut [u8; FEW]) -> Option<&'b [u8]> {
        let header = self.header.as_bytes();
        if header.len() + self.length > FEW || self.has_started() {
            return None;
        }
        let mut end = 0;
        for part in core::iter::once(header).chain(self.parts) {
            space[end..end + part.len()].copy_from_slice(part);
            end += part.len();
        }
        Some(&space[..end])
    }

    /// `count` more bytes were written.
    pub fn advance(&mut self, count: usize) {
        self.written += count;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_gathered_is_what_the_slices_say() {
        let bytes = [7; FEW];
        for length in [0, 1, 100, FEW - 4, FEW - 3] {
            let (head, tail) = bytes[..length].split_at(length / 3);
            let message = Outgoing::of_parts([head, &[], tail]);
            let (slices, count) = message.remaining();
            let apart: Vec<u8> = slices[..count].iter().flat_map(|slice| slice.to_vec()).collect();
            let mut space = [0; FEW];
            let gathered = message.gathered(&mut space);
            assert_eq!(gathered, (apart.len() <= FEW).then_some(&apart[..]), "{length}");
        }
    }

    #[test]
    fn what_has_started_goes_on_in_slices() {
        let mut message = Outgoing::new(b"abc");
        message.advance(2);
        assert_eq!(message.gathered(&mut [0; FEW]), None);
    }
}
