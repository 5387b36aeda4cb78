//! `SimpleQueue`: no item bounds, no timeouts; `put` waits while much is in flight.

use std::sync::atomic::Ordering;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Deadline;

use crate::message::Encoded;
use crate::queues::{QueueBase, channel_of, empty, inherited, is_empty};

/// The engine of `rsmp.queues.SimpleQueue`.
#[pyclass(subclass, frozen, extends = QueueBase, module = "rsmp._rsmp")]
#[derive(Debug)]
pub(crate) struct SimpleQueue;

#[pymethods]
impl SimpleQueue {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(QueueBase::default()).add_subclass(Self)
    }

    /// Put ``obj`` into the queue, waiting for room.
    fn put(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let Some(channel) = channel_of(slf) else {
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
        let Some(channel) = channel_of(slf) else {
            return inherited(slf, "get", ());
        };
        channel.check_reader()?;
        channel.get(py, Deadline::NEVER)?.ok_or_else(|| empty(py))
    }

    /// Return whether the queue is empty.
    fn empty(slf: &Bound<'_, Self>) -> PyResult<bool> {
        is_empty(slf)
    }

    /// Close both ends in this process.
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        match channel_of(slf) {
            Some(channel) => {
                channel.reader_closed.store(true, Ordering::Relaxed);
                channel.writer_closed.store(true, Ordering::Relaxed);
                Ok(())
            }
            None => inherited(slf, "close", ()).map(drop),
        }
    }
}
