//! An event: one word. Setting it waits for nobody.
//!
//! | bits  | content                                                                                       |
//! |-------|-----------------------------------------------------------------------------------------------|
//! | 0     | `SET`                                                                                         |
//! | 1     | `WAITERS`: somebody may sleep                                                                 |
//! | 2..32 | how often it has been set: whoever was waiting then is let through, cleared again or not      |
//!
//! | word             | who changes it                                   | what is left if that process dies there         |
//! |------------------|--------------------------------------------------|-------------------------------------------------|
//! | n                | `set`, to n + 1, `SET` (Release); a waiter, to   | a whole state: every change is one step         |
//! |                  | n, `WAITERS`                                     |                                                 |
//! | n, `WAITERS`     | `set`, to n + 1, `SET`, and then wakes all       | before the wake: sleepers look again at the end |
//! |                  |                                                  | of their slice                                  |
//! | n, `SET`         | `clear`, to n                                    | a whole state                                   |

use crate::atomic::{AtomicU32, Ordering};
use crate::clock::Deadline;
use crate::sync::spin::Spin;
use crate::sys::futex::{self, Woken};

const SET: u32 = 1;
const WAITERS: u32 = 2;
const ONCE: u32 = 4;

#[derive(Clone, Copy, Debug)]
pub struct Event<'a>(&'a AtomicU32);

/// How often the event had been set when a wait began.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count(u32);

impl<'a> Event<'a> {
    #[inline]
    #[must_use]
    pub fn new(word: &'a AtomicU32) -> Self {
        Self(word)
    }

    #[inline]
    #[must_use]
    pub fn is_set(self) -> bool {
        self.0.load(Ordering::Acquire) & SET != 0
    }

    #[inline]
    pub fn set(self) {
        let change = |word: u32| (word & SET == 0).then_some((word & !WAITERS).wrapping_add(ONCE) | SET);
        let changed = self.0.fetch_update(Ordering::AcqRel, Ordering::Relaxed, change);
        if changed.is_ok_and(|word| word & WAITERS != 0) {
            futex::wake_all(self.0);
        }
    }

    #[inline]
    pub fn clear(self) {
        self.0.fetch_and(!SET, Ordering::Relaxed);
    }

    /// To be taken when a wait begins.
    #[inline]
    #[must_use]
    pub fn count(self) -> Count {
        Count(self.0.load(Ordering::Relaxed) & !(SET | WAITERS))
    }

    fn passed(self, since: Count) -> Option<()> {
        let word = self.0.load(Ordering::Acquire);
        (word & SET != 0 || word & !(SET | WAITERS) != since.0).then_some(())
    }

    /// Waits until it is set, or has been set since `since`, to `until` at most. May return early, with `false`.
    #[must_use]
    pub fn wait(self, since: Count, spin: &Spin, until: Deadline) -> bool {
        if spin.until(until, || self.passed(since)).is_some() {
            return true;
        }
        loop {
            if self.passed(since).is_some() {
                return true;
            }
            let found = self.0.compare_exchange(since.0, since.0 | WAITERS, Ordering::Relaxed, Ordering::Relaxed);
            if found.is_err_and(|word| word != since.0 | WAITERS) {
                continue;
            }
            if futex::wait(self.0, since.0 | WAITERS, until) != Woken::Changed {
                return self.passed(since).is_some();
            }
        }
    }
}
