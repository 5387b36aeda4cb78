//! The feeds: tasks that did not all go out at once, and who may take from them.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::prelude::*;

use super::engine::PoolEngine;
use super::feed::{Advance, Feed};
use super::job::{Job, Progress};

/// Tasks that go out before the thread looks after other things.
const TURN: u32 = 4096;

/// Why no more tasks go out now.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Pumped {
    /// There is no room, or there are none, or another thread sends them.
    All,
    /// The turn is over: come again.
    Part,
}

impl PoolEngine {
    pub(super) fn has_feeds(&self) -> bool {
        self.feed_count.load(Ordering::Acquire) > 0
    }

    #[allow(clippy::too_many_arguments)] // what a map is
    pub(super) fn feed_map(
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

    pub(super) fn feed(&self, py: Python<'_>, feed: Feed) -> PyResult<()> {
        let job = Arc::clone(&feed.job);
        self.feed_count.fetch_add(1, Ordering::AcqRel);
        self.feeds.lock().push_back(feed);
        self.pump(py, false).inspect_err(|_| self.withdraw(&job))?;
        if self.has_feeds() {
            self.announce();
        }
        Ok(())
    }

    /// Forgets the tasks of a job that have not gone out.
    fn withdraw(&self, job: &Arc<Job>) {
        let mut feeds = self.feeds.lock();
        let all = std::mem::take(&mut *feeds).into_iter();
        let (withdrawn, kept): (VecDeque<_>, _) = all.partition(|feed| Arc::ptr_eq(&feed.job, job));
        *feeds = kept;
        drop(feeds);
        self.feed_count.fetch_sub(withdrawn.len(), Ordering::AcqRel);
    }

    /// Sends out what there is room for. Only the supervisor takes from sources that may block.
    pub(super) fn pump(&self, py: Python<'_>, supervisor: bool) -> PyResult<Pumped> {
        if !self.has_feeds() || self.feeding.swap(true, Ordering::AcqRel) {
            return Ok(Pumped::All);
        }
        let outcome = self.take_turn(py, supervisor);
        self.feeding.store(false, Ordering::Release);
        outcome
    }

    fn take_turn(&self, py: Python<'_>, supervisor: bool) -> PyResult<Pumped> {
        let mut turn = TURN;
        while self.do_pump(py, supervisor, &mut turn)? == Advance::Behind {
            self.collect(py)?;
        }
        Ok(if turn == 0 { Pumped::Part } else { Pumped::All })
    }

    /// Why a feed cannot send a task out now.
    pub(super) fn obstacle(&self, turn: u32) -> Option<Advance> {
        if turn == 0 {
            Some(Advance::NoRoom)
        } else if self.should_collect() {
            Some(Advance::Behind)
        } else {
            (!self.has_room()).then_some(Advance::NoRoom)
        }
    }

    /// Sends out what can be without looking after anything else; why it stopped.
    fn do_pump(&self, py: Python<'_>, supervisor: bool, turn: &mut u32) -> PyResult<Advance> {
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
            let advance = feed.advance(py, self, turn);
            match advance {
                Ok(Advance::Exhausted) => {
                    self.feed_count.fetch_sub(1, Ordering::AcqRel);
                }
                Ok(obstacle @ (Advance::NoRoom | Advance::Behind)) => {
                    self.put_back(position, feed);
                    return Ok(obstacle);
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
        Ok(Advance::Exhausted)
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
}
