//! `Lock`: any process and thread may release it.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Deadline;
use rsmp_core::atomic::Ordering;
use rsmp_core::shm::arena::{self, LINE};
use rsmp_core::sync::lock;
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

use super::fast::Held;
use super::{Block, KIND_SEMAPHORE, Place, TOO_MANY, deadline};
use crate::error::Failure;
use crate::{arena as pickles, block};

/// In the cell, never changed: whether the death of a holder is told to the next one.
const ROBUST_AT: usize = 16;

#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
pub(crate) struct Lock {
    place: Place,
    spin: Spin,
}

impl Lock {
    #[inline]
    fn lock(&self) -> PyResult<lock::Lock<'_>> {
        Ok(lock::Lock::new(self.place.get()?.word64(0)))
    }

    fn is_robust(&self) -> PyResult<bool> {
        Ok(self.place.get()?.word32(ROBUST_AT).load(Ordering::Relaxed) != 0)
    }

    #[cold]
    fn wait(&self, py: Python<'_>, deadline: Deadline) -> PyResult<bool> {
        let (lock, me) = (self.lock()?, Identity::current());
        let robust = self.is_robust()?;
        let acquired = block::until(py, deadline, |until| {
            let acquired =
                if robust { lock.acquire_robust(me, &self.spin, until)? } else { lock.acquire(me, &self.spin, until) };
            Ok(acquired.then_some(()))
        })?;
        Ok(acquired.is_some())
    }

    #[inline]
    pub(crate) fn acquire_by(&self, py: Python<'_>, deadline: Option<Deadline>) -> PyResult<bool> {
        if self.lock()?.try_acquire(Identity::current()) {
            return Ok(true);
        }
        match deadline {
            Some(deadline) => self.wait(py, deadline),
            // One that a dead process holds is as good as free.
            None if self.is_robust()? => self.wait(py, Deadline::PASSED),
            None => Ok(false),
        }
    }

    pub(super) fn is_mine(&self) -> PyResult<bool> {
        Ok(self.lock()?.holder() == Some(Identity::current()))
    }

    #[inline]
    pub(crate) fn let_go(&self) -> PyResult<()> {
        if self.lock()?.release() { Ok(()) } else { Err(PyValueError::new_err(TOO_MANY)) }
    }
}

impl Held for Lock {
    #[inline]
    fn take(&self) -> bool {
        self.lock().is_ok_and(|lock| lock.try_acquire(Identity::current()))
    }

    #[inline]
    fn give(&self) -> bool {
        self.lock().is_ok_and(lock::Lock::release)
    }
}

#[pymethods]
impl Lock {
    #[classattr]
    #[pyo3(name = "kind")]
    const KIND: u8 = KIND_SEMAPHORE;
    #[classattr]
    #[pyo3(name = "maxvalue")]
    const MAXIMUM: u32 = 1;
    #[classattr]
    #[pyo3(name = "name")]
    const NAME: Option<&'static str> = None;

    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { place: Place::default(), spin: Spin::new() }
    }

    /// Gives the lock its memory, free.
    fn _open(&self, robust: bool) -> PyResult<()> {
        let cell = arena::allocate(LINE).map_err(Failure::from)?;
        cell.word32(ROBUST_AT).store(u32::from(robust), Ordering::Relaxed);
        self.place.set(cell)
    }

    fn _share<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        pickles::share(slf.as_any(), slf.get().place.get()?)
    }

    fn _restore(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        self.place.set(pickles::restore(state)?)
    }

    #[getter(_semlock)]
    fn semlock(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[getter]
    fn handle(&self) -> PyResult<usize> {
        Ok(self.place.get()?.address().addr().get())
    }

    /// What `fast` leaves.
    #[pyo3(signature = (block=Block::Default, timeout=None))]
    fn acquire(&self, py: Python<'_>, block: Block<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        self.acquire_by(py, deadline(block, timeout)?)
    }

    /// What `fast` leaves. The body of the `with` does not run when this raises, so it leaves the lock free.
    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        let acquired = self.acquire_by(py, Some(Deadline::NEVER));
        if acquired.is_err() && self.is_mine()? {
            self.let_go()?;
        }
        acquired
    }

    /// What `fast` leaves: it tells what is wrong.
    fn release(&self) -> PyResult<()> {
        self.let_go()
    }

    /// Return whether somebody holds the lock.
    fn locked(&self) -> PyResult<bool> {
        Ok(self.lock()?.holder().is_some())
    }

    fn _is_zero(&self) -> PyResult<bool> {
        self.locked()
    }

    fn _get_value(&self) -> PyResult<u32> {
        Ok(u32::from(!self.locked()?))
    }

    /// How often this process holds it, in whatever thread.
    fn _count(&self) -> PyResult<u32> {
        let me = Identity::current();
        Ok(u32::from(self.lock()?.holder().is_some_and(|holder| holder.is_same_process(me))))
    }

    fn _is_mine(&self) -> PyResult<bool> {
        self.is_mine()
    }

    #[allow(clippy::unused_self)] // a method in Python
    fn _after_fork(&self) {}
}
