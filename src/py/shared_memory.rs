//! `rsmp.shared_memory`: named segments and the items of a `ShareableList`.
//!
//! # Safety
//! A `Segment` hands out its address range through the buffer protocol and counts those who hold it: `close` refuses
//! while the count is not zero, so no exported pointer outlives the mapping.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};
use std::os::fd::IntoRawFd;
use std::sync::OnceLock;

use parking_lot::Mutex;
use pyo3::exceptions::{
    PyAssertionError, PyBufferError, PyIndexError, PyKeyError, PyOSError, PyOverflowError, PyTypeError, PyValueError,
};
use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyDict, PyFloat, PyInt, PyString, PyTuple};
use rsmp_core::error::Kind;
use rsmp_core::shm::list::{Item, List};
use rsmp_core::sys::segment;

use crate::error::Failure;

/// A named shared memory segment mapped into this process, as far as `SharedMemory` uses an `mmap`.
#[pyclass(module = "rsmp._rsmp", frozen)]
pub(crate) struct Segment {
    state: Mutex<State>,
}

struct State {
    segment: Option<segment::Segment>,
    exports: usize,
}

#[pymethods]
#[allow(clippy::needless_pass_by_value)] // the slots of the buffer protocol
impl Segment {
    /// A new segment of `size` > 0 zero bytes; `FileExistsError` if `name` is taken.
    #[staticmethod]
    fn create(py: Python<'_>, name: &str, size: usize, mode: u32) -> PyResult<Self> {
        check(name)?;
        Self::new(py, name, segment::Segment::create(name, size, mode))
    }

    /// A new segment of `size` > 0 zero bytes, and its name: `prefix` and random digits, of `length` characters together.
    #[staticmethod]
    fn create_unnamed(py: Python<'_>, prefix: &str, length: usize, size: usize, mode: u32) -> PyResult<(String, Self)> {
        check(prefix)?;
        let random = length.saturating_sub(prefix.len()) / 2;
        if random < 2 {
            return Err(PyAssertionError::new_err("_SHM_NAME_PREFIX too long"));
        }
        loop {
            let name = segment::random_name(prefix, random).map_err(Failure::from)?;
            match segment::Segment::create(&name, size, mode) {
                Err(error) if matches!(error.kind(), Kind::Os(errno) if errno.raw_os_error() == libc::EEXIST) => {
                    py.check_signals()?;
                }
                created => return Self::new(py, &name, created).map(|segment| (name, segment)),
            }
        }
    }

    /// The existing segment `name`; with `create`, an empty one is made where there is none.
    #[staticmethod]
    fn open(py: Python<'_>, name: &str, create: bool, mode: u32) -> PyResult<Self> {
        check(name)?;
        let opened = if create { segment::Segment::open_or_create(name, mode) } else { segment::Segment::open(name) };
        Self::new(py, name, opened)
    }

    /// Removes `name`; those who have the segment open keep it.
    #[staticmethod]
    fn unlink(py: Python<'_>, name: &str) -> PyResult<()> {
        check(name)?;
        segment::Segment::unlink(name).map_err(|error| about(py, name, error))
    }

    /// A new descriptor of the segment `name`.
    #[staticmethod]
    fn descriptor(py: Python<'_>, name: &str) -> PyResult<c_int> {
        check(name)?;
        let descriptor = segment::Segment::descriptor(name).map_err(|error| about(py, name, error))?;
        Ok(descriptor.into_raw_fd())
    }

    /// Unmaps the segment; `BufferError` while a memoryview of it exists.
    fn close(&self) -> PyResult<()> {
        let mut state = self.state.lock();
        if state.exports > 0 {
            return Err(PyBufferError::new_err("cannot close exported pointers exist"));
        }
        state.segment = None;
        Ok(())
    }

    #[getter]
    fn closed(&self) -> bool {
        self.state.lock().segment.is_none()
    }

    fn __len__(&self) -> PyResult<usize> {
        self.with(segment::Segment::len)
    }

    fn size(&self) -> PyResult<usize> {
        self.__len__()
    }

