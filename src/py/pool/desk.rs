//! Tasks to worker processes: pickled, published on the board, told apart when they come back.

use std::sync::Arc;
use std::sync::atomic::Ordering;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyFunction, PyModule, PyTuple, PyType};
use rsmp_core::pool::dispatcher::Function;
use rsmp_core::pool::{Board, Collected, Dispatcher, Task};

use super::job::{Ending, Job};
use super::{Call, FUNCTION_INSIDE, outcome};
use crate::error::Failure;
use crate::{codec, pickle};

/// Functions stored on the board at one time.
const FUNCTIONS: usize = 32;
/// Room for results is guessed up to this size; larger ones are asked for.
const GUESSED: usize = 8192;
/// Payload that may be on its way, unless each worker has less than two tasks: as a pipe that fills up.
const BUDGET: usize = 64 << 20;

pub(super) struct Desk {
    books: Mutex<Books>,
    board: Arc<Board>,
    workers: u32,
}

struct Books {
    dispatcher: Dispatcher,
    /// Whose task is in each slot.
    tickets: Vec<Option<Ticket>>,
    functions: Vec<Stored>,
    /// Bytes of payload in the slots.
    bytes: usize,
    scratch: Vec<u8>,
}

struct Ticket {
    job: Arc<Job>,
    index: usize,
    call: Call,
    function: Option<u64>,
    bytes: usize,
}

/// A function that is pickled by name: the same object wherever it arrives, so once is enough.
struct Stored {
    object: Py<PyAny>,
    function: Function,
    users: usize,
}

/// A task that came back.
pub(super) struct Return {
    pub(super) job: Arc<Job>,
    pub(super) index: usize,
    pub(super) ending: Ending,
    /// A single item where its job counts in chunks.
    pub(super) bare: bool,
}

/// A task that died with its worker.
pub(super) struct Lost {
    pub(super) job: Arc<Job>,
    pub(super) index: usize,
}

