//! How tasks go out: each to the workers at once where there is room, else to the feeds.

use std::sync::Arc;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use super::Call;
use super::engine::{Backend, PoolEngine};
use super::feed::Feed;
use super::job::{Job, Progress};
use super::payload::Payload;
use super::result::PoolHandle;
use super::shop::Order;

/// Orders that threads may have waiting; the rest stays with whoever makes them.
const ORDERS: u32 = 256;

impl PoolEngine {
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

    /// Whether to collect before the next task goes out: it would take memory that none has had yet.
    pub(super) fn should_collect(&self) -> bool {
        match &self.backend {
            Backend::Processes(desk) => desk.should_collect(),
            Backend::Threads(_) => false,
        }
    }

    /// Sends a task out. `false`: there is no room.
    pub(super) fn send<'py>(
        &self,
        job: &Arc<Job>,
        index: usize,
        call: Call,
        function: &Bound<'py, PyAny>,
        payload: &Payload<'_, 'py>,
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
                let (function, payload) = (function.clone().unbind(), payload.object(function.py())?.unbind());
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
        let job = PoolHandle::job(&result)?;
        let (call, payload) = arguments(&args, &kwds)?;
        // Results of a map arrive in lists here, as its functions are the standard library's.
        self.send(&job, index, call, &function, &Payload::Object(payload)).map(|_| ())
    }

    /// Sends out what a job begins with. Should that be interrupted, nobody will ever hold the job: it is over.
    pub(super) fn begin(&self, py: Python<'_>, job: &Arc<Job>, send: impl FnOnce() -> PyResult<()>) -> PyResult<()> {
        send().inspect_err(|error| {
            let value = error.clone_ref(py).into_value(py).into_any();
            if job.fail(py, &value) == Progress::Complete && self.completed(py, job).is_ok() {
                self.announce();
            }
        })
    }

    pub(super) fn send_or_feed(
        &self,
        py: Python<'_>,
        job: &Arc<Job>,
        call: Call,
        function: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        if !self.has_feeds() {
            if self.should_collect() {
                self.collect(py)?;
            }
            if self.send(job, 0, call, function, &Payload::Object(payload.clone()))? {
                return Ok(());
            }
            // Perhaps only because nobody has looked at what is finished.
            self.collect(py)?;
            if self.send(job, 0, call, function, &Payload::Object(payload.clone()))? {
                return Ok(());
            }
        }
        let (function, payload) = (function.clone().unbind(), payload.clone().unbind());
        self.feed(py, Feed::single(Arc::clone(job), call, function, payload))
    }
}

/// How a call with these arguments is sent.
pub(super) fn arguments<'py>(
    args: &Bound<'py, PyAny>,
    kwds: &Bound<'py, PyAny>,
) -> PyResult<(Call, Bound<'py, PyAny>)> {
    if kwds.cast_exact::<PyDict>().is_ok_and(PyDictMethods::is_empty) {
        return Ok((Call::Plain, args.clone()));
    }
    Ok((Call::Full, PyTuple::new(args.py(), [args, kwds])?.into_any()))
}
