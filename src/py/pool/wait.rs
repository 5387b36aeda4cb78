//! How threads of the owner wait for results, and what the supervisor thread does.
//!
//! Whoever waits takes in what the workers have finished; there is no thread for that. The supervisor is started when
//! something must go on though nobody waits: callbacks, workers to be replaced, iterables that are still to be read.

use core::time::Duration;
use std::os::fd::RawFd;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use rsmp_core::Deadline;
use rsmp_core::pool::Board;
use rsmp_core::shm::waits::{Kind, What};
use rsmp_core::sys::{foreign, poll};

use super::engine::{Backend, PoolEngine};
use super::job::Ending;
use super::lobby::Lead;
use super::pump::Pumped;
use super::shop::Next;
use crate::block;

/// A sleeper is woken when this many tasks have finished, though its own job may need more.
const BATCH: usize = 512;
/// While many tasks are out, this many results of a stream are worth waiting a moment for.
const STREAM_BATCH: u32 = 64;
const MOMENT: Duration = Duration::from_micros(100);

/// What a sleep ended with.
#[derive(Clone, Copy, Debug, Default)]
struct Woken {
    worker_ended: bool,
}

/// How a thread says that it waits for a pool.
const RESULTS: What = What::new(Kind::PoolResult, 0, 0);

impl PoolEngine {
    /// Waits until `done`, taking in results meanwhile. `false`: not by `deadline`, or never because the pool is
    /// terminated. `needs` is the least number of results that must come before `done` can hold.
    pub(super) fn wait(
        &self,
        py: Python<'_>,
        deadline: Deadline,
        done: &dyn Fn() -> bool,
        needs: &dyn Fn() -> usize,
        stream: bool,
    ) -> PyResult<bool> {
        loop {
            let generation = self.lobby.generation();
            if done() {
                return Ok(true);
            }
            self.collect(py)?;
            let pumped = self.pump(py, false)?;
            let done = done();
            if done || self.terminated() || deadline.has_passed() {
                if pumped == Pumped::Part {
                    // Somebody else has to go on.
                    self.announce();
                }
                return Ok(done);
            }
            if pumped == Pumped::Part {
                give_way(py)?;
                continue;
            }
            let Backend::Processes(desk) = &self.backend else {
                block::until_for(py, RESULTS, deadline, |slice| Ok(self.lobby.follow(generation, slice)))?;
                continue;
            };
            let Some(lead) = self.lobby.lead(generation) else {
                block::until_for(py, RESULTS, deadline, |slice| Ok(self.lobby.follow(generation, slice)))?;
                continue;
            };
            let woken = self.sleep_as_leader(py, desk.board(), deadline, self.depth(needs()), stream);
            self.resign(lead);
            if woken?.worker_ended {
                self.call_on_exit(py)?;
            }
        }
    }

    /// How many finished tasks are worth waking up for when `needs` are needed.
    fn depth(&self, needs: usize) -> u32 {
        let out = self.in_use();
        let wanted = needs.min(BATCH) as u32;
        if self.has_feeds() { wanted.min(out / 2).max(1) } else { wanted.min(out).max(1) }
    }

    fn resign(&self, lead: Lead<'_>) {
        drop(lead);
        if self.supervised.load(Ordering::Acquire) && self.interested() {
            self.announce();
        }
    }

    fn sleep_as_leader(
        &self,
        py: Python<'_>,
        board: &Board,
        deadline: Deadline,
        depth: u32,
        stream: bool,
    ) -> PyResult<Woken> {
        let sentinels =
            if self.supervised.load(Ordering::Acquire) { Arc::from([]) } else { Arc::clone(&self.sentinels.lock()) };
        let patient = if stream { (self.in_use() / 4).min(STREAM_BATCH) } else { 0 };
        let woken = block::until_for(py, RESULTS, deadline, |slice| {
            if depth == 1 && self.spin.until(Deadline::NEVER, || (board.has_news()).then_some(())).is_some() {
                return Ok(Some(Woken::default()));
            }
            if patient > 1 {
                let woken = sleep(board, false, &sentinels, patient, slice.capped(MOMENT))?;
                if woken.is_some() || board.has_news() {
                    return Ok(Some(woken.unwrap_or_default()));
                }
            }
            let woken = sleep(board, false, &sentinels, depth, slice)?;
            Ok(woken.or_else(|| board.has_news().then(Woken::default)))
        })?;
        Ok(woken.unwrap_or_default())
    }

    fn call_on_exit(&self, py: Python<'_>) -> PyResult<()> {
        if self.terminated() {
            return Ok(());
        }
        let callback = self.on_exit.lock().as_ref().map(|callback| callback.clone_ref(py));
        if let Some(callback) = callback {
            callback.call0(py)?;
        }
        Ok(())
    }

