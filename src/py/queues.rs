//! `rsmp._rsmp.Queue`, `SimpleQueue` and their two ends: what `rsmp.queues` builds its classes from.
//!
//! A subclass that leaves `__init__` out and brings its own pipe and semaphores has no channel here; each method then is
//! the standard library's, over what the subclass supplied.

use std::os::fd::AsRawFd;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, OnceLock};

use pyo3::exceptions::{PyOSError, PyRuntimeError, PyValueError};
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyBytes, PyDict, PyList, PySuper, PyTuple, PyType};
use pyo3::{PyTypeInfo, intern};
use rsmp_core::Deadline;
use rsmp_core::ring::Limits;

use crate::block;
use crate::channel::Channel;
use crate::connection::{part, with_bytes};
use crate::error::Failure;
use crate::message::{self, Encoded};

/// Bytes of payload a `SimpleQueue` holds before `put` waits.
const SIMPLE_QUEUE_BYTES: u64 = 1 << 20;

/// An argument of which only the truth counts.
#[derive(Clone, Copy)]
struct Truth(bool);

impl<'py> FromPyObject<'_, 'py> for Truth {
    type Error = PyErr;

    fn extract(object: Borrowed<'_, 'py, PyAny>) -> PyResult<Self> {
        object.is_truthy().map(Self)
    }
}

/// The engine of `rsmp.queues.Queue` and `JoinableQueue`.
#[pyclass(subclass, frozen, module = "rsmp._rsmp")]
#[derive(Debug, Default)]
pub(crate) struct Queue {
    channel: OnceLock<Arc<Channel>>,
    /// `_closed` of a subclass that has no channel.
    closed: AtomicBool,
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    /// Make the queue's shared memory; at most `maxsize` items, zero is no limit.
    fn _create(&self, maxsize: u64) -> PyResult<()> {
        self.set(Channel::create(Limits { items: maxsize, bytes: 0 })?)
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
    fn _ends(&self) -> PyResult<(Reader, Writer)> {
        let channel = self.native()?;
        Ok((Reader { channel: Arc::clone(channel) }, Writer { channel: Arc::clone(channel) }))
    }

    /// Bytes of memory the queue holds.
    #[getter]
    fn _memory(&self) -> PyResult<u64> {
        Ok(self.native()?.ring().memory().map_err(Failure::from)?)
    }

    #[getter(_closed)]
    fn is_closed(&self) -> bool {
        self.channel.get().map_or_else(|| self.closed.load(Ordering::Relaxed), |channel| channel.is_closed())
    }

    #[setter(_closed)]
    fn set_closed(&self, closed: Truth) {
        match self.channel.get() {
            Some(channel) => channel.set_closed(closed.0),
            None => self.closed.store(closed.0, Ordering::Relaxed),
        }
    }

    /// Put ``obj`` into the queue, waiting up to ``timeout`` seconds (None: for ever) for room if ``block``.
    #[pyo3(signature = (obj, block=Truth(true), timeout=None), text_signature = "($self, obj, block=True, timeout=None)")]
    fn put(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>, block: Truth, timeout: Option<f64>) -> PyResult<()> {
        let py = slf.py();
        let Some(channel) = Self::open_channel(slf)? else {
            return inherited(slf, "put", (obj, block.0, timeout)).map(drop);
        };
        let deadline = deadline(block.0, timeout);
        if deadline == Deadline::PASSED && channel.ring().is_full_for(0) {
            return Err(full(py));
        }
        let encoded = match Encoded::new(obj) {
            Ok(encoded) => encoded,
            Err(error) => return Self::not_encoded(slf, obj, error),
        };
        if channel.put(py, &encoded, deadline)? { Ok(()) } else { Err(full(py)) }
    }

    /// Put ``obj`` into the queue if there is room now.
    fn put_nowait(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        // By name: a subclass's `put` is to be called.
        slf.call_method1(intern!(slf.py(), "put"), (obj, false)).map(drop)
    }

    /// Put every object of ``objs`` into the queue, in order.
    ///
    /// All are pickled before the first is put. Raises Full with the number of those that were put in time.
    #[pyo3(signature = (objs, block=Truth(true), timeout=None), text_signature = "($self, objs, block=True, timeout=None)")]
    fn put_many(slf: &Bound<'_, Self>, objs: &Bound<'_, PyAny>, block: Truth, timeout: Option<f64>) -> PyResult<()> {
        let py = slf.py();
        let channel = Self::open_channel(slf)?.ok_or_else(not_native)?;
        let objects = objs.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let encoded = objects.iter().map(Encoded::new).collect::<PyResult<Vec<_>>>()?;
        let done = channel.put_many(py, &encoded, deadline(block.0, timeout))?;
        if done == encoded.len() {
            Ok(())
        } else {
            Err(PyErr::from_type(exceptions(py)?.full.bind(py).clone(), (done,)))
        }
    }

    /// Take an object out of the queue, waiting up to ``timeout`` seconds (None: for ever) for one if ``block``.
    #[pyo3(signature = (block=Truth(true), timeout=None), text_signature = "($self, block=True, timeout=None)")]
    fn get<'py>(slf: &Bound<'py, Self>, block: Truth, timeout: Option<f64>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let Some(channel) = Self::open_channel(slf)? else {
            return inherited(slf, "get", (block.0, timeout));
        };
        channel.check_reader()?;
        channel.get(py, deadline(block.0, timeout))?.ok_or_else(|| empty(py))
    }

