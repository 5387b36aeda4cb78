//! Taking records out.
//!
//! Under the get lock a short record is copied to the caller's buffer and a long one's slab is marked as leased to this
//! process; then the head is committed. Whoever dies before that leaves the record to the next consumer, who leases the
//! slab anew: the record says whose turn it is, not the slab.

use core::hint;
use std::sync::Arc;

use crate::clock::{self, Deadline};
use crate::error::{Error, Result};
use crate::ring::layout::{INLINE, Mark, RECORD, RecordWord};
use crate::ring::stream::Table;
use crate::ring::{Limits, Ring};
use crate::sys::robust::Guard;
use crate::sys::{cpu, process};

/// Bytes copied out before the lock is let go of.
const BATCH: usize = 64 << 10;

/// Nanoseconds between two looks at the producer's mark, of one that waits for an item and of one that takes items as they
/// come. A consumer that takes each item the moment it is put makes both sides fetch every cache line from the other CPU;
/// looking a little less often, it finds several at a time, and a stream goes twice as fast.
const LOOK: u64 = 1_300;

/// Memory of free slabs that a drained queue keeps warm.
const KEPT: u64 = 4 << 20;
/// The same for a class of large slabs that is being used again and again: two of them, up to this much.
const KEPT_LARGE: u64 = 128 << 20;
/// From which use on a class counts as used again and again.
const REUSED: u32 = 2;

/// Lets `until` come, a moment after `now`.
fn pause(mut now: u64, until: u64) {
    while now < until {
        hint::spin_loop();
        now = clock::now();
    }
}

/// A long payload taken from the queue: memory that is this process's alone until dropped.
#[derive(Debug)]
pub struct Lease {
    ring: Arc<Ring>,
    index: u32,
    offset: u64,
    len: u64,
    /// The process that took it. A forked child has a copy of the value, not of the lease.
    pid: u32,
}

/// Where a record's payload is.
#[derive(Debug)]
pub enum Record {
    /// In the batch's bytes, from `start`.
    Inline {
        tag: u8,
        start: usize,
        len: usize,
    },
    Slab {
        tag: u8,
        lease: Lease,
    },
}

/// Records taken, and a buffer used again.
#[derive(Debug, Default)]
pub struct Batch {
    bytes: Vec<u8>,
    records: Vec<Record>,
}

/// How an attempt to take went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Taken {
    /// So many records, at least one, were added to the batch.
    Done(usize),
    /// There is none.
    Empty,
    /// Somebody holds the lock.
    Busy,
}

impl Batch {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.records.len()
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.records.is_empty()
    }

    /// Tag and payload of record `index`.
    ///
    /// # Panics
    /// If there is no such record.
    #[must_use]
    pub fn get(&self, index: usize) -> (u8, &[u8]) {
        match &self.records[index] {
            Record::Inline { tag, start, len } => (*tag, &self.bytes[*start..*start + *len]),
            Record::Slab { tag, lease } => (*tag, lease.bytes()),
        }
    }

    /// Tag and payload of each record.
    pub fn iter(&self) -> impl Iterator<Item = (u8, &[u8])> {
        (0..self.records.len()).map(|index| self.get(index))
    }

    /// Takes the records out; `bytes` gives the short ones' payloads until `clear`.
    pub fn drain(&mut self) -> (std::vec::Drain<'_, Record>, &[u8]) {
        (self.records.drain(..), &self.bytes)
    }

    /// Forgets the records and frees their slabs.
    pub fn clear(&mut self) {
        self.records.clear();
        self.bytes.clear();
        self.bytes.shrink_to(2 * BATCH);
    }
}

impl Lease {
    #[must_use]
    pub fn len(&self) -> u64 {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// The payload.
    ///
    /// # Panics
    /// If the memory can no longer be reached, which was possible when it was taken.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        self.ring.leased(self.offset, self.len)
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        if self.pid == process::pid() {
            // Should freeing fail, the slab is a leak that the sweep finds once this process is gone.
            let _ = self.ring.free(self.index);
        }
    }
}

