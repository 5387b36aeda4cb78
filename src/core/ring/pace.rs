//! Letting an active consumer catch up before the queue grows, and when it has grown.
//!
//! Touching fresh memory costs ten times what using warm memory again does. A producer that is about to grow the queue
//! therefore first gives the consumers as long as the growth would cost, provided that they took something lately or may
//! just be starting. At worst that doubles the cost of growing; mostly the queue stays as small as the consumers' lag.
//!
//! Where there is more work than CPUs, they may be waiting for this very CPU. Spinning soon stops being tried then. What
//! growth costs is saved up instead, and the caller sleeps for it when it holds no lock any more (`pause`); the less often,
//! the less that helps.
//!
//! Consumers that are no quicker than the producers never make up for what they missed in such a time. So where much is
//! queued, producers let consumers that are at work get ahead, message by message.

use core::time::Duration;
use std::thread;

use crate::atomic::{AtomicBool, AtomicUsize, Ordering};
use crate::clock::{self, Deadline};
use crate::ring::Ring;
use crate::ring::layout::SEGMENT;
use crate::sync::spin::Spin;
use crate::sys::process;

/// What fresh memory costs: 3 us for a page of 4 KiB of the stream, half of that for one of a slab. In a slab it costs the
/// consumer, who maps it, as much again.
const NANOS_PER_KIB: u64 = 750;
/// Waits shorter than this are spent spinning,
const SHORT: Duration = Duration::from_micros(60);
/// and where that does not help, saved up for a sleep of this, when consumers get a CPU,
const SLEEP: Duration = Duration::from_micros(300);
/// or up to so many times more when they do not catch up.
const SELDOM: usize = 64;
/// So many sleeps follow each other until the consumers move: whoever has their CPU may keep it for a time slice.
const SLEEPS: usize = 7;
/// Bytes taken meanwhile for which a sleep was worth it: half of the growth that it was for.
const WORTH: u64 = (SLEEP.as_nanos() as u64 / NANOS_PER_KIB) << 9;
/// Bytes that may be queued before producers leave something to the consumers first; four messages, where those are long.
const MUCH: u64 = 512 << 10;
/// Bytes that the queue may grow to without waiting: with fewer, two that are equally quick wait for each other in turns.
const LITTLE: u64 = MUCH / 2;
/// The same for longer messages: two of them, as long as that is no more than this.
const LITTLE_FOR_LONG: u64 = 2 << 20;
/// A consumer that took something in this time is at work; others may have its CPU for a while. One that never did may be
/// starting when this process first looks.
const LATELY: Duration = Duration::from_millis(2);
/// With messages for which producers sleep, both times are so many times what one costs: getting that much memory from the
/// host of a virtual machine may take twice as long.
const LONGER: u32 = 2;

/// What one process knows of the consumers' progress. Not shared.
#[derive(Debug)]
pub(super) struct Pace {
    /// The head when this process last looked,
    head: AtomicUsize,
    /// and when it last saw another one, or looked for the first time: nanoseconds.
    moved: AtomicUsize,
    /// Whether this process took something itself since it last looked.
    took: AtomicBool,
    /// Nanoseconds of waiting that were saved up,
    saved: AtomicUsize,
    /// and how many are worth a sleep.
    price: AtomicUsize,
    spin: Spin,
    /// Where this process made the queue, its forks by then: without another one nobody else has it.
    forks: Option<u32>,
}

impl Pace {
    /// For a queue that this process makes.
    pub(super) fn new() -> Self {
        Self { forks: Some(process::forks()), ..Self::attached() }
    }

    pub(super) const fn attached() -> Self {
        Self {
            head: AtomicUsize::new(0),
            moved: AtomicUsize::new(0),
            took: AtomicBool::new(false),
            saved: AtomicUsize::new(0),
            price: AtomicUsize::new(SLEEP.as_nanos() as usize),
            spin: Spin::new(),
            forks: None,
        }
    }

    /// This process took something: while it waits it does not.
    #[inline]
    pub(super) fn took(&self) {
        if !self.took.load(Ordering::Relaxed) {
            self.took.store(true, Ordering::Relaxed);
        }
    }

    /// How the head has moved since this was last asked; a consumer that moved in the time `lately` is at work.
    fn look(&self, head: u64, now: u64, lately: Duration) -> Consumers {
        if self.took.load(Ordering::Relaxed) {
            self.took.store(false, Ordering::Relaxed);
            self.head.store(head as usize, Ordering::Relaxed);
            return Consumers::Away;
        }
        if self.head.swap(head as usize, Ordering::Relaxed) != head as usize {
            self.moved.store(now as usize, Ordering::Relaxed);
            return Consumers::Moving;
        }
        let moved = match self.moved.load(Ordering::Relaxed) as u64 {
            0 if self.forks == Some(process::forks()) => return Consumers::Away,
            0 => {
                // Never zero: that is nobody's.
                let moved = (now + LATELY.as_nanos() as u64).saturating_sub(lately.as_nanos() as u64).max(1);
                self.moved.store(moved as usize, Ordering::Relaxed);
                moved
            }
            moved => moved,
        };
        // Another thread may have looked since.
        let idle = Duration::from_nanos(now.saturating_sub(moved));
        lately.checked_sub(idle).filter(|rest| !rest.is_zero()).map_or(Consumers::Away, Consumers::Halted)
    }

