//! `Queue` and `JoinableQueue`: bounded or not, with timeouts, batches and a count of what is not done with.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::PyValueError;
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyDict, PyList, PyTuple};
use rsmp_core::Deadline;
use rsmp_core::shm::waits::Kind;

use crate::block;
use crate::channel::Channel;
use crate::message::Encoded;
use crate::queues::{QueueBase, channel_of, deadline, empty, exceptions, full, inherited, is_empty, not_native};

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
#[pyclass(subclass, frozen, extends = QueueBase, module = "rsmp._rsmp")]
#[derive(Debug, Default)]
pub(crate) struct Queue {
    /// `_closed` of a subclass that has no channel.
    closed: AtomicBool,
}

#[pymethods]
impl Queue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(QueueBase::default()).add_subclass(Self::default())
    }

    #[getter(_closed)]
    fn is_closed(slf: &Bound<'_, Self>) -> bool {
        channel_of(slf).map_or_else(|| slf.get().closed.load(Ordering::Relaxed), |channel| channel.is_closed())
    }

    #[setter(_closed)]
    fn set_closed(slf: &Bound<'_, Self>, closed: Truth) {
        match channel_of(slf) {
            Some(channel) => channel.set_closed(closed.0),
            None => slf.get().closed.store(closed.0, Ordering::Relaxed),
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
        match channel_of(slf) {
            Some(channel) => Ok(channel.ring().len().into_pyobject(slf.py())?.into_any()),
            None => inherited(slf, "qsize", ()),
        }
    }

    /// Return whether the queue is empty.
    fn empty(slf: &Bound<'_, Self>) -> PyResult<bool> {
        is_empty(slf)
    }

    /// Return whether the queue holds as many items as it may.
    fn full(slf: &Bound<'_, Self>) -> PyResult<bool> {
        match channel_of(slf) {
            Some(channel) => Ok(channel.ring().is_full_for(0)),
            None => inherited(slf, "full", ())?.is_truthy(),
        }
    }

    /// Say that this process puts no more into the queue and takes no more out.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        match channel_of(slf) {
            Some(channel) => {
                channel.close();
                Ok(())
            }
            None => inherited(slf, "close", ()).map(drop),
        }
    }

    fn _task_done(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.as_super().get().native()?.ring().task_done() {
            Ok(())
        } else {
            Err(PyValueError::new_err("task_done() called too many times"))
        }
    }

    fn _join(slf: &Bound<'_, Self>) -> PyResult<()> {
        let channel = slf.as_super().get().native()?;
        let (ring, what) = (channel.ring(), channel.waited_for(Kind::QueueJoin));
        let round = ring.round();
        block::until_for(slf.py(), what, Deadline::NEVER, |until| Ok(ring.join(round, until).then_some(())))?;
        Ok(())
    }
}

impl Queue {
    /// The channel, unless there is none; an error if the queue was closed.
    #[inline]
    fn open_channel<'a>(slf: &'a Bound<'_, Self>) -> PyResult<Option<&'a Arc<Channel>>> {
        match channel_of(slf) {
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
