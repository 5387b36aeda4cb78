//! A lock that its holder may take again: a lock's word and a depth.
//!
//! | word, depth    | who changes it                              | what is left if that process dies there              |
//! |----------------|---------------------------------------------|------------------------------------------------------|
//! | free, any      | as in `lock`; the new holder writes depth 1 | a lock held by the dead; its depth means nothing     |
//! | holder, n > 0  | the holder: n + 1, n - 1; at 0 it lets go   | the same                                             |
//!
//! Only the holder reads or writes the depth.

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Deadline;
use crate::error::Result;
use crate::sync::lock::Lock;
use crate::sync::spin::Spin;
use crate::sys::process::Identity;

#[derive(Clone, Copy, Debug)]
pub struct RLock<'a> {
    lock: Lock<'a>,
    depth: &'a AtomicU32,
}

impl<'a> RLock<'a> {
    #[inline]
    #[must_use]
    pub fn new(word: &'a AtomicU64, depth: &'a AtomicU32) -> Self {
        Self { lock: Lock::new(word), depth }
    }

    #[inline]
    #[must_use]
    pub fn is_held_by(self, me: Identity) -> bool {
        self.lock.holder() == Some(me)
    }

    /// Takes the lock if it is free or held by `me`.
    #[inline]
    #[must_use]
    pub fn try_acquire(self, me: Identity) -> bool {
        if self.lock.try_acquire(me) {
            self.depth.store(1, Ordering::Relaxed);
            true
        } else if self.is_held_by(me) {
            self.depth.store(self.depth.load(Ordering::Relaxed).saturating_add(1), Ordering::Relaxed);
            true
        } else {
            false
        }
    }

    /// Takes the lock, which `me` does not hold, waiting to `until` at most. May return early, empty-handed.
    #[must_use]
    pub fn acquire(self, me: Identity, spin: &Spin, until: Deadline) -> bool {
        let acquired = self.lock.acquire(me, spin, until);
        if acquired {
            self.depth.store(1, Ordering::Relaxed);
        }
        acquired
    }

    /// Lets go once. `false` when `me` does not hold it.
    #[inline]
    #[must_use]
    pub fn release(self, me: Identity) -> bool {
        if !self.is_held_by(me) {
            return false;
        }
        match self.depth.load(Ordering::Relaxed) {
            0 | 1 => self.lock.release(),
            depth => {
                self.depth.store(depth - 1, Ordering::Relaxed);
                true
            }
        }
    }

    /// Lets go altogether; returns the depth for `restore`, 0 when `me` does not hold it.
    #[must_use]
    pub fn release_all(self, me: Identity) -> u32 {
        let depth = self.depth(me);
        if depth > 0 {
            let _ = self.lock.release();
        }
        depth
    }

    /// The holder goes back to the depth that it had.
    pub fn restore(self, depth: u32) {
        self.depth.store(depth, Ordering::Relaxed);
    }

    /// As `Lock::acquire_robust`, at depth 1.
    pub fn acquire_robust(self, me: Identity, spin: &Spin, until: Deadline) -> Result<bool> {
        let acquired = self.lock.acquire_robust(me, spin, until);
        if self.is_held_by(me) {
            self.depth.store(1, Ordering::Relaxed);
        }
        acquired
    }

    /// How often `me` holds it.
    #[must_use]
    pub fn depth(self, me: Identity) -> u32 {
        if self.is_held_by(me) { self.depth.load(Ordering::Relaxed) } else { 0 }
    }

    #[must_use]
    pub fn holder(self) -> Option<Identity> {
        self.lock.holder()
    }
}
