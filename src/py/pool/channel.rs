//! `PoolChannel`: the worker process.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use pyo3::exceptions::{PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rsmp_core::pool::board::total;
use rsmp_core::pool::worker::{Claim, Next, Watched};
use rsmp_core::pool::{Board, Stage, Worker};
use rsmp_core::shm::waits::{Kind, What};
use rsmp_core::sys::futex::Woken;
use rsmp_core::sys::{anonymous, foreign, process};
use rsmp_core::{Deadline, warm};

use super::{Call, FUNCTION_INSIDE, Returned, TAG_SHIFT, chunk, outcome};
use crate::error::Failure;
use crate::message::{self, Encoded, LONG};
use crate::{block, pickle};

/// Functions that a worker remembers.
const REMEMBERED: usize = 64;

/// How a worker says that it waits for its pool.
const TASKS: What = What::new(Kind::PoolTask, 0, 0);

/// A pool's tasks and results, as a worker sees them.
#[pyclass(frozen, module = "rsmp._rsmp")]
pub(crate) struct PoolChannel {
    board: Arc<Board>,
    worker: Mutex<Option<Arc<Worker>>>,
}

#[pymethods]
impl PoolChannel {
    /// The channel behind descriptors received from the pool's owner; takes them over.
    #[staticmethod]
    fn attach(file: i32, event: i32, attention: i32, reserve: usize) -> PyResult<Self> {
        let own = |number: i32| -> PyResult<OwnedFd> {
            let borrowed = foreign::borrow(number).map_err(Failure::from)?;
            let owned = borrowed.try_clone_to_owned()?;
            foreign::close(number).map_err(Failure::from)?;
            Ok(owned)
        };
        let board = Board::attach(own(file)?, own(event)?, own(attention)?, reserve).map_err(Failure::from)?;
        Ok(Self::new(Arc::new(board)))
    }

    /// What `attach` takes.
    #[getter]
    fn parts(&self) -> (i32, i32, i32, usize) {
        let board = &self.board;
        let numbers = [board.file(), board.event(), board.attention()].map(|file| file.as_raw_fd());
        (numbers[0], numbers[1], numbers[2], board.reserve())
    }

    /// Become a worker of the pool.
    fn enter(&self) -> PyResult<()> {
        let worker = Worker::enter(Arc::clone(&self.board), process::pid()).map_err(Failure::from)?;
        *self.worker.lock() = Some(Arc::new(worker));
        anonymous::keep_freed_memory();
        Ok(())
    }

    /// Say that the initializer raised, with this traceback.
    fn fail(&self, report: &str) -> PyResult<()> {
        match self.worker.lock().as_ref() {
            Some(worker) => Ok(worker.report(report).map_err(Failure::from)?),
            None => Ok(()),
        }
    }

    fn __reduce__<'py>(this: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        this.py().import("rsmp._worker")?.getattr("reduce_channel")?.call1((this,))
    }

    /// Run tasks until the pool is over or `maxtasks` are done; return how many were.
    ///
    /// `failure(exception, function)` gives the object that is pickled for an exception, `unsendable(exception, value)`
    /// the one for a result that cannot be pickled.
    fn serve(
        &self,
        py: Python<'_>,
        maxtasks: Option<u64>,
        failure: &Bound<'_, PyAny>,
        unsendable: &Bound<'_, PyAny>,
    ) -> PyResult<u64> {
        let Some(worker) = self.worker.lock().clone() else {
            return Err(PyRuntimeError::new_err("enter the pool first"));
        };
        worker.advance(Stage::Serving);
        let mut service = Service { worker: &worker, failure, unsendable, functions: HashMap::new(), woken: None };
        let mut completed = 0;
        while maxtasks.is_none_or(|maxtasks| completed < maxtasks) {
            match service.next(py)? {
                Next::Leave => break,
                Next::Task(claim) => service.run(py, &claim)?,
            }
            completed += 1;
        }
        worker.advance(Stage::Left);
        Ok(completed)
    }
}

impl PoolChannel {
    pub(super) fn new(board: Arc<Board>) -> Self {
        Self { board, worker: Mutex::new(None) }
    }
}

struct Service<'a, 'py> {
    worker: &'a Worker,
    failure: &'a Bound<'py, PyAny>,
    unsendable: &'a Bound<'py, PyAny>,
    /// By number; they are the same objects for every task.
    functions: HashMap<u64, Bound<'py, PyAny>>,
    /// When it was last woken for a task.
    woken: Option<Instant>,
}

