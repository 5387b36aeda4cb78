//! The one place that blocks: detach from the interpreter, wait in slices, run signal handlers between them.
//!
//! A slice bounds two things: how late a Python signal handler runs when the kernel restarts the wait by itself, and
//! how long a waiter sleeps on after a process died between changing a shared word and waking those who wait for it.

use core::time::Duration;

use pyo3::prelude::*;
use rsmp_core::Deadline;

use crate::error::Failure;

const SLICE: Duration = Duration::from_millis(500);

/// Runs `step` detached until it gives a value or `deadline` passes (`None`).
///
/// `step(until)` waits at most to `until` and returns `None` when it has nothing yet: it timed out, was interrupted by a
/// signal, or woke for nothing. It is tried once more after the deadline, so a deadline in the past polls.
pub(crate) fn until<T, F>(py: Python<'_>, deadline: Deadline, mut step: F) -> PyResult<Option<T>>
where
    T: Send,
    F: FnMut(Deadline) -> rsmp_core::Result<Option<T>> + Send,
{
    loop {
        let last = deadline.has_passed();
        let outcome = py.detach(|| step(deadline.capped(SLICE))).map_err(Failure::from)?;
        if outcome.is_some() {
            return Ok(outcome);
        }
        py.check_signals()?;
        if last {
            return Ok(None);
        }
    }
}

/// As `until`, in one wait: for a `step` that a signal ends by itself, such as a read, a write or a poll of a descriptor.
pub(crate) fn system_call<T, F>(py: Python<'_>, deadline: Deadline, mut step: F) -> PyResult<Option<T>>
where
    T: Send,
    F: FnMut(Deadline) -> rsmp_core::Result<Option<T>> + Send,
{
    loop {
        let last = deadline.has_passed();
        let outcome = py.detach(|| step(deadline)).map_err(Failure::from)?;
        if outcome.is_some() {
            return Ok(outcome);
        }
        py.check_signals()?;
        if last {
            return Ok(None);
        }
    }
}

/// Lets other threads run during `work`, which takes long but waits for nothing, such as a large copy.
pub(crate) fn aside<T: Send>(py: Python<'_>, work: impl FnOnce() -> T + Send) -> T {
    py.detach(work)
}
