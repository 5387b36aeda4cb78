//! `rsmp._inspect` and `python -m rsmp doctor`: what the shared memory of a process says, read from outside.
//!
//! Nothing here writes, stops or signals anything: files are opened for reading through `/proc` and copied.
//!
//! # Safety
//! Takes the name of this process through the C API, with references to the objects held.
#![allow(unsafe_code)]

use core::time::Duration;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyDict;
use pyo3::{ffi, intern};
use rsmp_core::clock;
use rsmp_core::ring::Depth;
use rsmp_core::shm::arena;
use rsmp_core::shm::objects::Objects;
use rsmp_core::shm::waits::{self, Page};
use rsmp_core::sys::proc;
use rsmp_core::sys::process::Identity;

use crate::error::Failure;

/// The standard library's `process` module, by its dictionary: its current process is everybody's.
static PROCESS: PyOnceLock<Py<PyDict>> = PyOnceLock::new();

/// Has the engine ask for this process's name, when it first waits.
pub(crate) fn name_processes(py: Python<'_>) -> PyResult<()> {
    let module = py.import("rsmp._stdlib")?.getattr("package")?.getattr("process")?;
    let dict = module.getattr("__dict__")?.cast_into::<PyDict>()?.unbind();
    PROCESS.get_or_init(py, || dict);
    waits::name_by(|| Python::attach(|py| name(py).ok().flatten()));
    Ok(())
}

/// Runs no Python code: what a signal's handler raised in it would be lost.
fn name(py: Python<'_>) -> PyResult<Option<String>> {
    let Some(module) = PROCESS.get(py) else { return Ok(None) };
    let Some(process) = module.bind(py).get_item(intern!(py, "_current_process"))? else { return Ok(None) };
    let attribute = intern!(py, "_name");
    // SAFETY: both objects are alive; the result is a new reference, or null with an exception set.
    let name = unsafe {
        let name = ffi::PyObject_GenericGetAttr(process.as_ptr(), attribute.as_ptr());
        Bound::from_owned_ptr_or_err(py, name)?
    };
    name.extract().map(Some)
}

/// Process and native thread, and whether the process lives.
type Thread = (u32, u32, bool);

fn thread(who: Identity) -> Thread {
    (who.pid(), who.tid(), who.is_alive())
}

/// Seconds since `then`, on the monotonic clock; -1 when that is not known.
fn ago(then: u64) -> f64 {
    if then == 0 {
        return -1.0;
    }
    Duration::from_nanos(clock::now().saturating_sub(then)).as_secs_f64()
}

/// Return the pids of the processes that may share locks with this one, itself included; some may have ended.
#[pyfunction]
pub(crate) fn family() -> Vec<u32> {
    arena::family()
}

/// Return the address that the object at `offset` of arena `id` has in this process, None if it cannot reach it.
#[pyfunction]
pub(crate) fn address_here(id: u64, offset: usize) -> Option<usize> {
    arena::address(id, offset)
}

/// Return the memory files of rsmp that process `pid` has open: descriptor, name, and what tells the file from all others.
#[pyfunction]
pub(crate) fn memory_files(pid: u32) -> PyResult<Vec<(u32, String, u64)>> {
    let found = proc::memory_files(pid).map_err(Failure::from)?;
    Ok(found.into_iter().map(|file| (file.descriptor, file.name, file.identity)).collect())
}

/// Of a thread: its native id, what it waits for in words and in two numbers, whether that ends by itself, for how many
/// seconds it has waited (-1: not known), whom it found with the lock, and for how many seconds.
type Waiting = (u32, &'static str, u64, u64, bool, f64, Option<Thread>, f64);

/// Read the page of process `pid` that is open there as `descriptor`: the process's name and its waiting threads.
///
/// None: it is no page, or not that process's own.
#[pyfunction]
pub(crate) fn read_waits(pid: u32, descriptor: u32) -> PyResult<Option<(String, Vec<Waiting>)>> {
    let file = proc::open(pid, descriptor).map_err(Failure::from)?;
    let page = Page::read(&file).map_err(Failure::from)?;
    let Some(page) = page.filter(|page| page.owner.pid() == pid && page.owner.is_alive()) else { return Ok(None) };
    let waiting = page.waiting.iter().map(|it| {
        let (holder, seen) = it.holder.map_or((None, 0.0), |(holder, seen)| (Some(thread(holder)), ago(seen)));
        (it.who.tid(), it.what.kind.name(), it.what.first, it.what.second, it.timed, ago(it.since), holder, seen)
    });
    Ok(Some((page.name, waiting.collect())))
}

/// Of a lock or its like: its kind, offset, whether its maker has let go of it, its value, its bound, and who has it.
type Object = (&'static str, u64, bool, u64, Option<u64>, Option<Thread>);

/// Read the arena that process `pid` has open as `descriptor`: its id, whether its owner lives, and what is in it.
#[pyfunction]
pub(crate) fn read_locks(pid: u32, descriptor: u32) -> PyResult<Option<(u64, bool, Vec<Object>)>> {
    let file = proc::open(pid, descriptor).map_err(Failure::from)?;
    let Some(arena) = Objects::read(&file).map_err(Failure::from)? else { return Ok(None) };
    let objects = arena.objects.iter().map(|object| {
        let holder = object.holder.map(thread);
        (object.kind.name(), object.offset, object.dropped, object.value, object.maximum, holder)
    });
    Ok(Some((arena.id, arena.owner.is_alive(), objects.collect())))
}

/// Read the queue that process `pid` has open as `descriptor`: items, bytes, how many items there may be (0: no limit),
/// items not done with.
#[pyfunction]
pub(crate) fn read_queue(pid: u32, descriptor: u32) -> PyResult<Option<(u64, u64, u64, u64)>> {
    let file = proc::open(pid, descriptor).map_err(Failure::from)?;
    let depth = Depth::read(&file).map_err(Failure::from)?;
    Ok(depth.map(|depth| (depth.items, depth.bytes, depth.max_items, depth.unfinished)))
}
