//! `Condition`, over one of our locks or over any other with the standard `_semlock`.

use pyo3::exceptions::{PyAssertionError, PyAttributeError, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Deadline;
use rsmp_core::shm::waits::Kind;
use rsmp_core::sync::condition::{self, SIZE};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

use super::{Lock, Place, Primitive, RLock, seconds};
use crate::block;
use crate::error::Failure;

#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
pub(crate) struct Condition {
    place: Place,
    lock: PyOnceLock<Guard>,
    spin: Spin,
}

/// The lock of a condition.
enum Guard {
    Lock(Py<Lock>),
    RLock(Py<RLock>),
    Foreign(Py<PyAny>),
}

impl Guard {
    fn new(lock: &Bound<'_, PyAny>) -> Self {
        if let Ok(lock) = lock.cast::<RLock>() {
            Self::RLock(lock.clone().unbind())
        } else if let Ok(lock) = lock.cast::<Lock>() {
            Self::Lock(lock.clone().unbind())
        } else {
            Self::Foreign(lock.clone().unbind())
        }
    }

    fn is_mine(&self, py: Python<'_>) -> PyResult<bool> {
        match self {
            Self::Lock(lock) => lock.get().is_mine(),
            Self::RLock(lock) => lock.get().is_mine(),
            Self::Foreign(lock) => lock.bind(py).getattr("_semlock")?.call_method0("_is_mine")?.is_truthy(),
        }
    }

    /// Lets go altogether; returns how often it was held.
    fn release_all(&self, py: Python<'_>) -> PyResult<u32> {
        match self {
            Self::Lock(lock) => lock.get().let_go().map(|()| 1),
            Self::RLock(lock) => Ok(lock.get().lock()?.release_all(Identity::current())),
            Self::Foreign(lock) => {
                let lock = lock.bind(py);
                let depth: u32 = lock.getattr("_semlock")?.call_method0("_count")?.extract()?;
                for _ in 0..depth {
                    lock.call_method0("release")?;
                }
                Ok(depth)
            }
        }
    }

    /// Takes it again as often as it was held, waiting as long as that needs.
    fn acquire_all(&self, py: Python<'_>, depth: u32) -> PyResult<()> {
        let never = Some(Deadline::NEVER);
        // The caller's `with` is going to let go of the lock, so one exception of a signal handler is kept until it is
        // held again; a second one says that somebody insists.
        let insistent = |acquire: &dyn Fn() -> PyResult<bool>| match acquire() {
            Ok(_) => Ok(()),
            // Held all the same: it was a dead process's.
            Err(first) if self.is_mine(py)? => Err(first),
            Err(first) => acquire().and(Err(first)),
        };
        match self {
            Self::Lock(lock) => insistent(&|| lock.get().acquire_by(py, never)),
            Self::RLock(lock) => {
                let result = insistent(&|| lock.get().acquire_by(py, never));
                let lock = lock.get().lock()?;
                if lock.is_held_by(Identity::current()) {
                    lock.restore(depth);
                }
                result
            }
            Self::Foreign(lock) => (0..depth).try_for_each(|_| lock.bind(py).call_method0("acquire").map(drop)),
        }
    }

    fn object<'py>(&self, py: Python<'py>) -> Bound<'py, PyAny> {
        match self {
            Self::Lock(lock) => lock.bind(py).clone().into_any(),
            Self::RLock(lock) => lock.bind(py).clone().into_any(),
            Self::Foreign(lock) => lock.bind(py).clone(),
        }
    }
}

impl Condition {
    fn guard(&self, py: Python<'_>) -> PyResult<&Guard> {
        self.lock.get(py).ok_or_else(|| PyAttributeError::new_err("__init__() was not called"))
    }