    unsafe fn __getbuffer__(slf: Bound<'_, Self>, view: *mut ffi::Py_buffer, flags: c_int) -> PyResult<()> {
        let mut state = slf.get().state.lock();
        let (base, len) = state.segment.as_ref().map(|segment| (segment.base(), segment.len())).ok_or_else(closed)?;
        // SAFETY: `view` is the caller's to fill in; the range stays mapped while `exports` counts this view.
        let filled =
            unsafe { ffi::PyBuffer_FillInfo(view, slf.as_ptr(), base.cast::<c_void>(), len.cast_signed(), 0, flags) };
        if filled != 0 {
            return Err(PyErr::fetch(slf.py()));
        }
        state.exports += 1;
        Ok(())
    }

    unsafe fn __releasebuffer__(&self, _view: *mut ffi::Py_buffer) {
        self.state.lock().exports -= 1;
    }
}

impl Segment {
    fn new(py: Python<'_>, name: &str, opened: rsmp_core::Result<segment::Segment>) -> PyResult<Self> {
        let segment = opened.map_err(|error| about(py, name, error))?;
        Ok(Self { state: Mutex::new(State { segment: Some(segment), exports: 0 }) })
    }

    fn with<T>(&self, what: impl FnOnce(&segment::Segment) -> T) -> PyResult<T> {
        self.state.lock().segment.as_ref().map(what).ok_or_else(closed)
    }
}

fn closed() -> PyErr {
    PyValueError::new_err("shared memory is closed")
}

fn check(name: &str) -> PyResult<()> {
    if name.contains('\0') { Err(PyValueError::new_err("embedded null character")) } else { Ok(()) }
}

/// As `shm_open` of the standard library raises: an `OSError` with number, text and name.
fn about(py: Python<'_>, name: &str, error: rsmp_core::Error) -> PyErr {
    let errno = match error.kind() {
        Kind::Os(errno) => errno.raw_os_error(),
        Kind::OutOfMemory => libc::ENOMEM,
        Kind::Invalid(why) => return PyValueError::new_err(why.to_string()),
        _ => return Failure::from(error).into(),
    };
    let text = py.import("os").and_then(|os| os.call_method1("strerror", (errno,))).map(Bound::unbind);
    match text {
        Ok(text) => PyOSError::new_err((errno, text, name.to_owned())),
        Err(error) => error,
    }
}

/// The items of a `ShareableList`; what is not a plain item goes to the standard class further up the MRO.
#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
pub(crate) struct ShareableList {
    stored: OnceLock<Stored>,
}

struct Stored {
    list: List,
    segment: Py<Segment>,
}

#[pymethods]
impl ShareableList {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { stored: OnceLock::new() }
    }

    /// Stores `sequence` in the `SharedMemory` that `create(size)` returns, and returns that.
    fn _store<'py>(&self, sequence: &Bound<'py, PyAny>, create: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let values = sequence.try_iter()?.collect::<PyResult<Vec<_>>>()?;
        let items = values.iter().map(exact_item).collect::<PyResult<Vec<_>>>()?;
        let list = List::plan(&items).map_err(Failure::from)?;
        let memory = create.call1((list.size(),))?;
        let segment = memory.getattr("_mmap")?.cast_into::<Segment>()?;
        segment.get().with(|segment| list.store(segment, &items))?.map_err(Failure::from)?;
        let _ = self.stored.set(Stored { list, segment: segment.unbind() });
        Ok(memory)
    }

    /// Reads where the items are in `memory`, a `SharedMemory` with a list in it.
    fn _attach(&self, memory: &Bound<'_, PyAny>) -> PyResult<()> {
        let segment = memory.getattr("_mmap")?.cast_into::<Segment>()?;
        let list = segment.get().with(List::attach)?.map_err(Failure::from)?;
        let _ = self.stored.set(Stored { list, segment: segment.unbind() });
        Ok(())
    }

    #[getter]
    fn _list_len(&self) -> PyResult<usize> {
        Ok(self.stored()?.list.len())
    }

    #[getter]
    fn _allocated_offsets(&self) -> PyResult<Vec<usize>> {
        Ok(self.stored()?.list.offsets().to_vec())
    }

    fn __len__(&self) -> PyResult<usize> {
        let stored = self.stored()?;
        stored.read(|_| stored.list.len())
    }

    fn __getitem__<'py>(slf: &Bound<'py, Self>, position: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let stored = slf.get().stored()?;
        let index = stored.index(position)?.ok_or_else(|| PyIndexError::new_err("index out of range"))?;
        let standard = || slf.py_super()?.call_method1("__getitem__", (index,));
        let item = match stored.read(|segment| stored.list.get(segment, index))? {
            Some(Item::Int(value)) => value.into_pyobject(py)?.into_any(),
            Some(Item::Float(value)) => PyFloat::new(py, value).into_any(),
            Some(Item::Bool(value)) => PyBool::new(py, value).to_owned().into_any(),
            Some(Item::None) => py.None().into_bound(py),
            Some(Item::Bytes(bytes)) => PyBytes::new(py, &bytes).into_any(),
            Some(Item::Text(text)) => match core::str::from_utf8(&text) {
                Ok(text) => PyString::new(py, text).into_any(),
                Err(_) => return standard(),
            },
            None => return standard(),
        };
        Ok(item)
    }

    fn __setitem__(slf: &Bound<'_, Self>, position: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let stored = slf.get().stored()?;
        let index = stored.index(position)?.ok_or_else(|| PyIndexError::new_err("assignment index out of range"))?;
        let item = item(value)?;
        stored.read(|segment| stored.list.set(segment, index, &item))?.map_err(|error| match error.kind() {
            Kind::Invalid(why) => PyValueError::new_err(why.to_string()),
            _ => Failure::from(error).into(),
        })
    }
}

