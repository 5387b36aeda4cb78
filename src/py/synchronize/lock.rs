//! `Lock`: any process and thread may release it.

use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use rsmp_core::Deadline;
use rsmp_core::shm::arena::Cell;
use rsmp_core::shm::waits::{self, Kind};
use rsmp_core::sync::lock;
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

use super::fast::{Held, Usual};
use super::held::{Primitive, is_robust, methods, mutex_methods};
use super::{Block, KIND_SEMAPHORE, Place, TOO_MANY};

#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
#[derive(Default)]
pub(crate) struct Lock {
    place: Place,
    spin: Spin,
}

/// The lock in a cell.
#[inline]
fn over(cell: &Cell) -> lock::Lock<'_> {
    lock::Lock::new(cell.word64(0))
}

impl Lock {
    #[inline]
    fn lock(&self) -> PyResult<lock::Lock<'_>> {
        self.place.get().map(over)
    }
}

impl Held for Lock {
    fn usual() -> &'static Usual {
        static USUAL: Usual = Usual::new();
        &USUAL
    }

    #[inline]
    fn take(&self) -> bool {
        self.place.cell().is_some_and(|cell| over(cell).try_acquire(Identity::current()))
    }

    #[inline]
    fn give(&self) -> bool {
        self.place.cell().is_some_and(|cell| over(cell).release())
    }
}

impl Primitive for Lock {
    const KIND: Kind = Kind::Lock;

    fn place(&self) -> &Place {
        &self.place
    }

    fn is_mine(&self) -> PyResult<bool> {
        Ok(self.lock()?.holder() == Some(Identity::current()))
    }

    fn is_robust(cell: &Cell) -> bool {
        is_robust(cell)
    }

    fn wait(&self, cell: &Cell, me: Identity, until: Deadline) -> rsmp_core::Result<bool> {
        let lock = over(cell);
        waits::found(lock.holder());
        if is_robust(cell) {
            lock.acquire_robust(me, &self.spin, until)
        } else {
            Ok(lock.acquire(me, &self.spin, until))
        }
    }

    fn not_held() -> PyErr {
        PyValueError::new_err(TOO_MANY)
    }
}

mutex_methods!(Lock, KIND_SEMAPHORE, {
    /// How often this process holds it, in whatever thread.
    fn _count(&self) -> PyResult<u32> {
        let me = Identity::current();
        Ok(u32::from(self.lock()?.holder().is_some_and(|holder| holder.is_same_process(me))))
    }
});
