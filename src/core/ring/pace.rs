//! Letting an active consumer catch up before the queue grows.
//!
//! Touching fresh memory costs ten times what using warm memory again does. A producer that is about to grow the queue
//! therefore first gives the consumers as long as the growth would cost, provided that they took something since it last
//! grew. At worst that doubles the cost of growing; mostly the queue stays as small as the consumers' lag.

use core::time::Duration;

use crate::atomic::{AtomicUsize, Ordering};
use crate::clock::Deadline;
use crate::ring::Ring;
use crate::ring::layout::SEGMENT;
use crate::sync::spin::Spin;

/// What fresh memory costs: 3 us for a page of 4 KiB of the stream, half of that for one of a slab. In a slab it costs the
/// consumer, who maps it, as much again.
const NANOS_PER_KIB: u64 = 750;
/// Waits shorter than this are spent spinning.
const SHORT: Duration = Duration::from_micros(60);

/// What one process knows of the consumers' progress. Not shared.
#[derive(Debug)]
pub(super) struct Pace {
    /// The head when this process last grew the queue.
    head: AtomicUsize,
    spin: Spin,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { head: AtomicUsize::new(0), spin: Spin::new() }
    }
}

impl Ring {
    /// Whether the segment after `head` is drained within the time that a new one would cost. Under the put lock.
    #[cold]
    pub(super) fn await_segment(&self, head: u64, wanted: u64) -> bool {
        let taken = || self.header().get.mark.read().position;
        if wanted - head < 2 || !self.is_being_drained(taken()) {
            return false;
        }
        self.pace.spin.until(Deadline::NEVER, || (taken() / SEGMENT > head).then_some(())).is_some()
    }

    /// Waits for a slab for `len` bytes to be freed, as long as a fresh one would cost. Without a lock.
    #[cold]
    pub(super) fn await_slab(&self, len: u64) {
        if self.is_empty() || !self.is_being_drained(self.header().get.mark.read().position) {
            return;
        }
        let found = || self.slabs().has_warm(len);
        if self.pace.spin.until(Deadline::NEVER, || found().then_some(())).is_some() {
            return;
        }
        let patience = Duration::from_nanos(len.saturating_mul(NANOS_PER_KIB) >> 10);
        let until = Deadline::after(patience);
        while patience > SHORT && !until.has_passed() && !found() {
            self.header().room.sleep(until, || !found());
        }
    }

    /// Whether something was taken since this was last asked.
    fn is_being_drained(&self, head: u64) -> bool {
        self.pace.head.swap(head as usize, Ordering::Relaxed) != head as usize
    }
}
