//! A semaphore, bounded or not: one word with its value and a flag.
//!
//! | word             | who changes it                                   | what is left if that process dies there          |
//! |------------------|--------------------------------------------------|--------------------------------------------------|
//! | n                | `acquire`, to n - 1 (Acquire); `release`, to     | a unit taken by the dead is not given back, as   |
//! |                  | n + 1 (Release); a waiter, at 0, to `WAITERS`    | with the standard library's                      |
//! | n, `WAITERS`     | the same, the flag kept; `release` then wakes    | before the wake: sleepers look again at the end  |
//! |                  | one, and drops the flag when nobody slept        | of their slice                                   |
//!
//! The flag is dropped only if the word has not changed since the wake found nobody: a waiter that arrived in between is
//! not asleep yet, and finds the word changed or the value above zero when it tries to sleep.

use crate::atomic::{AtomicU32, Ordering};
use crate::clock::Deadline;
use crate::sync::spin::Spin;
use crate::sys::futex::{self, Woken};

const WAITERS: u32 = 1 << 31;

/// The highest value: `SEM_VALUE_MAX` of the C library.
pub const MAXIMUM: u32 = WAITERS - 1;

#[derive(Clone, Copy, Debug)]
pub struct Semaphore<'a>(&'a AtomicU32);

impl<'a> Semaphore<'a> {
    #[inline]
    #[must_use]
    pub fn new(word: &'a AtomicU32) -> Self {
        Self(word)
    }

    /// Sets the value of a semaphore that nobody else knows yet.
    pub fn initialise(self, value: u32) {
        self.0.store(value.min(MAXIMUM), Ordering::Release);
    }

    /// Takes one unit if there is one.
    #[inline]
    #[must_use]
    pub fn try_acquire(self) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        while word & MAXIMUM > 0 {
            match self.0.compare_exchange_weak(word, word - 1, Ordering::Acquire, Ordering::Relaxed) {
                Ok(_) => return true,
                Err(found) => word = found,
            }
        }
        false
    }

    /// Takes one unit, waiting to `until` at most. May return early, empty-handed.
    #[must_use]
    pub fn acquire(self, spin: &Spin, until: Deadline) -> bool {
        if spin.until(until, || self.try_acquire().then_some(())).is_some() {
            return true;
        }
        loop {
            if self.try_acquire() {
                return true;
            }
            let found = self.0.compare_exchange(0, WAITERS, Ordering::Relaxed, Ordering::Relaxed);
            if found.is_err_and(|word| word != WAITERS) {
                continue;
            }
            if futex::wait(self.0, WAITERS, until) != Woken::Changed {
                return self.try_acquire();
            }
        }
    }

    /// Gives one unit back. `false` when the value is at `maximum` already.
    #[inline]
    #[must_use]
    pub fn release(self, maximum: u32) -> bool {
        let mut word = self.0.load(Ordering::Relaxed);
        loop {
            if word & MAXIMUM >= maximum {
                return false;
            }
            match self.0.compare_exchange_weak(word, word + 1, Ordering::Release, Ordering::Relaxed) {
                Ok(_) => break,
                Err(found) => word = found,
            }
        }
        if word & WAITERS != 0 {
            self.wake_one(word + 1);
        }
        true
    }

    #[cold]
    fn wake_one(self, word: u32) {
        if futex::wake(self.0, 1) == 0 {
            let _ = self.0.compare_exchange(word, word & MAXIMUM, Ordering::Relaxed, Ordering::Relaxed);
        }
    }

    #[must_use]
    pub fn value(self) -> u32 {
        self.0.load(Ordering::Relaxed) & MAXIMUM
    }
}