    /// Spins for `found` where that helps; whether it was found.
    fn spins(&self, consumers: Consumers, found: impl Fn() -> bool) -> bool {
        consumers == Consumers::Moving && self.spin.until(Deadline::NEVER, || found().then_some(())).is_some()
    }

    /// Waits for `found` where spinning helps, and saves up what is left of `patience`; whether it was found.
    fn wait(&self, consumers: Consumers, patience: Duration, found: impl Fn() -> bool) -> bool {
        if consumers == Consumers::Away {
            return false;
        }
        let begun = clock::now();
        if self.spins(consumers, found) {
            // Quick ones: if they halt next, it is worth waiting for them.
            self.price.store(SLEEP.as_nanos() as usize, Ordering::Relaxed);
            return true;
        }
        let rest = patience.saturating_sub(Duration::from_nanos(clock::now() - begun));
        self.saved.fetch_add(rest.as_nanos() as usize, Ordering::Relaxed);
        false
    }

    /// Whether enough is saved up for a sleep.
    #[inline]
    fn is_due(&self) -> bool {
        self.saved.load(Ordering::Relaxed) >= self.price.load(Ordering::Relaxed)
    }

    /// A sleep was had, and let the consumers catch up or not.
    fn slept(&self, helped: bool) {
        let least = SLEEP.as_nanos() as usize;
        let price = if helped { least } else { (2 * self.price.load(Ordering::Relaxed)).min(SELDOM * least) };
        self.price.store(price, Ordering::Relaxed);
        self.saved.store(0, Ordering::Relaxed);
    }
}

/// What the consumers seem to do.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Consumers {
    /// They took something since the last look,
    Moving,
    /// or not long before, and for so long still count as at work: somebody else may have their CPU.
    Halted(Duration),
    Away,
}

const fn cost(len: u64) -> Duration {
    Duration::from_nanos(len.saturating_mul(NANOS_PER_KIB) >> 10)
}

fn lately(len: u64) -> Duration {
    LATELY.max(LONGER * cost(len))
}

impl Ring {
    /// Whether the segment after `head` is drained within the time that a new one would cost. Under the put lock.
    #[cold]
    pub(super) fn await_segment(&self, head: u64, wanted: u64) -> bool {
        let taken = || self.header().get.mark.read().position;
        if wanted - head < 2 {
            return false;
        }
        self.pace.wait(self.pace.look(taken(), clock::now(), LATELY), cost(SEGMENT), || taken() / SEGMENT > head)
    }

    /// Where much is queued and the consumers are at work, waits before a message of `len` bytes until one of them has gone
    /// on by `step` bytes of the stream: what they have once missed would otherwise stay queued for as long as they are
    /// no quicker than the producers.
    #[inline]
    pub(super) fn keep_pace(&self, len: u64, step: u64) {
        let taken = self.header().get.mark.read();
        let queued = self.header().put.mark.read().bytes.saturating_sub(taken.bytes);
        if queued > MUCH.max(4 * len) {
            let goal = taken.position + step;
            let consumers = self.pace.look(taken.position, clock::now(), lately(len));
            self.pace.wait(consumers, cost(len), || self.header().get.mark.read().position >= goal);
        }
    }

    /// Whether whoever has put something should let the consumers have the CPU: `pause`.
    #[inline]
    #[must_use]
    pub fn is_pause_due(&self) -> bool {
        self.pace.is_due()
    }

    /// Sleeps for the growth that was not waited for. To be called without a lock.
    #[cold]
    pub fn pause(&self) {
        let head = || self.header().get.mark.read();
        let before = head();
        let worth = WORTH.min(self.queued_bytes() / 2);
        let is_worth_it = || head().bytes - before.bytes >= worth;
        let mut moves = false;
        for _ in 0..SLEEPS {
            // Consumers that have a CPU and take too little even so are slow.
            if moves || is_worth_it() {
                break;
            }
            moves = head().position > before.position;
            thread::sleep(SLEEP);
        }
        self.pace.slept(is_worth_it());
    }

