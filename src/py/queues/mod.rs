//! `rsmp._rsmp.Queue`, `SimpleQueue` and their two ends: what `rsmp.queues` builds its classes from.
//!
//! A subclass that leaves `__init__` out and brings its own pipe and semaphores has no channel here; each method then is
//! the standard library's, over what the subclass supplied.

mod ends;
mod queue;
mod simple;

use std::os::fd::AsRawFd;
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PySuper, PyType};
use pyo3::{PyClass, PyTypeInfo};
use rsmp_core::Deadline;
use rsmp_core::ring::Limits;

use crate::channel::Channel;
use crate::deferred;
use crate::error::Failure;

pub(crate) use ends::{End, Reader, Writer};
pub(crate) use queue::Queue;
pub(crate) use simple::SimpleQueue;

/// What both kinds of queue have: shared memory, made or opened once.
#[pyclass(subclass, frozen, module = "rsmp._rsmp")]
#[derive(Debug, Default)]
pub(crate) struct QueueBase {
    channel: OnceLock<Arc<Channel>>,
}

#[pymethods]
impl QueueBase {
    /// Make the queue's shared memory; at most so many items and bytes of payload, zero is no limit.
    fn _create(&self, items: u64, bytes: u64) -> PyResult<()> {
        self.set(Channel::create(Limits { items, bytes })?)
    }

    /// Open the queue behind descriptors received from another process, and take them over.
    fn _open(&self, file: i32, event: i32) -> PyResult<()> {
        self.set(Channel::open(file, event)?)
    }

    /// Whether the queue is rsmp's: a subclass may have left `__init__` out.
    #[getter]
    fn _is_native(&self) -> bool {
        self.channel.get().is_some()
    }

    /// The descriptors of the shared memory and of the event.
    #[getter]
    fn _descriptors(&self) -> PyResult<(i32, i32)> {
        let ring = self.native()?.ring();
        Ok((ring.file().as_raw_fd(), ring.event().as_raw_fd()))
    }

    /// The two ends.
    fn _ends(&self, py: Python<'_>) -> PyResult<(Py<Reader>, Py<Writer>)> {
        let channel = self.native()?;
        Ok((Py::new(py, Reader::of(channel))?, Py::new(py, Writer::of(channel))?))
    }

    /// Bytes of memory the queue holds.
    #[getter]
    fn _memory(&self) -> PyResult<u64> {
        Ok(self.native()?.ring().memory().map_err(Failure::from)?)
    }
}

impl QueueBase {
    fn set(&self, channel: Channel) -> PyResult<()> {
        self.channel.set(Arc::new(channel)).map_err(|_| PyRuntimeError::new_err("the queue is open already"))
    }

    fn native(&self) -> PyResult<&Arc<Channel>> {
        self.channel.get().ok_or_else(not_native)
    }
}

/// The channel of a queue, unless there is none.
#[inline]
fn channel_of<'a, T>(queue: &'a Bound<'_, T>) -> Option<&'a Arc<Channel>>
where
    T: PyClass<BaseType = QueueBase, Frozen = pyo3::pyclass::boolean_struct::True> + Sync,
{
    queue.as_super().get().channel.get()
}

/// Whether there is nothing to get, asked of either kind.
fn is_empty<T>(queue: &Bound<'_, T>) -> PyResult<bool>
where
    T: PyClass<BaseType = QueueBase, Frozen = pyo3::pyclass::boolean_struct::True> + Sync,
{
    match channel_of(queue) {
        Some(channel) => {
            channel.check_reader()?;
            Ok(channel.ring().is_empty())
        }
        None => inherited(queue, "empty", ())?.is_truthy(),
    }
}

/// Calls the method of the class after the engine's in the method resolution order: the standard library's.
#[cold]
fn inherited<'py, T, A>(slf: &Bound<'py, T>, name: &str, args: A) -> PyResult<Bound<'py, PyAny>>
where
    T: PyTypeInfo,
    A: pyo3::call::PyCallArgs<'py>,
{
    PySuper::new(&slf.py().get_type::<T>(), slf.as_any())?.call_method1(name, args)
}

struct Exceptions {
    empty: Py<PyType>,
    full: Py<PyType>,
}

impl Exceptions {
    fn of(module: &Bound<'_, PyAny>) -> PyResult<Self> {
        let class = |name: &str| PyResult::Ok(module.getattr(name)?.cast_into::<PyType>()?.unbind());
        Ok(Self { empty: class("Empty")?, full: class("Full")? })
    }
}

fn exceptions(py: Python<'_>) -> PyResult<&Exceptions> {
    static OF_QUEUE: PyOnceLock<Exceptions> = PyOnceLock::new();
    static OF_THE_STANDARD_PACKAGE: PyOnceLock<Exceptions> = PyOnceLock::new();
    if let Some(known) = OF_QUEUE.get(py) {
        return Ok(known);
    }
    match deferred::imported(py, "queue")? {
        Some(queue) => OF_QUEUE.get_or_try_init(py, || Exceptions::of(&queue)),
        // The ones that `queue` is going to have. It may be out of reach now, with no descriptor left to read it.
        None => OF_THE_STANDARD_PACKAGE
            .get_or_try_init(py, || Exceptions::of(&py.import("rsmp._stdlib")?.call_method1("load", ("queues",))?)),
    }
}

#[cold]
fn empty(py: Python<'_>) -> PyErr {
    exceptions(py).map_or_else(|error| error, |classes| PyErr::from_type(classes.empty.bind(py).clone(), ()))
}

#[cold]
fn full(py: Python<'_>) -> PyErr {
    exceptions(py).map_or_else(|error| error, |classes| PyErr::from_type(classes.full.bind(py).clone(), ()))
}

#[cold]
fn not_native() -> PyErr {
    PyRuntimeError::new_err("the queue was not made by __init__")
}

fn deadline(block: bool, timeout: Option<f64>) -> Deadline {
    if block { Deadline::from_seconds(timeout) } else { Deadline::PASSED }
}
