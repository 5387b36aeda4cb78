//! Letting an active consumer catch up before the queue grows.
//!
//! Touching fresh memory costs ten times what using warm memory again does. A producer that is about to grow the queue
//! therefore first gives the consumers as long as the growth would cost, provided that they took something lately. At
//! worst that doubles the cost of growing; mostly the queue stays as small as the consumers' lag.
//!
//! Where there is more work than CPUs, they may be waiting for this very CPU. Spinning soon stops being tried then, and
//! what growth costs is saved up until it is worth a sleep.

use core::time::Duration;
use std::thread;

use crate::atomic::{AtomicUsize, Ordering};
use crate::clock::{self, Deadline};
use crate::ring::Ring;
use crate::ring::layout::SEGMENT;
use crate::sync::spin::Spin;

/// What fresh memory costs: 3 us for a page of 4 KiB of the stream, half of that for one of a slab. In a slab it costs the
/// consumer, who maps it, as much again.
const NANOS_PER_KIB: u64 = 750;
/// Waits shorter than this are spent spinning,
const SHORT: Duration = Duration::from_micros(60);
/// and where that does not help, saved up for a sleep of this.
const SLEEP: Duration = Duration::from_micros(300);
/// A consumer that took something in this time is at work; others may have its CPU for a while.
const LATELY: Duration = Duration::from_millis(2);

/// What one process knows of the consumers' progress. Not shared.
#[derive(Debug)]
pub(super) struct Pace {
    /// The head when this process last looked,
    head: AtomicUsize,
    /// and when it last saw another one: nanoseconds.
    moved: AtomicUsize,
    /// Nanoseconds of waiting that were saved up.
    saved: AtomicUsize,
    spin: Spin,
}

impl Pace {
    pub(super) const fn new() -> Self {
        Self { head: AtomicUsize::new(0), moved: AtomicUsize::new(0), saved: AtomicUsize::new(0), spin: Spin::new() }
    }

    /// How the head has moved since this was last asked.
    fn look(&self, head: u64) -> Consumers {
        let now = clock::now();
        if self.head.swap(head as usize, Ordering::Relaxed) != head as usize {
            self.moved.store(now as usize, Ordering::Relaxed);
            return Consumers::Moving;
        }
        // Another thread may have looked since.
        let idle = now.saturating_sub(self.moved.load(Ordering::Relaxed) as u64);
        if idle < LATELY.as_nanos() as u64 { Consumers::Halted } else { Consumers::Away }
    }

    /// Waits for `found`, about as long as `patience`: at once where spinning helps, otherwise when enough was saved up.
    fn wait(&self, consumers: Consumers, patience: Duration, found: impl Fn() -> bool) -> bool {
        if consumers == Consumers::Away {
            return false;
        }
        let begun = clock::now();
        if consumers == Consumers::Moving && self.spin.until(Deadline::NEVER, || found().then_some(())).is_some() {
            return true;
        }
        let rest = patience.saturating_sub(Duration::from_nanos(clock::now() - begun));
        let saved = rest + Duration::from_nanos(self.saved.load(Ordering::Relaxed) as u64);
        let sleeps = saved >= SLEEP;
        if sleeps {
            thread::sleep(saved);
        }
        self.saved.store(if sleeps { 0 } else { saved.as_nanos() as usize }, Ordering::Relaxed);
        sleeps && found()
    }
}

/// What the consumers seem to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumers {
    /// They took something since the last look,
    Moving,
    /// or not long before: somebody else may have their CPU.
    Halted,
    Away,
}

const fn cost(len: u64) -> Duration {
    Duration::from_nanos(len.saturating_mul(NANOS_PER_KIB) >> 10)
}

impl Ring {
    /// Whether the segment after `head` is drained within the time that a new one would cost. Under the put lock.
    #[cold]
    pub(super) fn await_segment(&self, head: u64, wanted: u64) -> bool {
        let taken = || self.header().get.mark.read().position;
        if wanted - head < 2 {
            return false;
        }
        self.pace.wait(self.pace.look(taken()), cost(SEGMENT), || taken() / SEGMENT > head)
    }

    /// Waits for a slab for `len` bytes to be freed, as long as a fresh one would cost. Without a lock.
    #[cold]
    pub(super) fn await_slab(&self, len: u64) {
        if self.is_empty() {
            return;
        }
        let consumers = self.pace.look(self.header().get.mark.read().position);
        let found = || self.slabs().has_warm(len);
        let patience = cost(len);
        if patience <= SHORT {
            self.pace.wait(consumers, patience, found);
            return;
        }
        if consumers != Consumers::Moving || self.pace.spin.until(Deadline::NEVER, || found().then_some(())).is_some() {
            return;
        }
        let until = Deadline::after(patience);
        while !until.has_passed() && !found() {
            self.header().room.sleep(until, || !found());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn consumers_are_away_until_the_head_moves_and_some_time_after() {
        let pace = Pace::new();
        assert_eq!(pace.look(0), Consumers::Away);
        assert_eq!(pace.look(8), Consumers::Moving);
        assert_eq!(pace.look(8), Consumers::Halted);
        assert_eq!(pace.look(16), Consumers::Moving);
        thread::sleep(2 * LATELY);
        assert_eq!(pace.look(16), Consumers::Away);
    }

    #[test]
    fn nobody_waits_for_consumers_that_are_away() {
        let pace = Pace::new();
        assert!(!pace.wait(Consumers::Away, 2 * SLEEP, || panic!("looked")));
        assert_eq!(pace.saved.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn waits_for_halted_consumers_are_saved_up_until_they_are_worth_a_sleep() {
        let pace = Pace::new();
        let part = SLEEP / 4;
        assert!(!pace.wait(Consumers::Halted, part, || panic!("looked")));
        assert_ne!(pace.saved.load(Ordering::Relaxed), 0);
        let before = clock::now();
        assert!(pace.wait(Consumers::Halted, SLEEP, || true));
        assert!(u128::from(clock::now() - before) >= SLEEP.as_nanos());
        assert_eq!(pace.saved.load(Ordering::Relaxed), 0);
    }
}
