//! `PoolEngine`: the owner's side of a pool.

use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use crossbeam::queue::SegQueue;
use parking_lot::Mutex;
use pyo3::exceptions::{PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyDict;
use rsmp_core::Deadline;
use rsmp_core::pool::Closing;
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process;

use super::channel::PoolChannel;
use super::desk::Desk;
use super::feed::Feed;
use super::job::{Attached, Job};
use super::lobby::Lobby;
use super::result::PoolHandle;
use super::send::arguments;
use super::shop::Shop;
use crate::error::Failure;

const RUNNING: u8 = 0;
pub(super) const CLOSING: u8 = 1;
const TERMINATED: u8 = 2;

#[allow(clippy::large_enum_variant)] // one for each pool
pub(super) enum Backend {
    Processes(Desk),
    Threads(Shop),
}

/// What a pool does its work with: the tasks that are out, who waits for them, and when it is over.
#[pyclass(frozen, weakref, module = "rsmp._rsmp")]
pub(crate) struct PoolEngine {
    pid: u32,
    pub(super) backend: Backend,
    /// The results that are not complete, by job number.
    pub(super) cache: Py<PyDict>,
    pub(super) lobby: Lobby,
    pub(super) spin: Spin,
    pub(super) stage: AtomicU8,
    /// Jobs that are not complete; those among them with callbacks.
    pub(super) jobs: AtomicUsize,
    pub(super) watched: AtomicUsize,
    pub(super) feeds: Mutex<VecDeque<Feed>>,
    pub(super) feed_count: AtomicUsize,
    pub(super) feeding: AtomicBool,
    /// Complete jobs whose callbacks are to be run.
    /// Boxed: it is aligned to cache lines, which objects of the interpreter are not.
    pub(super) settled: Box<SegQueue<Arc<Job>>>,
    pub(super) supervised: AtomicBool,
    /// Descriptors that become readable when a worker ends, and what is called then.
    pub(super) sentinels: Mutex<Arc<[RawFd]>>,
    pub(super) on_exit: Mutex<Option<Py<PyAny>>>,
    /// Why no task will ever be run.
    pub(super) broken: Mutex<Option<Py<PyAny>>>,
}

#[pymethods]
impl PoolEngine {
    /// An engine for so many worker processes, or threads. A task whose process ends is run again up to `retries` times.
    #[new]
    #[pyo3(signature = (workers, threads=false, retries=0))]
    fn new(py: Python<'_>, workers: u32, threads: bool, retries: u32) -> PyResult<Self> {
        let pid = process::pid();
        let backend = if threads {
            Backend::Threads(Shop::new(workers))
        } else {
            Backend::Processes(Desk::new(workers, retries).map_err(Failure::from)?)
        };
        Ok(Self {
            pid,
            backend,
            cache: PyDict::new(py).unbind(),
            lobby: Lobby::default(),
            spin: Spin::default(),
            stage: AtomicU8::new(RUNNING),
            jobs: AtomicUsize::new(0),
            watched: AtomicUsize::new(0),
            feeds: Mutex::default(),
            feed_count: AtomicUsize::new(0),
            feeding: AtomicBool::new(false),
            settled: Box::default(),
            supervised: AtomicBool::new(false),
            sentinels: Mutex::new(Arc::from([])),
            on_exit: Mutex::default(),
            broken: Mutex::default(),
        })
    }

    /// What the worker processes need.
    fn channel(&self) -> PyResult<PoolChannel> {
        match &self.backend {
            Backend::Processes(desk) => Ok(PoolChannel::new(Arc::clone(desk.board()))),
            Backend::Threads(_) => Err(PyTypeError::new_err("threads need no channel")),
        }
    }

    #[getter]
    fn cache(&self, py: Python<'_>) -> Py<PyDict> {
        self.cache.clone_ref(py)
    }

    /// Workers that take tasks.
    #[getter]
    fn serving(&self) -> usize {
        match &self.backend {
            Backend::Processes(desk) => desk.board().serving(),
            Backend::Threads(_) => 0,
        }
    }

    /// The traceback of the initializer in a worker where it failed.
    fn report(&self) -> Option<String> {
        match &self.backend {
            Backend::Processes(desk) => desk.board().report(),
            Backend::Threads(_) => None,
        }
    }

    /// Whether the pool is at its end: at the interpreter's, too, when the pool object does not know.
    #[getter]
    fn is_terminated(&self) -> bool {
        self.terminated()
    }

    /// Jobs that are not complete.
    #[getter]
    fn outstanding(&self) -> usize {
        self.jobs.load(Ordering::Acquire)
    }

    /// Tasks that no worker has taken, as far as they are known.
    #[getter]
    fn queued(&self) -> usize {
        let published = match &self.backend {
            Backend::Processes(desk) => desk.board().untaken() as usize,
            Backend::Threads(shop) => shop.in_use() as usize,
        };
        published + self.feed_count.load(Ordering::Relaxed)
    }

    /// Run one task and return its result.
    fn apply<'py>(
        &self,
        func: &Bound<'py, PyAny>,
        args: &Bound<'py, PyAny>,
        kwds: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = func.py();
        self.check(py)?;
        let job = Arc::new(Job::single(Attached::default()));
        self.enlist(&job);
        self.begin(py, &job, || {
            let (call, payload) = arguments(args, kwds)?;
            self.send_or_feed(py, &job, call, func, &payload)
        })?;
        self.result(py, &job)
    }

    /// Submit one task; return the `ApplyResult` (`class`) for it.
    #[allow(clippy::too_many_arguments)] // the signature of Pool.apply_async, the pool and the class
    fn apply_async<'py>(
        &self,
        pool: &Bound<'py, PyAny>,
        class: &Bound<'py, PyAny>,
        func: &Bound<'py, PyAny>,
        args: &Bound<'py, PyAny>,
        kwds: &Bound<'py, PyAny>,
        callback: &Bound<'py, PyAny>,
        error_callback: &Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = func.py();
        self.check(py)?;
        let result = class.call1((pool, callback, error_callback))?;
        let job = PoolHandle::job(&result)?;
        self.begin(py, &job, || {
            let (call, payload) = arguments(args, kwds)?;
            self.send_or_feed(py, &job, call, func, &payload)
        })?;
        Ok(result)
    }

    /// Run `func` over `iterable` in chunks and return the list of results. `spread`: items are argument tuples.
    fn map<'py>(
        &self,
        func: &Bound<'py, PyAny>,
        iterable: &Bound<'py, PyAny>,
        length: usize,
        chunksize: isize,
        spread: bool,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = func.py();
        self.check(py)?;
        let chunk = chunksize.max(0).unsigned_abs();
        let job = Arc::new(Job::map(py, length, chunk, Attached::default())?);
        self.enlist(&job);
        self.begin(py, &job, || self.feed_map(py, &job, func, iterable, length, chunk, spread, true))?;
        self.result(py, &job)
    }

    #[allow(clippy::too_many_arguments)] // what a map is
    /// Submit a map whose `MapResult` is `result`.
    fn map_async(
        &self,
        py: Python<'_>,
        result: &Bound<'_, PyAny>,
        func: &Bound<'_, PyAny>,
        iterable: &Bound<'_, PyAny>,
        length: usize,
        chunksize: isize,
        spread: bool,
    ) -> PyResult<()> {
        let job = PoolHandle::job(result)?;
        let chunk = chunksize.max(0).unsigned_abs();
        self.begin(py, &job, || self.feed_map(py, &job, func, iterable, length, chunk, spread, false))
    }

    /// Submit the items of `iterable` for the `IMapIterator` that is `result`.
    #[pyo3(signature = (result, func, iterable, chunksize, buffersize=None))]
    fn imap(
        &self,
        py: Python<'_>,
        result: &Bound<'_, PyAny>,
        func: &Bound<'_, PyAny>,
        iterable: &Bound<'_, PyAny>,
        chunksize: usize,
        buffersize: Option<usize>,
    ) -> PyResult<()> {
        let job = PoolHandle::job(result)?;
        self.begin(py, &job, || {
            match Feed::items(Arc::clone(&job), false, func, iterable, chunksize, None, buffersize) {
                Ok(feed) => self.feed(py, feed),
                Err(error) => {
                    self.settle_error(py, &job, 0, error)?;
                    self.end(py, &job, 1)
                }
            }
        })
    }

    /// Submit tasks as the standard task queue takes them: `(job, index, function, args, kwds)` each, then `set_length`.
    fn put(&self, py: Python<'_>, tasks: &Bound<'_, PyAny>, set_length: Option<Py<PyAny>>) -> PyResult<()> {
        // The jobs are named by the tasks.
        let nobody = Arc::new(Job::stream(true, Attached::default()));
        self.feed(py, Feed::tasks(nobody, tasks.try_iter()?, set_length))
    }

    /// Replace the descriptors that become readable when a worker ends.
    fn watch(&self, sentinels: Vec<RawFd>) {
        *self.sentinels.lock() = sentinels.into();
        self.announce();
    }

    /// What to call when a worker has ended.
    fn on_exit(&self, callback: Py<PyAny>) {
        *self.on_exit.lock() = Some(callback);
    }

    /// Be the supervisor until a worker has ended (True) or the pool is over (False).
    fn supervise(&self, py: Python<'_>) -> PyResult<bool> {
        self.supervised.store(true, Ordering::Release);
        self.do_supervise(py)
    }

    /// Settle what the worker that was process `pid` leaves; `lost(function, index)` makes the exception for each
    /// task that died with it. Return how far it came: None if it never began, else "initializer", "failed", "serving" or "left".
    fn bury(&self, py: Python<'_>, pid: u32, lost: &Bound<'_, PyAny>) -> PyResult<Option<&'static str>> {
        self.do_bury(py, pid, lost)
    }

    /// End every job with `error`, and refuse new ones with it.
    fn break_down(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        self.do_break_down(error)
    }

    /// Take no more jobs; the workers leave when the last one is complete.
    fn close(&self) {
        let _ = self.stage.compare_exchange(RUNNING, CLOSING, Ordering::AcqRel, Ordering::Relaxed);
        self.leave_when_done();
        self.announce();
    }

    /// Stop now: what is not complete never will be.
    fn terminate(&self, py: Python<'_>) {
        self.stage.store(TERMINATED, Ordering::Release);
        match &self.backend {
            Backend::Processes(desk) => {
                desk.board().close(Closing::Leave);
                desk.forget();
            }
            Backend::Threads(shop) => {
                drop(shop.clear());
                shop.close();
            }
        }
        let feeds = std::mem::take(&mut *self.feeds.lock());
        self.feed_count.fetch_sub(feeds.len(), Ordering::AcqRel);
        drop(feeds);
        self.cache.bind(py).clear();
        self.announce();
    }

    /// Wait until no job is left; `timeout` in seconds. Return whether that is so.
    #[pyo3(signature = (timeout=None))]
    fn drain(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let done = || self.jobs.load(Ordering::Acquire) == 0;
        self.wait(py, Deadline::from_seconds(timeout), &done, &|| 1, false)
    }

    /// Count a worker thread out whose initializer raised `error`; without any other, the pool breaks with it.
    fn thread_failed(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let Backend::Threads(shop) = &self.backend else { return Ok(()) };
        if shop.lost_one() { self.break_down(error) } else { Ok(()) }
    }

    /// Be a worker thread until the pool is over.
    fn work(&self, py: Python<'_>) -> PyResult<()> {
        self.do_work(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        visit.call(&self.cache)?;
        for place in [&self.on_exit, &self.broken] {
            // A thread that holds it reaches the engine.
            if let Some(object) = place.try_lock().and_then(|place| place.as_ref().map(|object| visit.call(object))) {
                object?;
            }
        }
        Ok(())
    }

    fn __clear__(&self) {
        for place in [&self.on_exit, &self.broken] {
            let object = place.try_lock().and_then(|mut place| place.take());
            drop(object);
        }
    }
}

