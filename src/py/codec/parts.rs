//! Messages that are written, and read, item by item: the chunks of a map.
//!
//! # Safety
//! As in `codec`.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyList, PyTuple};
use rsmp_core::frame::compact::{self, Reader, Token};

use super::{Decoder, Encoder, LONGEST_TOKEN, Place, integer};

/// Bytes of the longest number.
const LONGEST_NUMBER: usize = 9;

/// As `encode_builtin` for a tuple of `count` items of an exact list or tuple, from `start` on: it need not be made.
pub(crate) fn encode_part(sequence: &Bound<'_, PyAny>, start: usize, count: usize, out: &mut Vec<u8>) -> bool {
    let begin = out.len();
    let item = if let Ok(list) = sequence.cast_exact::<PyList>()
        && start + count <= list.len()
    {
        ffi::PyList_GET_ITEM
    } else if let Ok(tuple) = sequence.cast_exact::<PyTuple>()
        && start + count <= tuple.len()
    {
        ffi::PyTuple_GET_ITEM
    } else {
        return false;
    };
    let mut encoder = Encoder::new(out);
    let mut write = || {
        encoder.make_room(0)?;
        encoder.write(Token::Tuple(count));
        for index in start..start + count {
            // SAFETY: attached, and there are that many items, as encoding does not run Python code.
            encoder.value(unsafe { item(sequence.as_ptr(), index.cast_signed()) }, Place::Item, 1)?;
        }
        Some(())
    };
    let written = !cfg!(Py_GIL_DISABLED) && write().is_some();
    encoder.finish(begin, written)
}

/// As `encode_builtin` for a tuple of these numbers. `false` without memory.
pub(crate) fn encode_numbers(numbers: impl ExactSizeIterator<Item = i64>, out: &mut Vec<u8>) -> bool {
    if out.try_reserve(LONGEST_TOKEN + LONGEST_NUMBER * numbers.len()).is_err() {
        return false;
    }
    compact::write(out, Token::Tuple(numbers.len()), false);
    for number in numbers {
        compact::write(out, Token::Int(number), false);
    }
    true
}

/// The items of a message that is a list or tuple, made one by one.
pub(crate) struct Items<'a, 'py> {
    decoder: Decoder<'a, 'py>,
    left: usize,
}

impl<'a, 'py> Items<'a, 'py> {
    /// `None` if it is a pickle, or anything else.
    pub(crate) fn of(message: &'a [u8]) -> Option<Self> {
        let mut reader = Reader::new(message);
        let (Token::List(left) | Token::Tuple(left), remember) = reader.token().ok()? else { return None };
        let mut decoder = Decoder::new(reader);
        if remember {
            // Nothing inside refers to it: it does not exist yet.
            decoder.remembered.push(None);
        }
        Some(Self { decoder, left })
    }

    pub(crate) fn len(&self) -> usize {
        self.left
    }

    #[inline]
    pub(crate) fn next(&mut self, py: Python<'py>) -> PyResult<Option<Bound<'py, PyAny>>> {
        if self.left == 0 {
            return Ok(None);
        }
        self.left -= 1;
        self.decoder.item(py, 1).map(Some)
    }
}

/// The message for a list of objects that never change and of which nobody can tell two equal ones apart, written one by
/// one: numbers and `None`.
pub(crate) struct Numerals<'a> {
    out: &'a mut Vec<u8>,
    /// Where the items start.
    start: usize,
    count: usize,
}

impl<'a> Numerals<'a> {
    /// Begins a list of `length` items in `out`.
    pub(crate) fn for_list(out: &'a mut Vec<u8>, length: usize) -> Self {
        compact::write(out, Token::List(length), false);
        Self { start: out.len(), out, count: 0 }
    }

    /// Writes `object`; `false`, and nothing written, if it is something else.
    #[inline]
    pub(crate) fn push(&mut self, object: &Bound<'_, PyAny>) -> bool {
        let pointer = object.as_ptr();
        // SAFETY: attached, and `object` is alive.
        let class = unsafe { ffi::Py_TYPE(pointer) };
        // SAFETY: attached, `object` is alive and of the class that each needs.
        let token = unsafe {
            if class == &raw mut ffi::PyLong_Type {
                integer(pointer).map(Token::Int)
            } else if class == &raw mut ffi::PyFloat_Type {
                Some(Token::Float(ffi::PyFloat_AS_DOUBLE(pointer)))
            } else if class == &raw mut ffi::PyBool_Type {
                Some(Token::Bool(pointer == ffi::Py_True()))
            } else {
                (pointer == ffi::Py_None()).then_some(Token::None)
            }
        };
        let Some(token) = token.filter(|_| self.out.try_reserve(LONGEST_NUMBER).is_ok()) else { return false };
        compact::write(self.out, token, false);
        self.count += 1;
        true
    }

    /// The items so far.
    pub(crate) fn list<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyList>> {
        let reader = Reader::new(&self.out[self.start..]);
        let mut items = Items { decoder: Decoder::new(reader), left: self.count };
        let list = PyList::empty(py);
        while let Some(item) = items.next(py)? {
            list.append(item)?;
        }
        Ok(list)
    }
}