impl<'py> Service<'_, 'py> {
    fn next(&mut self, py: Python<'py>) -> PyResult<Next> {
        let mut rested = false;
        loop {
            if let Some(next) = self.worker.claim() {
                if next == Next::Leave {
                    heed_signals(py)?;
                }
                return Ok(next);
            }
            let watched = self.worker.watch();
            if watched == Watched::Something {
                continue;
            }
            let brief = self.woken.take().is_some_and(|woken| woken.elapsed() < Worker::WAKE);
            let nap = brief && watched == Watched::Another;
            let woken = block::until_for(py, TASKS, Deadline::NEVER, |slice| {
                if nap {
                    self.worker.nap();
                    return Ok(Some(Woken::Interrupted));
                }
                Ok(Some(self.worker.wait(slice)))
            });
            let why = heed(py, woken)?.flatten();
            heed_signals(py)?;
            if why == Some(Woken::TimedOut) {
                if self.worker.owner_is_gone() {
                    return Ok(Next::Leave);
                }
                if !std::mem::replace(&mut rested, true) {
                    // What was kept for the next task.
                    block::aside(py, || {
                        warm::release();
                        anonymous::release_freed_memory();
                    });
                }
            }
            self.woken = (why == Some(Woken::Changed)).then(Instant::now);
        }
    }

    fn run(&mut self, py: Python<'py>, claim: &Claim) -> PyResult<()> {
        let mut function = None;
        let ending = self.call(py, claim, &mut function);
        let (outcome, encoded) = match ending {
            Ok(Returned::Encoded(encoded)) => (outcome::RETURNED, Some(encoded)),
            Ok(Returned::Value(value)) if value.is_none() => (outcome::NOTHING, None),
            Ok(Returned::Value(value)) => match Encoded::new(&value) {
                Ok(encoded) => (outcome::RETURNED, Some(encoded)),
                Err(error) => (outcome::RAISED, Some(self.refuse(error, &value)?)),
            },
            Err(error) => {
                let error = error.into_value(py);
                let describe = || self.failure.call1((&error, function.as_ref()));
                // Once more should an interrupt have come in between: it must not cost the task its ending.
                let value = describe().or_else(|_| describe())?;
                let encoded = Encoded::new(&value).or_else(|error| self.refuse(error, &value))?;
                (outcome::RAISED, Some(encoded))
            }
        };
        drop(function);
        self.hand_in(py, claim, outcome, encoded.as_ref())
    }

    /// What stands for a value that cannot be pickled.
    fn refuse(&self, error: PyErr, value: &Bound<'py, PyAny>) -> PyResult<Encoded<'py>> {
        Encoded::new(&self.unsendable.call1((error.into_value(value.py()), value))?)
    }

    fn call(
        &mut self,
        py: Python<'py>,
        claim: &Claim,
        called: &mut Option<Bound<'py, PyAny>>,
    ) -> PyResult<Returned<'py>> {
        let call = Call::from_kind(claim.kind)
            .ok_or_else(|| PyRuntimeError::new_err(format!("no such kind of task: {}", claim.kind)))?;
        let payload = self.worker.start(claim).map_err(Failure::from)?;
        let tag = (claim.kind >> TAG_SHIFT) as u8;
        if claim.kind & FUNCTION_INSIDE == 0
            && let Some(items) = chunk::items(call, tag, payload)
        {
            let function = called.insert(self.function(py, claim)?);
            return chunk::run(function, call == Call::EachSpread, items);
        }
        let payload = message::decode_in_place(py, tag, payload);
        let (function, payload) = if claim.kind & FUNCTION_INSIDE == 0 {
            (self.function(py, claim)?, payload?)
        } else {
            let pair = payload?.cast_into::<PyTuple>()?;
            (pair.get_item(0)?, pair.get_item(1)?)
        };
        *called = Some(function.clone());
        call.run(&function, &payload).map(Returned::Value)
    }

    fn function(&mut self, py: Python<'py>, claim: &Claim) -> PyResult<Bound<'py, PyAny>> {
        let (place, number) = claim.function.ok_or_else(|| PyRuntimeError::new_err("a task without a function"))?;
        if let Some(function) = self.functions.get(&number) {
            return Ok(function.clone());
        }
        let function = pickle::loads(py, self.worker.function(place).map_err(Failure::from)?)?;
        if self.functions.len() >= REMEMBERED {
            self.functions.clear();
        }
        self.functions.insert(number, function.clone());
        Ok(function)
    }

    fn hand_in(&self, py: Python<'_>, claim: &Claim, mut outcome: u32, encoded: Option<&Encoded<'_>>) -> PyResult<()> {
        let worker = self.worker;
        let parts = encoded.map(Encoded::parts);
        let mut parts = parts.as_ref().map_or(&[][..], |parts| parts.as_slice());
        let len = total(parts);
        if len > worker.capacity(claim) && !self.ask_for_room(py, claim, len)? {
            parts = &[];
            outcome = outcome::NO_MEMORY;
        }
        if len > LONG as u64 { block::aside(py, || worker.write(claim, parts)) } else { worker.write(claim, parts) }
            .map_err(Failure::from)?;
        let tag = encoded.map_or(0, |encoded| u32::from(encoded.tag()));
        worker.finish(claim, outcome | tag << TAG_SHIFT).map_err(Failure::from)?;
        Ok(())
    }

    /// Whether the owner has given the task a place for `len` bytes.
    fn ask_for_room(&self, py: Python<'_>, claim: &Claim, len: u64) -> PyResult<bool> {
        let worker = self.worker;
        worker.ask_for_room(claim, len).map_err(Failure::from)?;
        loop {
            let granted = block::until_for(py, TASKS, Deadline::NEVER, |slice| {
                Ok(worker.granted(claim, slice).or_else(|| worker.owner_is_gone().then_some(false)))
            });
            match granted {
                Ok(granted) => return Ok(granted == Some(true)),
                Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => {}
                Err(error) => return Err(error),
            }
        }
    }
}

/// Runs signal handlers between tasks.
fn heed_signals(py: Python<'_>) -> PyResult<()> {
    heed(py, py.check_signals()).map(|_| ())
}

/// What came of running signal handlers between tasks; nothing for Ctrl-C. That is meant for the program, whose pool's owner
/// tells its workers what to do: it must not reach a later task, nor the end of the worker.
fn heed<T>(py: Python<'_>, outcome: PyResult<T>) -> PyResult<Option<T>> {
    match outcome {
        Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => Ok(None),
        outcome => outcome.map(Some),
    }
}