    pub(super) fn do_supervise(&self, py: Python<'_>) -> PyResult<bool> {
        loop {
            let generation = self.lobby.generation();
            self.run_callbacks(py)?;
            self.collect(py)?;
            let pumped = self.pump(py, true)?;
            if !self.settled.is_empty() {
                continue;
            }
            if self.over() {
                return Ok(false);
            }
            if pumped == Pumped::Part {
                give_way(py)?;
                continue;
            }
            let Backend::Processes(desk) = &self.backend else {
                block::until_for(py, RESULTS, Deadline::NEVER, |slice| Ok(self.lobby.follow(generation, slice)))?;
                continue;
            };
            let lead = if self.interested() { self.lobby.lead(generation) } else { None };
            if !self.lobby.listen(generation) {
                continue;
            }
            let sentinels = Arc::clone(&self.sentinels.lock());
            let leads = lead.is_some();
            let patient = if leads { (self.in_use() / 4).min(STREAM_BATCH) } else { 0 };
            let board = desk.board();
            let woken = block::until_for(py, RESULTS, Deadline::NEVER, |slice| {
                if patient > 1 {
                    let woken = sleep(board, true, &sentinels, patient, slice.capped(MOMENT))?;
                    if woken.is_some() || board.has_news() {
                        return Ok(Some(woken.unwrap_or_default()));
                    }
                }
                let woken = sleep(board, true, &sentinels, u32::from(leads), slice)?;
                // What nobody waits for is taken in now and then, so that its memory is free again.
                Ok(woken.or_else(|| (board.has_news()).then(Woken::default)))
            })?;
            drop(lead);
            if woken.unwrap_or_default().worker_ended {
                return Ok(true);
            }
        }
    }

    fn run_callbacks(&self, py: Python<'_>) -> PyResult<()> {
        loop {
            let Some(job) = self.settled.pop() else { return Ok(()) };
            if self.terminated() {
                return Ok(());
            }
            if let Some(Ending { ok, value }) = job.ending(py)
                && let Some(callback) = job.take_callback(ok)
                && let Err(error) = callback.call1(py, (value,))
            {
                error.write_unraisable(py, Some(callback.bind(py)));
            }
            self.finish(py, &job)?;
            self.announce();
        }
    }

    /// What a worker thread does.
    pub(super) fn do_work(&self, py: Python<'_>) -> PyResult<()> {
        let Backend::Threads(shop) = &self.backend else { return Ok(()) };
        loop {
            let order = match shop.take() {
                Some(Next::Order(order)) => order,
                Some(Next::Leave) => return Ok(()),
                None => {
                    block::until_for(py, RESULTS, Deadline::NEVER, |slice| {
                        shop.wait(slice);
                        Ok((!shop.is_idle()).then_some(()))
                    })?;
                    continue;
                }
            };
            let ending = match order.call.run(order.function.bind(py), order.payload.bind(py)) {
                Ok(value) => Ending { ok: true, value: value.unbind() },
                Err(error) => Ending::failed(py, error),
            };
            let bare = ending.ok && order.call == super::Call::One;
            let (job, index) = (Arc::clone(&order.job), order.index);
            drop(order);
            shop.finished();
            let news = self.settle(py, &job, index, ending, bare)?;
            if news || self.has_feeds() {
                self.announce();
            }
        }
    }
}

/// Lets other threads and signal handlers run.
fn give_way(py: Python<'_>) -> PyResult<()> {
    block::until(py, Deadline::PASSED, |_| Ok(None::<()>)).map(|_| ())
}

/// Sleeps until the board has `depth` finished tasks (0: that is another thread's business), a worker ends or the
/// supervisor, if this is it, is called. `None`: not until `deadline`.
fn sleep(
    board: &Board,
    supervisor: bool,
    sentinels: &[RawFd],
    depth: u32,
    deadline: Deadline,
) -> rsmp_core::Result<Option<Woken>> {
    if depth > 0 && !board.ask(depth) {
        return Ok(Some(Woken::default()));
    }
    let mut set = poll::Set::with_capacity(sentinels.len() + 2);
    if depth > 0 {
        set.push(board.event());
    }
    if supervisor {
        set.push(board.attention());
    }
    let first = usize::from(depth > 0) + usize::from(supervisor);
    for &sentinel in sentinels {
        set.push(foreign::borrow(sentinel)?);
    }
    let ready = set.wait(deadline)?;
    if depth > 0 {
        board.ask_no_more();
    }
    if ready == 0 {
        return Ok(None);
    }
    let mut woken = Woken::default();
    for position in set.ready() {
        if position >= first {
            woken.worker_ended = true;
        } else if position == 0 && depth > 0 {
            board.clear_event()?;
        } else {
            board.clear_attention()?;
        }
    }
    Ok(Some(woken))
}
