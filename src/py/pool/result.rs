//! What the caller holds of a job: `PoolResult` and `PoolIterator`, and what both are, `PoolHandle`.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::exceptions::{PyStopIteration, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Deadline;

use super::engine::PoolEngine;
use super::job::{Attached, Ending, Job, Next};

/// A job and the pool that does it.
#[pyclass(frozen, subclass, module = "rsmp._rsmp")]
pub(crate) struct PoolHandle {
    engine: Py<PoolEngine>,
    job: Arc<Job>,
}

/// The result of `apply_async` or, with a shape, of `map_async`; see `rsmp.pool.ApplyResult`.
#[pyclass(frozen, subclass, extends = PoolHandle, module = "rsmp._rsmp")]
pub(crate) struct PoolResult;

/// The results of `imap`, one after the other; see `rsmp.pool.IMapIterator`.
#[pyclass(frozen, subclass, extends = PoolHandle, module = "rsmp._rsmp")]
pub(crate) struct PoolIterator;

fn given(callback: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    (!callback.is_none()).then(|| callback.clone().unbind())
}

fn timed_out(py: Python<'_>) -> PyErr {
    super::module(py)
        .and_then(|module| module.getattr("TimeoutError")?.call0())
        .map_or_else(|error| error, PyErr::from_value)
}

#[pymethods]
impl PoolHandle {
    /// Counts among the results of its pool that are not complete.
    fn _register(this: &Bound<'_, Self>) -> PyResult<()> {
        let inner = this.get();
        inner.engine.get().register(this.py(), &inner.job, this.as_any())
    }

    /// Take the result of task `i`, as the standard result handler gives it: `(success, value)`.
    fn _set(&self, py: Python<'_>, i: usize, obj: (bool, Py<PyAny>)) -> PyResult<()> {
        let engine = self.engine.get();
        if engine.settle(py, &self.job, i, Ending { ok: obj.0, value: obj.1 }, false)? {
            engine.announce();
        }
        Ok(())
    }

    #[getter]
    fn _job(&self) -> u64 {
        self.job.number
    }

    #[getter]
    fn _cache(&self, py: Python<'_>) -> Py<PyDict> {
        self.engine.get().cache_of(py)
    }

    #[getter]
    fn _pool(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.job.pool(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.engine)?;
        // While tasks are out the engine holds the job, too.
        if Arc::strong_count(&self.job) == 1 { self.job.traverse(&visit) } else { Ok(()) }
    }

    fn __clear__(&self) {
        if Arc::strong_count(&self.job) == 1 {
            self.job.clear();
        }
    }
}

impl PoolHandle {
    fn new(pool: &Bound<'_, PyAny>, job: Job) -> PyResult<PyClassInitializer<Self>> {
        let engine = pool.getattr(pyo3::intern!(pool.py(), "_engine"))?.cast_into::<PoolEngine>()?.unbind();
        Ok(PyClassInitializer::from(Self { engine, job: Arc::new(job) }))
    }

    pub(super) fn job(result: &Bound<'_, PyAny>) -> PyResult<Arc<Job>> {
        Ok(Arc::clone(&result.cast::<Self>()?.get().job))
    }

    /// Whether the job is complete, now that what has come back is taken in.
    fn is_ready(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.job.ready() {
            self.engine.get().collect(py)?;
        }
        Ok(self.job.ready())
    }

    fn wait_until(&self, py: Python<'_>, deadline: Deadline) -> PyResult<()> {
        let ready = || self.job.ready();
        self.engine.get().wait(py, deadline, &ready, &|| self.job.needs(), false)?;
        Ok(())
    }

    /// The next item of a stream; nothing at its end.
    fn take<'py>(&self, py: Python<'py>, deadline: Deadline) -> PyResult<Option<Bound<'py, PyAny>>> {
        let engine = self.engine.get();
        let mut next = self.job.next();
        if next.is_none() {
            let ready = || self.job.has_next();
            engine.wait(py, deadline, &ready, &|| 1, true)?;
            next = self.job.next();
        }
        match next {
            Some(Next::End) => Ok(None),
            Some(Next::Item(ending)) => {
                if engine.feed_behind() {
                    if let Err(error) = engine.pump(py, false) {
                        self.job.put_back(ending);
                        return Err(error);
                    }
                    if engine.feed_behind() {
                        engine.announce();
                    }
                }
                PoolEngine::give(py, Some(ending)).map(Some)
            }
            None if engine.terminated() => PoolEngine::give(py, None).map(Some),
            None => Err(timed_out(py)),
        }
    }
}

