//! What a queue's record holds for an object, and the object for a record: `codec`'s messages, but for the payloads that
//! are better copied as they are. The tag of a record says which.
//!
//! Large buffers that the pickler leaves out (protocol 5: arrays of numpy and the like) go straight from the object into
//! the slab and from there into memory that is the new object's own: two copies in all, made on two CPUs at once by a
//! stream. A view on the slab would save the second, but a forked child would then share what must be its own. The memory
//! of large ones is used again when they are gone (`buffer`), so that its pages are warm.
//!
//! ```text
//! APART:  number of buffers, length of the pickle, length of each buffer (u64, its highest bit: of numpy)
//!         the pickle, each buffer; each starts at a multiple of 64
//! ```
//!
//! # Safety
//! A pickle in a lease is read through a `memoryview` of the leased memory, which is released before the lease goes.
//! `Unfinished` bytes and new byte arrays are written by the copy alone. An exported buffer stays where it is until it is
//! released; a thread that writes to it during `put` garbles its own message.
#![allow(unsafe_code)]

use core::cell::Cell;
use core::mem::MaybeUninit;
use core::{ptr, slice};

use pyo3::exceptions::PyRuntimeError;
use pyo3::prelude::*;
use pyo3::types::{PyBytes, PyList};
use pyo3::{ffi, intern};
use rsmp_core::frame::compact;
use rsmp_core::ring::Lease;
use rsmp_core::sys::memory;

use crate::buffer::Buffer;
use crate::bytes::{HUGE, Unfinished};
use crate::pymalloc::Crowd;
use crate::{block, codec, pickle};

/// A message of `codec`.
const MESSAGE: u8 = 0;
/// The payload of a `bytes` object.
const BYTES: u8 = 1;
/// A pickle that somebody else made.
pub(crate) const PICKLE: u8 = 2;

/// A pickle and the buffers that were left out of it.
const APART: u8 = 3;

/// Buffers from this size on are left out of the pickle.
const LEAST: usize = 16 << 10;
/// From this size on, the memory of what arrives is used again.
const WARM: usize = 1 << 20;
/// In the length of a buffer: it is an array's of numpy.
const OF_NUMPY: usize = 1 << (usize::BITS - 1);
/// Where buffers start, for those that compute on them.
const ALIGNMENT: usize = 64;
const PADDING: [u8; ALIGNMENT] = [0; ALIGNMENT];

/// Copies longer than this let other threads run meanwhile.
pub(crate) const LONG: usize = 64 << 10;

thread_local! {
    /// The scratch space of this thread's messages; empty while one is being encoded.
    static SCRATCH: Cell<Vec<u8>> = const { Cell::new(Vec::new()) };
}

/// An object as a record's payload.
pub(crate) struct Encoded<'py> {
    tag: u8,
    scratch: Vec<u8>,
    /// The payload itself, where no copy is needed.
    bytes: Option<Bound<'py, PyBytes>>,
    /// What follows the scratch.
    buffers: Vec<pickle::Apart>,
}