    /// Take an object out of the queue if there is one now.
    fn get_nowait<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        slf.call_method1(intern!(slf.py(), "get"), (false,))
    }

    /// Return a list of one to ``max_items`` objects, waiting for the first as `get` does.
    #[pyo3(
        signature = (max_items, block=Truth(true), timeout=None),
        text_signature = "($self, max_items, block=True, timeout=None)"
    )]
    fn get_many<'py>(
        slf: &Bound<'py, Self>,
        max_items: usize,
        block: Truth,
        timeout: Option<f64>,
    ) -> PyResult<Bound<'py, PyList>> {
        let py = slf.py();
        let channel = Self::open_channel(slf)?.ok_or_else(not_native)?;
        channel.check_reader()?;
        if max_items == 0 {
            return Err(PyValueError::new_err("max_items is zero"));
        }
        let objects = channel.get_many(py, max_items, deadline(block.0, timeout))?;
        if objects.is_empty() { Err(empty(py)) } else { PyList::new(py, objects) }
    }

    /// Return how many items are in the queue.
    fn qsize<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        match slf.get().channel.get() {
            Some(channel) => Ok(channel.ring().len().into_pyobject(slf.py())?.into_any()),
            None => inherited(slf, "qsize", ()),
        }
    }

    /// Return whether the queue is empty.
    fn empty(slf: &Bound<'_, Self>) -> PyResult<bool> {
        match slf.get().channel.get() {
            Some(channel) => {
                channel.check_reader()?;
                Ok(channel.ring().is_empty())
            }
            None => inherited(slf, "empty", ())?.is_truthy(),
        }
    }

    /// Return whether the queue holds as many items as it may.
    fn full(slf: &Bound<'_, Self>) -> PyResult<bool> {
        match slf.get().channel.get() {
            Some(channel) => Ok(channel.ring().is_full_for(0)),
            None => inherited(slf, "full", ())?.is_truthy(),
        }
    }

    /// Say that this process puts no more into the queue and takes no more out.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().channel.get() {
            Some(channel) => {
                channel.close();
                Ok(())
            }
            None => inherited(slf, "close", ()).map(drop),
        }
    }

    fn _task_done(&self) -> PyResult<()> {
        if self.native()?.ring().task_done() {
            Ok(())
        } else {
            Err(PyValueError::new_err("task_done() called too many times"))
        }
    }

    fn _join(&self, py: Python<'_>) -> PyResult<()> {
        let ring = self.native()?.ring();
        let round = ring.round();
        block::until(py, Deadline::NEVER, |until| Ok(ring.join(round, until).then_some(())))?;
        Ok(())
    }
}

impl Queue {
    fn set(&self, channel: Channel) -> PyResult<()> {
        self.channel.set(Arc::new(channel)).map_err(|_| PyRuntimeError::new_err("the queue is open already"))
    }

    fn native(&self) -> PyResult<&Arc<Channel>> {
        self.channel.get().ok_or_else(not_native)
    }

