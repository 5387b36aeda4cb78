//! The one place that blocks: detach from the interpreter, wait in slices, run signal handlers between them.
//!
//! A slice bounds two things: how late a Python signal handler runs when the kernel restarts the wait by itself, and
//! how long a waiter sleeps on after a process died between changing a shared word and waking those who wait for it.

use core::time::Duration;

use pyo3::prelude::*;
use rsmp_core::Deadline;
use rsmp_core::shm::waits::{self, Kind, Wait, What};

use crate::error::Failure;

const SLICE: Duration = Duration::from_millis(500);

/// What those wait for who do not say it.
const SOMETHING: What = What::new(Kind::Other, 0, 0);

/// Writes down what the thread waits for, for whoever asks why the program hangs.
///
/// The first time that takes a while, and what signal comes meanwhile does not end the wait: its handlers run here.
#[inline]
fn announce(py: Python<'_>, what: What, deadline: Deadline) -> PyResult<Option<Wait>> {
    if deadline == Deadline::PASSED {
        return Ok(None);
    }
    let wait = waits::begin(what, !deadline.is_never());
    py.check_signals()?;
    Ok(Some(wait))
}

/// Runs `step` detached until it gives a value or `deadline` passes (`None`).
///
/// `step(until)` waits at most to `until` and returns `None` when it has nothing yet: it timed out, was interrupted by a
/// signal, or woke for nothing. It is tried once more after the deadline, so a deadline in the past polls.
pub(crate) fn until<T, F>(py: Python<'_>, deadline: Deadline, step: F) -> PyResult<Option<T>>
where
    T: Send,
    F: FnMut(Deadline) -> rsmp_core::Result<Option<T>> + Send,
{
    until_for(py, SOMETHING, deadline, step)
}

/// As `until`, saying what is waited for.
pub(crate) fn until_for<T, F>(py: Python<'_>, what: What, deadline: Deadline, mut step: F) -> PyResult<Option<T>>
where
    T: Send,
    F: FnMut(Deadline) -> rsmp_core::Result<Option<T>> + Send,
{
    let _wait = announce(py, what, deadline)?;
    repeat(py, deadline, || step(deadline.capped(SLICE)))
}

/// As `until`, for the fork server: it is no process of the program's, and what it forks is to write a page of its own.
pub(crate) fn serve<T, F>(py: Python<'_>, deadline: Deadline, mut step: F) -> PyResult<Option<T>>
where
    T: Send,
    F: FnMut(Deadline) -> rsmp_core::Result<Option<T>> + Send,
{
    repeat(py, deadline, || step(deadline.capped(SLICE)))
}

/// As `until`, in one wait: for a `step` that a signal ends by itself, such as a read, a write or a poll of a descriptor.
/// It says nothing of what it waits for; a `step` that knows when it does says it.
pub(crate) fn system_call<T, F>(py: Python<'_>, deadline: Deadline, mut step: F) -> PyResult<Option<T>>
where
    T: Send,
    F: FnMut(Deadline) -> rsmp_core::Result<Option<T>> + Send,
{
    repeat(py, deadline, || step(deadline))
}

/// As `system_call`, saying what is waited for.
pub(crate) fn system_call_for<T, F>(py: Python<'_>, what: What, deadline: Deadline, mut step: F) -> PyResult<Option<T>>
where
    T: Send,
    F: FnMut(Deadline) -> rsmp_core::Result<Option<T>> + Send,
{
    let _wait = announce(py, what, deadline)?;
    repeat(py, deadline, || step(deadline))
}

#[inline]
fn repeat<T: Send>(
    py: Python<'_>,
    deadline: Deadline,
    mut step: impl FnMut() -> rsmp_core::Result<Option<T>> + Send,
) -> PyResult<Option<T>> {
    loop {
        let last = deadline.has_passed();
        let outcome = py.detach(&mut step).map_err(Failure::from)?;
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
