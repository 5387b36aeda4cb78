//! How many CPUs this process may use at once, and fences that cost less than the portable ones.
//!
//! # Safety
//! The one instruction written out leaves every byte and every register as it was.
#![allow(unsafe_code)]

use std::thread;

use crate::atomic::{self, AtomicU64, Ordering};

/// The affinity mask and the control group's quota may change while the program runs.
const FRESH_FOR: u64 = 1_000_000_000;

/// CPUs allowed by the affinity mask and the control groups' quotas, looked up once a second at most; `now` is the time.
#[must_use]
pub fn available(now: u64) -> u32 {
    /// The count in the low 16 bits, above them the time of the look.
    static KNOWN: AtomicU64 = AtomicU64::new(0);
    let known = KNOWN.load(Ordering::Relaxed);
    if known != 0 && now.saturating_sub(known >> 16 << 16) < FRESH_FOR {
        return (known & 0xffff) as u32;
    }
    // The standard library's count takes the mask and the quotas of both versions of control groups into account.
    let count = thread::available_parallelism().map_or(1, |count| count.get().min(0xffff)) as u32;
    KNOWN.store((now >> 16 << 16) | u64::from(count), Ordering::Relaxed);
    count
}

/// `fence(SeqCst)`.
#[inline]
pub fn fence() {
    // A locked instruction is a full fence too, and takes half the time of the `mfence` that the portable one becomes.
    #[cfg(target_arch = "x86_64")]
    // SAFETY: adds no bit to a word of this thread's own stack, below what is in use. The compiler moves no access to
    // memory across it, as it is not told otherwise.
    unsafe {
        core::arch::asm!("lock or dword ptr [rsp - 8], 0");
    }
    #[cfg(not(target_arch = "x86_64"))]
    atomic::fence(Ordering::SeqCst);
}

/// `fence(SeqCst)` for what this thread did before its last read-modify-write, and for that, against what comes now.
#[inline]
pub fn fence_after_update() {
    // That was a locked instruction: see `fence`.
    #[cfg(target_arch = "x86_64")]
    atomic::compiler_fence(Ordering::SeqCst);
    #[cfg(not(target_arch = "x86_64"))]
    atomic::fence(Ordering::SeqCst);
}

/// Lets others run on this CPU, if any want to.
pub fn give_way() {
    thread::yield_now();
}