    /// The channel, unless there is none; an error if the queue was closed.
    #[inline]
    fn open_channel<'a>(slf: &'a Bound<'_, Self>) -> PyResult<Option<&'a Arc<Channel>>> {
        match slf.get().channel.get() {
            Some(channel) if channel.is_closed() => {
                Err(PyValueError::new_err(format!("Queue {} is closed", slf.repr()?)))
            }
            channel => Ok(channel),
        }
    }

    /// `obj` could not be pickled: a subclass that overrides the hook for that is told, everybody else gets the error.
    #[cold]
    fn not_encoded(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>, error: PyErr) -> PyResult<()> {
        let py = slf.py();
        let name = intern!(py, "_on_queue_feeder_error");
        let hook = slf.getattr(name)?;
        let standard = py.import("rsmp.queues")?.getattr("Queue")?.getattr(name)?;
        if hook.is(&standard) || !error.is_instance_of::<pyo3::exceptions::PyException>(py) {
            return Err(error);
        }
        hook.call1((error.into_value(py), obj)).map(drop)
    }
}

/// The engine of `rsmp.queues.SimpleQueue`.
#[pyclass(subclass, frozen, module = "rsmp._rsmp")]
#[derive(Debug, Default)]
pub(crate) struct SimpleQueue {
    channel: OnceLock<Arc<Channel>>,
}

#[pymethods]
impl SimpleQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self::default()
    }

    /// Make the queue's shared memory.
    fn _create(&self) -> PyResult<()> {
        self.set(Channel::create(Limits { items: 0, bytes: SIMPLE_QUEUE_BYTES })?)
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
    fn _ends(&self) -> PyResult<(Reader, Writer)> {
        let channel = self.native()?;
        Ok((Reader { channel: Arc::clone(channel) }, Writer { channel: Arc::clone(channel) }))
    }

    /// Bytes of memory the queue holds.
    #[getter]
    fn _memory(&self) -> PyResult<u64> {
        Ok(self.native()?.ring().memory().map_err(Failure::from)?)
    }

    /// Put ``obj`` into the queue, waiting for room.
    fn put(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(channel) = slf.get().channel.get() else {
            return inherited(slf, "put", (obj,)).map(drop);
        };
        // As in the standard library: what cannot be pickled is the first error.
        let encoded = Encoded::new(obj)?;
        channel.check_writer()?;
        channel.put(slf.py(), &encoded, Deadline::NEVER).map(drop)
    }

    /// Take an object out of the queue, waiting for one.
    fn get<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let Some(channel) = slf.get().channel.get() else {
            return inherited(slf, "get", ());
        };
        channel.check_reader()?;
        channel.get(py, Deadline::NEVER)?.ok_or_else(|| empty(py))
    }

    /// Return whether the queue is empty.
    fn empty(slf: &Bound<'_, Self>) -> PyResult<bool> {
        match slf.get().channel.get() {
            Some(channel) => {
                channel.check_reader()?;
                Ok(channel.ring().is_empty())
            }
            None => inherited(slf, "empty", ())?.is_truthy(),
        }
    }

    /// Close both ends in this process.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        match slf.get().channel.get() {
            Some(channel) => {
                channel.reader_closed.store(true, Ordering::Relaxed);
                channel.writer_closed.store(true, Ordering::Relaxed);
                Ok(())
            }
            None => inherited(slf, "close", ()).map(drop),
        }
    }
}

impl SimpleQueue {
    fn set(&self, channel: Channel) -> PyResult<()> {
        self.channel.set(Arc::new(channel)).map_err(|_| PyRuntimeError::new_err("the queue is open already"))
    }

    fn native(&self) -> PyResult<&Arc<Channel>> {
        self.channel.get().ok_or_else(not_native)
    }
}

/// The end of a queue that the standard library reads its pipe from.
///
/// Its descriptor is readable while there is something to get, for `connection.wait`, selectors and event loops.
#[pyclass(frozen, dict, weakref, name = "QueueReader", module = "rsmp._rsmp")]
#[derive(Debug)]
pub(crate) struct Reader {
    channel: Arc<Channel>,
}

#[pymethods]
impl Reader {
    #[getter]
    fn closed(&self) -> bool {
        self.channel.reader_closed.load(Ordering::Relaxed)
    }

    #[classattr]
    fn readable() -> bool {
        true
    }

    #[classattr]
    fn writable() -> bool {
        false
    }