/// A payload in the pieces it is copied from.
pub(crate) enum Parts<'a> {
    One([&'a [u8]; 1]),
    Many(Vec<&'a [u8]>),
}

impl<'a> Parts<'a> {
    pub(crate) fn as_slice(&self) -> &[&'a [u8]] {
        match self {
            Self::One(part) => part,
            Self::Many(parts) => parts,
        }
    }
}

impl<'py> Encoded<'py> {
    pub(crate) fn new(object: &Bound<'py, PyAny>) -> PyResult<Self> {
        if let Ok(bytes) = object.cast_exact::<PyBytes>() {
            return Ok(Self { tag: BYTES, scratch: Vec::new(), bytes: Some(bytes.clone()), buffers: Vec::new() });
        }
        let mut encoded = Self::unwritten();
        if !codec::encode_builtin(object, &mut encoded.scratch) {
            encoded.pickle(object)?;
        }
        Ok(encoded)
    }

    /// A message that is still to be written, by `codec`.
    pub(crate) fn unwritten() -> Self {
        Self { tag: MESSAGE, scratch: SCRATCH.take(), bytes: None, buffers: Vec::new() }
    }

    /// What `write` writes by way of `codec`; `None` where it cannot.
    pub(crate) fn written(write: impl FnOnce(&mut Vec<u8>) -> bool) -> Option<Self> {
        let mut encoded = Self::unwritten();
        write(encoded.message()).then_some(encoded)
    }

    /// Where `codec` writes.
    pub(crate) fn message(&mut self) -> &mut Vec<u8> {
        &mut self.scratch
    }

    fn pickle(&mut self, object: &Bound<'_, PyAny>) -> PyResult<()> {
        self.scratch.push(compact::PICKLE);
        self.buffers = pickle::dumps_apart(object, &mut self.scratch, LEAST)?;
        if self.buffers.is_empty() {
            return Ok(());
        }
        self.tag = APART;
        let lengths = self.buffers.iter().map(|buffer| {
            let len = buffer.raw.len_bytes();
            if buffer.of_numpy { len | OF_NUMPY } else { len }
        });
        let words = [self.buffers.len(), self.scratch.len() - 1].into_iter().chain(lengths);
        let mut head: Vec<u8> = words.flat_map(|word| (word as u64).to_ne_bytes()).collect();
        head.resize(head.len().next_multiple_of(ALIGNMENT), 0);
        pickle::make_room(&mut self.scratch, head.len())?;
        // In the place of the byte that says it is a pickle.
        self.scratch.splice(..1, head);
        Ok(())
    }

    pub(crate) fn tag(&self) -> u8 {
        self.tag
    }

    pub(crate) fn parts(&self) -> Parts<'_> {
        let first = self.bytes.as_ref().map_or(self.scratch.as_slice(), |bytes| bytes.as_bytes());
        if self.buffers.is_empty() {
            return Parts::One([first]);
        }
        let mut parts = vec![first];
        let mut last = first.len();
        for buffer in &self.buffers {
            parts.push(&PADDING[..last.next_multiple_of(ALIGNMENT) - last]);
            last = buffer.raw.len_bytes();
            // SAFETY: the buffer is C-contiguous bytes (`PickleBuffer.raw`), at least `LEAST` of them, and exported until
            // `self` is dropped.
            parts.push(unsafe { slice::from_raw_parts(buffer.raw.buf_ptr().cast(), last) });
        }
        Parts::Many(parts)
    }
}

impl Drop for Encoded<'_> {
    fn drop(&mut self) {
        if self.scratch.capacity() > 0 {
            pickle::recycle(&mut self.scratch);
            SCRATCH.set(core::mem::take(&mut self.scratch));
        }
    }
}

/// For the objects that a payload may become: some four times its length of them.
fn crowd(py: Python<'_>, tag: u8, payload: &[u8]) -> Option<Crowd> {
    if matches!(tag, MESSAGE | PICKLE) { Crowd::expect(py, payload.len().saturating_mul(4)) } else { None }
}

/// The object of a record whose payload has been copied out.
pub(crate) fn decode<'py>(py: Python<'py>, tag: u8, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let _crowd = crowd(py, tag, payload);
    match tag {
        MESSAGE => codec::decode(py, payload),
        PICKLE => pickle::loads(py, payload),
        BYTES => Ok(PyBytes::new(py, payload).into_any()),
        APART => loads_apart(py, payload),
        _ => Err(unknown(tag)),
    }
}

/// The message that a payload is, if it is one.
pub(crate) fn as_message(tag: u8, payload: &[u8]) -> Option<&[u8]> {
    (tag == MESSAGE).then_some(payload)
}

/// The object of a record whose payload is still in shared memory.
pub(crate) fn decode_lease<'py>(py: Python<'py>, tag: u8, lease: &Lease) -> PyResult<Bound<'py, PyAny>> {
    decode_in_place(py, tag, lease.bytes())
}

/// The object of a payload that stays where it is during the call.
pub(crate) fn decode_in_place<'py>(py: Python<'py>, tag: u8, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let _crowd = crowd(py, tag, payload);
    match tag {
        MESSAGE => match payload.split_first() {
            Some((&compact::PICKLE, pickled)) => loads_in_place(py, pickled),
            _ => codec::decode(py, payload),
        },
        PICKLE => loads_in_place(py, payload),
        APART => loads_apart(py, payload),
        BYTES => {
            let mut bytes = Unfinished::with_capacity(py, payload.len())?;
            let space = bytes.space();
            block::aside(py, || {
                // SAFETY: the space is this call's alone, of the same length, and not shared memory.
                unsafe { ptr::copy_nonoverlapping(payload.as_ptr(), space.as_mut_ptr().cast(), payload.len()) }
            });
            Ok(bytes.finish().into_any())
        }
        _ => Err(unknown(tag)),
    }
}

