//! The words of a queue in shared memory.
//!
//! The two sides and the words only some operations touch lie on cache lines (in pairs, as processors fetch them) of
//! their own. Zero is the initial state of every word; the mutexes are made by `Ring::create`.

use core::mem::offset_of;

use crate::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::shm::slab;
use crate::sys::memory::PAGE;

/// A word of shared memory.
pub(super) type Word = AtomicU64;

pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"rsmpring");
pub(super) const VERSION: u32 = 1;

/// Bytes in the segments of the stream of records.
pub(super) const SEGMENT: u64 = 64 << 10;
/// Segments the first table names.
pub(super) const FIRST_TABLE: usize = 64;
/// Records up to this length lie in the stream, longer ones in slabs.
pub(super) const INLINE: usize = 16 << 10;
/// Each record starts with a word that says its length, tag and whether it lies in a slab.
pub(super) const RECORD: u64 = 8;

/// How far one side has come: a position in the endless stream, items and bytes of payload up to there.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Mark {
    pub position: u64,
    pub items: u64,
    pub bytes: u64,
}

/// A mark that changes at once: written to the slot that `turn` does not name, then `turn` is stored.
///
/// | the writer dies after              | what readers see |
/// |------------------------------------|------------------|
/// | a part of the slot is written      | the mark before  |
/// | `turn` is stored                   | the mark after   |
#[repr(C)]
#[derive(Debug)]
pub(super) struct Commit {
    turn: AtomicU64,
    slots: [[AtomicU64; 3]; 2],
}

impl Commit {
    pub(super) const TURN_AT: usize = offset_of!(Self, turn);
    pub(super) const SLOTS_AT: usize = offset_of!(Self, slots);

    /// Shared memory is zero to begin with; a model has to make its own.
    #[cfg(rsmp_loom)]
    pub(super) fn new() -> Self {
        let word = || AtomicU64::new(0);
        Self { turn: word(), slots: [[word(), word(), word()], [word(), word(), word()]] }
    }

    /// The mark, read by the side that changes it, under its lock.
    #[inline]
    pub(super) fn own(&self) -> Mark {
        self.slot(self.turn.load(Ordering::Relaxed))
    }

    /// The mark, read without a lock.
    #[inline]
    pub(super) fn read(&self) -> Mark {
        loop {
            let turn = self.turn.load(Ordering::Acquire);
            let mark = self.slot(turn);
            fence(Ordering::Acquire);
            if self.turn.load(Ordering::Relaxed) == turn {
                return mark;
            }
        }
    }

    /// Makes `mark` the mark. Under the side's lock.
    #[inline]
    pub(super) fn set(&self, mark: Mark) {
        let turn = self.turn.load(Ordering::Relaxed).wrapping_add(1);
        let [position, items, bytes] = &self.slots[(turn & 1) as usize];
        // A reader that sees these words must not see the turn before the last one again.
        fence(Ordering::Release);
        position.store(mark.position, Ordering::Relaxed);
        items.store(mark.items, Ordering::Relaxed);
        bytes.store(mark.bytes, Ordering::Relaxed);
        self.turn.store(turn, Ordering::Release);
    }

    #[inline]
    fn slot(&self, turn: u64) -> Mark {
        let [position, items, bytes] = &self.slots[(turn & 1) as usize];
        Mark {
            position: position.load(Ordering::Relaxed),
            items: items.load(Ordering::Relaxed),
            bytes: bytes.load(Ordering::Relaxed),
        }
    }
}

/// One side of the queue.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Side {
    pub mutex: [AtomicU64; 8],
    pub mark: Commit,
}

/// Where processes sleep until something happens; see `wake`.
#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Event {
    pub generation: AtomicU32,
    pub sleepers: AtomicU32,
}

#[repr(C, align(128))]
#[derive(Debug)]
pub(super) struct Header {
    pub magic: AtomicU64,
    pub version: AtomicU32,
    /// Somebody watches the descriptor; set once, under both locks.
    pub watched: AtomicU32,
    /// Items and bytes of payload that may be queued; zero is no limit.
    pub max_items: AtomicU64,
    pub max_bytes: AtomicU64,
    /// Offset of the table that names the segments, its lowest six bits the binary logarithm of its length.
    pub table: AtomicU64,
    /// Segments before this one are no longer in the table. Under the put lock.
    pub recycled: AtomicU64,
    pub put: Side,
    pub get: Side,
    pub items: Event,
    pub room: Event,
    /// `JoinableQueue`: items done with, and where `join` sleeps.
    pub done: AtomicU64,
    pub joined: Event,
    pub first_table: [AtomicU64; FIRST_TABLE],
    pub slabs: slab::Header,
}

/// Bytes at the start of the file.
pub(super) const HEADER: usize = size_of::<Header>().next_multiple_of(PAGE);

/// The first table, as `Header::table` says it.
pub(super) const FIRST_TABLE_WORD: u64 = offset_of!(Header, first_table) as u64 | FIRST_TABLE.ilog2() as u64;

/// A record's first word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct RecordWord {
    pub len: u32,
    pub tag: u8,
    pub in_slab: bool,
}

impl RecordWord {
    pub(super) fn encode(self) -> u64 {
        u64::from(self.len) | u64::from(self.tag) << 32 | u64::from(self.in_slab) << 40
    }

    pub(super) fn decode(word: u64) -> Self {
        Self { len: word as u32, tag: (word >> 32) as u8, in_slab: word >> 40 & 1 != 0 }
    }

    /// Bytes of stream the record takes.
    pub(super) fn span(self) -> u64 {
        RECORD + u64::from(self.len).next_multiple_of(8)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layout_is_what_peers_map() {
        let offsets = [
            offset_of!(Header, table),
            offset_of!(Header, put),
            offset_of!(Header, get),
            offset_of!(Header, items),
            offset_of!(Header, room),
            offset_of!(Header, done),
            offset_of!(Header, joined),
            offset_of!(Header, first_table),
            offset_of!(Header, slabs),
        ];
        assert_eq!(offsets, [32, 128, 256, 384, 512, 640, 768, 896, 1408]);
        assert_eq!((size_of::<Side>(), offset_of!(Side, mark), size_of::<Commit>()), (128, 64, 56));
        assert_eq!(HEADER, 4096);
        assert_eq!(FIRST_TABLE_WORD, 896 + 6);
    }

    #[test]
    fn record_words_survive() {
        for word in [
            RecordWord { len: 0, tag: 0, in_slab: false },
            RecordWord { len: INLINE as u32, tag: 255, in_slab: false },
            RecordWord { len: 16, tag: 7, in_slab: true },
        ] {
            assert_eq!(RecordWord::decode(word.encode()), word);
        }
        assert_eq!(RecordWord { len: 1, tag: 0, in_slab: false }.span(), 16);
    }
}
