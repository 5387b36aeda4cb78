//! What this process last saw of the other side's mark.
//!
//! Every look at a mark that the other side is writing moves its cache line from one CPU to the other, a tenth of a
//! microsecond for both. Marks only grow, so an old one is good as long as it says that there is something to take, or
//! room; only then is it looked at again. A consumer takes what it saw at one look, a producer fills it.
//!
//! A consumer that is faster than its producer would look again after every item or two. While items are coming in, it
//! gives the producer a moment to get ahead instead (`paused_until`).

use crate::atomic::{AtomicU64, Ordering};
use crate::clock;
use crate::ring::layout::{Commit, Mark};

/// Not shared. Each word is at most what the mark says now; together they may be of two looks. On a line of its own: a
/// thread that puts and one that gets may be of one process.
#[derive(Debug)]
#[repr(align(128))]
pub(super) struct Seen {
    position: AtomicU64,
    items: AtomicU64,
    bytes: AtomicU64,
    /// When it was last looked at, in nanoseconds; zero if there was at most one item more.
    flowed: AtomicU64,
}

impl Seen {
    pub(super) fn new() -> Self {
        Self {
            position: AtomicU64::new(0),
            items: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            flowed: AtomicU64::new(0),
        }
    }

    /// The mark as it was.
    #[inline]
    pub(super) fn last(&self) -> Mark {
        // With the store in `look`: what another thread saw published is to be seen here, too.
        let position = self.position.load(Ordering::Acquire);
        Mark { position, items: self.items.load(Ordering::Relaxed), bytes: self.bytes.load(Ordering::Relaxed) }
    }

    /// The mark as it is.
    #[inline]
    pub(super) fn look(&self, commit: &Commit) -> Mark {
        let mark = commit.read();
        self.items.store(mark.items, Ordering::Relaxed);
        self.bytes.store(mark.bytes, Ordering::Relaxed);
        self.position.store(mark.position, Ordering::Release);
        mark
    }

    /// As `look`, and remembers whether items are coming in, several at a time.
    #[inline]
    pub(super) fn look_at_flow(&self, commit: &Commit) -> Mark {
        let before = self.items.load(Ordering::Relaxed);
        let mark = self.look(commit);
        let flows = mark.items > before + 1;
        self.flowed.store(if flows { clock::now() } else { 0 }, Ordering::Relaxed);
        mark
    }

    /// Until when to leave the other side alone: `pause` from the last look, if items were coming in.
    #[inline]
    pub(super) fn paused_until(&self, pause: u64) -> Option<u64> {
        let flowed = self.flowed.load(Ordering::Relaxed);
        (flowed != 0).then(|| flowed + pause)
    }
}
