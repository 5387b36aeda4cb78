//! `futex(2)` on words shared between processes.
//!
//! `FUTEX_PRIVATE_FLAG` is never set: a private futex is keyed by address space, and a wake in one process would not
//! be seen in another.
//!
//! # Safety
//! Half of a 64-bit atomic is used as a futex word. Only its address goes to the kernel, and only loads through it are
//! made in the kernel; this program changes the whole word.
#![allow(unsafe_code)]

use rustix::io::Errno;
use rustix::thread::futex::{self, Flags};

use crate::atomic::{AtomicU32, AtomicU64};
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

/// The half of `word` that holds its low bits.
fn low_half(word: &AtomicU64) -> &AtomicU32 {
    let half = usize::from(cfg!(target_endian = "big"));
    // SAFETY: in bounds of the word, aligned, and alive as long as it. See the module header for the mixed sizes.
    unsafe { AtomicU32::from_ptr(word.as_ptr().cast::<u32>().add(half)) }
}

/// Sleeps while the low half of `word` is that of `expected`; otherwise as `wait`.
pub fn wait_low(word: &AtomicU64, expected: u64, deadline: Deadline) -> Woken {
    wait(low_half(word), expected as u32, deadline)
}

/// Wakes up to `count` waiters of the low half of `word`; returns how many there were.
pub fn wake_low(word: &AtomicU64, count: u32) -> usize {
    wake(low_half(word), count)
}
