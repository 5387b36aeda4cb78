//! What locks and semaphores have in common: taking one with or without waiting, giving it back, and the methods that say
//! so to Python.

use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rsmp_core::Deadline;
use rsmp_core::atomic::Ordering;
use rsmp_core::shm::arena::{Cell, LINE};
use rsmp_core::shm::waits::Kind;
use rsmp_core::sys::process::Identity;

use super::fast::Held;
use super::{Block, Place, deadline};
use crate::block;

/// Something to take, to wait for, and to give back.
pub(crate) trait Primitive: Held {
    /// What a wait for it is called.
    const KIND: Kind;

    fn place(&self) -> &Place;

    /// Whether the calling thread has it.
    fn is_mine(&self) -> PyResult<bool>;

    /// Whether the death of a holder is told to the next one.
    fn is_robust(_cell: &Cell) -> bool {
        false
    }

    /// Takes it, waiting to `until` at most. May return early, empty-handed.
    fn wait(&self, cell: &Cell, me: Identity, until: Deadline) -> rsmp_core::Result<bool>;

    /// What giving back fails with.
    fn not_held() -> PyErr;

    /// Takes it, waiting to `deadline` at most, if there is one.
    #[inline]
    fn acquire_by(&self, py: Python<'_>, deadline: Option<Deadline>) -> PyResult<bool> {
        if self.take() {
            return Ok(true);
        }
        self.wait_by(py, deadline)
    }

    #[cold]
    fn wait_by(&self, py: Python<'_>, deadline: Option<Deadline>) -> PyResult<bool> {
        let (cell, me) = (self.place().get()?, Identity::current());
        let deadline = match deadline {
            Some(deadline) => deadline,
            // One that a dead process holds is as good as free.
            None if Self::is_robust(cell) => Deadline::PASSED,
            None => return Ok(false),
        };
        let what = cell.waited_for(Self::KIND);
        let acquired = block::until_for(py, what, deadline, |until| Ok(self.wait(cell, me, until)?.then_some(())))?;
        Ok(acquired.is_some())
    }

    #[inline]
    fn let_go(&self) -> PyResult<()> {
        if self.give() {
            return Ok(());
        }
        self.place().get()?;
        Err(Self::not_held())
    }

    /// The start of a `with`. Its body does not run when this raises, so it leaves nothing taken.
    fn enter(&self, py: Python<'_>) -> PyResult<bool> {
        let acquired = self.acquire_by(py, Some(Deadline::NEVER));
        if acquired.is_err() && self.is_mine()? {
            self.let_go()?;
        }
        acquired
    }

    /// `acquire` with the arguments that Python gave.
    fn acquire_as(&self, py: Python<'_>, block: Block<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        self.acquire_by(py, deadline(block, timeout)?)
    }

    /// An address that tells the object from others in this process.
    fn address(&self) -> PyResult<usize> {
        Ok(self.place().get()?.address().addr().get())
    }

    /// Gives a lock its memory, free.
    fn open(&self, robust: bool) -> PyResult<()> {
        self.place().open(Self::KIND, LINE, |cell| cell.word32(ROBUST_AT).store(u32::from(robust), Ordering::Relaxed))
    }

    fn share<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        slf.get().place().share(slf.as_any())
    }
}

/// In the cell of a lock, recursive or not, never changed: whether the death of a holder is told to the next one.
const ROBUST_AT: usize = 16;

pub(super) fn is_robust(cell: &Cell) -> bool {
    cell.word32(ROBUST_AT).load(Ordering::Relaxed) != 0
}

/// The methods of `$class`, a `Primitive` of the standard `$kind`: those they all have, and its own.
macro_rules! methods {
    ($class:ident, $kind:expr, { $($own:tt)* }) => {
        #[pymethods]
        impl $class {
            #[classattr]
            #[pyo3(name = "kind")]
            const KIND: u8 = $kind;
            #[classattr]
            #[pyo3(name = "name")]
            const NAME: Option<&'static str> = None;

            #[new]
            #[pyo3(signature = (*_args, **_kwargs))]
            fn new(
                _args: &Bound<'_, pyo3::types::PyTuple>,
                _kwargs: Option<&Bound<'_, pyo3::types::PyDict>>,
            ) -> Self {
                Self::default()
            }

            /// Gives `class`, which derives from this one, methods of its own: the interpreter takes a shorter way to a
            /// method of an object's very class than to one of its base.
            #[staticmethod]
            fn _own_methods(class: &Bound<'_, pyo3::types::PyType>) -> PyResult<()> {
                super::fast::add_methods::<Self>(class)
            }

            fn _share<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, pyo3::types::PyTuple>> {
                Primitive::share(slf)
            }

            fn _restore(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
                self.place().restore(state)
            }

            #[getter(_semlock)]
            fn semlock(slf: Bound<'_, Self>) -> Bound<'_, Self> {
                slf
            }

            #[getter]
            fn handle(&self) -> PyResult<usize> {
                self.address()
            }

            #[pyo3(signature = (block=Block::Default, timeout=None))]
            fn acquire(&self, py: Python<'_>, block: Block<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
                self.acquire_as(py, block, timeout)
            }

            fn __enter__(&self, py: Python<'_>) -> PyResult<bool> {
                self.enter(py)
            }

            fn release(&self) -> PyResult<()> {
                self.let_go()
            }

            fn _is_zero(&self) -> PyResult<bool> {
                self.locked()
            }

            fn _is_mine(&self) -> PyResult<bool> {
                self.is_mine()
            }

            #[allow(clippy::unused_self)] // a method in Python
            fn _after_fork(&self) {}

            $($own)*
        }
    };
}
pub(super) use methods;

/// The methods of a `$class` that has one holder.
macro_rules! mutex_methods {
    ($class:ident, $kind:expr, { $($own:tt)* }) => {
        methods!($class, $kind, {
            #[classattr]
            #[pyo3(name = "maxvalue")]
            const MAXIMUM: u32 = 1;

            /// Gives the lock its memory, free.
            fn _open(&self, robust: bool) -> PyResult<()> {
                self.open(robust)
            }

            /// A new `class`, which derives from this one, without its `__init__`.
            #[staticmethod]
            fn _make<'py>(class: &Bound<'py, pyo3::types::PyType>, robust: bool) -> PyResult<Bound<'py, Self>> {
                let made = super::fast::instance::<Self>(class)?;
                made.get().open(robust)?;
                Ok(made)
            }

            /// Return whether somebody holds the lock.
            fn locked(&self) -> PyResult<bool> {
                Ok(self.lock()?.holder().is_some())
            }

            fn _get_value(&self) -> PyResult<u32> {
                Ok(u32::from(!self.locked()?))
            }

            $($own)*
        });
    };
}
pub(super) use mutex_methods;