impl Ring {
    /// Takes up to `max` records into `batch`, without waiting for anything.
    #[inline]
    pub fn try_get(self: &Arc<Self>, batch: &mut Batch, max: usize) -> Result<Taken> {
        self.let_ahead();
        match self.try_lock_get()? {
            Some(guard) => self.get_locked(guard, batch, max, |_| {}),
            None => Ok(Taken::Busy),
        }
    }

    /// Where what was seen is taken and more is coming in, gives the producer a moment before the next look.
    #[inline]
    fn let_ahead(&self) {
        let Some(until) = self.tail.paused_until(LOOK) else { return };
        if self.header().get.mark.read().position < self.tail.last().position {
            return;
        }
        let now = clock::now();
        if cpu::available(now) > 1 {
            pause(now, until);
        }
    }

    /// Takes one to `max` records into `batch`, waiting at most to `until`; returns how many, zero when it passed or a signal
    /// came.
    pub fn get(self: &Arc<Self>, batch: &mut Batch, max: usize, until: Deadline) -> Result<usize> {
        self.get_with(batch, max, until, |_| {})
    }

    /// As `get`; `claim` sees the records before they leave the queue, while the get lock is held. If the process dies in
    /// it, they stay. It must not call into Python, wait or panic. It is called at most once.
    pub fn get_with(
        self: &Arc<Self>,
        batch: &mut Batch,
        max: usize,
        until: Deadline,
        claim: impl FnOnce(&Batch),
    ) -> Result<usize> {
        let mut claim = Some(claim);
        loop {
            let Some(guard) = self.lock_get(until)? else { return Ok(0) };
            let taken = self.get_locked(guard, batch, max, |batch| {
                if let Some(claim) = claim.take() {
                    claim(batch);
                }
            })?;
            if let Taken::Done(count) = taken {
                return Ok(count);
            }
            if until.has_passed() || self.wait(until) {
                return Ok(0);
            }
        }
    }

    /// Waits at most to `until` for something to get; returns early for any reason or none, and whether that was a signal.
    pub fn wait(&self, until: Deadline) -> bool {
        let look = || {
            let now = clock::now();
            pause(now, now + LOOK);
            (!self.is_empty()).then_some(())
        };
        self.item_spin.until(until, look).is_none() && self.header().items.sleep(until, || self.is_empty())
    }

    /// Gives back the memory that a queue keeps between bursts. For calls that found it empty for a while.
    pub fn rest(&self) -> Result<()> {
        if self.slabs().fresh() > 0 {
            // What a process that died had asked for is nobody's.
            self.sweep()?;
        }
        let header = self.header();
        let drained = header.get.mark.read().position.saturating_sub(1);
        if self.slabs().idle() == 0 && !self.is_wasteful(drained, drained, 1) {
            return Ok(());
        }
        let Some(_get) = self.try_lock_get()? else { return Ok(()) };
        let Some(_put) = self.try_lock_put()? else { return Ok(()) };
        let (head, tail) = self.marks();
        self.trim(head.position, tail.position, 1)?;
        self.slabs().trim(0)
    }