impl Desk {
    pub(super) fn new(workers: u32) -> rsmp_core::Result<Self> {
        // Replacements start before the records of the dead are vacant, and a few more may be added by hand.
        let dispatcher = Dispatcher::create(workers * 2 + 8)?;
        let board = Arc::clone(dispatcher.board());
        let books = Books { dispatcher, tickets: Vec::new(), functions: Vec::new(), bytes: 0, scratch: Vec::new() };
        Ok(Self { books: Mutex::new(books), board, workers })
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Tasks that are out.
    pub(super) fn in_use(&self) -> u32 {
        self.books.lock().dispatcher.in_use()
    }

    /// Whether one more task may go out.
    pub(super) fn has_room(&self) -> bool {
        self.books.lock().has_room(self.workers)
    }

    /// Sends a task out. `false`: there is no room. An error of the pickler is the task's ending, given to `failed`.
    pub(super) fn submit(
        &self,
        job: &Arc<Job>,
        index: usize,
        call: Call,
        function: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
        failed: &mut Option<Ending>,
    ) -> PyResult<bool> {
        let py = function.py();
        if !self.has_room() {
            return Ok(false);
        }
        let mut scratch = std::mem::take(&mut self.books.lock().scratch);
        scratch.clear();
        let outcome = self.pickle_and_publish(job, index, call, function, payload, &mut scratch);
        pickle::recycle(&mut scratch);
        self.books.lock().scratch = scratch;
        match outcome {
            Ok(sent) => Ok(sent),
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => {
                *failed = Some(Ending::failed(py, error));
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn pickle_and_publish(
        &self,
        job: &Arc<Job>,
        index: usize,
        call: Call,
        function: &Bound<'_, PyAny>,
        payload: &Bound<'_, PyAny>,
        scratch: &mut Vec<u8>,
    ) -> PyResult<bool> {
        let stored = self.stored(function, scratch)?;
        if stored.is_some() {
            codec::encode(payload, scratch)?;
        } else {
            codec::encode(PyTuple::new(function.py(), [function, payload])?.as_any(), scratch)?;
        }
        let kind = call as u32 | if stored.is_some() { 0 } else { FUNCTION_INSIDE };
        let task = Task { kind, function: stored, payload: scratch, room: job.room.load(Ordering::Relaxed) };
        let mut books = self.books.lock();
        let Some(slot) = books.dispatcher.publish(&task).map_err(Failure::from)? else { return Ok(false) };
        let ticket = Ticket {
            job: Arc::clone(job),
            index,
            call,
            function: stored.map(|stored| stored.id),
            bytes: scratch.len(),
        };
        books.issue(slot, ticket);
        drop(books);
        self.board.ring(1);
        Ok(true)
    }

    /// The function on the board, if it is one that is pickled by name.
    fn stored(&self, function: &Bound<'_, PyAny>, scratch: &mut Vec<u8>) -> PyResult<Option<Function>> {
        let mut books = self.books.lock();
        if let Some(stored) = books.functions.iter().rev().find(|stored| stored.object.is(function)) {
            return Ok(Some(stored.function));
        }
        drop(books);
        if !pickled_by_name(function) {
            return Ok(None);
        }
        codec::encode(function, scratch)?;
        books = self.books.lock();
        // Dropped outside the lock.
        let mut evicted = None;
        if books.functions.len() >= FUNCTIONS {
            let Some(idle) = books.functions.iter().position(|stored| stored.users == 0) else {
                scratch.clear();
                return Ok(None);
            };
            let stored = books.functions.remove(idle);
            books.dispatcher.drop_function(stored.function);
            evicted = Some(stored.object);
        }
        let stored = books.dispatcher.store_function(scratch).map_err(Failure::from)?;
        scratch.clear();
        books.functions.push(Stored { object: function.clone().unbind(), function: stored, users: 0 });
        drop(books);
        drop(evicted);
        Ok(Some(stored))
    }

    /// Takes what the workers have finished. The endings are unpickled; one that cannot be is that error.
    pub(super) fn collect(&self, py: Python<'_>, mut each: impl FnMut(Return) -> PyResult<()>) -> PyResult<()> {
        if self.board.finished() == 0 {
            return Ok(());
        }
        let mut finished = Vec::new();
        self.books.lock().dispatcher.collect(&mut finished);
        self.hand_over(py, &finished, &mut each)
    }

    fn hand_over(
        &self,
        py: Python<'_>,
        finished: &[Collected],
        each: &mut impl FnMut(Return) -> PyResult<()>,
    ) -> PyResult<()> {
        let mut bytes = Vec::new();
        let mut interrupted = Ok(());
        for collected in finished {
            let (ticket, read) = {
                let mut books = self.books.lock();
                let read = books.dispatcher.read(collected.slot, &mut bytes);
                (books.redeem(collected.slot), read)
            };
            let Some(ticket) = ticket else { continue };
            let ending = match read.map_err(Failure::from) {
                Ok(()) => decode(py, collected.outcome, &bytes),
                Err(error) => Ending::failed(py, error.into()),
            };
            if bytes.len() > ticket.job.room.load(Ordering::Relaxed) && bytes.len() <= GUESSED {
                ticket.job.room.store(bytes.len(), Ordering::Relaxed);
            }
            let bare = ending.ok && ticket.call == Call::One;
            // The others must not be lost because of one.
            interrupted = interrupted.and(each(Return { job: ticket.job, index: ticket.index, ending, bare }));
        }
        pickle::recycle(&mut bytes);
        interrupted
    }

    /// Settles what a dead worker leaves. Returns the tasks that died with it, and whether it got past its initializer.
    pub(super) fn bury(
        &self,
        py: Python<'_>,
        pid: u32,
        mut each: impl FnMut(Return) -> PyResult<()>,
    ) -> PyResult<(Vec<Lost>, Option<rsmp_core::pool::Stage>)> {
        let mut finished = Vec::new();
        let mut books = self.books.lock();
        let estate = books.dispatcher.bury(pid, &mut finished);
        let lost = estate.lost.iter().filter_map(|&slot| books.redeem(slot)).collect::<Vec<_>>();
        drop(books);
        self.hand_over(py, &finished, &mut each)?;
        let lost = lost.into_iter().map(|ticket| Lost { job: ticket.job, index: ticket.index }).collect();
        Ok((lost, estate.stage))
    }

    /// The jobs of the tasks that are out.
    pub(super) fn jobs(&self) -> Vec<Arc<Job>> {
        self.books.lock().tickets.iter().flatten().map(|ticket| Arc::clone(&ticket.job)).collect()
    }

    /// Forgets every task.
    pub(super) fn forget(&self) {
        let mut books = self.books.lock();
        let tickets = std::mem::take(&mut books.tickets);
        let functions = std::mem::take(&mut books.functions);
        drop(books);
        drop((tickets, functions));
    }
}

impl Books {
    fn has_room(&self, workers: u32) -> bool {
        self.dispatcher.has_room() && (self.bytes < BUDGET || self.dispatcher.in_use() < workers * 2)
    }

    fn issue(&mut self, slot: u32, ticket: Ticket) {
        let slot = slot as usize;
        if self.tickets.len() <= slot {
            self.tickets.resize_with(slot + 1, || None);
        }
        self.bytes += ticket.bytes;
        if let Some(id) = ticket.function
            && let Some(stored) = self.functions.iter_mut().rev().find(|stored| stored.function.id == id)
        {
            stored.users += 1;
        }
        self.tickets[slot] = Some(ticket);
    }

    /// Takes a task out of the books.
    fn redeem(&mut self, slot: u32) -> Option<Ticket> {
        self.dispatcher.release(slot);
        let ticket = self.tickets.get_mut(slot as usize)?.take()?;
        self.bytes -= ticket.bytes;
        if let Some(id) = ticket.function
            && let Some(stored) = self.functions.iter_mut().rev().find(|stored| stored.function.id == id)
        {
            stored.users -= 1;
        }
        Some(ticket)
    }
}

fn decode(py: Python<'_>, outcome: u32, bytes: &[u8]) -> Ending {
    let value = match outcome {
        outcome::NOTHING => return Ending { ok: true, value: py.None() },
        outcome::NO_MEMORY => {
            Err(pyo3::exceptions::PyMemoryError::new_err("no shared memory for the result of a task"))
        }
        _ => codec::decode(py, bytes).map(Bound::unbind),
    };
    match value {
        Ok(value) => Ending { ok: outcome == outcome::RETURNED, value },
        Err(error) => Ending::failed(py, error),
    }
}

/// Whether pickling `function` only names it: a plain function, a class, a function of an extension module.
fn pickled_by_name(function: &Bound<'_, PyAny>) -> bool {
    if let Ok(builtin) = function.cast_exact::<PyCFunction>() {
        return builtin.getattr("__self__").is_ok_and(|owner| owner.is_none() || owner.is_instance_of::<PyModule>());
    }
    function.is_exact_instance_of::<PyFunction>() || function.get_type().is(function.py().get_type::<PyType>())
}
