//! Locking the two sides, repairing what a dead holder left, and freeing what dead processes held.

use core::time::Duration;

use crate::atomic::Ordering;
use crate::clock::Deadline;
use crate::error::Result;
use crate::ring::Ring;
use crate::shm::slab;
use crate::sys::robust::Guard;

/// How long even a call that must not block waits for a lock: its holder is busy for microseconds, or stopped.
const PATIENCE: Duration = Duration::from_millis(100);

/// Fresh memory of this much, and more than is queued, may replace what dead processes held.
const SUSPICIOUS: u64 = 16 << 20;

impl Ring {
    /// Locks the put side if nobody holds it.
    #[inline]
    pub(super) fn try_lock_put(&self) -> Result<Option<Guard<'_>>> {
        match self.header().put.mutex().try_lock()? {
            Some(guard) if guard.owner_died() => self.repaired_put(guard).map(Some),
            guard => Ok(guard),
        }
    }

    /// Locks the put side; `None` when `until` passed and a patient while, too.
    #[inline]
    pub(super) fn lock_put(&self, until: Deadline) -> Result<Option<Guard<'_>>> {
        match self.header().put.mutex().lock(patient(until))? {
            Some(guard) if guard.owner_died() => self.repaired_put(guard).map(Some),
            guard => Ok(guard),
        }
    }

    /// Locks the get side if nobody holds it.
    #[inline]
    pub(super) fn try_lock_get(&self) -> Result<Option<Guard<'_>>> {
        let guard = self.header().get.mutex().try_lock()?;
        Ok(guard.map(|guard| if guard.owner_died() { self.repaired_get(guard) } else { guard }))
    }

    /// Locks the get side; `None` when `until` passed and a patient while, too.
    #[inline]
    pub(super) fn lock_get(&self, until: Deadline) -> Result<Option<Guard<'_>>> {
        let guard = self.header().get.mutex().lock(patient(until))?;
        Ok(guard.map(|guard| if guard.owner_died() { self.repaired_get(guard) } else { guard }))
    }

    #[cold]
    fn repaired_put<'a>(&'a self, guard: Guard<'a>) -> Result<Guard<'a>> {
        let header = self.header();
        self.drop_drained(header.get.mark.read().position)?;
        header.slabs.untidy.store(1, Ordering::Relaxed);
        // It may have died between committing and waking.
        header.items.wake_everybody();
        Ok(guard)
    }

    #[cold]
    fn repaired_get<'a>(&'a self, guard: Guard<'a>) -> Guard<'a> {
        let header = self.header();
        header.slabs.untidy.store(1, Ordering::Relaxed);
        header.room.wake_everybody();
        header.items.wake_everybody();
        guard
    }

    /// Frees slabs that dead processes held and that no record refers to. Skipped when somebody holds a lock.
    pub(super) fn sweep(&self) -> Result<()> {
        let header = self.header();
        let Some(_get) = self.try_lock_get()? else { return Ok(()) };
        let Some(_put) = self.try_lock_put()? else { return Ok(()) };
        header.slabs.untidy.store(0, Ordering::Relaxed);
        let (head, tail) = self.marks();
        self.drop_drained(head.position)?;
        let in_stream = self.slabs_in_use()?;
        let swept = self.slabs().sweep(|index, descriptor| {
            let position = descriptor.position.load(Ordering::Relaxed);
            let in_queue = (head.position..tail.position).contains(&position);
            match descriptor.state.load(Ordering::Acquire) {
                slab::RING => in_stream.binary_search(&index).is_ok() || self.is_table(descriptor.offset()),
                slab::BUILDING => Self::is_alive(descriptor.owner()),
                slab::LEASED => in_queue || Self::is_alive(descriptor.owner()),
                slab::QUEUED => in_queue,
                _ => false,
            }
        });
        if swept.is_err() {
            header.slabs.untidy.store(1, Ordering::Relaxed);
        }
        swept
    }

    /// Sweeps if a process is known to have died in the middle of something, or if the slabs grew for reasons that may
    /// be deaths outside of the locks.
    #[inline]
    pub(super) fn tidy(&self) -> Result<()> {
        let slabs = self.slabs();
        let suspicious = slabs.fresh() > SUSPICIOUS && slabs.fresh() > self.queued_bytes();
        if suspicious || self.header().slabs.untidy.load(Ordering::Relaxed) != 0 { self.sweep() } else { Ok(()) }
    }

    /// Bytes of payload in the queue.
    pub(super) fn queued_bytes(&self) -> u64 {
        let taken = self.header().get.mark.read().bytes;
        self.header().put.mark.read().bytes.saturating_sub(taken)
    }
}

fn patient(until: Deadline) -> Deadline {
    if until.is_never() { until } else { until.max(Deadline::after(PATIENCE)) }
}