impl ShareableList {
    fn stored(&self) -> PyResult<&Stored> {
        self.stored.get().ok_or_else(|| PyValueError::new_err("ShareableList.__init__() was not called"))
    }
}

impl Stored {
    fn index(&self, position: &Bound<'_, PyAny>) -> PyResult<Option<usize>> {
        let position: isize = position.extract()?;
        let len = self.list.len();
        let index = if position < 0 { position + len.cast_signed() } else { position };
        Ok(usize::try_from(index).ok().filter(|index| *index < len))
    }

    fn read<T>(&self, what: impl FnOnce(&segment::Segment) -> T) -> PyResult<T> {
        let state = self.segment.get().state.lock();
        // What the standard library says when `shm.buf` is gone.
        let closed = || PyTypeError::new_err("a bytes-like object is required, not 'NoneType'");
        state.segment.as_ref().map(what).ok_or_else(closed)
    }
}

/// `value` as an item, subclasses of `str` and `bytes` included.
fn item<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<Item<'a>> {
    if let Ok(text) = value.cast::<PyString>() {
        return Ok(Item::Text(text.to_str()?.as_bytes().into()));
    }
    if let Ok(bytes) = value.cast::<PyBytes>() {
        return Ok(Item::Bytes(bytes.as_bytes().into()));
    }
    exact_item(value)
}

fn exact_item<'a>(value: &'a Bound<'_, PyAny>) -> PyResult<Item<'a>> {
    if let Ok(number) = value.cast_exact::<PyInt>() {
        return number.extract().map(Item::Int).map_err(|error| too_large(value.py(), error));
    }
    if let Ok(number) = value.cast_exact::<PyFloat>() {
        return Ok(Item::Float(number.value()));
    }
    if let Ok(text) = value.cast_exact::<PyString>() {
        return Ok(Item::Text(text.to_str()?.as_bytes().into()));
    }
    if let Ok(bytes) = value.cast_exact::<PyBytes>() {
        return Ok(Item::Bytes(bytes.as_bytes().into()));
    }
    if let Ok(truth) = value.cast_exact::<PyBool>() {
        return Ok(Item::Bool(truth.is_true()));
    }
    if value.is_none() {
        return Ok(Item::None);
    }
    // The standard library looks the type up in a dictionary of those it can store.
    Err(PyKeyError::new_err(value.get_type().unbind()))
}

/// Packing an int of more than 64 bits is a `struct.error`.
fn too_large(py: Python<'_>, error: PyErr) -> PyErr {
    if !error.is_instance_of::<PyOverflowError>(py) {
        return error;
    }
    let raised = py.import("struct").and_then(|module| module.getattr("error")?.call1(("int too large to convert",)));
    raised.map_or_else(|error| error, PyErr::from_value)
}
