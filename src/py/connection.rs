//! `rsmp._rsmp.Connection`, `pipe`, `wait`: what `rsmp.connection` puts its names to.
//!
//! # Safety
//! Buffers of Python objects are handed to the kernel while the interpreter runs other threads. The buffer is exported
//! for that time, so it cannot go away or move; a thread that writes to it meanwhile garbles its own message, as it
//! would with `os.write`.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::slice;
use std::os::fd::{BorrowedFd, IntoRawFd, RawFd};
use std::sync::atomic::{AtomicBool, AtomicI32, Ordering};

use parking_lot::Mutex;
use pyo3::buffer::PyUntypedBuffer;
use pyo3::exceptions::{PyBufferError, PyMemoryError, PyOSError, PyTimeoutError, PyTypeError, PyValueError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyDict, PyTuple};
use rsmp_core::Deadline;
use rsmp_core::frame::stream::{self, Next, Part, Patience, Source};
use rsmp_core::frame::{self, Outgoing, Prefix, plain};
use rsmp_core::shm::waits::{Kind, What};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::foreign;
use rsmp_core::sys::socket::{self, Transport};

use crate::bytes::Unfinished;
use crate::error::Failure;
use crate::hooks::{self, Hook};
use crate::{block, pickle};

/// Messages up to this size are read in one go, without an object made for them first.
const SMALL: usize = 2048;
const SPACE: [MaybeUninit<u8>; SMALL] = [MaybeUninit::uninit(); SMALL];

