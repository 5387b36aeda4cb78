//! Deadlines on the monotonic clock.
//!
//! Every blocking call takes one: a relative timeout would start anew each time a signal cuts a wait short.

use core::time::Duration;

use rustix::time::{ClockId, Timespec, clock_gettime};

const NANOS_PER_SECOND: u64 = 1_000_000_000;

/// An instant on `CLOCK_MONOTONIC` (nanoseconds), or never.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Deadline(u64);

/// Nanoseconds on `CLOCK_MONOTONIC`.
#[must_use]
pub fn now() -> u64 {
    let time = clock_gettime(ClockId::Monotonic);
    // The monotonic clock counts from boot and is never negative.
    time.tv_sec.unsigned_abs() * NANOS_PER_SECOND + time.tv_nsec.unsigned_abs()
}

/// As `now`, to a few milliseconds, and cheaper.
#[must_use]
pub fn coarse() -> u64 {
    let time = clock_gettime(ClockId::MonotonicCoarse);
    time.tv_sec.unsigned_abs() * NANOS_PER_SECOND + time.tv_nsec.unsigned_abs()
}

impl Deadline {
    /// Waits for ever.
    pub const NEVER: Self = Self(u64::MAX);
    /// Has always passed: a call that takes it never sleeps.
    pub const PASSED: Self = Self(0);

    /// The instant `timeout` from now; saturates to `NEVER`.
    #[must_use]
    pub fn after(timeout: Duration) -> Self {
        let nanos = u64::try_from(timeout.as_nanos()).unwrap_or(u64::MAX);
        Self(now().saturating_add(nanos))
    }

    /// From a timeout in seconds as Python gives it: `None` is never, zero or less has passed. Saturates.
    #[must_use]
    pub fn from_seconds(timeout: Option<f64>) -> Self {
        match timeout {
            None => Self::NEVER,
            Some(seconds) if seconds > 0.0 => Duration::try_from_secs_f64(seconds).map_or(Self::NEVER, Self::after),
            Some(_) => Self::PASSED,
        }
    }

    /// The earlier of this deadline and `slice` from now.
    #[must_use]
    pub fn capped(self, slice: Duration) -> Self {
        self.min(Self::after(slice))
    }

    #[must_use]
    pub fn is_never(self) -> bool {
        self == Self::NEVER
    }

    #[must_use]
    pub fn has_passed(self) -> bool {
        self == Self::PASSED || (!self.is_never() && self.0 <= now())
    }

    /// Time left; `None` for never, zero once passed.
    #[must_use]
    pub fn remaining(self) -> Option<Duration> {
        (!self.is_never()).then(|| Duration::from_nanos(self.0.saturating_sub(now())))
    }

    /// As the absolute `timespec` of `FUTEX_WAIT_BITSET`; `None` for never.
    #[must_use]
    pub fn to_timespec(self) -> Option<Timespec> {
        (!self.is_never()).then(|| Timespec {
            tv_sec: (self.0 / NANOS_PER_SECOND).cast_signed(),
            tv_nsec: (self.0 % NANOS_PER_SECOND).cast_signed(),
        })
    }
}
