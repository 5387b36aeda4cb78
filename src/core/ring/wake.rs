//! Sleeping until something happens to a queue.
//!
//! | `sleepers` | meaning                | who changes it                                                              |
//! |------------|------------------------|-----------------------------------------------------------------------------|
//! | 0          | nobody sleeps          | a sleeper, before it looks a last time; a woken one, before it looks again   |
//! | 1          | maybe somebody sleeps  | whoever makes something happen, before waking one                           |
//!
//! A flag, not a count: a killed sleeper costs one wake that finds nobody. If the process that took the flag dies before
//! it wakes anybody, or the one it woke dies, the others notice when their slice (half a second) ends.

use crate::atomic::{Ordering, fence};
use crate::clock::Deadline;
use crate::ring::layout::Event;
use crate::sys::futex::{self, Woken};

impl Event {
    /// Sleeps at most to `until` while `idle()`; returns early for any reason or none, and whether that was a signal.
    pub(super) fn sleep(&self, until: Deadline, idle: impl Fn() -> bool) -> bool {
        if until.has_passed() {
            return false;
        }
        let generation = self.generation.load(Ordering::Acquire);
        self.sleepers.store(1, Ordering::Relaxed);
        // Against the fence in `has_sleepers`: either this sees what happened, or the waker sees the flag.
        fence(Ordering::SeqCst);
        if !idle() {
            return false;
        }
        let woken = futex::wait(&self.generation, generation, until);
        // There may be others, and the waker took the flag down.
        self.sleepers.store(1, Ordering::Relaxed);
        fence(Ordering::SeqCst);
        woken == Woken::Interrupted
    }

    /// Wakes up to `count` sleepers. Call it after making visible what they wait for.
    #[inline]
    pub(super) fn wake(&self, count: u32) {
        if self.has_sleepers() {
            self.wake_slow(count);
        }
    }

    /// Whether somebody may sleep who has not seen what was made visible before this call.
    #[inline]
    pub(super) fn has_sleepers(&self) -> bool {
        fence(Ordering::SeqCst);
        self.sleepers.load(Ordering::Relaxed) != 0
    }

    #[cold]
    fn wake_slow(&self, count: u32) {
        if self.sleepers.swap(0, Ordering::AcqRel) != 0 {
            self.generation.fetch_add(1, Ordering::Release);
            futex::wake(&self.generation, count);
        }
    }

    /// Wakes everybody, flag or not: after a death nobody knows who was told.
    #[cold]
    pub(super) fn wake_everybody(&self) {
        self.sleepers.store(0, Ordering::Release);
        self.generation.fetch_add(1, Ordering::Release);
        futex::wake_all(&self.generation);
    }
}
