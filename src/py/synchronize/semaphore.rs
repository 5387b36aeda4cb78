//! `Semaphore` and `BoundedSemaphore`, which differ in their maximum.

use core::num::NonZeroU64;
use core::sync::atomic::{AtomicI64, Ordering};

use pyo3::exceptions::{PyOSError, PyOverflowError, PyValueError};
use pyo3::prelude::*;
use rsmp_core::Deadline;
use rsmp_core::atomic::AtomicU64;
use rsmp_core::shm::arena::{Cell, LINE};
use rsmp_core::shm::waits::Kind;
use rsmp_core::sync::semaphore::{self, MAXIMUM};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

use super::fast::{Held, Usual};
use super::held::{Primitive, methods};
use super::{Block, KIND_SEMAPHORE, Place, TOO_MANY};

#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
#[derive(Default)]
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

/// The semaphore in a cell.
#[inline]
fn over(cell: &Cell) -> semaphore::Semaphore<'_> {
    semaphore::Semaphore::new(cell.word32(VALUE_AT))
}

impl Semaphore {
    #[inline]
    fn semaphore(&self) -> PyResult<semaphore::Semaphore<'_>> {
        self.place.get().map(over)
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
}

impl Held for Semaphore {
    fn usual() -> &'static Usual {
        static USUAL: Usual = Usual::new();
        &USUAL
    }

    #[inline]
    fn take(&self) -> bool {
        let taken = self.place.cell().is_some_and(|cell| over(cell).try_acquire());
        if taken {
            self.note(1);
        }
        taken
    }

    #[inline]
    fn give(&self) -> bool {
        let given = self.place.cell().is_some_and(|cell| {
            let maximum = cell.word32(MAXIMUM_AT).load(Ordering::Relaxed);
            over(cell).release(maximum)
        });
        if given {
            self.note(-1);
        }
        given
    }
}

impl Primitive for Semaphore {
    const KIND: Kind = Kind::Semaphore;

    fn place(&self) -> &Place {
        &self.place
    }

    fn is_mine(&self) -> PyResult<bool> {
        let me = Identity::current();
        Ok(self.count_here(me) > 0 && self.last.load(Ordering::Relaxed) == me.to_word())
    }

    fn wait(&self, cell: &Cell, _me: Identity, until: Deadline) -> rsmp_core::Result<bool> {
        let taken = semaphore::Semaphore::new(cell.word32(VALUE_AT)).acquire(&self.spin, until);
        if taken {
            self.note(1);
        }
        Ok(taken)
    }

    fn not_held() -> PyErr {
        PyValueError::new_err(TOO_MANY)
    }
}

methods!(Semaphore, KIND_SEMAPHORE, {
    /// Gives the semaphore its memory and `value`, which is its maximum, too, when it is `bounded`.
    fn _open(&self, value: &Bound<'_, PyAny>, bounded: bool) -> PyResult<()> {
        let value = u32::try_from(int(value)?)
            // What `sem_open(3)` says to a value it cannot hold.
            .map_err(|_| PyOSError::new_err((libc::EINVAL, "Invalid argument")))?;
        self.place.open(Kind::Semaphore, LINE, |cell| {
            cell.word32(MAXIMUM_AT).store(if bounded { value } else { MAXIMUM }, Ordering::Relaxed);
            semaphore::Semaphore::new(cell.word32(VALUE_AT)).initialise(value);
        })
    }

    #[getter]
    fn maxvalue(&self) -> PyResult<u32> {
        Ok(self.place.get()?.word32(MAXIMUM_AT).load(Ordering::Relaxed))
    }

    /// Return the current value.
    fn get_value(&self) -> PyResult<u32> {
        Ok(self.semaphore()?.value())
    }

    /// Return whether the value is zero.
    fn locked(&self) -> PyResult<bool> {
        Ok(self.get_value()? == 0)
    }

    fn _get_value(&self) -> PyResult<u32> {
        self.get_value()
    }

    fn _count(&self) -> i64 {
        self.count_here(Identity::current())
    }
});