    /// Return a descriptor that is readable while there is something to get.
    fn fileno(&self) -> PyResult<i32> {
        self.channel.check_reader()?;
        let ring = self.channel.ring();
        ring.watch().map_err(Failure::from)?;
        Ok(ring.event().as_raw_fd())
    }

    fn close(&self) {
        self.channel.reader_closed.store(true, Ordering::Relaxed);
    }

    /// Return whether there is something to get, waiting up to ``timeout`` seconds (None: for ever) for it.
    #[pyo3(signature = (timeout=Some(0.0)))]
    fn poll(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        self.channel.check_reader()?;
        self.channel.poll(py, Deadline::from_seconds(timeout))
    }

    /// Take an object out of the queue.
    fn recv<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        self.channel.check_reader()?;
        self.channel.get(py, Deadline::NEVER)?.ok_or_else(|| empty(py))
    }

    /// Take an object out of the queue as its pickle.
    #[pyo3(signature = (maxlength=None))]
    fn recv_bytes<'py>(&self, py: Python<'py>, maxlength: Option<i128>) -> PyResult<Bound<'py, PyBytes>> {
        self.channel.check_reader()?;
        if maxlength.is_some_and(|length| length < 0) {
            return Err(PyValueError::new_err("negative maxlength"));
        }
        let pickled = self.channel.get_pickle(py)?;
        if maxlength.is_some_and(|length| pickled.as_bytes().len() as i128 > length) {
            return Err(PyOSError::new_err("bad message length"));
        }
        Ok(pickled)
    }

    #[allow(clippy::unused_self)]
    fn send(&self, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let _ = obj;
        Err(PyOSError::new_err("connection is read-only"))
    }

    #[allow(clippy::unused_self)]
    #[pyo3(signature = (buf, offset=0, size=None))]
    fn send_bytes(&self, buf: &Bound<'_, PyAny>, offset: isize, size: Option<isize>) -> PyResult<()> {
        let _ = (buf, offset, size);
        Err(PyOSError::new_err("connection is read-only"))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {
        self.close();
    }
}

/// The end of a queue that the standard library writes its pipe to.
#[pyclass(frozen, dict, weakref, name = "QueueWriter", module = "rsmp._rsmp")]
#[derive(Debug)]
pub(crate) struct Writer {
    channel: Arc<Channel>,
}

#[pymethods]
impl Writer {
    #[getter]
    fn closed(&self) -> bool {
        self.channel.writer_closed.load(Ordering::Relaxed)
    }

    #[classattr]
    fn readable() -> bool {
        false
    }

    #[classattr]
    fn writable() -> bool {
        true
    }

    fn fileno(&self) -> PyResult<i32> {
        self.channel.check_writer()?;
        Ok(self.channel.ring().event().as_raw_fd())
    }

    fn close(&self) {
        self.channel.writer_closed.store(true, Ordering::Relaxed);
    }

    /// Put an object into the queue.
    fn send(&self, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        self.channel.check_writer()?;
        self.channel.put(obj.py(), &Encoded::new(obj)?, Deadline::NEVER).map(drop)
    }

    /// Put the object that ``buf`` is the pickle of into the queue.
    #[pyo3(signature = (buf, offset=0, size=None))]
    fn send_bytes(&self, buf: &Bound<'_, PyAny>, offset: isize, size: Option<isize>) -> PyResult<()> {
        self.channel.check_writer()?;
        with_bytes(buf, |bytes| {
            let bytes = part(bytes, offset, size)?;
            self.channel.put_parts(buf.py(), message::PICKLE, &[bytes], Deadline::NEVER).map(drop)
        })
    }

    #[allow(clippy::unused_self)]
    fn recv(&self) -> PyResult<()> {
        Err(PyOSError::new_err("connection is write-only"))
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {
        self.close();
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

fn exceptions(py: Python<'_>) -> PyResult<&Exceptions> {
    static EXCEPTIONS: PyOnceLock<Exceptions> = PyOnceLock::new();
    EXCEPTIONS.get_or_try_init(py, || {
        let queue = py.import("queue")?;
        let class = |name: &str| PyResult::Ok(queue.getattr(name)?.cast_into::<PyType>()?.unbind());
        Ok(Exceptions { empty: class("Empty")?, full: class("Full")? })
    })
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
