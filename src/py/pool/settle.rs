//! How tasks and jobs end: what comes back from the workers, what a dead worker leaves, and the result for the caller.

use core::time::Duration;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::exceptions::{PyKeyError, PyKeyboardInterrupt};
use pyo3::prelude::*;
use pyo3::types::PyType;
use rsmp_core::Deadline;
use rsmp_core::pool::{Closing, Stage};
use rsmp_core::sys::poll;

use super::engine::{Backend, CLOSING, PoolEngine};
use super::job::{Ending, Job, Progress};
use crate::block;

/// Within this time an interrupt reaches every process that it is for.
const INTERRUPTED: Duration = Duration::from_millis(20);

impl PoolEngine {
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

    pub(super) fn leave_when_done(&self) {
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
    pub(super) fn result<'py>(&self, py: Python<'py>, job: &Arc<Job>) -> PyResult<Bound<'py, PyAny>> {
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
                let class = super::module(py)?.getattr("_ProcessError")?.cast_into::<PyType>()?;
                Err(PyErr::from_type(class, "the pool was terminated before the result was there"))
            }
        }
    }

    /// Settles what a dead worker leaves; see `bury`.
    pub(super) fn do_bury(&self, py: Python<'_>, pid: u32, lost: &Bound<'_, PyAny>) -> PyResult<Option<&'static str>> {
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

    /// Ends every job; see `break_down`.
    pub(super) fn do_break_down(&self, error: &Bound<'_, PyAny>) -> PyResult<()> {
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
}
