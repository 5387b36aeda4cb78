//! `PoolEngine`: the owner's side of a pool.

use core::time::Duration;
use std::collections::VecDeque;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicUsize, Ordering};

use crossbeam::queue::SegQueue;
use parking_lot::Mutex;
use pyo3::exceptions::{PyKeyError, PyKeyboardInterrupt, PyRuntimeError, PyTypeError};
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Deadline;
use rsmp_core::pool::{Closing, Stage};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::{poll, process};

use super::Call;
use super::channel::PoolChannel;
use super::desk::Desk;
use super::feed::{Advance, Feed};
use super::job::{Attached, Ending, Job, Progress};
use super::lobby::Lobby;
use super::result::{PoolIterator, PoolResult};
use super::shop::{Order, Shop};
use crate::block;
use crate::error::Failure;

const RUNNING: u8 = 0;
const CLOSING: u8 = 1;
const TERMINATED: u8 = 2;

/// Orders that threads may have waiting; the rest stays with whoever makes them.
const ORDERS: u32 = 256;

/// Within this time an interrupt reaches every process that it is for.
const INTERRUPTED: Duration = Duration::from_millis(20);

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
    cache: Py<PyDict>,
    pub(super) lobby: Lobby,
    pub(super) spin: Spin,
    stage: AtomicU8,
    /// Jobs that are not complete; those among them with callbacks.
    jobs: AtomicUsize,
    watched: AtomicUsize,
    feeds: Mutex<VecDeque<Feed>>,
    feed_count: AtomicUsize,
    feeding: AtomicBool,
    /// Complete jobs whose callbacks are to be run.
    /// Boxed: it is aligned to cache lines, which objects of the interpreter are not.
    pub(super) settled: Box<SegQueue<Arc<Job>>>,
    pub(super) supervised: AtomicBool,
    /// Descriptors that become readable when a worker ends, and what is called then.
    pub(super) sentinels: Mutex<Arc<[RawFd]>>,
    pub(super) on_exit: Mutex<Option<Py<PyAny>>>,
    /// Why no task will ever be run.
    broken: Mutex<Option<Py<PyAny>>>,
}

