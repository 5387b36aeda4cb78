//! The two ends of a queue, where the standard library has the connections of a pipe.

use std::os::fd::AsRawFd;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use pyo3::exceptions::{PyOSError, PyValueError};
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyTuple};
use rsmp_core::Deadline;

use crate::channel::Channel;
use crate::connection::{part, with_bytes};
use crate::error::Failure;
use crate::message::{self, Encoded};
use crate::queues::empty;

/// What both ends have: they close for this process.
#[pyclass(subclass, frozen, dict, weakref, name = "QueueEnd", module = "rsmp._rsmp")]
#[derive(Debug)]
pub(crate) struct End {
    channel: Arc<Channel>,
    is_reader: bool,
}

#[pymethods]
impl End {
    #[getter]
    fn closed(&self) -> bool {
        self.flag().load(Ordering::Relaxed)
    }

    fn close(&self) {
        self.flag().store(true, Ordering::Relaxed);
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    #[pyo3(signature = (*_exc))]
    fn __exit__(&self, _exc: &Bound<'_, PyTuple>) {
        self.close();
    }
}

impl End {
    fn flag(&self) -> &AtomicBool {
        if self.is_reader { &self.channel.reader_closed } else { &self.channel.writer_closed }
    }
}

/// The end of a queue that the standard library reads its pipe from.
///
/// Its descriptor is readable while there is something to get, for `connection.wait`, selectors and event loops.
#[pyclass(frozen, extends = End, name = "QueueReader", module = "rsmp._rsmp")]
#[derive(Debug)]
pub(crate) struct Reader {
    channel: Arc<Channel>,
}

#[pymethods]
impl Reader {
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
}

impl Reader {
    pub(super) fn of(channel: &Arc<Channel>) -> PyClassInitializer<Self> {
        let end = End { channel: Arc::clone(channel), is_reader: true };
        PyClassInitializer::from(end).add_subclass(Self { channel: Arc::clone(channel) })
    }
}

/// The end of a queue that the standard library writes its pipe to.
#[pyclass(frozen, extends = End, name = "QueueWriter", module = "rsmp._rsmp")]
#[derive(Debug)]
pub(crate) struct Writer {
    channel: Arc<Channel>,
}

#[pymethods]
impl Writer {
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
}

impl Writer {
    pub(super) fn of(channel: &Arc<Channel>) -> PyClassInitializer<Self> {
        let end = End { channel: Arc::clone(channel), is_reader: false };
        PyClassInitializer::from(end).add_subclass(Self { channel: Arc::clone(channel) })
    }
}
