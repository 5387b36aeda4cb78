//! A lock that its holder may take again: a lock's word, a depth, and how often it was let go.
//!
//! | word, depth    | who changes it                              | what is left if that process dies there              |
//! |----------------|---------------------------------------------|------------------------------------------------------|
//! | free, any      | as in `lock`; the new holder writes depth 1 | a lock held by the dead; its depth means nothing     |
//! | holder, n > 0  | the holder: n + 1, n - 1; at 0 it lets go   | the same                                             |
//!
//! Only the holder reads or writes the depth.
//!
//! | word, releases | who changes it                              | what is left if that process dies there              |
//! |----------------|---------------------------------------------|------------------------------------------------------|
//! | free, n        | nobody                                      | what nobody is changing                              |
//! | holder, n      | the holder, who lets go: n + 1 (Release)    | a lock held by the dead: nobody reads past it, and   |
//! | holder, n + 1  | the same, at once: free (Release)           | whoever inherits it counts on when it lets go        |
//!
//! # Reading without taking it
//!
//! `read` loads `releases`, what is protected, the word, and `releases` again, and trusts what it read if the word was
//! free and the count the same. What it read was then the value at the moment when it saw the word free:
//!
//! - It read what some holder H wrote (or nobody). H's fence after taking the lock comes before that write, and `read`'s
//!   own fence after the read: so `read` sees the word that H took, or a later one.
//! - That word is free, so it is of the release of H or of a later holder. The load is an Acquire, which pairs with the
//!   Release of letting go: the second load of `releases` sees H's count, or a later one.
//! - As the first load gave the same number (it only grows), that one saw H's count too. It is an Acquire that pairs with
//!   the Release of counting: all that H wrote was there before the read, which therefore gave H's last word.
//! - A holder after H has either counted already, which is the same argument with that holder for H, or took the lock
//!   after `read` saw it free.
//!
//! Whoever takes a lock to read also tells the next holder what was written before. So does `read`, by a fence before it
//! looks at the word, against the same fence of the holder: either `read` sees the lock taken, or the holder sees all that
//! the reader had written.

use crate::atomic::{AtomicU32, AtomicU64, Ordering, fence};
use crate::clock::Deadline;
use crate::error::Result;
use crate::sync::lock::Lock;
use crate::sync::spin::Spin;
use crate::sys::cpu;
use crate::sys::process::Identity;

#[derive(Clone, Copy, Debug)]
pub struct RLock<'a> {
    lock: Lock<'a>,
    depth: &'a AtomicU32,
    releases: &'a AtomicU64,
}

impl<'a> RLock<'a> {
    #[inline]
    #[must_use]
    pub fn new(word: &'a AtomicU64, depth: &'a AtomicU32, releases: &'a AtomicU64) -> Self {
        Self { lock: Lock::new(word), depth, releases }
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
            self.taken();
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
            self.taken();
        }
        acquired
    }

    /// The lock is this thread's now, and was not before.
    #[inline]
    fn taken(self) {
        // Before anything that it protects is written: see the module header.
        cpu::fence_after_update();
        self.depth.store(1, Ordering::Relaxed);
    }

    /// Lets go altogether.
    #[inline]
    fn free(self) -> bool {
        // Nobody else counts meanwhile.
        self.releases.store(self.releases.load(Ordering::Relaxed).wrapping_add(1), Ordering::Release);
        self.lock.release()
    }

    /// What `look` finds, as if it was called with the lock held; `None` when that cannot be told without taking it.
    ///
    /// `look` is one atomic load of what the lock protects.
    #[inline]
    pub fn read<T>(self, me: impl FnOnce() -> Identity, look: impl FnOnce() -> T) -> Option<T> {
        if let Some(holder) = self.lock.holder() {
            return (holder == me()).then(look);
        }
        cpu::fence();
        let releases = self.releases.load(Ordering::Acquire);
        let found = look();
        fence(Ordering::Acquire);
        let same = self.lock.is_free() && self.releases.load(Ordering::Relaxed) == releases;
        same.then_some(found)
    }

    /// Lets go once. `false` when `me` does not hold it.
    #[inline]
    #[must_use]
    pub fn release(self, me: Identity) -> bool {
        if !self.is_held_by(me) {
            return false;
        }
        match self.depth.load(Ordering::Relaxed) {
            0 | 1 => self.free(),
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
            let _ = self.free();
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
            self.taken();
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
