//! The endless stream of records, in segments that come, are used again, and go.
//!
//! Position `p` lies in segment `p / SEGMENT`; entry `segment % length` of the table says where that is in the file. The
//! table is a list of slabs in use:
//!
//! ```text
//!   recycled ........ head ............... tail
//!   drained: to be    not yet taken         the segment being filled
//!   used again
//! ```
//!
//! | word or entry                       | who changes it         | if that process dies there                          |
//! |-------------------------------------|------------------------|-----------------------------------------------------|
//! | entry of a segment beyond the tail  | a producer, put lock   | the next producer uses what is there                |
//! | entry of a drained segment          | whoever recycles it,   | it may be named twice: `repair` drops all drained   |
//! |                                     | put lock               | entries, and a sweep frees what they named          |
//! | `recycled`                          | as above               | as above                                            |
//! | `table`                             | a producer, put lock   | the old or the new table: both name all segments    |
//!
//! Consumers read the tail first and the table after it, so the table they see names everything up to that tail. An old
//! table stays in place for them; a sweep, which keeps them out, frees it.

use crate::atomic::{AtomicU64, Ordering};
use crate::error::{Error, Result};
use crate::ring::Ring;
use crate::ring::layout::{Mark, SEGMENT};
use crate::shm::slab;
use crate::sys::memory::PAGE;

/// Drained segments kept for the next records: 1 MiB.
const KEPT_SEGMENTS: u64 = 16;
/// Bits of an entry for the slab's index; the rest is the page it starts at.
const INDEX_BITS: u32 = 26;
/// How much longer each table is than the one before.
const TABLE_GROWTH: usize = 8;

/// The table as one process sees it for the length of an operation.
#[derive(Clone, Copy)]
pub(super) struct Table<'a> {
    entries: &'a [AtomicU64],
}

/// Where a segment lies, zero for nowhere.
#[derive(Clone, Copy, PartialEq, Eq)]
struct Entry(u64);

impl Entry {
    const NONE: Self = Self(0);

    fn new(slab: slab::Slab) -> Self {
        Self((slab.offset / PAGE as u64) << INDEX_BITS | u64::from(slab.index))
    }

    #[inline]
    fn offset(self) -> u64 {
        (self.0 >> INDEX_BITS) * PAGE as u64
    }

    fn index(self) -> u32 {
        (self.0 & ((1 << INDEX_BITS) - 1)) as u32
    }
}

impl Table<'_> {
    #[inline]
    fn slot(&self, segment: u64) -> &AtomicU64 {
        &self.entries[segment as usize & (self.entries.len() - 1)]
    }

    #[inline]
    fn entry(&self, segment: u64) -> Entry {
        Entry(self.slot(segment).load(Ordering::Relaxed))
    }

    #[inline]
    fn set(&self, segment: u64, entry: Entry) {
        self.slot(segment).store(entry.0, Ordering::Relaxed);
    }

    /// The file offset of `position` and how many bytes the segment has from there.
    #[inline]
    fn locate(&self, position: u64) -> Result<(u64, u64)> {
        let entry = self.entry(position / SEGMENT);
        if entry == Entry::NONE {
            return Err(Error::corrupt("read the queue", "a segment of the stream is missing"));
        }
        let within = position % SEGMENT;
        Ok((entry.offset() + within, SEGMENT - within))
    }

    fn indices(&self) -> impl Iterator<Item = u32> {
        let entries = self.entries.iter().map(|word| Entry(word.load(Ordering::Relaxed)));
        entries.filter(|entry| *entry != Entry::NONE).map(Entry::index)
    }
}

