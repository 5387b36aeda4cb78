//! Where tasks come from when they do not all go out at once: a map's items, an `imap` over a generator, an
//! `apply_async` that found no room.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use pyo3::exceptions::PyException;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyFrozenSet, PyIterator, PyList, PyRange, PySet, PyString, PyTuple};

use super::Call;
use super::engine::PoolEngine;
use super::job::Job;
use super::payload::{Part, Payload, Sequence};

/// Tasks of one job that are still to go out, in order.
pub(super) struct Feed {
    pub(super) job: Arc<Job>,
    source: Source,
    next: usize,
    /// Any thread may take from the source: doing so neither blocks nor runs the program's code.
    pub(super) harmless: bool,
}

enum Source {
    /// One task.
    Single {
        call: Call,
        function: Py<PyAny>,
        payload: Py<PyAny>,
    },
    Items(Items),
    /// Tasks as the standard task handler takes them: `(job, index, function, args, kwds)`, then `set_length`.
    Tasks {
        iterator: Py<PyIterator>,
        set_length: Option<Py<PyAny>>,
    },
}

struct Items {
    call: Call,
    function: Py<PyAny>,
    supply: Supply,
    /// Items of a sequence that have gone out.
    gone: usize,
    chunk: usize,
    /// No more tasks than this, if known.
    limit: Option<usize>,
    /// Items that may be ahead of the caller.
    ahead: Option<usize>,
    /// A chunk that found no room.
    held: Option<Py<PyAny>>,
}

enum Supply {
    Iterator(Py<PyIterator>),
    Sequence(Sequence),
}

/// How far a feed got.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Advance {
    Exhausted,
    /// There is no room, or the turn is over.
    NoRoom,
    /// There is something to collect first.
    Behind,
    /// It waits for its caller to take results.
    Ahead,
}

impl Feed {
    pub(super) fn single(job: Arc<Job>, call: Call, function: Py<PyAny>, payload: Py<PyAny>) -> Self {
        Self { job, source: Source::Single { call, function, payload }, next: 0, harmless: true }
    }

    /// Items of `iterable`, one by one (`chunk` 0 or 1 with `spread` false) or in chunks.
    pub(super) fn items(
        job: Arc<Job>,
        spread: bool,
        function: &Bound<'_, PyAny>,
        iterable: &Bound<'_, PyAny>,
        chunk: usize,
        limit: Option<usize>,
        ahead: Option<usize>,
    ) -> PyResult<Self> {
        let call = match (spread, chunk) {
            (false, 1) => Call::One,
            (false, _) => Call::Each,
            (true, _) => Call::EachSpread,
        };
        let sequence = if call == Call::One { None } else { Sequence::of(iterable) };
        let items = Items {
            call,
            function: function.clone().unbind(),
            supply: match sequence {
                Some(sequence) => Supply::Sequence(sequence),
                None => Supply::Iterator(iterable.try_iter()?.unbind()),
            },
            gone: 0,
            chunk,
            limit,
            ahead: ahead.map(|ahead| ahead.div_ceil(chunk)),
            held: None,
        };
        Ok(Self { job, source: Source::Items(items), next: 0, harmless: is_plain(iterable) })
    }

    pub(super) fn tasks(job: Arc<Job>, iterator: Bound<'_, PyIterator>, set_length: Option<Py<PyAny>>) -> Self {
        Self { job, source: Source::Tasks { iterator: iterator.unbind(), set_length }, next: 0, harmless: false }
    }

    /// Whether it goes no further than so far ahead of its caller.
    pub(super) fn limited(&self) -> bool {
        matches!(&self.source, Source::Items(Items { ahead: Some(_), .. }))
    }

    /// Whether it would wait for its caller.
    pub(super) fn is_ahead(&self) -> bool {
        match &self.source {
            Source::Items(items) => items.is_ahead(self.next, &self.job),
            _ => false,
        }
    }

