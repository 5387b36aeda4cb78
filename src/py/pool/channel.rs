//! `PoolChannel`: the worker process.

use std::collections::HashMap;
use std::os::fd::{AsRawFd, OwnedFd};
use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::exceptions::{PyException, PyKeyboardInterrupt, PyRuntimeError};
use pyo3::prelude::*;
use pyo3::types::PyTuple;
use rsmp_core::Deadline;
use rsmp_core::pool::worker::{Claim, Next};
use rsmp_core::pool::{Board, Stage, Worker};
use rsmp_core::sys::futex::Woken;
use rsmp_core::sys::{foreign, process};

use super::{Call, FUNCTION_INSIDE, outcome};
use crate::error::Failure;
use crate::{block, codec, pickle};

/// Functions that a worker remembers.
const REMEMBERED: usize = 64;

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
        let mut service = Service {
            worker: &worker,
            failure,
            unsendable,
            functions: HashMap::new(),
            payload: Vec::new(),
            result: Vec::new(),
        };
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
    payload: Vec<u8>,
    result: Vec<u8>,
}

impl<'py> Service<'_, 'py> {
    fn next(&self, py: Python<'py>) -> PyResult<Next> {
        let mut woken = false;
        loop {
            if let Some(next) = self.worker.claim() {
                return Ok(next);
            }
            if self.worker.watch() {
                continue;
            }
            let nap = std::mem::take(&mut woken);
            let outcome = block::until(py, Deadline::NEVER, |slice| {
                if nap {
                    self.worker.nap();
                    return Ok(Some(Woken::Interrupted));
                }
                Ok(Some(self.worker.wait(slice)))
            });
            match outcome {
                Ok(Some(Woken::TimedOut)) if self.worker.owner_is_gone() => return Ok(Next::Leave),
                Ok(why) => woken = why == Some(Woken::Changed),
                // Meant for the program, which has the pool's owner to tell its workers what to do.
                Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => {}
                Err(error) => return Err(error),
            }
        }
    }

    fn run(&mut self, py: Python<'py>, claim: &Claim) -> PyResult<()> {
        self.worker.start(claim, &mut self.payload).map_err(Failure::from)?;
        let mut function = None;
        let ending = self.call(py, claim, &mut function);
        self.result.clear();
        let outcome = match ending {
            Ok(value) if value.is_none() => outcome::NOTHING,
            Ok(value) => match codec::encode(&value, &mut self.result) {
                Ok(()) => outcome::RETURNED,
                Err(error) => self.refuse(error, &value)?,
            },
            Err(error) => {
                let value = self.failure.call1((error.into_value(py), function.as_ref()))?;
                match codec::encode(&value, &mut self.result) {
                    Ok(()) => outcome::RAISED,
                    Err(error) => self.refuse(error, &value)?,
                }
            }
        };
        drop(function);
        self.hand_in(py, claim, outcome)?;
        pickle::recycle(&mut self.payload);
        pickle::recycle(&mut self.result);
        Ok(())
    }

    /// Pickles what stands for a value that cannot be.
    fn refuse(&mut self, error: PyErr, value: &Bound<'py, PyAny>) -> PyResult<u32> {
        let py = value.py();
        if !error.is_instance_of::<PyException>(py) {
            return Err(error);
        }
        self.result.clear();
        codec::encode(&self.unsendable.call1((error.into_value(py), value))?, &mut self.result)?;
        Ok(outcome::RAISED)
    }

    fn call(
        &mut self,
        py: Python<'py>,
        claim: &Claim,
        called: &mut Option<Bound<'py, PyAny>>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let call = Call::from_kind(claim.kind)
            .ok_or_else(|| PyRuntimeError::new_err(format!("no such kind of task: {}", claim.kind)))?;
        let (function, payload) = if claim.kind & FUNCTION_INSIDE == 0 {
            (self.function(py, claim)?, codec::decode(py, &self.payload)?)
        } else {
            let pair = codec::decode(py, &self.payload)?.cast_into::<PyTuple>()?;
            (pair.get_item(0)?, pair.get_item(1)?)
        };
        *called = Some(function.clone());
        call.run(&function, &payload)
    }

    fn function(&mut self, py: Python<'py>, claim: &Claim) -> PyResult<Bound<'py, PyAny>> {
        let (place, number) = claim.function.ok_or_else(|| PyRuntimeError::new_err("a task without a function"))?;
        if let Some(function) = self.functions.get(&number) {
            return Ok(function.clone());
        }
        self.worker.read_function(place, &mut self.result).map_err(Failure::from)?;
        let function = codec::decode(py, &self.result)?;
        if self.functions.len() >= REMEMBERED {
            self.functions.clear();
        }
        self.functions.insert(number, function.clone());
        Ok(function)
    }

    fn hand_in(&mut self, py: Python<'_>, claim: &Claim, mut outcome: u32) -> PyResult<()> {
        let len = self.result.len() as u64;
        if len > self.worker.capacity(claim) {
            self.worker.ask_for_room(claim, len).map_err(Failure::from)?;
            loop {
                let granted = block::until(py, Deadline::NEVER, |slice| {
                    Ok(self.worker.granted(claim, slice).or_else(|| self.worker.owner_is_gone().then_some(false)))
                });
                match granted {
                    Ok(Some(true)) => break,
                    Ok(_) => {
                        self.result.clear();
                        outcome = outcome::NO_MEMORY;
                        break;
                    }
                    Err(error) if error.is_instance_of::<PyKeyboardInterrupt>(py) => {}
                    Err(error) => return Err(error),
                }
            }
        }
        self.worker.finish(claim, outcome, &self.result).map_err(Failure::from)?;
        Ok(())
    }
}
