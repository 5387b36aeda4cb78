//! `RLock`: the thread that holds it may take it again, and only it lets go.

use pyo3::exceptions::PyAssertionError;
use pyo3::prelude::*;
use rsmp_core::Deadline;
use rsmp_core::shm::arena::Cell;
use rsmp_core::shm::waits::{self, Kind};
use rsmp_core::sync::rlock;
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

use super::fast::{Held, Usual};
use super::held::{Primitive, is_robust, methods, mutex_methods};
use super::{Block, KIND_RECURSIVE, Place};

#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
#[derive(Default)]
pub(crate) struct RLock {
    place: Place,
    spin: Spin,
}

/// In the cell, after what locks have in common.
const RELEASES_AT: usize = 32;

/// The lock in a cell.
#[inline]
fn over(cell: &Cell) -> rlock::RLock<'_> {
    rlock::RLock::new(cell.word64(0), cell.word32(8), cell.word64(RELEASES_AT))
}

impl RLock {
    #[inline]
    pub(super) fn lock(&self) -> PyResult<rlock::RLock<'_>> {
        self.place.get().map(over)
    }

    /// As `rlock::RLock::read`.
    #[inline]
    pub(crate) fn read<T>(&self, look: impl FnOnce() -> T) -> Option<T> {
        over(self.place.cell()?).read(Identity::current, look)
    }

    /// Whether the calling thread has it.
    #[inline]
    pub(crate) fn is_held(&self) -> bool {
        self.place.cell().is_some_and(|cell| over(cell).is_held_by(Identity::current()))
    }
}

impl Held for RLock {
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
        self.place.cell().is_some_and(|cell| over(cell).release(Identity::current()))
    }
}

impl Primitive for RLock {
    const KIND: Kind = Kind::RLock;

    fn place(&self) -> &Place {
        &self.place
    }

    fn is_mine(&self) -> PyResult<bool> {
        self.lock()?;
        Ok(self.is_held())
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
        PyAssertionError::new_err("attempt to release recursive lock not owned by thread")
    }
}

mutex_methods!(RLock, KIND_RECURSIVE, {
    /// How often this process holds it, in whatever thread.
    fn _count(&self) -> PyResult<u32> {
        let (lock, me) = (self.lock()?, Identity::current());
        let holder = lock.holder().filter(|holder| holder.is_same_process(me));
        Ok(holder.map_or(0, |holder| lock.depth(holder)))
    }
});
