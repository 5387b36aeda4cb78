//! `Semaphore` and `BoundedSemaphore`, which differ in their maximum.

use core::num::NonZeroU64;
use core::sync::atomic::{AtomicI64, Ordering};

use pyo3::exceptions::{PyOSError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Deadline;
use rsmp_core::atomic::AtomicU64;
use rsmp_core::shm::arena::{self, LINE};
use rsmp_core::sync::semaphore::{self, MAXIMUM};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

use super::fast::Held;
use super::{Block, KIND_SEMAPHORE, Place, TOO_MANY, deadline};
use crate::error::Failure;
use crate::{arena as pickles, block};

#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
pub(crate) struct Semaphore {
    place: Place,
    spin: Spin,
    /// Who took or gave last in this process: after a fork it names the parent, and the count is void.
    last: AtomicU64,
    /// Units taken minus units given, in this process.
    count: AtomicI64,
}

/// In the cell: the value, and the maximum, which never changes.
const VALUE_AT: usize = 0;
const MAXIMUM_AT: usize = 4;

/// A C int, with the standard complaint when it is too large.
fn int(value: &Bound<'_, PyAny>) -> PyResult<i32> {
    value.extract::<i32>().map_err(|error| {
        if error.is_instance_of::<PyOverflowError>(value.py()) {
            PyOverflowError::new_err("Python int too large to convert to C int")
        } else {
            error
        }
    })
}

impl Semaphore {
    #[inline]
    fn semaphore(&self) -> PyResult<semaphore::Semaphore<'_>> {
        Ok(semaphore::Semaphore::new(self.place.get()?.word32(VALUE_AT)))
    }

    #[inline]
    fn maximum(&self) -> PyResult<u32> {
        Ok(self.place.get()?.word32(MAXIMUM_AT).load(Ordering::Relaxed))
    }

    #[inline]
    fn count_here(&self, me: Identity) -> i64 {
        let last = NonZeroU64::new(self.last.load(Ordering::Relaxed)).and_then(|word| Identity::from_word(word.get()));
        if last.is_some_and(|last| last.is_same_process(me)) { self.count.load(Ordering::Relaxed) } else { 0 }
    }

    #[inline]
    fn note(&self, change: i64) {
        let me = Identity::current();
        self.count.store(self.count_here(me) + change, Ordering::Relaxed);
        self.last.store(me.to_word(), Ordering::Relaxed);
    }

    #[cold]
    fn wait(&self, py: Python<'_>, deadline: Deadline) -> PyResult<bool> {
        let semaphore = self.semaphore()?;
        let acquired = block::until(py, deadline, |until| Ok(semaphore.acquire(&self.spin, until).then_some(())))?;
        Ok(acquired.is_some())
    }

    #[inline]
    fn acquire_by(&self, py: Python<'_>, deadline: Option<Deadline>) -> PyResult<bool> {
        let acquired = self.semaphore()?.try_acquire()
            || match deadline {
                Some(deadline) => self.wait(py, deadline)?,
                None => false,
            };
        if acquired {
            self.note(1);
        }
        Ok(acquired)
    }

    fn give_back(&self) -> PyResult<()> {
        self.place.get()?;
        if self.give() { Ok(()) } else { Err(PyValueError::new_err(TOO_MANY)) }
    }
}

impl Held for Semaphore {
    #[inline]
    fn take(&self) -> bool {
        let taken = self.semaphore().is_ok_and(semaphore::Semaphore::try_acquire);
        if taken {
            self.note(1);
        }
        taken
    }

    #[inline]
    fn give(&self) -> bool {
        let given = self.place.get().is_ok_and(|cell| {
            let maximum = cell.word32(MAXIMUM_AT).load(Ordering::Relaxed);
            semaphore::Semaphore::new(cell.word32(VALUE_AT)).release(maximum)
        });
        if given {
            self.note(-1);
        }
        given
    }
}

#[pymethods]
impl Semaphore {
    #[classattr]
    #[pyo3(name = "kind")]
    const KIND: u8 = KIND_SEMAPHORE;
    #[classattr]
    #[pyo3(name = "name")]
    const NAME: Option<&'static str> = None;

    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { place: Place::default(), spin: Spin::new(), last: AtomicU64::new(0), count: AtomicI64::new(0) }
    }

    /// Gives the semaphore its memory and `value`, which is its maximum, too, when it is `bounded`.
    fn _open(&self, value: &Bound<'_, PyAny>, bounded: bool) -> PyResult<()> {
        let value = u32::try_from(int(value)?)
            // What `sem_open(3)` says to a value it cannot hold.
            .map_err(|_| PyOSError::new_err((libc::EINVAL, "Invalid argument")))?;
        let cell = arena::allocate(LINE).map_err(Failure::from)?;
        cell.word32(MAXIMUM_AT).store(if bounded { value } else { MAXIMUM }, Ordering::Relaxed);
        semaphore::Semaphore::new(cell.word32(VALUE_AT)).initialise(value);
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

    #[getter]
    fn maxvalue(&self) -> PyResult<u32> {
        self.maximum()
    }

    /// What `fast` leaves.
    #[pyo3(signature = (block=Block::Default, timeout=None))]
    fn acquire(&self, py: Python<'_>, block: Block<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        self.acquire_by(py, deadline(block, timeout)?)
    }

    /// What `fast` leaves.
    fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
        self.acquire_by(py, Some(Deadline::NEVER))
    }

    /// What `fast` leaves: it tells what is wrong.
    fn release(&self) -> PyResult<()> {
        self.give_back()
    }

    /// Return the current value.
    fn get_value(&self) -> PyResult<u32> {
        Ok(self.semaphore()?.value())
    }

    /// Return whether the value is zero.
    fn locked(&self) -> PyResult<bool> {
        Ok(self.get_value()? == 0)
    }

    fn _is_zero(&self) -> PyResult<bool> {
        self.locked()
    }

    fn _get_value(&self) -> PyResult<u32> {
        self.get_value()
    }

    fn _count(&self) -> i64 {
        self.count_here(Identity::current())
    }

    fn _is_mine(&self) -> bool {
        let me = Identity::current();
        self.count_here(me) > 0 && self.last.load(Ordering::Relaxed) == me.to_word()
    }

    #[allow(clippy::unused_self)] // a method in Python
    fn _after_fork(&self) {}
}
