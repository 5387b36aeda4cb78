//! As much of a queue as the descriptor's protocol and the sleepers' need: two locks, two marks, and no records.

#[path = "../../../src/core/ring/layout.rs"]
pub(crate) mod layout;
#[path = "../../../src/core/ring/ready.rs"]
mod ready;
#[path = "../../../src/core/ring/seen.rs"]
mod seen;
#[path = "../../../src/core/ring/wake.rs"]
mod wake;

use loom::sync::{Mutex, MutexGuard};

use self::layout::{Commit, Event, Header, Mark, Side};
use self::seen::Seen;
use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Deadline;
use crate::error::Result;
use crate::sys::descriptor;

type Guard<'a> = MutexGuard<'a, ()>;

#[derive(Debug)]
pub(crate) struct Ring {
    header: Header,
    put: Mutex<()>,
    get: Mutex<()>,
    pub(crate) event: descriptor::Event,
    /// One process's, as all threads of a model are.
    tail: Seen,
}

fn words<const N: usize>() -> [AtomicU64; N] {
    core::array::from_fn(|_| AtomicU64::new(0))
}

fn event() -> Event {
    Event { generation: AtomicU32::new(0), sleepers: AtomicU32::new(0) }
}

impl Ring {
    pub(crate) fn new() -> Self {
        let side = || Side { mutex: words(), mark: Commit::new() };
        let header = Header {
            magic: AtomicU64::new(0),
            version: AtomicU32::new(0),
            watched: AtomicU32::new(0),
            max_items: AtomicU64::new(0),
            max_bytes: AtomicU64::new(0),
            table: AtomicU64::new(0),
            recycled: AtomicU64::new(0),
            put: side(),
            get: side(),
            items: event(),
            room: event(),
            done: AtomicU64::new(0),
            joined: event(),
            first_table: words(),
            slabs: Default::default(),
        };
        Self {
            header,
            put: Mutex::new(()),
            get: Mutex::new(()),
            event: descriptor::Event(AtomicU32::new(0)),
            tail: Seen::new(),
        }
    }

    fn header(&self) -> &Header {
        &self.header
    }

    fn lock_put(&self, _: Deadline) -> Result<Option<Guard<'_>>> {
        Ok(Some(self.put.lock().expect("no thread panics")))
    }

    fn lock_get(&self, _: Deadline) -> Result<Option<Guard<'_>>> {
        Ok(Some(self.get.lock().expect("no thread panics")))
    }

    fn try_lock_get(&self) -> Result<Option<Guard<'_>>> {
        Ok(self.get.try_lock().ok())
    }

    fn marks(&self) -> (Mark, Mark) {
        (self.header.get.mark.own(), self.header.put.mark.own())
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.header.get.mark.read().position == self.header.put.mark.read().position
    }

    pub(crate) fn is_readable(&self) -> bool {
        self.event.0.load(Ordering::SeqCst) != 0
    }

    /// One record, as `put_locked` commits it.
    pub(crate) fn put(&self) {
        let guard = self.lock_put(Deadline::NEVER);
        let tail = self.header.put.mark.own();
        if self.header.watched.load(Ordering::Acquire) != 0 {
            self.announce(tail).expect("it cannot fail");
        }
        self.header.put.mark.set(next(tail));
        drop(guard);
        self.header.items.wake(1);
    }

    /// One record into a queue of at most `bound`, as `put` and `put_locked` do it in a process that has not looked yet.
    pub(crate) fn put_bounded(&self, bound: u64) {
        let head = Seen::new();
        let full = |tail: Mark, taken: Mark| tail.items - taken.items >= bound;
        let look = || head.look(&self.header.get.mark);
        loop {
            let guard = self.lock_put(Deadline::NEVER);
            let tail = self.header.put.mark.own();
            let mut taken = head.last();
            if full(tail, taken) {
                taken = look();
            }
            if full(tail, taken) {
                drop(guard);
                let is_full = || {
                    let taken = self.header.get.mark.read();
                    full(self.header.put.mark.read(), taken)
                };
                self.header.room.sleep(Deadline::NEVER, is_full);
                continue;
            }
            let tail = next(tail);
            self.header.put.mark.set(tail);
            drop(guard);
            self.header.items.wake(1);
            if !full(tail, taken) || !full(tail, look()) {
                self.header.room.wake(1);
            }
            return;
        }
    }

    /// One record, as `get_locked` takes it; `false` when there is none.
    pub(crate) fn try_get(&self) -> bool {
        let guard = self.lock_get(Deadline::NEVER);
        let head = self.header.get.mark.own();
        let look = || {
            let tail = self.tail.look(&self.header.put.mark);
            assert_eq!(tail.position, 8 * tail.items, "a torn mark");
            tail
        };
        let mut tail = self.tail.last();
        if head.position >= tail.position {
            tail = look();
        }
        let watched = || self.header.watched.load(Ordering::Relaxed) != 0;
        if head.position == tail.position {
            if watched() {
                self.quieten(head).expect("it cannot fail");
            }
            return false;
        }
        let head = next(head);
        self.header.get.mark.set(head);
        if watched() && head.position == tail.position && head.position == look().position {
            self.quieten(head).expect("it cannot fail");
        }
        drop(guard);
        if self.header.items.has_sleepers() && (head.position != tail.position || head.position != look().position) {
            self.header.items.wake(1);
        }
        true
    }

    /// Takes one record, sleeping until there is one.
    pub(crate) fn get(&self) {
        while !self.try_get() {
            self.header.items.sleep(Deadline::NEVER, || self.is_empty());
        }
    }

    /// The same from a bounded queue.
    pub(crate) fn get_bounded(&self) {
        self.get();
        self.header.room.wake(1);
    }
}

fn next(mark: Mark) -> Mark {
    Mark { position: mark.position + 8, items: mark.items + 1, bytes: mark.bytes + 1 }
}
