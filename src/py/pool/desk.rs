//! Tasks to worker processes: pickled, published on the board, told apart when they come back.

use std::sync::Arc;

use parking_lot::Mutex;
use pyo3::prelude::*;
use pyo3::types::{PyCFunction, PyFunction, PyModule, PyTuple, PyType};
use rsmp_core::pool::board::total;
use rsmp_core::pool::dispatcher::Function;
use rsmp_core::pool::{Board, Collected, Dispatcher, Task};

use super::job::{Ending, Job};
use super::payload::Payload;
use super::{Call, FUNCTION_INSIDE, TAG_SHIFT, outcome};
use crate::error::Failure;
use crate::message::{self, Encoded, LONG};
use crate::{block, pickle};

/// Functions stored on the board at one time.
const FUNCTIONS: usize = 32;
/// Room for results is guessed up to this size; larger ones are asked for.
const GUESSED: usize = 16 << 20;
/// Memory that may be on its way, unless the workers have no more than a task each and half of them a second one: as a pipe
/// that fills up. What is used again soon is warm, and its pages are there.
const BUDGET: usize = 8 << 20;

pub(super) struct Desk {
    books: Mutex<Books>,
    board: Arc<Board>,
    workers: u32,
    /// How often a task is run again after its worker was lost.
    retries: u32,
}

struct Books {
    dispatcher: Dispatcher,
    /// Whose task is in each slot.
    tickets: Vec<Option<Ticket>>,
    functions: Vec<Stored>,
    /// Bytes of memory that tasks hold.
    bytes: usize,
}

struct Ticket {
    job: Arc<Job>,
    index: usize,
    call: Call,
    function: Option<u64>,
    bytes: usize,
    again: Option<Again>,
}

/// What running a task again takes.
struct Again {
    /// How often it still may be.
    left: u32,
    /// The payload: a worker that dies may have begun to write its result over the one on the board.
    payload: Vec<u8>,
}

/// A function that is pickled by name: the same object wherever it arrives, so once is enough.
struct Stored {
    object: Py<PyAny>,
    function: Function,
    users: usize,
    /// How long its results are, more or less, once there has been one.
    room: Option<usize>,
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
    pub(super) fn new(workers: u32, retries: u32) -> rsmp_core::Result<Self> {
        // Replacements start before the records of the dead are vacant, and a few more may be added by hand.
        let dispatcher = Dispatcher::create(workers * 2 + 8)?;
        let board = Arc::clone(dispatcher.board());
        let books = Books { dispatcher, tickets: Vec::new(), functions: Vec::new(), bytes: 0 };
        Ok(Self { books: Mutex::new(books), board, workers, retries })
    }

    pub(super) fn board(&self) -> &Arc<Board> {
        &self.board
    }

    pub(super) fn workers(&self) -> u32 {
        self.workers
    }

    /// Tasks that are out.
    pub(super) fn in_use(&self) -> u32 {
        self.books.lock().dispatcher.in_use()
    }

    /// Whether one more task may go out.
    pub(super) fn has_room(&self) -> bool {
        self.books.lock().has_room(self.workers)
    }

    /// Whether to collect before the next task goes out: it would take memory that none has had yet.
    pub(super) fn should_collect(&self) -> bool {
        self.books.lock().dispatcher.should_collect()
    }

    /// Whether it is known how long the results of `function` are, or cannot be.
    pub(super) fn knows(&self, function: &Bound<'_, PyAny>) -> bool {
        let books = self.books.lock();
        books
            .functions
            .iter()
            .rev()
            .find(|stored| stored.object.is(function))
            .is_none_or(|stored| stored.room.is_some())
    }