#[pymethods]
impl PoolEngine {
    /// An engine for so many worker processes, or threads.
    #[new]
    #[pyo3(signature = (workers, threads=false))]
    fn new(py: Python<'_>, workers: u32, threads: bool) -> PyResult<Self> {
        let pid = process::pid();
        let backend = if threads {
            Backend::Threads(Shop::new(workers))
        } else {
            Backend::Processes(Desk::new(workers).map_err(Failure::from)?)
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
        let job = PoolResult::job(&result)?;
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
        let job = PoolResult::job(result)?;
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
        let job = PoolIterator::job(result)?;
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
        let Backend::Processes(desk) = &self.backend else { return Ok(None) };
        let (tasks, stage, mut outcome) =
            desk.bury(py, pid, |back| self.settle(py, &back.job, back.index, back.ending, back.bare).map(|_| ()));
        // Whatever is raised meanwhile, by the handler of a signal perhaps: a task that nobody settles is waited for
        // without end.
        for task in tasks {
            let function = task.job.function.get().map(|function| function.bind(py));
            let error = || lost.call1((function, task.index));
            let ending = match error().or_else(|first| error().inspect(|_| outcome = Err(first))) {
                Ok(error) => Ending { ok: false, value: error.unbind() },
                Err(error) => Ending::failed(py, error),
            };
            outcome = outcome.and(self.settle(py, &task.job, task.index, ending, false).map(|_| ()));
        }
        self.announce();
        outcome?;
        Ok(stage.map(|stage| match stage {
            Stage::Entered | Stage::Vacant => "initializer",
            Stage::Failed => "failed",
            Stage::Serving => "serving",
            Stage::Left => "left",
        }))
    }

    /// End every job with `error`, and refuse new ones with it.
    fn break_down(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
        let (py, error) = (error.py(), error.clone().unbind());
        *self.broken.lock() = Some(error.clone_ref(py));
        let mut jobs = match &self.backend {
            Backend::Processes(desk) => desk.jobs(),
            Backend::Threads(shop) => shop.clear(),
        };
        let feeds = std::mem::take(&mut *self.feeds.lock());
        self.feed_count.fetch_sub(feeds.len(), Ordering::AcqRel);
        jobs.extend(feeds.iter().map(|feed| Arc::clone(&feed.job)));
        drop(feeds);
        for job in jobs {
            if job.fail(py, &error) == Progress::Complete {
                self.completed(py, &job)?;
            }
        }
        self.announce();
        Ok(())
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

    pub(super) fn has_feeds(&self) -> bool {
        self.feed_count.load(Ordering::Acquire) > 0
    }

    /// Tasks that are out.
    pub(super) fn in_use(&self) -> u32 {
        match &self.backend {
            Backend::Processes(desk) => desk.in_use(),
            Backend::Threads(shop) => shop.in_use(),
        }
    }

    /// So many tasks of a job go out before the first one has come back, if nothing is known of their results.
    pub(super) fn first(&self) -> usize {
        match &self.backend {
            Backend::Processes(desk) => desk.workers() as usize * 2,
            Backend::Threads(_) => 0,
        }
        .max(64)
    }

    /// Whether it is known how long the results of `function` are, or does not matter.
    pub(super) fn knows(&self, function: &Bound<'_, PyAny>) -> bool {
        match &self.backend {
            Backend::Processes(desk) => desk.knows(function),
            Backend::Threads(_) => true,
        }
    }

    pub(super) fn has_room(&self) -> bool {
        match &self.backend {
            Backend::Processes(desk) => desk.has_room(),
            Backend::Threads(shop) => shop.in_use() < ORDERS,
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

    /// Sends a task out. `false`: there is no room.
    pub(super) fn send(
        &self,
        job: &Arc<Job>,
        index: usize,
        call: Call,
        function: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
    ) -> PyResult<bool> {
        if job.function.get().is_none() {
            let _ = job.function.set(function.clone().unbind());
        }
        match &self.backend {
            Backend::Processes(desk) => {
                let mut failed = None;
                let sent = desk.submit(job, index, call, function, payload, &mut failed)?;
                if let Some(ending) = failed
                    && self.settle(function.py(), job, index, ending, false)?
                {
                    self.announce();
                }
                Ok(sent)
            }
            Backend::Threads(shop) => {
                let (function, payload) = (function.clone().unbind(), payload.clone().unbind());
                shop.submit(Order { job: Arc::clone(job), index, call, function, payload });
                Ok(true)
            }
        }
    }

    /// Sends a task of the standard form out; there is room.
    pub(super) fn send_task(&self, task: &Bound<'_, PyAny>) -> PyResult<()> {
        type Parts<'py> = (u64, usize, Bound<'py, PyAny>, Bound<'py, PyAny>, Bound<'py, PyAny>);
        let py = task.py();
        let (number, index, function, args, kwds): Parts<'_> = task.extract()?;
        let Some(result) = self.cache.bind(py).get_item(number)? else { return Ok(()) };
        let job = PoolResult::job(&result).or_else(|_| PoolIterator::job(&result))?;
        let (call, payload) = arguments(&args, &kwds)?;
        // Results of a map arrive in lists here, as its functions are the standard library's.
        self.send(&job, index, call, &function, &payload).map(|_| ())
    }

    /// Sends out what a job begins with. Should that be interrupted, nobody will ever hold the job: it is over.
    fn begin(&self, py: Python<'_>, job: &Arc<Job>, send: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        send().inspect_err(|error| {
            let value = error.clone_ref(py).into_value(py).into_any();
            if job.fail(py, &value) == Progress::Complete && self.completed(py, job).is_ok() {
                self.announce();
            }
        })
    }

    fn send_or_feed(
        &self,
        py: Python<'_>,
        job: &Arc<Job>,
        call: Call,
        function: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !self.has_feeds() {
            if self.send(job, 0, call, function, payload)? {
                return Ok(());
            }
            // Perhaps only because nobody has looked at what is finished.
            self.collect(py)?;
            if self.send(job, 0, call, function, payload)? {
                return Ok(());
            }
        }
        let (function, payload) = (function.clone().unbind(), payload.clone().unbind());
        self.feed(py, Feed::single(Arc::clone(job), call, function, payload))
    }

    #[allow(clippy::too_many_arguments)] // what a map is
    fn feed_map(
        &self,
        py: Python<'_>,
        job: &Arc<Job>,
        function: &Bound<'_, PyAny>,
        iterable: &Bound<'_, PyAny>,
        length: usize,
        chunk: usize,
        spread: bool,
        here: bool,
    ) -> PyResult<()> {
        if job.is_empty() {
            return self.completed(py, job);
        }
        let limit = Some(rsmp_core::pool::chunks::count(length, chunk));
        match Feed::items(Arc::clone(job), spread, function, iterable, chunk, limit, None) {
            Ok(mut feed) => {
                // The caller waits anyway: it may run the iterable's code.
                feed.harmless |= here;
                self.feed(py, feed)
            }
            Err(error) => {
                self.settle_error(py, job, 0, error)?;
                self.end(py, job, 1)
            }
        }
    }

    fn feed(&self, py: Python<'_>, feed: Feed) -> PyResult<()> {
        self.feed_count.fetch_add(1, Ordering::AcqRel);
        self.feeds.lock().push_back(feed);
        self.pump(py, false)?;
        if self.has_feeds() {
            self.announce();
        }
        Ok(())
    }

    /// Sends out what there is room for. Only the supervisor takes from sources that may block.
    pub(super) fn pump(&self, py: Python<'_>, supervisor: bool) -> PyResult<()> {
        if !self.has_feeds() || self.feeding.swap(true, Ordering::AcqRel) {
            return Ok(());
        }
        let outcome = self.do_pump(py, supervisor);
        self.feeding.store(false, Ordering::Release);
        outcome
    }

    fn do_pump(&self, py: Python<'_>, supervisor: bool) -> PyResult<()> {
        let mut position = 0;
        while !self.terminated() {
            let mut feed = {
                let mut feeds = self.feeds.lock();
                match feeds.get(position) {
                    Some(feed) if feed.harmless || supervisor => match feeds.remove(position) {
                        Some(feed) => feed,
                        None => break,
                    },
                    _ => break,
                }
            };
            let advance = feed.advance(py, self);
            match advance {
                Ok(Advance::Exhausted) => {
                    self.feed_count.fetch_sub(1, Ordering::AcqRel);
                }
                Ok(Advance::NoRoom) => {
                    self.put_back(position, feed);
                    break;
                }
                Ok(Advance::Ahead) => {
                    self.put_back(position, feed);
                    position += 1;
                }
                Err(error) => {
                    self.feed_count.fetch_sub(1, Ordering::AcqRel);
                    let value = error.clone_ref(py).into_value(py).into_any();
                    if feed.job.fail(py, &value) == Progress::Complete {
                        self.completed(py, &feed.job)?;
                        self.announce();
                    }
                    return Err(error);
                }
            }
        }
        Ok(())
    }

    fn put_back(&self, position: usize, feed: Feed) {
        if self.terminated() {
            self.feed_count.fetch_sub(1, Ordering::AcqRel);
            return;
        }
        let mut feeds = self.feeds.lock();
        let position = position.min(feeds.len());
        feeds.insert(position, feed);
    }

    /// Whether a feed waits for its caller to take results, who just did.
    pub(super) fn feed_behind(&self) -> bool {
        self.has_feeds() && self.feeds.lock().iter().any(|feed| feed.limited() && !feed.is_ahead())
    }

    /// Takes the finished tasks in.
    pub(super) fn collect(&self, py: Python<'_>) -> PyResult<()> {
        let Backend::Processes(desk) = &self.backend else { return Ok(()) };
        let (mut news, mut taken) = (false, false);
        let outcome = desk.collect(py, |back| {
            taken = true;
            news |= self.settle(py, &back.job, back.index, back.ending, back.bare)?;
            news |= self.has_feeds();
            Ok(())
        });
        if news {
            self.announce();
        } else if taken && self.lobby.has_leader() {
            // The thread that sleeps asked for a number of results, some of which will not come any more.
            let _ = desk.board().kick();
        }
        outcome
    }

    /// Takes the ending of a task in. Returns whether somebody should hear of it.
    pub(super) fn settle(
        &self,
        py: Python<'_>,
        job: &Arc<Job>,
        index: usize,
        ending: Ending,
        bare: bool,
    ) -> PyResult<bool> {
        if !job.begun.load(Ordering::Relaxed) {
            job.begun.store(true, Ordering::Relaxed);
        }
        match job.settle(py, index, ending, bare)? {
            Progress::Nothing => Ok(false),
            Progress::Item => Ok(true),
            Progress::Complete => self.completed(py, job).map(|()| true),
        }
    }

    pub(super) fn settle_error(&self, py: Python<'_>, job: &Arc<Job>, index: usize, error: PyErr) -> PyResult<()> {
        if self.settle(py, job, index, Ending::failed(py, error), false)? {
            self.announce();
        }
        Ok(())
    }

    /// Says that a job has no tasks but the first `count`.
    pub(super) fn end(&self, py: Python<'_>, job: &Arc<Job>, count: usize) -> PyResult<()> {
        match job.end(count) {
            Progress::Nothing => return Ok(()),
            Progress::Item => {}
            Progress::Complete => self.completed(py, job)?,
        }
        self.announce();
        Ok(())
    }

    /// A job is complete: its callbacks come first.
    pub(super) fn completed(&self, py: Python<'_>, job: &Arc<Job>) -> PyResult<()> {
        if job.watched {
            self.settled.push(Arc::clone(job));
            Ok(())
        } else {
            self.finish(py, job)
        }
    }

    /// The caller can have its result.
    pub(super) fn finish(&self, py: Python<'_>, job: &Job) -> PyResult<()> {
        let attached = job.release();
        job.set_ready();
        if job.watched {
            self.watched.fetch_sub(1, Ordering::AcqRel);
        }
        if attached.pool.is_some() {
            match self.cache.bind(py).del_item(job.number) {
                Err(error) if !error.is_instance_of::<PyKeyError>(py) => return Err(error),
                _ => {}
            }
        }
        self.jobs.fetch_sub(1, Ordering::AcqRel);
        self.leave_when_done();
        Ok(())
    }

    fn leave_when_done(&self) {
        if self.stage.load(Ordering::Acquire) == CLOSING && self.jobs.load(Ordering::Acquire) == 0 {
            match &self.backend {
                Backend::Processes(desk) => desk.board().close(Closing::Finish),
                Backend::Threads(shop) => shop.close(),
            }
        }
    }

    /// Wakes whoever waits for something to change.
    pub(super) fn announce(&self) {
        let kick = self.lobby.announce();
        let Backend::Processes(desk) = &self.backend else { return };
        // An event that cannot be raised is a broken descriptor; the sleepers look by themselves every half second.
        if kick.leader {
            let _ = desk.board().kick();
        }
        if kick.supervisor {
            let _ = desk.board().call_supervisor();
        }
    }

    /// Waits for a job nobody else holds and gives its result or raises its exception.
    fn result<'py>(&self, py: Python<'py>, job: &Arc<Job>) -> PyResult<Bound<'py, PyAny>> {
        let ready = || job.ready();
        self.wait(py, Deadline::NEVER, &ready, &|| job.needs(), false)?;
        let ending = if job.ready() { job.take_ending(py) } else { None };
        Self::give(py, ending)
    }

    /// The result or the exception; without an ending, that there will be none.
    pub(super) fn give(py: Python<'_>, ending: Option<Ending>) -> PyResult<Bound<'_, PyAny>> {
        match ending {
            Some(Ending { ok: true, value }) => Ok(value.into_bound(py)),
            Some(Ending { ok: false, value }) => {
                if value.bind(py).is_instance_of::<PyKeyboardInterrupt>() {
                    // Ctrl-C goes to the workers, too, and may reach them first: this process's own is what counts.
                    let mut nobody = poll::Set::default();
                    block::until(py, Deadline::after(INTERRUPTED), |slice| nobody.wait(slice).map(|_| None::<()>))?;
                }
                Err(PyErr::from_value(value.into_bound(py)))
            }
            None => {
                Err(super::module(py)?.getattr("_terminated")?.call0().map_or_else(|error| error, PyErr::from_value))
            }
        }
    }
}

/// How a call with these arguments is sent.
fn arguments<'py>(args: &Bound<'py, PyAny>, kwds: &Bound<'py, PyAny>) -> PyResult<(Call, Bound<'py, PyAny>)> {
    if kwds.cast_exact::<PyDict>().is_ok_and(PyDictMethods::is_empty) {
        return Ok((Call::Plain, args.clone()));
    }
    Ok((Call::Full, PyTuple::new(args.py(), [args, kwds])?.into_any()))
}