    /// Sends tasks out while there is room, `turn` of them at most, which becomes what is left of it. Errors of the source
    /// end the job; what comes back as an error here is none of its business (an interrupt).
    pub(super) fn advance(&mut self, py: Python<'_>, engine: &PoolEngine, turn: &mut u32) -> PyResult<Advance> {
        match &mut self.source {
            Source::Single { call, function, payload } => {
                let payload = Payload::Object(payload.bind(py).clone());
                let sent = engine.send(&self.job, 0, *call, function.bind(py), &payload)?;
                Ok(if sent { Advance::Exhausted } else { Advance::NoRoom })
            }
            Source::Items(items) => items.advance(py, engine, &self.job, &mut self.next, turn),
            Source::Tasks { iterator, set_length } => {
                let mut iterator = iterator.bind(py).clone();
                loop {
                    if let Some(obstacle) = engine.obstacle(*turn) {
                        return Ok(obstacle);
                    }
                    let Some(task) = iterator.next().transpose()? else { break };
                    *turn -= 1;
                    engine.send_task(&task)?;
                    self.next = task.get_item(1)?.extract::<usize>()? + 1;
                }
                if let Some(set_length) = set_length.take() {
                    set_length.call1(py, (self.next,))?;
                }
                Ok(Advance::Exhausted)
            }
        }
    }
}

impl Items {
    fn is_ahead(&self, next: usize, job: &Job) -> bool {
        self.ahead.is_some_and(|ahead| next >= job.taken.load(Ordering::Relaxed) + ahead)
    }

    fn advance(
        &mut self,
        py: Python<'_>,
        engine: &PoolEngine,
        job: &Arc<Job>,
        next: &mut usize,
        turn: &mut u32,
    ) -> PyResult<Advance> {
        let function = self.function.bind(py).clone();
        loop {
            if self.is_ahead(*next, job) {
                return Ok(Advance::Ahead);
            }
            let payload = match self.held.take() {
                Some(held) => Payload::Object(held.into_bound(py)),
                None if self.limit.is_some_and(|limit| *next >= limit) => break,
                None => {
                    if let Some(obstacle) = engine.obstacle(*turn) {
                        return Ok(obstacle);
                    }
                    // The first results say how much room the others need.
                    if *next == engine.first() && !job.begun.load(Ordering::Relaxed) && !engine.knows(&function) {
                        return Ok(Advance::NoRoom);
                    }
                    match self.take(py) {
                        Ok(Some(payload)) => payload,
                        Ok(None) => break,
                        Err(error) if error.is_instance_of::<PyException>(py) => {
                            engine.settle_error(py, job, *next, error)?;
                            *next += 1;
                            break;
                        }
                        Err(error) => return Err(error),
                    }
                }
            };
            let sent = engine.send(job, *next, self.call, &function, &payload)?;
            match payload {
                Payload::Part(Part { count, .. }) if sent => self.gone += count,
                Payload::Object(object) if !sent => self.held = Some(object.unbind()),
                _ => {}
            }
            if !sent {
                return Ok(Advance::NoRoom);
            }
            *next += 1;
            *turn = turn.saturating_sub(1);
        }
        engine.end(py, job, *next)?;
        Ok(Advance::Exhausted)
    }

    /// The next item or chunk.
    fn take<'py>(&self, py: Python<'py>) -> PyResult<Option<Payload<'_, 'py>>> {
        let iterator = match &self.supply {
            Supply::Iterator(iterator) => iterator,
            Supply::Sequence(sequence) => {
                let count = sequence.len(py).saturating_sub(self.gone).min(self.chunk);
                return Ok((count > 0).then_some(Payload::Part(Part { sequence, start: self.gone, count })));
            }
        };
        let mut iterator = iterator.bind(py).clone();
        if self.call == Call::One {
            return Ok(iterator.next().transpose()?.map(Payload::Object));
        }
        let mut items = Vec::with_capacity(self.chunk.min(4096));
        while items.len() < self.chunk {
            match iterator.next().transpose()? {
                Some(item) => items.push(item),
                None => break,
            }
        }
        if items.is_empty() {
            return Ok(None);
        }
        Ok(Some(Payload::Object(PyTuple::new(py, items)?.into_any())))
    }
}

fn is_plain(iterable: &Bound<'_, PyAny>) -> bool {
    iterable.is_exact_instance_of::<PyList>()
        || iterable.is_exact_instance_of::<PyTuple>()
        || iterable.is_exact_instance_of::<PyRange>()
        || iterable.is_exact_instance_of::<PyDict>()
        || iterable.is_exact_instance_of::<PySet>()
        || iterable.is_exact_instance_of::<PyFrozenSet>()
        || iterable.is_exact_instance_of::<PyString>()
        || iterable.is_exact_instance_of::<PyBytes>()
}
