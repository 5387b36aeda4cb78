//! `futex(2)` on words shared between processes.
//!
//! `FUTEX_PRIVATE_FLAG` is never set: a private futex is keyed by address space, and a wake in one process would not
//! be seen in another.

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};

use crate::atomic::AtomicU32;
use crate::clock::Deadline;

/// Why a wait returned. None of them says that the awaited condition holds: look at the word.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Woken {
    /// Woken, or the word no longer held the expected value.
    Changed,
    /// The deadline passed.
    TimedOut,
    /// A signal handler ran.
    Interrupted,
}

/// Sleeps while `word` holds `expected`, until woken, interrupted or past `deadline`.
///
/// Give a deadline even when the caller would wait for ever: with none, the kernel restarts the wait after a signal
/// whose handler has `SA_RESTART`, and a Python signal handler would wait as long as the lock.
pub fn wait(word: &AtomicU32, expected: u32, deadline: Deadline) -> Woken {
    let until = deadline.to_timespec();
    match futex::wait_bitset(word, Flags::empty(), expected, until.as_ref(), core::num::NonZeroU32::MAX) {
        Ok(()) | Err(Errno::AGAIN) => Woken::Changed,
        Err(Errno::TIMEDOUT) => Woken::TimedOut,
        // EINTR; anything else would be a bug in the arguments, and looking again is the safe answer.
        Err(_) => Woken::Interrupted,
    }
}

/// Wakes up to `count` waiters of `word`; returns how many there were.
pub fn wake(word: &AtomicU32, count: u32) -> usize {
    futex::wake(word, Flags::empty(), count).unwrap_or(0)
}

/// Wakes every waiter of `word`.
pub fn wake_all(word: &AtomicU32) -> usize {
    wake(word, i32::MAX.unsigned_abs())
}