/// Unpickles from shared memory.
fn loads_in_place<'py>(py: Python<'py>, pickled: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    with_view(py, pickled, pickle::loads_from)
}

/// Unpickles what was pickled apart from its buffers.
fn loads_apart<'py>(py: Python<'py>, payload: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    let mut words = payload.chunks_exact(8).map(|word| word.try_into().map_or(0, u64::from_ne_bytes) as usize);
    let mut word = || words.next().ok_or_else(truncated);
    let count = word()?;
    let pickled = word()?;
    let lengths = (0..count).map(|_| word()).collect::<PyResult<Vec<_>>>()?;
    let mut rest = payload;
    let mut part = |skip: usize, len: usize| {
        let (part, after) = rest.get(skip..).and_then(|rest| rest.split_at_checked(len)).ok_or_else(truncated)?;
        rest = after;
        PyResult::Ok(part)
    };
    let padding = |len: usize| len.next_multiple_of(ALIGNMENT) - len;
    let mut last = 8 * (2 + count);
    let pickled = part(last + padding(last), pickled)?;
    last = pickled.len();
    let buffers = PyList::empty(py);
    for word in lengths {
        let len = word & !OF_NUMPY;
        let bytes = part(padding(last), len)?;
        let is_warm = word != len && len >= WARM;
        buffers.append(if is_warm { Buffer::copy_of(py, bytes)? } else { byte_array(py, bytes)? })?;
        last = len;
    }
    with_view(py, pickled, |view| pickle::loads_with(view, &buffers))
}

fn byte_array<'py>(py: Python<'py>, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    // SAFETY: a null source asks for an array whose bytes are not set yet; the reference is new.
    let array = unsafe {
        let array = ffi::PyByteArray_FromStringAndSize(ptr::null(), bytes.len().cast_signed());
        Bound::from_owned_ptr_or_err(py, array)?
    };
    // SAFETY: the array has this many bytes, and nobody else has seen it.
    let space = unsafe {
        let start = ffi::PyByteArray_AsString(array.as_ptr()).cast::<MaybeUninit<u8>>();
        slice::from_raw_parts_mut(start, bytes.len())
    };
    memory::prefer_huge_pages(space, HUGE);
    block::aside(py, || {
        // SAFETY: the space is this call's alone, of the same length, and not shared memory.
        unsafe { ptr::copy_nonoverlapping(bytes.as_ptr(), space.as_mut_ptr().cast(), bytes.len()) }
    });
    Ok(array)
}

fn with_view<'py>(
    py: Python<'py>,
    bytes: &[u8],
    load: impl FnOnce(&Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>>,
) -> PyResult<Bound<'py, PyAny>> {
    let len = bytes.len().cast_signed();
    // SAFETY: the memory stays as it is until the lease goes; the view is released before that.
    let view = unsafe {
        let view = ffi::PyMemoryView_FromMemory(bytes.as_ptr().cast_mut().cast(), len, ffi::PyBUF_READ);
        Bound::from_owned_ptr_or_err(py, view)?
    };
    let object = load(&view);
    view.call_method0(intern!(py, "release"))?;
    object
}

#[cold]
fn truncated() -> PyErr {
    PyRuntimeError::new_err("a record of the queue is shorter than it says")
}

/// The payload as the pickle that the standard library would have sent.
pub(crate) fn as_pickle<'py>(py: Python<'py>, tag: u8, payload: &[u8]) -> PyResult<Bound<'py, PyBytes>> {
    if tag == PICKLE {
        return Ok(PyBytes::new(py, payload));
    }
    let mut pickled = Vec::new();
    pickle::dumps(&decode(py, tag, payload)?, &mut pickled)?;
    Ok(PyBytes::new(py, &pickled))
}

fn unknown(tag: u8) -> PyErr {
    PyRuntimeError::new_err(format!("a record of the queue has the unknown tag {tag}"))
}