thread_local! {
    /// What outgoing messages are pickled into.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// `_handle` is None.
const CLOSED: RawFd = -1;

/// One end of a pipe or socket, in the standard wire format.
#[pyclass(subclass, frozen, module = "rsmp._rsmp")]
#[derive(Debug)]
pub(crate) struct Connection {
    handle: AtomicI32,
    readable: AtomicBool,
    writable: AtomicBool,
    transport: Transport,
    spin: Spin,
    /// Set while `deadline` counts: during an authentication.
    bounded: AtomicBool,
    deadline: Mutex<Deadline>,
}

#[pymethods]
impl Connection {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        // `__init__` is the standard one; a subclass may leave it out and set the attributes itself.
        Self {
            handle: AtomicI32::new(CLOSED),
            readable: AtomicBool::new(true),
            writable: AtomicBool::new(true),
            transport: Transport::default(),
            spin: Spin::default(),
            bounded: AtomicBool::new(false),
            deadline: Mutex::new(Deadline::NEVER),
        }
    }

    #[getter(_handle)]
    fn handle(&self) -> Option<RawFd> {
        let number = self.handle.load(Ordering::Relaxed);
        (number != CLOSED).then_some(number)
    }

    #[setter(_handle)]
    fn set_handle(&self, number: Option<RawFd>) {
        self.transport.forget();
        self.handle.store(number.unwrap_or(CLOSED), Ordering::Relaxed);
    }

    #[getter(_readable)]
    fn is_readable(&self) -> bool {
        self.readable.load(Ordering::Relaxed)
    }

    #[setter(_readable)]
    fn set_readable(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.readable.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }

    #[getter(_writable)]
    fn is_writable(&self) -> bool {
        self.writable.load(Ordering::Relaxed)
    }

    #[setter(_writable)]
    fn set_writable(&self, value: &Bound<'_, PyAny>) -> PyResult<()> {
        self.writable.store(value.is_truthy()?, Ordering::Relaxed);
        Ok(())
    }

    /// True if the connection is closed
    #[getter]
    fn closed(&self) -> bool {
        self.handle().is_none()
    }

    /// True if the connection is readable
    #[getter]
    fn readable(&self) -> bool {
        self.is_readable()
    }

    /// True if the connection is writable
    #[getter]
    fn writable(&self) -> bool {
        self.is_writable()
    }

    /// File descriptor or handle of the connection
    fn fileno(&self) -> PyResult<RawFd> {
        self.number()
    }

    fn _check_closed(&self) -> PyResult<()> {
        self.number().map(drop)
    }

    #[pyo3(name = "_check_readable")]
    fn check_readable(&self) -> PyResult<()> {
        if self.is_readable() { Ok(()) } else { Err(PyOSError::new_err("connection is write-only")) }
    }

    #[pyo3(name = "_check_writable")]
    fn check_writable(&self) -> PyResult<()> {
        if self.is_writable() { Ok(()) } else { Err(PyOSError::new_err("connection is read-only")) }
    }

    #[pyo3(name = "_bad_message_length")]
    fn bad_message_length(slf: &Bound<'_, Self>) -> PyResult<()> {
        // What follows in the stream is not the beginning of a message.
        if slf.get().is_writable() {
            slf.get().readable.store(false, Ordering::Relaxed);
        } else {
            Self::close(slf)?;
        }
        Err(PyOSError::new_err("bad message length"))
    }

    /// Close the connection
    fn close(slf: &Bound<'_, Self>) -> PyResult<()> {
        if slf.get().closed() {
            return Ok(());
        }
        if hooks::are_own(slf, &[Hook::Close])? {
            // Given up first: another thread that closes at the same time must not close the number's next owner.
            return match slf.get().handle.swap(CLOSED, Ordering::Relaxed) {
                CLOSED => Ok(()),
                number => close(slf.py(), number),
            };
        }
        let outcome = slf.call_method0(intern!(slf.py(), "_close"));
        slf.get().set_handle(None);
        outcome.map(drop)
    }

    fn _close(&self, py: Python<'_>) -> PyResult<()> {
        close(py, self.number()?)
    }

    fn __del__(slf: &Bound<'_, Self>) -> PyResult<()> {
        Self::close(slf)
    }

    fn __enter__(slf: Bound<'_, Self>) -> Bound<'_, Self> {
        slf
    }

    fn __exit__(
        slf: &Bound<'_, Self>,
        exc_type: &Bound<'_, PyAny>,
        exc_value: &Bound<'_, PyAny>,
        exc_tb: &Bound<'_, PyAny>,
    ) -> PyResult<()> {
        let _ = (exc_type, exc_value, exc_tb);
        slf.call_method0(intern!(slf.py(), "close")).map(drop)
    }

    /// Send a (picklable) object
    fn send(slf: &Bound<'_, Self>, obj: &Bound<'_, PyAny>) -> PyResult<()> {
        let this = slf.get();
        this.number()?;
        this.check_writable()?;
        if !hooks::are_own(slf, &[Hook::SendBytes, Hook::Send])? {
            return hooks::inherited(slf.py(), "send")?.call1((slf, obj)).map(drop);
        }
        if let Ok(bytes) = obj.cast_exact::<PyBytes>()
            && bytes.as_bytes().len() >= plain::LEAST
            && let Some(protocol) = pickle::protocol(slf.py())?
            && let Some(head) = plain::head(protocol, bytes.as_bytes().len())
        {
            return this.write(slf.py(), Outgoing::of_parts([&head, bytes.as_bytes(), &plain::TAIL]));
        }
        let mut scratch = SCRATCH.take();
        scratch.resize(frame::HEADROOM, 0);
        let outcome = pickle::dumps(obj, &mut scratch)
            .and_then(|()| this.write(slf.py(), Outgoing::raw(frame::seal(&mut scratch))));
        pickle::recycle(&mut scratch);
        SCRATCH.set(scratch);
        outcome
    }

    /// Send the bytes data from a bytes-like object
    #[pyo3(signature = (buf, offset=0, size=None))]
    fn send_bytes(slf: &Bound<'_, Self>, buf: &Bound<'_, PyAny>, offset: isize, size: Option<isize>) -> PyResult<()> {
        let this = slf.get();
        this.number()?;
        this.check_writable()?;
        if !hooks::are_own(slf, &[Hook::SendBytes, Hook::Send])? {
            return hooks::inherited(slf.py(), "send_bytes")?.call1((slf, buf, offset, size)).map(drop);
        }
        with_bytes(buf, |bytes| {
            let bytes = part(bytes, offset, size)?;
            this.write(slf.py(), Outgoing::new(bytes))
        })
    }

    fn _send_bytes(slf: &Bound<'_, Self>, buf: &Bound<'_, PyAny>) -> PyResult<()> {
        if !hooks::are_own(slf, &[Hook::Send])? {
            return hooks::inherited(slf.py(), "_send_bytes")?.call1((slf, buf)).map(drop);
        }
        with_bytes(buf, |bytes| slf.get().write(slf.py(), Outgoing::new(bytes)))
    }

    fn _send(&self, py: Python<'_>, buf: &Bound<'_, PyAny>) -> PyResult<()> {
        with_bytes(buf, |bytes| self.write(py, Outgoing::raw(bytes)))
    }

    /// Receive a (picklable) object
    fn recv<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        this.number()?;
        this.check_readable()?;
        if !hooks::are_own(slf, &[Hook::RecvBytes, Hook::Recv])? {
            return hooks::inherited(slf.py(), "recv")?.call1((slf,));
        }
        let mut space = SPACE;
        let message = match Self::next(slf, &mut space)? {
            Next::Whole(length) => return pickle::loads(slf.py(), initialised(&space[..length])),
            Next::Length(length) => this.receive_pickle(slf.py(), length)?,
        };
        match message {
            Message::Object(object) => Ok(object.into_any()),
            Message::Pickle(pickle) => pickle::loads_from(pickle.as_any()),
        }
    }

    /// Receive bytes data as a bytes object.
    #[pyo3(signature = (maxlength=None))]
    fn recv_bytes<'py>(slf: &Bound<'py, Self>, maxlength: Option<i128>) -> PyResult<Bound<'py, PyAny>> {
        let this = slf.get();
        this.number()?;
        this.check_readable()?;
        if maxlength.is_some_and(|length| length < 0) {
            return Err(PyValueError::new_err("negative maxlength"));
        }
        if !hooks::are_own(slf, &[Hook::RecvBytes, Hook::Recv])? {
            return hooks::inherited(slf.py(), "recv_bytes")?.call1((slf, maxlength));
        }
        Self::receive(slf, maxlength).map(Bound::into_any)
    }

    /// Receive bytes data into a writeable bytes-like object.
    /// Return the number of bytes read.
    #[pyo3(signature = (buf, offset=0))]
    fn recv_bytes_into<'py>(
        slf: &Bound<'py, Self>,
        buf: &Bound<'py, PyAny>,
        offset: isize,
    ) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let this = slf.get();
        this.number()?;
        this.check_readable()?;
        if !hooks::are_own(slf, &[Hook::RecvBytes, Hook::Recv])? {
            return hooks::inherited(slf.py(), "recv_bytes_into")?.call1((slf, buf, offset));
        }
        let buffer = PyUntypedBuffer::get(buf)?;
        if buffer.readonly() {
            return Err(PyTypeError::new_err("a read-write bytes-like object is required"));
        }
        if !buffer.is_c_contiguous() {
            return Err(PyBufferError::new_err("the buffer is not C-contiguous"));
        }
        let capacity = buffer.len_bytes();
        let offset = usize::try_from(offset).map_err(|_| PyValueError::new_err("negative offset"))?;
        if offset > capacity {
            return Err(PyValueError::new_err("offset too large"));
        }
        let length = Self::next_length(slf)?;
        if length > capacity - offset {
            let message = this.receive_bytes(py, length)?;
            let class = py.import("rsmp.context")?.getattr("BufferTooShort")?;
            return Err(PyErr::from_value(class.call1((message,))?));
        }
        // SAFETY: the buffer has this many bytes after `offset`, and is exported until it is dropped.
        let space = unsafe {
            let start = buffer.buf_ptr().cast::<MaybeUninit<u8>>().add(offset);
            slice::from_raw_parts_mut(start, length)
        };
        this.fill(py, Part::First, space, &mut 0)?;
        buffer.release(py);
        Ok(length.into_pyobject(py)?.into_any())
    }

    #[pyo3(signature = (maxsize=None))]
    fn _recv_bytes<'py>(slf: &Bound<'py, Self>, maxsize: Option<i128>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if !hooks::are_own(slf, &[Hook::Recv])? {
            return hooks::inherited(slf.py(), "_recv_bytes")?.call1((slf, maxsize)).map(Some);
        }
        let length = Self::next_length(slf)?;
        if maxsize.is_some_and(|most| length as i128 > most) {
            return Ok(None);
        }
        as_file(slf.get().receive_bytes(slf.py(), length)?).map(Some)
    }

    fn _recv<'py>(&self, py: Python<'py>, size: isize) -> PyResult<Bound<'py, PyAny>> {
        as_file(self.receive_bytes(py, usize::try_from(size).unwrap_or(0))?)
    }

    /// Whether there is any input available to be read
    #[pyo3(signature = (timeout=Some(0.0)), text_signature = "($self, timeout=0.0)")]
    fn poll(slf: &Bound<'_, Self>, timeout: Option<f64>) -> PyResult<bool> {
        let this = slf.get();
        this.number()?;
        this.check_readable()?;
        if !hooks::are_own(slf, &[Hook::Poll])? {
            return slf.call_method1(intern!(slf.py(), "_poll"), (timeout,))?.is_truthy();
        }
        this.wait_readable(slf.py(), timeout)
    }

    #[pyo3(name = "_poll", signature = (timeout))]
    fn wait_readable(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<bool> {
        let (source, _) = self.source()?;
        let ready =
            block::until_for(py, What::on(Kind::Receive, source.fd), Deadline::from_seconds(timeout), |until| {
                source.wait(until)
            })?;
        Ok(ready.is_some())
    }

    /// From now on, sending and receiving end with `TimeoutError` after `seconds` together; None: never.
    #[pyo3(signature = (seconds))]
    fn _allow(&self, seconds: Option<f64>) {
        *self.deadline.lock() = Deadline::from_seconds(seconds);
        self.bounded.store(seconds.is_some(), Ordering::Relaxed);
    }
}