#[pymethods]
impl PoolResult {
    /// `shape`: chunk size and length of a map.
    #[new]
    #[pyo3(signature = (pool, callback, error_callback, shape=None))]
    fn new(
        pool: &Bound<'_, PyAny>,
        callback: &Bound<'_, PyAny>,
        error_callback: &Bound<'_, PyAny>,
        shape: Option<(isize, usize)>,
    ) -> PyResult<PyClassInitializer<Self>> {
        let attached = Attached {
            pool: Some(pool.clone().unbind()),
            callback: given(callback),
            error_callback: given(error_callback),
        };
        let job = match shape {
            Some((chunk, length)) => Job::map(pool.py(), length, chunk.max(0).unsigned_abs(), attached)?,
            None => Job::single(attached),
        };
        Ok(PoolHandle::new(pool, job)?.add_subclass(Self))
    }

    /// Return whether the call has completed.
    fn ready(this: &Bound<'_, Self>) -> PyResult<bool> {
        this.as_super().get().is_ready(this.py())
    }

    /// Return whether the call completed without an exception; `ValueError` if it has not completed.
    fn successful(this: &Bound<'_, Self>) -> PyResult<bool> {
        let (py, handle) = (this.py(), this.as_super().get());
        if !handle.is_ready(py)? {
            return Err(PyValueError::new_err(format!("{} not ready", this.repr()?)));
        }
        Ok(handle.job.ending(py).is_some_and(|ending| ending.ok))
    }

    /// Wait until the result is there or `timeout` seconds have passed.
    #[pyo3(signature = (timeout=None))]
    fn wait(this: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<()> {
        this.as_super().get().wait_until(this.py(), Deadline::from_seconds(timeout))
    }

    /// Return the result; `TimeoutError` if it is not there within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn get<'py>(this: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let (py, handle) = (this.py(), this.as_super().get());
        if !handle.job.ready() {
            handle.wait_until(py, Deadline::from_seconds(timeout))?;
        }
        if handle.job.ready() {
            return PoolEngine::give(py, handle.job.ending(py));
        }
        if handle.engine.get().terminated() { PoolEngine::give(py, None) } else { Err(timed_out(py)) }
    }

    #[getter]
    fn _success(this: &Bound<'_, Self>) -> bool {
        this.as_super().get().job.ending(this.py()).is_some_and(|ending| ending.ok)
    }

    #[getter]
    fn _value(this: &Bound<'_, Self>) -> Option<Py<PyAny>> {
        this.as_super().get().job.ending(this.py()).map(|ending| ending.value)
    }

    /// Chunks whose results are not there.
    #[getter]
    fn _number_left(this: &Bound<'_, Self>) -> PyResult<usize> {
        let handle = this.as_super().get();
        handle.engine.get().collect(this.py())?;
        Ok(handle.job.figures().0)
    }

    #[getter]
    fn _chunksize(this: &Bound<'_, Self>) -> Option<usize> {
        this.as_super().get().job.figures().1
    }
}

#[pymethods]
impl PoolIterator {
    #[new]
    #[pyo3(signature = (pool, ordered=true))]
    fn new(pool: &Bound<'_, PyAny>, ordered: bool) -> PyResult<PyClassInitializer<Self>> {
        let attached = Attached { pool: Some(pool.clone().unbind()), ..Attached::default() };
        Ok(PoolHandle::new(pool, Job::stream(ordered, attached))?.add_subclass(Self))
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(this: &Bound<'py, Self>) -> PyResult<Option<Bound<'py, PyAny>>> {
        this.as_super().get().take(this.py(), Deadline::NEVER)
    }

    /// Return the next result; `TimeoutError` if it is not there within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(this: &Bound<'py, Self>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let next = this.as_super().get().take(this.py(), Deadline::from_seconds(timeout))?;
        next.ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// Say that there will be `length` results.
    fn _set_length(this: &Bound<'_, Self>, length: usize) -> PyResult<()> {
        let handle = this.as_super().get();
        handle.engine.get().end(this.py(), &handle.job, length)
    }

    #[getter]
    fn _index(this: &Bound<'_, Self>) -> usize {
        this.as_super().get().job.figures().0
    }

    #[getter]
    fn _length(this: &Bound<'_, Self>) -> Option<usize> {
        this.as_super().get().job.figures().1
    }

    /// Results that nobody has taken.
    #[getter]
    fn _items<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        let job = &this.as_super().get().job;
        let count = job.figures().0 - job.taken.load(Ordering::Relaxed);
        PyTuple::new(this.py(), (0..count).map(|_| this.py().None()))
    }
}
