//! Putting records in.
//!
//! A record is first made into a `Parcel`, without any lock: a long payload is copied into a slab there. `put` then only
//! appends to the stream and commits, so waiting for room and trying again costs no copy.

use crate::atomic::{AtomicBool, Ordering};
use crate::clock::Deadline;
use crate::error::Result;
use crate::ring::layout::{INLINE, Mark, RECORD, RecordWord};
use crate::ring::stream::Table;
use crate::ring::{Limits, Ring};
use crate::sys::robust::Guard;

/// Bytes appended before the lock is let go of: others wait as long as copying them takes.
const BATCH: u64 = 64 << 10;

/// A record on its way in.
#[derive(Debug)]
pub struct Parcel<'a> {
    tag: u8,
    body: Body<'a>,
}

#[derive(Debug)]
enum Body<'a> {
    Inline { parts: &'a [&'a [u8]], len: usize },
    Slab { ring: &'a Ring, index: u32, len: u64, taken: AtomicBool },
}

/// How an attempt to put went.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Put {
    /// So many parcels, at least one, are in the queue.
    Done(usize),
    /// There is no room.
    Full,
    /// Somebody holds the lock.
    Busy,
}

impl Parcel<'_> {
    /// Bytes of payload.
    #[must_use]
    pub fn len(&self) -> u64 {
        match &self.body {
            Body::Inline { len, .. } => *len as u64,
            Body::Slab { len, .. } => *len,
        }
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn word(&self) -> RecordWord {
        match &self.body {
            Body::Inline { len, .. } => RecordWord { len: *len as u32, tag: self.tag, in_slab: false },
            Body::Slab { .. } => RecordWord { len: 16, tag: self.tag, in_slab: true },
        }
    }
}

impl Drop for Parcel<'_> {
    fn drop(&mut self) {
        if let Body::Slab { ring, index, taken, .. } = &self.body
            && !taken.load(Ordering::Relaxed)
        {
            // It was never published. Should freeing fail, the slab is a leak that the sweep finds.
            let _ = ring.free(*index);
        }
    }
}

impl Ring {
    /// Makes a record of `parts`, one after the other; `tag` is the caller's.
    pub fn parcel<'a>(&'a self, tag: u8, parts: &'a [&'a [u8]]) -> Result<Parcel<'a>> {
        let len = parts.iter().map(|part| part.len()).sum();
        if len <= INLINE {
            return Ok(Parcel { tag, body: Body::Inline { parts, len } });
        }
        if self.slabs().has_warm(len as u64) {
            self.keep_pace(len as u64, 1);
        } else {
            self.tidy()?;
            self.await_slab(len as u64);
        }
        let (slab, filled) = self.slabs().allocate_for(parts, len as u64, Self::owner())?;
        let body = Body::Slab { ring: self, index: slab.index, len: len as u64, taken: AtomicBool::new(false) };
        let parcel = Parcel { tag, body };
        if !filled {
            let mut offset = slab.offset;
            for part in parts {
                self.copy_in(offset, part)?;
                offset += part.len() as u64;
            }
        }
        Ok(parcel)
    }

    /// Puts as many of `parcels` as there is room for, without waiting for anything.
    #[inline]
    pub fn try_put(&self, parcels: &[Parcel<'_>]) -> Result<Put> {
        match self.try_lock_put()? {
            Some(guard) => self.put_locked(guard, parcels),
            None => Ok(Put::Busy),
        }
    }

    /// Puts at least one of `parcels`, waiting at most to `until`; returns how many, zero when `until` passed or a
    /// signal came.
    pub fn put(&self, parcels: &[Parcel<'_>], until: Deadline) -> Result<usize> {
        loop {
            let Some(guard) = self.lock_put(until)? else { return Ok(0) };
            if let Put::Done(count) = self.put_locked(guard, parcels)? {
                return Ok(count);
            }
            if until.has_passed() {
                return Ok(0);
            }
            let Some(first) = parcels.first() else { return Ok(0) };
            let is_full = || self.is_full_for(first.len());
            let found = self.room_spin.until(until, || (!is_full()).then_some(()));
            if found.is_none() && self.header().room.sleep(until, is_full) {
                return Ok(0);
            }
        }
    }

    /// As `put` for one record of `parts`; `None` when `until` passed or a signal came.
    pub fn put_bytes(&self, tag: u8, parts: &[&[u8]], until: Deadline) -> Result<Option<()>> {
        let parcel = self.parcel(tag, parts)?;
        Ok((self.put(core::slice::from_ref(&parcel), until)? > 0).then_some(()))
    }

    #[inline]
    fn put_locked(&self, guard: Guard<'_>, parcels: &[Parcel<'_>]) -> Result<Put> {
        let header = self.header();
        let before = header.put.mark.own();
        let bounded = self.limits != Limits::default();
        let mut taken = if bounded { self.head.last() } else { Mark::default() };
        let mut mark = before;
        let mut count = 0;
        for parcel in parcels {
            if mark.position - before.position > BATCH {
                break;
            }
            if bounded && !self.limits.admit(mark, taken, parcel.len()) {
                taken = self.head.look(&header.get.mark);
                if !self.limits.admit(mark, taken, parcel.len()) {
                    break;
                }
            }
            let word = parcel.word();
            let table = self.prepare(mark.position, word.span())?;
            self.write_word(table, mark.position, word.encode())?;
            self.write_body(table, mark.position + RECORD, parcel)?;
            mark.position += word.span();
            mark.items += 1;
            mark.bytes += parcel.len();
            count += 1;
        }
        if count == 0 {
            return Ok(Put::Full);
        }
        if header.watched.load(Ordering::Relaxed) != 0 {
            self.announce(before)?;
        }
        for parcel in &parcels[..count] {
            if let Body::Slab { taken, .. } = &parcel.body {
                taken.store(true, Ordering::Relaxed);
            }
        }
        header.put.mark.set(mark);
        drop(guard);
        header.items.wake(count as u32);
        // Producers asleep for room: the consumer woke one, and there may be room for more.
        let room = |taken| self.limits.admit(mark, taken, 0);
        if bounded && (room(taken) || room(self.head.look(&header.get.mark))) {
            header.room.wake(1);
        }
        Ok(Put::Done(count))
    }

    #[inline]
    fn write_body(&self, table: Table<'_>, position: u64, parcel: &Parcel<'_>) -> Result<()> {
        match &parcel.body {
            Body::Inline { parts, .. } => {
                let mut position = position;
                for part in *parts {
                    self.write(table, position, part)?;
                    position += part.len() as u64;
                }
                Ok(())
            }
            Body::Slab { index, len, .. } => {
                self.slabs().descriptor(*index)?.queue(position - RECORD);
                self.write_word(table, position, u64::from(*index))?;
                // The two words may lie in two segments.
                self.write_word(table, position + 8, *len)
            }
        }
    }
}
