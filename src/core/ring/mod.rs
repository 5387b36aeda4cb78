//! The queue: an endless stream of records in shared memory, its commit and recovery protocol.
//!
//! Producers append under the put lock, consumers take under the get lock; both are robust. What counts is the two
//! committed marks (`layout::Commit`), each changed by one store: bytes beyond the put side's mark do not exist, and a
//! record is in the queue until the get side's mark has passed it.
//!
//! | a process dies                            | what is left                                                     |
//! |-------------------------------------------|------------------------------------------------------------------|
//! | writing a record, before the commit       | nothing: the next producer writes over it                        |
//! | after the commit, before waking           | a record that sleepers find when their slice ends                |
//! | taking a record, before the commit        | the record: the next consumer takes it                           |
//! | after that                                | the record went with the process that took it                    |
//! | holding slabs (see `shm::slab`)           | slabs that a sweep finds and frees                               |
//!
//! The stream is cut into segments that a table names (`stream`), so it grows without moving anything, and drained
//! segments are used again. Long payloads lie in slabs, filled before the put lock and read after the get lock is let
//! go of. Lock order: get, put, memory.

mod depth;
mod get;
mod layout;
mod pace;
mod put;
mod ready;
mod repair;
mod seen;
mod stream;
mod view;
mod wake;

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;

use crate::atomic::Ordering;
use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::shm::growing::Growing;
use crate::shm::slab::{Mapped, Owner, Slabs};
use crate::sync::spin::Spin;
use crate::sys::descriptor;
use crate::sys::process::Identity;

pub use depth::Depth;
pub use get::{Batch, Lease, Record, Taken};
pub use put::{Parcel, Put};

use layout::{HEADER, MAGIC, VERSION};
use pace::Pace;
use seen::Seen;

/// How much may be queued; zero is no limit.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    pub items: u64,
    /// Bytes of payload. One record is always admitted to an empty queue, however long it is.
    pub bytes: u64,
}

#[derive(Debug)]
pub struct Ring {
    file: Growing,
    /// Readable while there is something to get, once `watch` was called anywhere.
    event: OwnedFd,
    limits: Limits,
    /// How long looking for an item, or for room, lately paid off in this process.
    item_spin: Spin,
    room_spin: Spin,
    pace: Pace,
    mapped: Mapped,
    /// How far the producers had come, and the consumers.
    tail: Seen,
    head: Seen,
}

impl Ring {
    pub fn create(limits: Limits) -> Result<Arc<Self>> {
        let file = Growing::create("rsmp-queue", HEADER)?;
        let ring = Self::over(file, descriptor::event()?, limits, Pace::new());
        let header = ring.header();
        header.max_items.store(limits.items, Ordering::Relaxed);
        header.max_bytes.store(limits.bytes, Ordering::Relaxed);
        header.table.store(layout::FIRST_TABLE_WORD, Ordering::Relaxed);
        header.version.store(VERSION, Ordering::Relaxed);
        ring.make_mutexes()?;
        header.magic.store(MAGIC, Ordering::Release);
        Ok(Arc::new(ring))
    }

    /// Opens the queue whose descriptors were received from another process.
    pub fn attach(file: OwnedFd, event: OwnedFd) -> Result<Arc<Self>> {
        let len = crate::sys::memory::size(&file)?;
        if len < HEADER as u64 {
            return Err(Error::corrupt("open a queue", "the descriptor is not a queue's"));
        }
        let mut ring = Self::over(Growing::attach(file)?, event, Limits::default(), Pace::attached());
        let header = ring.header();
        if header.magic.load(Ordering::Acquire) != MAGIC || header.version.load(Ordering::Relaxed) != VERSION {
            return Err(Error::corrupt("open a queue", "the descriptor is not a queue's, or of another version's"));
        }
        let items = header.max_items.load(Ordering::Relaxed);
        let bytes = header.max_bytes.load(Ordering::Relaxed);
        ring.limits = Limits { items, bytes };
        Ok(Arc::new(ring))
    }

    fn over(file: Growing, event: OwnedFd, limits: Limits, pace: Pace) -> Self {
        Self {
            file,
            event,
            limits,
            item_spin: Spin::new(),
            room_spin: Spin::new(),
            pace,
            mapped: Mapped::default(),
            tail: Seen::new(),
            head: Seen::new(),
        }
    }

    /// The memory file, for passing to another process.
    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.file.file()
    }

    /// The event descriptor, for passing to another process. For watching, see `watch`.
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    #[must_use]
    pub fn limits(&self) -> Limits {
        self.limits
    }

    /// Items in the queue.
    #[must_use]
    pub fn len(&self) -> u64 {
        // The taken first: the other way round a consumer in between could make it negative.
        let taken = self.header().get.mark.read().items;
        self.header().put.mark.read().items.saturating_sub(taken)
    }

    #[inline]
    #[must_use]
    pub fn is_empty(&self) -> bool {
        let taken = self.header().get.mark.read().position;
        self.header().put.mark.read().position == taken
    }

    /// Whether a record of `len` bytes would have to wait.
    #[must_use]
    pub fn is_full_for(&self, len: u64) -> bool {
        if self.limits == Limits::default() {
            return false;
        }
        let taken = self.header().get.mark.read();
        !self.limits.admit(self.header().put.mark.read(), taken, len)
    }

    /// Bytes of memory the queue holds, for diagnosis.
    pub fn memory(&self) -> Result<u64> {
        crate::sys::memory::held(self.file())
    }

    /// Counts one item as done with; `false` when every item put was already. Wakes `join` at the last one.
    #[must_use]
    pub fn task_done(&self) -> bool {
        let header = self.header();
        let mut done = header.done.load(Ordering::Acquire);
        loop {
            let put = header.put.mark.read().items;
            if done >= put {
                return false;
            }
            match header.done.compare_exchange_weak(done, done + 1, Ordering::AcqRel, Ordering::Acquire) {
                Ok(_) if done + 1 == put => {
                    header.joined.wake_everybody();
                    return true;
                }
                Ok(_) => return true,
                Err(now) => done = now,
            }
        }
    }

    /// Items put and not yet done with.
    #[must_use]
    pub fn unfinished(&self) -> u64 {
        let done = self.header().done.load(Ordering::Acquire);
        self.header().put.mark.read().items.saturating_sub(done)
    }

    /// What `join` waits from: each time all items are done with starts a new round.
    #[must_use]
    pub fn round(&self) -> u32 {
        self.header().joined.generation.load(Ordering::Acquire)
    }

    /// Waits at most to `until` for all items to be done with, at the time or at some time since `round`.
    #[must_use]
    pub fn join(&self, round: u32, until: Deadline) -> bool {
        let finished = || self.unfinished() == 0 || self.round() != round;
        if !finished() {
            self.header().joined.sleep(until, || !finished());
        }
        finished()
    }

    fn slabs(&self) -> Slabs<'_> {
        Slabs { file: &self.file, header: &self.header().slabs, mapped: &self.mapped }
    }

    fn owner() -> Owner {
        Identity::current().to_word()
    }

    fn is_alive(owner: Owner) -> bool {
        Identity::from_word(owner).is_some_and(Identity::is_alive)
    }
}

impl Limits {
    #[inline]
    fn admit(self, put: layout::Mark, taken: layout::Mark, len: u64) -> bool {
        let items = put.items.saturating_sub(taken.items);
        let bytes = put.bytes.saturating_sub(taken.bytes);
        (self.items == 0 || items < self.items)
            && (self.bytes == 0 || items == 0 || bytes.saturating_add(len) <= self.bytes)
    }
}
