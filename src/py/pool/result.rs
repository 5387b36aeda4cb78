//! What the caller holds of a job: `PoolResult` and `PoolIterator`.

use std::sync::Arc;

use pyo3::exceptions::{PyStopIteration, PyValueError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Deadline;

use super::engine::PoolEngine;
use super::job::{Attached, Ending, Job, Next};

/// The result of `apply_async` or, with a shape, of `map_async`; see `rsmp.pool.ApplyResult`.
#[pyclass(frozen, subclass, module = "rsmp._rsmp")]
pub(crate) struct PoolResult {
    engine: Py<PoolEngine>,
    job: Arc<Job>,
}

/// The results of `imap`, one after the other; see `rsmp.pool.IMapIterator`.
#[pyclass(frozen, subclass, module = "rsmp._rsmp")]
pub(crate) struct PoolIterator {
    engine: Py<PoolEngine>,
    job: Arc<Job>,
}

fn engine_of(pool: &Bound<'_, PyAny>) -> PyResult<Py<PoolEngine>> {
    Ok(pool.getattr(pyo3::intern!(pool.py(), "_engine"))?.cast_into::<PoolEngine>()?.unbind())
}

fn given(callback: &Bound<'_, PyAny>) -> Option<Py<PyAny>> {
    (!callback.is_none()).then(|| callback.clone().unbind())
}

fn timed_out(py: Python<'_>) -> PyErr {
    super::module(py)
        .and_then(|module| module.getattr("TimeoutError")?.call0())
        .map_or_else(|error| error, PyErr::from_value)
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
    ) -> PyResult<Self> {
        let attached = Attached {
            pool: Some(pool.clone().unbind()),
            callback: given(callback),
            error_callback: given(error_callback),
        };
        let job = match shape {
            Some((chunk, length)) => Job::map(pool.py(), length, chunk.max(0).unsigned_abs(), attached)?,
            None => Job::single(attached),
        };
        Ok(Self { engine: engine_of(pool)?, job: Arc::new(job) })
    }

    /// Counts among the results of its pool that are not complete.
    fn _register(this: &Bound<'_, Self>) -> PyResult<()> {
        let inner = this.get();
        inner.engine.get().register(this.py(), &inner.job, this.as_any())
    }

    /// Return whether the call has completed.
    fn ready(&self, py: Python<'_>) -> PyResult<bool> {
        if !self.job.ready() {
            self.engine.get().collect(py)?;
        }
        Ok(self.job.ready())
    }

    /// Return whether the call completed without an exception; `ValueError` if it has not completed.
    fn successful(this: &Bound<'_, Self>) -> PyResult<bool> {
        let py = this.py();
        if !this.get().ready(py)? {
            return Err(PyValueError::new_err(format!("{} not ready", this.repr()?)));
        }
        Ok(this.get().job.ending(py).is_some_and(|ending| ending.ok))
    }

    /// Wait until the result is there or `timeout` seconds have passed.
    #[pyo3(signature = (timeout=None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<()> {
        self.wait_until(py, Deadline::from_seconds(timeout))
    }

    /// Return the result; `TimeoutError` if it is not there within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn get<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        if !self.job.ready() {
            self.wait_until(py, Deadline::from_seconds(timeout))?;
        }
        let engine = self.engine.get();
        if self.job.ready() {
            return PoolEngine::give(py, self.job.ending(py));
        }
        if engine.terminated() { PoolEngine::give(py, None) } else { Err(timed_out(py)) }
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

    #[getter]
    fn _success(&self, py: Python<'_>) -> bool {
        self.job.ending(py).is_some_and(|ending| ending.ok)
    }

    #[getter]
    fn _value(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.job.ending(py).map(|ending| ending.value)
    }

    /// Chunks whose results are not there.
    #[getter]
    fn _number_left(&self, py: Python<'_>) -> PyResult<usize> {
        self.engine.get().collect(py)?;
        Ok(self.job.figures().0)
    }

    #[getter]
    fn _chunksize(&self) -> Option<usize> {
        self.job.figures().1
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

impl PoolResult {
    pub(super) fn job(result: &Bound<'_, PyAny>) -> PyResult<Arc<Job>> {
        Ok(Arc::clone(&result.cast::<Self>()?.get().job))
    }

    fn wait_until(&self, py: Python<'_>, deadline: Deadline) -> PyResult<()> {
        let ready = || self.job.ready();
        self.engine.get().wait(py, deadline, &ready, &|| self.job.needs(), false)?;
        Ok(())
    }
}

#[pymethods]
impl PoolIterator {
    #[new]
    #[pyo3(signature = (pool, ordered=true))]
    fn new(pool: &Bound<'_, PyAny>, ordered: bool) -> PyResult<Self> {
        let attached = Attached { pool: Some(pool.clone().unbind()), ..Attached::default() };
        Ok(Self { engine: engine_of(pool)?, job: Arc::new(Job::stream(ordered, attached)) })
    }

    /// Counts among the results of its pool that are not complete.
    fn _register(this: &Bound<'_, Self>) -> PyResult<()> {
        let inner = this.get();
        inner.engine.get().register(this.py(), &inner.job, this.as_any())
    }

    fn __iter__(this: PyRef<'_, Self>) -> PyRef<'_, Self> {
        this
    }

    fn __next__<'py>(&self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        self.take(py, Deadline::NEVER)
    }

    /// Return the next result; `TimeoutError` if it is not there within `timeout` seconds.
    #[pyo3(signature = (timeout=None))]
    fn next<'py>(&self, py: Python<'py>, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        self.take(py, Deadline::from_seconds(timeout))?.ok_or_else(|| PyStopIteration::new_err(()))
    }

    /// Take the result of task `i`, as the standard result handler gives it: `(success, value)`.
    fn _set(&self, py: Python<'_>, i: usize, obj: (bool, Py<PyAny>)) -> PyResult<()> {
        let engine = self.engine.get();
        if engine.settle(py, &self.job, i, Ending { ok: obj.0, value: obj.1 }, false)? {
            engine.announce();
        }
        Ok(())
    }

    /// Say that there will be `length` results.
    fn _set_length(&self, py: Python<'_>, length: usize) -> PyResult<()> {
        self.engine.get().end(py, &self.job, length)
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

    #[getter]
    fn _index(&self) -> usize {
        self.job.figures().0
    }

    #[getter]
    fn _length(&self) -> Option<usize> {
        self.job.figures().1
    }

    /// Results that nobody has taken.
    #[getter]
    fn _items<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyTuple>> {
        let count = self.job.figures().0 - self.job.taken.load(std::sync::atomic::Ordering::Relaxed);
        PyTuple::new(py, (0..count).map(|_| py.None()))
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

impl PoolIterator {
    pub(super) fn job(result: &Bound<'_, PyAny>) -> PyResult<Arc<Job>> {
        Ok(Arc::clone(&result.cast::<Self>()?.get().job))
    }

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
                    engine.pump(py, false)?;
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