impl Ring {
    /// The table. Under a lock, after reading the tail.
    #[inline]
    pub(super) fn table(&self) -> Result<Table<'_>> {
        let word = self.header().table.load(Ordering::Acquire);
        Ok(Table { entries: self.words(word & !63, 1 << (word & 63))? })
    }

    /// Writes `bytes` at `position` of the stream; `prepare` has run for the range.
    #[inline]
    pub(super) fn write(&self, table: Table<'_>, position: u64, bytes: &[u8]) -> Result<()> {
        let (offset, room) = table.locate(position)?;
        let Some((first, rest)) = bytes.split_at_checked(room as usize) else {
            return self.copy_in(offset, bytes);
        };
        self.copy_in(offset, first)?;
        if rest.is_empty() { Ok(()) } else { self.write(table, position + room, rest) }
    }

    /// Appends `len` bytes at `position` of the stream to `out`.
    #[inline]
    pub(super) fn read(&self, table: Table<'_>, position: u64, len: usize, out: &mut Vec<u8>) -> Result<()> {
        out.reserve(len);
        let (offset, room) = table.locate(position)?;
        if len as u64 <= room {
            return self.copy_out(offset, len, out);
        }
        self.copy_out(offset, room as usize, out)?;
        self.read(table, position + room, len - room as usize, out)
    }

    #[inline]
    pub(super) fn write_word(&self, table: Table<'_>, position: u64, word: u64) -> Result<()> {
        let (offset, _) = table.locate(position)?;
        self.words(offset, 1)?[0].store(word, Ordering::Relaxed);
        Ok(())
    }

    #[inline]
    pub(super) fn read_word(&self, table: Table<'_>, position: u64) -> Result<u64> {
        let (offset, _) = table.locate(position)?;
        Ok(self.words(offset, 1)?[0].load(Ordering::Relaxed))
    }

    /// Sees to it that `[tail, tail + len)` has segments; returns the table that names them. Under the put lock.
    #[inline]
    pub(super) fn prepare(&self, tail: u64, len: u64) -> Result<Table<'_>> {
        // The segment the tail is in was prepared when it was entered.
        let first = tail.div_ceil(SEGMENT);
        let last = (tail + len - 1) / SEGMENT;
        for segment in first..=last {
            self.enter(segment)?;
        }
        self.table()
    }

    /// Gives `segment`, the first that has none, its memory. Under the put lock.
    #[cold]
    fn enter(&self, segment: u64) -> Result<()> {
        let header = self.header();
        loop {
            let head = header.get.mark.read().position / SEGMENT;
            let table = self.table()?;
            let recycled = header.recycled.load(Ordering::Relaxed);
            let in_table = segment - recycled < table.entries.len() as u64;
            if in_table && table.entry(segment) != Entry::NONE {
                // Prepared for a record that was never committed.
                return Ok(());
            }
            if recycled < head {
                // A whole segment of theirs for each of ours would cost streams of 1 KiB a few percent.
                self.keep_pace(SEGMENT, SEGMENT / 4);
                // The oldest drained segment. When the table is full, its entry is this segment's already.
                if in_table {
                    table.set(segment, table.entry(recycled));
                    table.set(recycled, Entry::NONE);
                }
                header.recycled.store(recycled + 1, Ordering::Relaxed);
            } else if self.await_segment(head, segment) {
                // One was drained meanwhile.
            } else if in_table {
                let slab = self.slabs().allocate(SEGMENT, Self::owner())?;
                self.adopt(slab)?;
                table.set(segment, Entry::new(slab));
                return Ok(());
            } else {
                self.grow(table, recycled, segment)?;
            }
        }
    }

    /// Replaces the table, full of the segments `[from, to)`, by a longer one. Under the put lock.
    fn grow(&self, old: Table<'_>, from: u64, to: u64) -> Result<()> {
        let len = old.entries.len() * TABLE_GROWTH;
        let slab = self.slabs().allocate(len as u64 * 8, Self::owner())?;
        let new = Table { entries: self.words(slab.offset, len)? };
        for entry in new.entries {
            entry.store(0, Ordering::Relaxed);
        }
        for segment in from..to {
            new.set(segment, old.entry(segment));
        }
        self.adopt(slab)?;
        self.header().table.store(slab.offset | u64::from(len.ilog2()), Ordering::Release);
        Ok(())
    }

    fn adopt(&self, slab: slab::Slab) -> Result<()> {
        if slab.index >> INDEX_BITS != 0 {
            return Err(Error::new("grow the queue", crate::error::Kind::OutOfMemory));
        }
        self.slabs().descriptor(slab.index)?.state.store(slab::RING, Ordering::Release);
        Ok(())
    }

    /// Whether more segments are drained than the queue should keep, now that `head` is taken.
    #[inline]
    pub(super) fn is_wasteful(&self, head: u64, tail: u64, kept: u64) -> bool {
        let head = head / SEGMENT;
        let drained = head.saturating_sub(self.header().recycled.load(Ordering::Relaxed));
        drained > kept.max(tail / SEGMENT - head)
    }

    /// Gives drained segments back to the system, all but `kept` or as many as are in use. Under the put lock.
    pub(super) fn trim(&self, head: u64, tail: u64, kept: u64) -> Result<()> {
        let header = self.header();
        let table = self.table()?;
        while self.is_wasteful(head, tail, kept) {
            let recycled = header.recycled.load(Ordering::Relaxed);
            let entry = table.entry(recycled);
            table.set(recycled, Entry::NONE);
            header.recycled.store(recycled + 1, Ordering::Relaxed);
            if entry != Entry::NONE {
                self.slabs().free(entry.index(), false)?;
            }
        }
        Ok(())
    }

    pub(super) const KEPT_SEGMENTS: u64 = KEPT_SEGMENTS;

    /// Drops the drained entries: a dead process may have left one of them named twice. Under the put lock.
    pub(super) fn drop_drained(&self, head: u64) -> Result<()> {
        let header = self.header();
        let table = self.table()?;
        for segment in header.recycled.load(Ordering::Relaxed)..head / SEGMENT {
            table.set(segment, Entry::NONE);
            header.recycled.store(segment + 1, Ordering::Relaxed);
        }
        Ok(())
    }

    /// The slabs the stream is made of, sorted. Under both locks.
    pub(super) fn slabs_in_use(&self) -> Result<Vec<u32>> {
        let mut indices: Vec<u32> = self.table()?.indices().collect();
        indices.sort_unstable();
        Ok(indices)
    }

    /// Whether the table lies in the slab at `offset`.
    pub(super) fn is_table(&self, offset: u64) -> bool {
        self.header().table.load(Ordering::Relaxed) & !63 == offset
    }

    /// The head and tail, under both locks.
    pub(super) fn marks(&self) -> (Mark, Mark) {
        (self.header().get.mark.own(), self.header().put.mark.own())
    }
}
