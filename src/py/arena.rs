//! Cells of the arena in pickles, for every object that lives in one.
//!
//! A cell is pickled only for a process being started. Its state is the arena's id, offset and length, the ticket by
//! which the arena expects the process, and the stand-in for the arena's descriptor.
//!
//! # Safety
//! The descriptor that the stand-in gives is this process's alone from then on: `rsmp.reduction.share_descriptor`.
#![allow(unsafe_code)]

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Error;
use rsmp_core::shm::arena::{self, Arena, Cell};
use rsmp_core::sys::{descriptor, process};

use crate::error::Failure;

/// The attribute of the object that starts a process (`popen`) under which its tickets are kept.
const TICKETS: &str = "_arena_tickets";

/// A process that is expected to map an arena. Dropped once it is gone: what starts a process is kept until then.
#[pyclass(module = "rsmp._rsmp", frozen)]
struct Ticket {
    arena: &'static Arena,
    number: Option<u32>,
    sharer: u32,
}

impl Drop for Ticket {
    fn drop(&mut self) {
        if let Some(number) = self.number
            && self.sharer == process::pid()
        {
            self.arena.cancel_process(number);
        }
    }
}

/// The picklable state of `cell`, for the process being started; `RuntimeError` if none is, naming the class of `object`.
pub(crate) fn share<'py>(object: &Bound<'py, PyAny>, cell: &Cell) -> PyResult<Bound<'py, PyTuple>> {
    let py = object.py();
    let context = py.import("rsmp.context")?;
    context.call_method1("assert_spawning", (object,))?;
    let popen = context.call_method0("get_spawning_popen")?;
    let arena = cell.arena();
    let descriptor = arena.file().as_raw_fd();
    let stand_in = py.import("rsmp.reduction")?.call_method1("share_descriptor", (descriptor,))?;
    (arena.id(), cell.offset(), cell.len(), ticket(&popen, arena)?, stand_in).into_pyobject(py)
}

/// One ticket for all cells of `arena` that go to one process.
fn ticket(popen: &Bound<'_, PyAny>, arena: &'static Arena) -> PyResult<Option<u32>> {
    let attributes = popen.getattr("__dict__")?.cast_into::<PyDict>()?;
    let tickets = if let Some(tickets) = attributes.get_item(TICKETS)? {
        tickets.cast_into::<PyDict>()?
    } else {
        let tickets = PyDict::new(popen.py());
        attributes.set_item(TICKETS, &tickets)?;
        tickets
    };
    if let Some(known) = tickets.get_item(arena.id())? {
        return Ok(known.cast::<Ticket>()?.get().number);
    }
    let number = arena.expect_process();
    tickets.set_item(arena.id(), Py::new(popen.py(), Ticket { arena, number, sharer: process::pid() })?)?;
    Ok(number)
}

/// The cell with the `state` that `share` gave in another process.
pub(crate) fn restore(state: &Bound<'_, PyAny>) -> PyResult<Cell> {
    let (id, offset, len, ticket, stand_in): (u64, usize, usize, Option<u32>, Bound<'_, PyAny>) = state.extract()?;
    let descriptor: RawFd = stand_in.call_method0("detach")?.extract()?;
    let own = || {
        if descriptor < 0 {
            return Err(Error::invalid("map an arena", "negative file descriptor"));
        }
        // SAFETY: see the module header; that it is an open descriptor of an arena is checked when it is mapped.
        let file = unsafe { OwnedFd::from_raw_fd(descriptor) };
        descriptor::close_on_exec(&file)?;
        Ok(file)
    };
    let arena = arena::attach(id, ticket, own).map_err(Failure::from)?;
    Ok(arena.cell(offset, len).map_err(Failure::from)?)
}

/// Tells the engine that the fork just made by this thread gave the child `pid`.
///
/// A child that is killed before its first step is otherwise taken for alive as long as this process lives.
#[pyfunction]
pub(crate) fn forked(pid: u32) {
    arena::forked(pid);
}