impl Connection {
    fn number(&self) -> PyResult<RawFd> {
        self.handle().ok_or_else(|| PyOSError::new_err("handle is closed"))
    }

    fn fd<'call>(&self) -> PyResult<BorrowedFd<'call>> {
        Ok(foreign::borrow(self.number()?).map_err(Failure::from)?)
    }

    fn source(&self) -> PyResult<(Source<'_>, Deadline)> {
        let (patience, deadline) = self.patience();
        Ok((
            Source { fd: self.fd()?, transport: &self.transport, spin: &self.spin, patience, has_spun: false },
            deadline,
        ))
    }

    fn patience(&self) -> (Patience, Deadline) {
        if self.bounded.load(Ordering::Relaxed) {
            (Patience::Bounded, *self.deadline.lock())
        } else {
            (Patience::Endless, Deadline::NEVER)
        }
    }

    fn write(&self, py: Python<'_>, mut message: Outgoing<'_>) -> PyResult<()> {
        let fd = self.fd()?;
        let (_, deadline) = self.patience();
        block::system_call_for(py, What::on(Kind::Send, fd), deadline, |until| {
            stream::write(fd, &self.transport, &mut message, until)
        })?
        .ok_or_else(timed_out)
    }

    /// The next message, unless it is longer than `most`.
    fn receive<'py>(slf: &Bound<'py, Self>, most: Option<i128>) -> PyResult<Bound<'py, PyBytes>> {
        let mut space = SPACE;
        let limit = most.and_then(|most| usize::try_from(most).ok()).map_or(SMALL, |most| most.min(SMALL));
        match Self::next(slf, &mut space[..limit])? {
            Next::Whole(length) => Ok(PyBytes::new(slf.py(), initialised(&space[..length]))),
            Next::Length(length) => {
                if most.is_some_and(|most| i128::from(length) > most) {
                    Self::bad_message_length(slf)?;
                }
                slf.get().receive_bytes(slf.py(), size(length)?)
            }
        }
    }

    /// The next message into `space`, or only its length if it is longer.
    fn next(slf: &Bound<'_, Self>, space: &mut [MaybeUninit<u8>]) -> PyResult<Next> {
        let (mut source, deadline) = slf.get().source()?;
        let (mut prefix, mut filled) = (Prefix::default(), 0);
        let outcome =
            block::system_call(slf.py(), deadline, |until| source.next(&mut prefix, space, &mut filled, until));
        if prefix.length().is_err() {
            Self::bad_message_length(slf)?;
        }
        outcome?.ok_or_else(timed_out)
    }

    fn next_length(slf: &Bound<'_, Self>) -> PyResult<usize> {
        match Self::next(slf, &mut [])? {
            Next::Whole(length) => Ok(length),
            Next::Length(length) => size(length),
        }
    }

    /// A message of `length` bytes, whose length was read before.
    fn receive_bytes<'py>(&self, py: Python<'py>, length: usize) -> PyResult<Bound<'py, PyBytes>> {
        self.receive_after(py, Part::First, &[], length)
    }

    /// `length` bytes of a message, of which the `beginning` was read before.
    fn receive_after<'py>(
        &self,
        py: Python<'py>,
        part: Part,
        beginning: &[u8],
        length: usize,
    ) -> PyResult<Bound<'py, PyBytes>> {
        let mut filled = beginning.len();
        let mut message = Unfinished::with_capacity(py, frame::room(length, filled))?;
        for (space, byte) in message.space().iter_mut().zip(beginning) {
            space.write(*byte);
        }
        loop {
            self.fill(py, part, message.space(), &mut filled)?;
            if filled == length {
                return Ok(message.finish());
            }
            message.grow(frame::room(length, filled))?;
        }
    }

    /// A message whose length was read before; the contents of a large `bytes` object go straight to their place.
    fn receive_pickle<'py>(&self, py: Python<'py>, length: u64) -> PyResult<Message<'py>> {
        let length = size(length)?;
        if length < plain::LEAST || length > frame::room(length, 0) || pickle::protocol(py)?.is_none() {
            return self.receive_bytes(py, length).map(Message::Pickle);
        }
        let head: [u8; plain::HEAD] = self.receive_array(py, Part::First)?;
        let Some(contents) = plain::contents(head, length) else {
            return self.receive_after(py, Part::Later, &head, length).map(Message::Pickle);
        };
        let object = self.receive_after(py, Part::Later, &[], contents)?;
        let tail: [u8; plain::TAIL.len()] = self.receive_array(py, Part::Later)?;
        if tail == plain::TAIL {
            return Ok(Message::Object(object));
        }
        let whole = [&head, object.as_bytes(), &tail].concat();
        Ok(Message::Pickle(PyBytes::new(py, &whole)))
    }

    fn receive_array<const N: usize>(&self, py: Python<'_>, part: Part) -> PyResult<[u8; N]> {
        let mut space = [MaybeUninit::uninit(); N];
        self.fill(py, part, &mut space, &mut 0)?;
        let mut array = [0; N];
        array.copy_from_slice(initialised(&space));
        Ok(array)
    }

    fn fill(&self, py: Python<'_>, part: Part, space: &mut [MaybeUninit<u8>], filled: &mut usize) -> PyResult<()> {
        let (source, deadline) = self.source()?;
        block::system_call(py, deadline, |until| source.fill(part, space, filled, until))?.ok_or_else(timed_out)
    }
}