    fn condition(&self) -> PyResult<condition::Condition<'_>> {
        self.place.get().map(condition::Condition::new)
    }

    fn set_lock(&self, lock: &Bound<'_, PyAny>) -> PyResult<()> {
        let again = |_| PyRuntimeError::new_err("already initialised");
        self.lock.set(lock.py(), Guard::new(lock)).map_err(again)
    }
}

#[pymethods]
impl Condition {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { place: Place::default(), lock: PyOnceLock::new(), spin: Spin::new() }
    }

    /// Gives the condition its memory and its lock.
    fn _open(&self, lock: &Bound<'_, PyAny>) -> PyResult<()> {
        self.place.open(Kind::Condition, SIZE, |_| ())?;
        self.set_lock(lock)
    }

    fn _share<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        slf.get().place.share(slf.as_any())
    }

    fn _restore(&self, state: &Bound<'_, PyAny>, lock: &Bound<'_, PyAny>) -> PyResult<()> {
        self.place.restore(state)?;
        self.set_lock(lock)
    }

    #[getter(_lock)]
    fn lock_object<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        Ok(self.guard(py)?.object(py))
    }

    fn __enter__<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        let never = Some(Deadline::NEVER);
        let acquired = match self.guard(py)? {
            Guard::Lock(lock) => lock.get().acquire_by(py, never)?,
            Guard::RLock(lock) => lock.get().acquire_by(py, never)?,
            Guard::Foreign(lock) => return lock.bind(py).call_method0("__enter__"),
        };
        Ok(pyo3::types::PyBool::new(py, acquired).to_owned().into_any())
    }

    #[pyo3(signature = (*args))]
    fn __exit__<'py>(&self, py: Python<'py>, args: &Bound<'py, PyTuple>) -> PyResult<Option<Bound<'py, PyAny>>> {
        match self.guard(py)? {
            Guard::Lock(lock) => lock.get().let_go().map(|()| None),
            Guard::RLock(lock) => lock.get().let_go().map(|()| None),
            Guard::Foreign(lock) => lock.bind(py).call_method1("__exit__", args).map(Some),
        }
    }

    /// Let go of the lock, wait to be notified, for `timeout` seconds at most, and take the lock again. Return whether it
    /// was notified.
    #[pyo3(signature = (timeout=None), text_signature = "($self, /, timeout=None)")]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let guard = self.guard(py)?;
        if !guard.is_mine(py)? {
            return Err(PyAssertionError::new_err("must acquire() condition before using wait()"));
        }
        let deadline = Deadline::from_seconds(seconds(timeout)?);
        let condition = self.condition()?;
        let place = condition.enter(Identity::current()).map_err(Failure::from)?;
        let depth = guard.release_all(py).inspect_err(|_| {
            let _ = condition.leave(place);
        })?;
        let what = self.place.get()?.waited_for(Kind::Condition);
        let waited =
            block::until_for(py, what, deadline, |until| Ok(condition.wait(place, &self.spin, until).then_some(())));
        let notified = condition.leave(place);
        let acquired = guard.acquire_all(py, depth);
        if waited.is_err() && notified {
            // A signal handler raised: the notification is for somebody else.
            condition.notify(1);
        }
        waited?;
        acquired?;
        Ok(notified)
    }

    /// Wake `n` of those who wait, or all there are. The lock must be held.
    #[pyo3(signature = (n=1), text_signature = "($self, /, n=1)")]
    fn notify(&self, py: Python<'_>, n: isize) -> PyResult<()> {
        if !self.guard(py)?.is_mine(py)? {
            return Err(PyAssertionError::new_err("lock is not owned"));
        }
        self.condition()?.notify(usize::try_from(n).unwrap_or(0));
        Ok(())
    }

    /// Wake all who wait. The lock must be held.
    fn notify_all(&self, py: Python<'_>) -> PyResult<()> {
        self.notify(py, isize::MAX)
    }

    /// How many wait.
    fn _sleepers(&self) -> PyResult<usize> {
        Ok(self.condition()?.sleepers())
    }
}
