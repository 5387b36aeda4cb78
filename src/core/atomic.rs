//! The atomics every other module names, so that a loom build can replace them in one place.

#[cfg(not(rsmp_loom))]
#[allow(clippy::disallowed_types)]
pub use core::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, compiler_fence, fence,
};

#[cfg(rsmp_loom)]
pub use loom::sync::atomic::{
    AtomicBool, AtomicPtr, AtomicU8, AtomicU16, AtomicU32, AtomicU64, AtomicUsize, Ordering, fence,
};

/// Stands between a `SeqCst` write and a `SeqCst` read of another word, which nobody sees the other way round: the language
/// says so already, loom has to be told by a fence.
#[inline(always)]
#[allow(clippy::inline_always)] // it is nothing
pub fn in_order() {
    #[cfg(rsmp_loom)]
    fence(Ordering::SeqCst);
}
