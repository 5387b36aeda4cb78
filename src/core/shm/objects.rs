//! The locks, semaphores, conditions, events and barriers in an arena, found and read from outside.
//!
//! Each has a tag in its cell, a word that names the kind and that hardly any other data at that place could equal: it is
//! mixed from the arena's id and the offset. `arena` says who changes it and what the dead leave. Readers only copy.

use std::os::fd::AsFd;

use crate::error::Result;
use crate::shm::arena::{CELLS_AT, ID_AT, LINE, MAGIC, MAGIC_AT, OWNER_AT};
use crate::shm::waits::Kind;
use crate::sync::barrier;
use crate::sync::semaphore;
use crate::sys::memory;
use crate::sys::process::Identity;

/// Where in a cell its tag is.
pub const TAG_AT: usize = 24;
/// In a tag: the owner of the arena has let go of the cell. Others may still use it.
pub const DROPPED: u64 = 0x80;
const KIND: u64 = 0x7f;

/// The tag of the cell at `offset` of the arena `id`.
#[inline]
#[must_use]
pub fn tag(id: u64, offset: usize, kind: Kind) -> u64 {
    mark(id, offset) | u64::from(kind as u8)
}

fn mark(id: u64, offset: usize) -> u64 {
    (id.rotate_left(29) ^ (offset as u64).wrapping_mul(0x9e37_79b9_7f4a_7c15)) & !0xff
}

/// What the word `tag` says of the cell at `offset`, if it is a tag.
#[must_use]
pub fn kind(id: u64, offset: usize, tag: u64) -> Option<Kind> {
    if tag & !0xff == mark(id, offset) { Kind::from_number((tag & KIND) as u8) } else { None }
}

/// A lock or its like, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Object {
    pub kind: Kind,
    pub offset: u64,
    /// The owner of the arena has let go of it.
    pub dropped: bool,
    /// Of a lock: how often it is held. Of a semaphore: its value. Of an event: whether it is set. Of a barrier: arrivals.
    pub value: u64,
    /// Of a semaphore: its highest value, if it is bounded.
    pub maximum: Option<u64>,
    /// Of a lock: who has it.
    pub holder: Option<Identity>,
}

/// An arena, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objects {
    pub id: u64,
    pub owner: Identity,
    pub objects: Vec<Object>,
}

/// Bytes read at a time.
const PIECE: usize = 1 << 20;

impl Objects {
    /// Reads an arena's file; `None` when it is none, or of another version.
    pub fn read(file: impl AsFd) -> Result<Option<Self>> {
        let mut header = [0_u8; LINE];
        if !memory::peek(&file, &mut header)? || word(&header, MAGIC_AT) != MAGIC {
            return Ok(None);
        }
        let id = word(&header, ID_AT);
        let Some(owner) = Identity::from_word(word(&header, OWNER_AT)) else { return Ok(None) };
        let mut found = Self { id, owner, objects: Vec::new() };
        let mut piece = vec![0_u8; PIECE];
        let mut start = CELLS_AT;
        loop {
            let len = memory::peek_at(&file, &mut piece, start as u64)?;
            let lines = piece[..len].chunks_exact(LINE);
            let objects = (start..).step_by(LINE).zip(lines).filter_map(|(offset, line)| object(id, offset, line));
            found.objects.extend(objects);
            start += len - len % LINE;
            if len < LINE {
                return Ok(Some(found));
            }
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn half(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).and_then(|bytes| bytes.try_into().ok()).map_or(0, u32::from_ne_bytes)
}

/// What lies in the cell that starts with `line`, if it is tagged.
fn object(id: u64, offset: usize, line: &[u8]) -> Option<Object> {
    let tag = word(line, TAG_AT);
    let kind = kind(id, offset, tag)?;
    let holder = Identity::from_word(word(line, 0));
    let (value, maximum, holder) = match kind {
        Kind::Lock => (u64::from(holder.is_some()), None, holder),
        Kind::RLock => (if holder.is_some() { u64::from(half(line, 8)) } else { 0 }, None, holder),
        Kind::Semaphore => {
            let bound = Some(half(line, 4)).filter(|bound| *bound != semaphore::MAXIMUM);
            (u64::from(half(line, 0) & semaphore::MAXIMUM), bound.map(u64::from), None)
        }
        Kind::Event => (u64::from(half(line, 0) & 1), None, None),
        Kind::Barrier => (barrier::arrived(word(line, 0)), None, None),
        _ => (0, None, None),
    };
    Some(Object { kind, offset: offset as u64, dropped: tag & DROPPED != 0, value, maximum, holder })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::arena;
    use crate::sync::lock::Lock;
    use crate::sync::semaphore::Semaphore;

    fn found(cell: &arena::Cell) -> Option<Object> {
        let objects = Objects::read(cell.arena().file()).expect("a readable arena").expect("an arena");
        assert_eq!(objects.id, cell.arena().id());
        objects.objects.into_iter().find(|object| object.offset == cell.offset() as u64)
    }

    #[test]
    fn what_is_tagged_is_found_until_it_is_dropped() {
        let cell = arena::allocate(LINE).expect("a cell");
        assert_eq!(found(&cell), None);
        cell.tag(Kind::Lock);
        let me = Identity::current();
        assert_eq!(found(&cell).and_then(|object| object.holder), None);
        assert!(Lock::new(cell.word64(0)).try_acquire(me));
        let object = found(&cell).expect("the lock");
        assert_eq!((object.kind, object.holder, object.value, object.dropped), (Kind::Lock, Some(me), 1, false));
        let (file, offset) = (cell.arena().file(), cell.offset() as u64);
        drop(cell);
        let left = Objects::read(file).expect("a readable arena").expect("an arena").objects;
        assert!(left.iter().all(|object| object.offset != offset));
    }

    #[test]
    fn a_semaphore_tells_its_value_and_its_bound() {
        let cell = arena::allocate(LINE).expect("a cell");
        cell.word32(4).store(5, crate::atomic::Ordering::Relaxed);
        Semaphore::new(cell.word32(0)).initialise(3);
        cell.tag(Kind::Semaphore);
        let object = found(&cell).expect("the semaphore");
        assert_eq!((object.value, object.maximum, object.holder), (3, Some(5), None));
    }

    #[test]
    fn a_tag_is_that_of_one_place() {
        let word = tag(77, 4096, Kind::Event);
        assert_eq!(kind(77, 4096, word | DROPPED), Some(Kind::Event));
        assert_eq!(kind(77, 4160, word), None);
        assert_eq!(kind(78, 4096, word), None);
        assert_eq!(kind(77, 4096, 0), None);
    }
}