    #[inline]
    fn get_locked(
        self: &Arc<Self>,
        guard: Guard<'_>,
        batch: &mut Batch,
        max: usize,
        claim: impl FnOnce(&Batch),
    ) -> Result<Taken> {
        let header = self.header();
        let before = header.get.mark.own();
        let mut tail = self.tail.last();
        if before.position >= tail.position {
            tail = self.tail.look_at_flow(&header.put.mark);
        }
        let look = || self.tail.look(&header.put.mark);
        let watched = || header.watched.load(crate::atomic::Ordering::Relaxed) != 0;
        if before.position == tail.position {
            if watched() {
                self.quieten(before)?;
            }
            return Ok(Taken::Empty);
        }
        let (old_records, old_bytes) = (batch.records.len(), batch.bytes.len());
        let mut mark = before;
        let outcome = self.copy_records(batch, max, &mut mark, tail);
        if let Err(error) = outcome {
            // Nothing was taken: the leases go without freeing anything.
            for record in batch.records.drain(old_records..) {
                if let Record::Slab { mut lease, .. } = record {
                    lease.pid = 0;
                }
            }
            batch.bytes.truncate(old_bytes);
            return Err(error);
        }
        claim(batch);
        header.get.mark.set(mark);
        self.pace.took();
        // The records are taken: what fails from here on is left for the next call.
        if self.is_wasteful(mark.position, tail.position, Self::KEPT_SEGMENTS)
            && let Ok(Some(_put)) = self.try_lock_put()
        {
            tail = look();
            let _ = self.trim(mark.position, tail.position, Self::KEPT_SEGMENTS);
        }
        if watched() && mark.position == tail.position && mark.position == look().position {
            let _ = self.quieten(mark);
        }
        drop(guard);
        let count = batch.records.len() - old_records;
        if self.limits != Limits::default() {
            header.room.wake(count as u32);
        }
        // A producer wakes one consumer at a time; pass it on while there is more.
        if header.items.has_sleepers() && (mark.position != tail.position || mark.position != look().position) {
            header.items.wake(1);
        }
        Ok(Taken::Done(count))
    }

    #[inline]
    fn copy_records(self: &Arc<Self>, batch: &mut Batch, max: usize, mark: &mut Mark, tail: Mark) -> Result<()> {
        let table = self.table()?;
        let most = batch.bytes.len() + BATCH;
        for _ in 0..max {
            if mark.position == tail.position || batch.bytes.len() > most {
                break;
            }
            let word = RecordWord::decode(self.read_word(table, mark.position)?);
            let len = if word.in_slab {
                let lease = self.lease(table, mark.position)?;
                let len = lease.len;
                batch.records.push(Record::Slab { tag: word.tag, lease });
                len
            } else {
                let len = word.len as usize;
                if len > INLINE || word.span() > tail.position - mark.position {
                    return Err(Error::corrupt("read the queue", "a record's length makes no sense"));
                }
                let start = batch.bytes.len();
                self.read(table, mark.position + RECORD, len, &mut batch.bytes)?;
                batch.records.push(Record::Inline { tag: word.tag, start, len });
                len as u64
            };
            mark.position += word.span();
            mark.items += 1;
            mark.bytes += len;
        }
        Ok(())
    }

    #[cold]
    fn lease(self: &Arc<Self>, table: Table<'_>, position: u64) -> Result<Lease> {
        let index = self.read_word(table, position + RECORD)? as u32;
        let len = self.read_word(table, position + RECORD + 8)?;
        let descriptor = self.slabs().descriptor(index)?;
        let offset = descriptor.offset();
        if len > descriptor.backed() {
            return Err(Error::corrupt("read the queue", "a record is longer than its slab"));
        }
        // Maps the memory: what cannot be mapped stays in the queue.
        self.file.pointer(offset, len)?;
        descriptor.lease(Self::owner());
        Ok(Lease { ring: Arc::clone(self), index, offset, len, pid: process::pid() })
    }

    /// Frees a slab that this process holds; its memory stays warm if the queue can be expected to use it soon.
    pub(super) fn free(&self, index: u32) -> Result<()> {
        let slabs = self.slabs();
        slabs.free(index, true)?;
        // Those who would rather use it again than grow the queue.
        self.header().room.wake(1);
        let (asked, size) = slabs.demand(index)?;
        let large = if asked >= REUSED { (2 * size).min(KEPT_LARGE) } else { 0 };
        slabs.trim(self.queued_bytes().max(KEPT).max(large))
    }
}
