//! A lock: one word that names its holder.
//!
//! | word              | who changes it                                    | what is left if that process dies there       |
//! |-------------------|---------------------------------------------------|-----------------------------------------------|
//! | 0, free           | anyone, to itself as holder                       | a free lock                                   |
//! | holder            | anyone: `release`, to 0 (Release); a waiter, to   | a lock held by a dead process, which stays so |
//! |                   | holder + `WAITERS`, before it sleeps              | until someone releases or inherits it         |
//! | holder, `WAITERS` | anyone: `release`, to 0, and then wakes one       | before the wake: sleepers look again at the   |
//! |                   |                                                   | end of their slice                            |
//!
//! Whoever has slept takes the lock with `WAITERS`, because more may sleep; at worst that costs one wake for nobody.
//! Taking is an Acquire that pairs with the Release of letting go.

use core::time::Duration;

use crate::atomic::{AtomicU64, Ordering};
use crate::clock::Deadline;
use crate::error::{Error, Kind, Result};
use crate::sync::spin::Spin;
use crate::sys::futex::{self, Woken};
use crate::sys::process::Identity;

const WAITERS: u64 = 1 << 31;

/// How often those who wait for a robust lock look whether its holder lives.
const LOOK: Duration = Duration::from_millis(50);

#[derive(Clone, Copy, Debug)]
pub struct Lock<'a>(&'a AtomicU64);

impl<'a> Lock<'a> {
    #[inline]
    #[must_use]
    pub fn new(word: &'a AtomicU64) -> Self {
        Self(word)
    }

    /// Takes the lock if it is free.
    #[inline]
    #[must_use]
    pub fn try_acquire(self, me: Identity) -> bool {
        self.0.compare_exchange(0, me.to_word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// Takes the lock, waiting to `until` at most. May return early, empty-handed.
    #[must_use]
    pub fn acquire(self, me: Identity, spin: &Spin, until: Deadline) -> bool {
        if spin.until(until, || self.try_acquire(me).then_some(())).is_some() {
            return true;
        }
        let mut mine = me.to_word();
        loop {
            let word = self.0.load(Ordering::Relaxed);
            if word == 0 {
                if self.0.compare_exchange(0, mine, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                    return true;
                }
                continue;
            }
            let waited = word | WAITERS;
            if word != waited && self.0.compare_exchange(word, waited, Ordering::Relaxed, Ordering::Relaxed).is_err() {
                continue;
            }
            let woken = futex::wait_low(self.0, waited, until);
            mine |= WAITERS;
            if woken != Woken::Changed {
                return self.0.compare_exchange(0, mine, Ordering::Acquire, Ordering::Relaxed).is_ok();
            }
        }
    }

    /// Lets go, whoever holds it. `false` when nobody did.
    #[inline]
    #[must_use]
    pub fn release(self) -> bool {
        let word = self.0.swap(0, Ordering::Release);
        if word & WAITERS != 0 {
            futex::wake_low(self.0, 1);
        }
        word != 0
    }

    /// Takes the lock over from a holder whose process is dead; returns it.
    #[must_use]
    pub fn inherit(self, me: Identity) -> Option<Identity> {
        let word = self.0.load(Ordering::Relaxed);
        let dead = Identity::from_word(word).filter(|holder| !holder.is_alive())?;
        let mine = me.to_word() | (word & WAITERS);
        let inherited = self.0.compare_exchange(word, mine, Ordering::Acquire, Ordering::Relaxed).is_ok();
        inherited.then_some(dead)
    }

    /// As `acquire`, and as `inherit` when that comes to nothing: then it fails with `OwnerDied`, and the lock is held.
    pub fn acquire_robust(self, me: Identity, spin: &Spin, until: Deadline) -> Result<bool> {
        // The dead wake nobody, so those who wait look more often than others.
        if self.try_acquire(me) {
            return Ok(true);
        }
        let inherit = || match self.inherit(me) {
            Some(dead) => Err(Error::new("acquire a lock", Kind::OwnerDied { pid: dead.pid() })),
            None => Ok(false),
        };
        inherit()?;
        if self.acquire(me, spin, until.capped(LOOK)) { Ok(true) } else { inherit() }
    }

    /// Whether nobody holds it; then what the last holder did is seen.
    #[inline]
    #[must_use]
    pub fn is_free(self) -> bool {
        self.0.load(Ordering::Acquire) == 0
    }

    #[inline]
    #[must_use]
    pub fn holder(self) -> Option<Identity> {
        Identity::from_word(self.0.load(Ordering::Relaxed))
    }
}