    /// Sends a task out. `false`: there is no room. An error of the pickler is the task's ending, given to `failed`.
    pub(super) fn submit<'py>(
        &self,
        job: &Arc<Job>,
        index: usize,
        call: Call,
        function: &Bound<'py, PyAny>,
        payload: &Payload<'_, 'py>,
        failed: &mut Option<Ending>,
    ) -> PyResult<bool> {
        let py = function.py();
        if !self.has_room() {
            return Ok(false);
        }
        match self.encode_and_publish(job, index, call, function, payload) {
            Ok(sent) => Ok(sent),
            Err(error) if error.is_instance_of::<pyo3::exceptions::PyException>(py) => {
                *failed = Some(Ending::failed(py, error));
                Ok(true)
            }
            Err(error) => Err(error),
        }
    }

    fn encode_and_publish<'py>(
        &self,
        job: &Arc<Job>,
        index: usize,
        call: Call,
        function: &Bound<'py, PyAny>,
        payload: &Payload<'_, 'py>,
    ) -> PyResult<bool> {
        let py = function.py();
        let stored = self.stored(function)?;
        let encoded = match stored {
            Some(_) => payload.encode(py)?,
            None => Encoded::new(PyTuple::new(py, [function, &payload.object(py)?])?.as_any())?,
        };
        let parts = encoded.parts();
        let inside = if stored.is_some() { 0 } else { FUNCTION_INSIDE };
        let kind = call as u32 | inside | u32::from(encoded.tag()) << TAG_SHIFT;
        let len = total(parts.as_slice());
        let again = match self.retries {
            0 => None,
            left => Some(Again { left, payload: joined(parts.as_slice())? }),
        };
        let mut books = self.books.lock();
        let room = stored.and_then(|stored| books.stored(stored.id)?.room).unwrap_or(0);
        let task = Task { kind, function: stored, len, room };
        let Some(reserved) = books.dispatcher.reserve(&task).map_err(Failure::from)? else { return Ok(false) };
        let bytes = books.dispatcher.held(reserved.slot);
        books.bytes += bytes;
        let function = stored.map(|stored| stored.id);
        let ticket = Ticket { job: Arc::clone(job), index, call, function, bytes, again };
        if len > LONG as u64 {
            drop(books);
            let written = block::aside(py, || reserved.write(&self.board, parts.as_slice()));
            books = self.books.lock();
            books.issue(reserved.slot, ticket);
            written.map_err(Failure::from)?;
        } else {
            reserved.write(&self.board, parts.as_slice()).map_err(Failure::from)?;
            books.issue(reserved.slot, ticket);
        }
        books.dispatcher.publish(reserved);
        drop(books);
        self.board.ring(1);
        Ok(true)
    }

    /// The function on the board, if it is one that is pickled by name.
    fn stored(&self, function: &Bound<'_, PyAny>) -> PyResult<Option<Function>> {
        let mut books = self.books.lock();
        if let Some(stored) = books.functions.iter().rev().find(|stored| stored.object.is(function)) {
            return Ok(Some(stored.function));
        }
        drop(books);
        if !pickled_by_name(function) {
            return Ok(None);
        }
        let mut pickled = Vec::new();
        pickle::dumps(function, &mut pickled)?;
        books = self.books.lock();
        // Dropped outside the lock.
        let mut evicted = None;
        if books.functions.len() >= FUNCTIONS {
            let Some(idle) = books.functions.iter().position(|stored| stored.users == 0) else { return Ok(None) };
            let stored = books.functions.remove(idle);
            books.dispatcher.drop_function(stored.function);
            evicted = Some(stored.object);
        }
        let stored = books.dispatcher.store_function(&pickled).map_err(Failure::from)?;
        books.functions.push(Stored { object: function.clone().unbind(), function: stored, users: 0, room: None });
        drop(books);
        drop(evicted);
        Ok(Some(stored))
    }

    /// Takes what the workers have finished. The endings are unpickled; one that cannot be is that error.
    pub(super) fn collect(&self, py: Python<'_>, mut each: impl FnMut(Return) -> PyResult<()>) -> PyResult<()> {
        if !self.board.has_news() {
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
        let mut interrupted = Ok(());
        for collected in finished {
            let place = self.books.lock().dispatcher.result(collected.slot);
            let mut interrupt = None;
            let (ending, len) = match place.and_then(|place| Ok((place.bytes(&self.board)?, place.len))) {
                Ok((bytes, len)) => (decode(py, collected.outcome, bytes, &mut interrupt), len as usize),
                Err(error) => (Ending::failed(py, Failure::from(error).into()), 0),
            };
            interrupted = interrupted.and(interrupt.map_or(Ok(()), Err));
            let ticket = {
                let mut books = self.books.lock();
                books.redeem(collected.slot).inspect(|ticket| books.expect(ticket, len))
            };
            let Some(ticket) = ticket else { continue };
            let bare = ending.ok && ticket.call == Call::One;
            // The others must not be lost because of one.
            interrupted = interrupted.and(each(Return { job: ticket.job, index: ticket.index, ending, bare }));
        }
        interrupted
    }

    /// Settles what a dead worker leaves. Returns the tasks that died with it and are not run again, how far it had come,
    /// and what was raised meanwhile.
    pub(super) fn bury(
        &self,
        py: Python<'_>,
        pid: u32,
        mut each: impl FnMut(Return) -> PyResult<()>,
    ) -> (Vec<Lost>, Option<rsmp_core::pool::Stage>, PyResult<()>) {
        let mut finished = Vec::new();
        let mut books = self.books.lock();
        let estate = books.dispatcher.bury(pid, &mut finished);
        let (again, lost): (Vec<_>, Vec<_>) = estate.lost.iter().partition(|&&slot| books.run_again(slot));
        let lost = lost.into_iter().filter_map(|slot| books.redeem(slot)).collect::<Vec<_>>();
        drop(books);
        if !again.is_empty() {
            self.board.ring(again.len() as u32);
        }
        let outcome = self.hand_over(py, &finished, &mut each);
        let lost = lost.into_iter().map(|ticket| Lost { job: ticket.job, index: ticket.index }).collect();
        (lost, estate.stage, outcome)
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
    fn stored(&mut self, id: u64) -> Option<&mut Stored> {
        self.functions.iter_mut().rev().find(|stored| stored.function.id == id)
    }

    /// Remembers how long a result was, for the room of the next ones.
    fn expect(&mut self, ticket: &Ticket, len: usize) {
        let Some(stored) = ticket.function.and_then(|id| self.stored(id)) else { return };
        let room = stored.room.unwrap_or(0);
        stored.room = Some(match len {
            _ if len > GUESSED => room,
            _ if len > room => len,
            // One long result is forgotten in time.
            _ if len < room / 2 => room - room / 8,
            _ => room,
        });
    }

    fn has_room(&self, workers: u32) -> bool {
        self.dispatcher.has_room() && (self.bytes < BUDGET || self.dispatcher.in_use() < workers + workers.div_ceil(2))
    }

    fn issue(&mut self, slot: u32, ticket: Ticket) {
        let slot = slot as usize;
        if self.tickets.len() <= slot {
            self.tickets.resize_with(slot + 1, || None);
        }
        if let Some(stored) = ticket.function.and_then(|id| self.stored(id)) {
            stored.users += 1;
        }
        self.tickets[slot] = Some(ticket);
    }

    /// Publishes a lost task again. `false`: it has been often enough.
    fn run_again(&mut self, slot: u32) -> bool {
        let ticket = self.tickets.get_mut(slot as usize).and_then(Option::as_mut);
        let Some(again) = ticket.and_then(|ticket| ticket.again.as_mut()) else { return false };
        if again.left == 0 {
            return false;
        }
        again.left -= 1;
        self.dispatcher.publish_again(slot, &again.payload).is_ok()
    }

    /// Takes a task out of the books.
    fn redeem(&mut self, slot: u32) -> Option<Ticket> {
        self.dispatcher.release(slot);
        let ticket = self.tickets.get_mut(slot as usize)?.take()?;
        self.bytes -= ticket.bytes;
        if let Some(stored) = ticket.function.and_then(|id| self.stored(id)) {
            stored.users -= 1;
        }
        Some(ticket)
    }
}

/// The ending that a worker handed in.
///
/// What a signal handler raises may come up in here, on the main thread. It is not the task's: what unpickles at the
/// second try was only interrupted, and `interrupt` is for the caller.
fn decode(py: Python<'_>, outcome: u32, bytes: &[u8], interrupt: &mut Option<PyErr>) -> Ending {
    let (outcome, tag) = (outcome & 0xff, (outcome >> TAG_SHIFT) as u8);
    if outcome == outcome::NOTHING {
        return Ending { ok: true, value: py.None() };
    }
    if outcome == outcome::NO_MEMORY {
        let error = pyo3::exceptions::PyMemoryError::new_err("no shared memory for the result of a task");
        return Ending::failed(py, error);
    }
    let ok = outcome == outcome::RETURNED;
    match message::decode_in_place(py, tag, bytes) {
        Ok(value) => Ending { ok, value: value.unbind() },
        Err(first) => match message::decode_in_place(py, tag, bytes) {
            Ok(value) => {
                *interrupt = Some(first);
                Ending { ok, value: value.unbind() }
            }
            Err(error) => Ending::failed(py, error),
        },
    }
}

/// The parts one behind the other, in memory of this process.
fn joined(parts: &[&[u8]]) -> PyResult<Vec<u8>> {
    let mut bytes = Vec::new();
    pickle::make_room(&mut bytes, total(parts) as usize)?;
    for part in parts {
        bytes.extend_from_slice(part);
    }
    Ok(bytes)
}

/// Whether pickling `function` only names it: a plain function, a class, a function of an extension module.
fn pickled_by_name(function: &Bound<'_, PyAny>) -> bool {
    if let Ok(builtin) = function.cast_exact::<PyCFunction>() {
        return builtin.getattr("__self__").is_ok_and(|owner| owner.is_none() || owner.is_instance_of::<PyModule>());
    }
    function.is_exact_instance_of::<PyFunction>() || function.get_type().is(function.py().get_type::<PyType>())
}