/// A large message.
enum Message<'py> {
    /// The object itself.
    Object(Bound<'py, PyBytes>),
    Pickle(Bound<'py, PyBytes>),
}

fn close(py: Python<'_>, number: RawFd) -> PyResult<()> {
    block::system_call(py, Deadline::NEVER, |_| foreign::close(number).map(Some)).map(drop)
}

/// The bytes that a message was read into.
fn initialised(bytes: &[MaybeUninit<u8>]) -> &[u8] {
    // SAFETY: the callers pass what `Source` says it has filled.
    unsafe { slice::from_raw_parts(bytes.as_ptr().cast::<u8>(), bytes.len()) }
}

fn size(length: u64) -> PyResult<usize> {
    usize::try_from(length).map_err(|_| PyMemoryError::new_err(()))
}

fn timed_out() -> PyErr {
    PyTimeoutError::new_err("the other side took too long")
}

/// Calls `use_bytes` with the bytes of an object with the buffer protocol.
pub(crate) fn with_bytes<T>(object: &Bound<'_, PyAny>, use_bytes: impl FnOnce(&[u8]) -> PyResult<T>) -> PyResult<T> {
    if let Ok(bytes) = object.cast_exact::<PyBytes>() {
        return use_bytes(bytes.as_bytes());
    }
    let buffer = PyUntypedBuffer::get(object)?;
    if !buffer.is_c_contiguous() {
        return Err(PyBufferError::new_err("the buffer is not C-contiguous"));
    }
    let outcome = if buffer.len_bytes() == 0 {
        use_bytes(&[])
    } else {
        // SAFETY: the buffer has this many bytes and is exported until `release`.
        use_bytes(unsafe { slice::from_raw_parts(buffer.buf_ptr().cast::<u8>(), buffer.len_bytes()) })
    };
    buffer.release(object.py());
    outcome
}

/// `bytes[offset : offset + size]`, checked as the standard library checks it.
pub(crate) fn part(bytes: &[u8], offset: isize, size: Option<isize>) -> PyResult<&[u8]> {
    let offset = usize::try_from(offset).map_err(|_| PyValueError::new_err("offset is negative"))?;
    let rest = bytes.get(offset..).ok_or_else(|| PyValueError::new_err("buffer length < offset"))?;
    let Some(size) = size else { return Ok(rest) };
    let size = usize::try_from(size).map_err(|_| PyValueError::new_err("size is negative"))?;
    rest.get(..size).ok_or_else(|| PyValueError::new_err("buffer length < offset + size"))
}

/// An `io.BytesIO` as the standard hooks return it: written, its position at the end.
fn as_file(message: Bound<'_, PyBytes>) -> PyResult<Bound<'_, PyAny>> {
    let py = message.py();
    let file = py.import(intern!(py, "io"))?.call_method1(intern!(py, "BytesIO"), (message,))?;
    file.call_method1(intern!(py, "seek"), (0, 2))?;
    Ok(file)
}

/// Two descriptors connected to each other: both ways if `duplex`, else from the second to the first.
#[pyfunction]
pub(crate) fn pipe(duplex: bool) -> PyResult<(RawFd, RawFd)> {
    let ends = if duplex { socket::pair() } else { socket::pipe() };
    let (first, second) = ends.map_err(Failure::from)?;
    Ok((first.into_raw_fd(), second.into_raw_fd()))
}