    /// Waits for a slab for `len` bytes to be freed, as long as a fresh one would cost, unless little is queued. Without a
    /// lock.
    #[cold]
    pub(super) fn await_slab(&self, len: u64) {
        if self.queued_bytes() < LITTLE.max((2 * len).min(LITTLE_FOR_LONG)) {
            return;
        }
        let consumers = self.pace.look(self.header().get.mark.read().position, clock::now(), lately(len));
        let found = || self.slabs().has_warm(len);
        let patience = cost(len);
        if patience <= SHORT {
            self.pace.wait(consumers, patience, found);
            return;
        }
        if self.pace.spins(consumers, found) {
            return;
        }
        let until = Deadline::after(match consumers {
            Consumers::Moving => LONGER * patience,
            Consumers::Halted(rest) => rest.min(LONGER * patience),
            Consumers::Away => return,
        });
        while !until.has_passed() && !found() {
            self.header().room.sleep(until, || !found());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const COST: usize = SLEEP.as_nanos() as usize;

    #[test]
    fn consumers_are_at_work_for_some_time_after_the_head_moved() {
        let pace = Pace::new();
        let lately = LATELY.as_nanos() as u64;
        let begin = 10 * lately;
        assert_eq!(pace.look(8, begin, LATELY), Consumers::Moving);
        assert_eq!(pace.look(8, begin + lately - 1, LATELY), Consumers::Halted(Duration::from_nanos(1)));
        assert_eq!(pace.look(8, begin + lately, LATELY), Consumers::Away);
        assert_eq!(pace.look(16, begin + 2 * lately, LATELY), Consumers::Moving);
        assert_eq!(pace.look(16, begin, LATELY), Consumers::Halted(LATELY));
    }

    #[test]
    fn consumers_that_never_took_anything_may_be_starting() {
        let pace = Pace::attached();
        let lately = LATELY.as_nanos() as u64;
        let begin = 10 * lately;
        assert_eq!(pace.look(0, begin, LATELY), Consumers::Halted(LATELY));
        assert_eq!(pace.look(0, begin + lately - 1, LATELY), Consumers::Halted(Duration::from_nanos(1)));
        assert_eq!(pace.look(0, begin + lately, LATELY), Consumers::Away);
        assert_eq!(pace.look(8, begin + 9 * lately, LATELY), Consumers::Moving);
    }

    #[test]
    fn long_messages_take_longer_but_no_longer_until_the_first_one() {
        let long = 512 << 20;
        let pace = Pace::attached();
        let begin = 2 * lately(long).as_nanos() as u64;
        assert_eq!(pace.look(0, begin, lately(long)), Consumers::Halted(LATELY));
        assert_eq!(pace.look(8, begin, lately(long)), Consumers::Moving);
        assert_eq!(pace.look(8, begin, lately(long)), Consumers::Halted(lately(long)));
        assert_eq!(pace.look(8, begin, lately(1)), Consumers::Halted(LATELY));
    }

    #[test]
    fn nobody_is_starting_as_long_as_nobody_was_forked() {
        assert_eq!(Pace::new().look(0, 1, LATELY), Consumers::Away);
    }

    #[test]
    fn a_process_does_not_wait_for_itself() {
        let pace = Pace::new();
        let now = 10 * LATELY.as_nanos() as u64;
        pace.took();
        assert_eq!(pace.look(8, now, LATELY), Consumers::Away);
        assert_eq!(pace.look(16, now, LATELY), Consumers::Moving);
        pace.took();
        assert_eq!(pace.look(24, now, LATELY), Consumers::Away);
        assert_eq!(pace.look(24, now, LATELY), Consumers::Halted(LATELY));
    }

    #[test]
    fn nobody_waits_for_consumers_that_are_away() {
        let pace = Pace::new();
        assert!(!pace.wait(Consumers::Away, 2 * SLEEP, || panic!("looked")));
        assert!(!pace.is_due());
    }

    #[test]
    fn waits_for_halted_consumers_are_saved_up() {
        let pace = Pace::new();
        while !pace.is_due() {
            assert!(!pace.wait(Consumers::Halted(LATELY), SLEEP, || panic!("looked")));
        }
        pace.slept(true);
        assert!(!pace.is_due());
    }

    #[test]
    fn a_sleep_that_does_not_help_makes_the_next_one_rarer() {
        let pace = Pace::new();
        pace.slept(false);
        pace.saved.store(COST, Ordering::Relaxed);
        assert!(!pace.is_due());
        pace.saved.store(2 * COST, Ordering::Relaxed);
        assert!(pace.is_due());
        (0..20).for_each(|_| pace.slept(false));
        pace.saved.store(SELDOM * COST, Ordering::Relaxed);
        assert!(pace.is_due());
        pace.slept(true);
        pace.saved.store(COST, Ordering::Relaxed);
        assert!(pace.is_due());
    }

    #[test]
    fn a_quick_answer_makes_the_next_sleep_come_soon_again() {
        let pace = Pace::new();
        (0..20).for_each(|_| pace.slept(false));
        assert!(pace.wait(Consumers::Moving, SLEEP, || true));
        pace.saved.store(COST, Ordering::Relaxed);
        assert!(pace.is_due());
    }
}