impl PoolEngine {
    pub(super) fn cache_of(&self, py: Python<'_>) -> Py<PyDict> {
        self.cache.clone_ref(py)
    }

    /// Raises unless a job can be begun here and now.
    pub(super) fn check(&self, py: Python<'_>) -> PyResult<()> {
        if process::pid() != self.pid {
            return Err(PyRuntimeError::new_err("a pool can only be used by the process that created it"));
        }
        if let Some(error) = self.broken.lock().as_ref() {
            return Err(PyErr::from_value(error.bind(py).clone()));
        }
        Ok(())
    }

    pub(super) fn terminated(&self) -> bool {
        self.stage.load(Ordering::Acquire) == TERMINATED
    }

    /// Whether nothing is left to supervise.
    pub(super) fn over(&self) -> bool {
        match self.stage.load(Ordering::Acquire) {
            RUNNING => false,
            CLOSING => self.jobs.load(Ordering::Acquire) == 0,
            _ => true,
        }
    }

    /// Whether the supervisor has something to do with results.
    pub(super) fn interested(&self) -> bool {
        self.watched.load(Ordering::Acquire) > 0
            || self.feed_count.load(Ordering::Acquire) > 0
            || self.stage.load(Ordering::Acquire) == CLOSING
    }

    /// Tasks that are out.
    pub(super) fn in_use(&self) -> u32 {
        match &self.backend {
            Backend::Processes(desk) => desk.in_use(),
            Backend::Threads(shop) => shop.in_use(),
        }
    }

    /// Counts a job in.
    pub(super) fn enlist(&self, job: &Job) {
        self.jobs.fetch_add(1, Ordering::AcqRel);
        if job.watched {
            self.watched.fetch_add(1, Ordering::AcqRel);
        }
    }

    /// Counts a job in whose result object is `result`.
    pub(super) fn register(&self, py: Python<'_>, job: &Job, result: &Bound<'_, PyAny>) -> PyResult<()> {
        self.enlist(job);
        self.cache.bind(py).set_item(job.number, result)
    }
}
