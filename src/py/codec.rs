//! Messages between rsmp's own processes: exact builtins in the compact format, everything else by pickle.
//!
//! What arrives is what pickle would have made of it. C's pickler, too, saves exact `None`, `bool`, `int`, `float`,
//! `str`, `bytes`, `list`, `tuple` and `dict` before it looks for reducers, so nothing a program can register is passed
//! over. One object of another type anywhere in the graph, or one the compact format cannot say, and the whole message
//! goes to the pickler. Identity inside a message is kept as the memo of pickle keeps it: containers, strings and bytes
//! are one object afterwards where they were one before; numbers are not.
//!
//! # Safety
//! Everything runs attached, and encoding calls nothing that runs Python code, so the graph cannot change under it. On a
//! free-threaded interpreter it could, and every message is pickled.
#![allow(unsafe_code)]

use pyo3::ffi;
use pyo3::prelude::*;
use rsmp_core::frame::compact::{self, PICKLE, Reader, Token};
use smallvec::SmallVec;

use crate::error::Failure;
use crate::numbers::{FEW, Numbers};
use crate::pickle;

mod keys;
mod parts;

pub(crate) use parts::{Items, Numerals, encode_numbers, encode_part};

/// Containers nested deeper are left to pickle, which knows how to raise `RecursionError`.
const DEEPEST: usize = 100;

/// Bytes of the longest token without its text, and some to spare.
const LONGEST_TOKEN: usize = 32;

/// Appends the message for `object` to `out`; when it raises, `out` is as before.
pub(crate) fn encode(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> PyResult<()> {
    let start = out.len();
    if !encode_builtin(object, out) {
        out.push(PICKLE);
        pickle::dumps(object, out).inspect_err(|_| out.truncate(start))?;
    }
    Ok(())
}

/// As `encode` for what needs no pickle; `false`, with `out` as before, for everything else.
pub(crate) fn encode_builtin(object: &Bound<'_, PyAny>, out: &mut Vec<u8>) -> bool {
    let start = out.len();
    let mut encoder = Encoder::new(out);
    let written = !cfg!(Py_GIL_DISABLED) && encoder.value(object.as_ptr(), Place::Top, 0).is_some();
    encoder.finish(start, written)
}

/// The object that `message` holds.
pub(crate) fn decode<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    if let Some((&PICKLE, pickled)) = message.split_first() {
        return pickle::loads(py, pickled);
    }
    Decoder::new(Reader::new(message)).value(py, 0)
}

/// Where a value stands decides whether a second reference to it may turn up in the same message.
#[derive(Clone, Copy, PartialEq)]
enum Place {
    /// The caller's object: its references need not be counted (borrowed locals of Python 3.14), and it may contain
    /// itself.
    Top,
    /// In a list, tuple or dict value: every reference from the graph is counted.
    Item,
    /// A dict key: dicts of instances share one table of keys, which counts one reference for all of them.
    Key,
}

struct Encoder<'a> {
    out: &'a mut Vec<u8>,
    numbers: Numbers,
    /// Whether a reference to something was written.
    referred: bool,
}

impl<'a> Encoder<'a> {
    fn new(out: &'a mut Vec<u8>) -> Self {
        Self { out, numbers: Numbers::default(), referred: false }
    }

    /// Ends a message that began at `start`: without numbers if nothing refers to one, without anything if it was not
    /// `written`. Returns that.
    #[inline]
    fn finish(self, start: usize, written: bool) -> bool {
        if !written {
            self.out.truncate(start);
        } else if !self.referred {
            for position in self.numbers.positions() {
                compact::forget(self.out, position);
            }
        }
        written
    }

    /// Writes one value; `None` when it must be pickled.
    #[inline]
    fn value(&mut self, object: *mut ffi::PyObject, place: Place, depth: usize) -> Option<()> {
        self.make_room(0)?;
        // SAFETY: attached, and `object` is alive: the caller's, or referenced from a container that is. Only exact
        // types are looked into, by the functions made for them; none of these calls runs Python code.
        unsafe {
            let class = ffi::Py_TYPE(object);
            if class == &raw mut ffi::PyLong_Type {
                self.write(Token::Int(integer(object)?));
            } else if class == &raw mut ffi::PyUnicode_Type {
                let mut length = 0;
                let text = ffi::PyUnicode_AsUTF8AndSize(object, &raw mut length);
                if text.is_null() {
                    // Lone surrogates.
                    ffi::PyErr_Clear();
                    return None;
                }
                let text = std::slice::from_raw_parts(text.cast::<u8>(), length.cast_unsigned());
                self.make_room(text.len())?;
                self.text(object, Token::Str(text), length <= 1, place)?;
            } else if class == &raw mut ffi::PyFloat_Type {
                self.write(Token::Float(ffi::PyFloat_AS_DOUBLE(object)));
            } else if object == ffi::Py_None() {
                self.write(Token::None);
            } else if class == &raw mut ffi::PyBool_Type {
                self.write(Token::Bool(object == ffi::Py_True()));
            } else if class == &raw mut ffi::PyBytes_Type {
                let length = ffi::PyBytes_Size(object).cast_unsigned();
                let bytes = std::slice::from_raw_parts(ffi::PyBytes_AsString(object).cast::<u8>(), length);
                self.make_room(length)?;
                self.text(object, Token::Bytes(bytes), length <= 1, place)?;
            } else if class == &raw mut ffi::PyDict_Type {
                return self.dict(object, place, depth);
            } else if class == &raw mut ffi::PyList_Type {
                let length = ffi::PyList_GET_SIZE(object);
                let Opened::New(_) = self.container(object, Token::List(length.cast_unsigned()), place, depth)? else {
                    return Some(());
                };
                for index in 0..length {
                    self.value(ffi::PyList_GET_ITEM(object, index), Place::Item, depth + 1)?;
                }
            } else if class == &raw mut ffi::PyTuple_Type {
                return self.tuple(object, place, depth);
            } else {
                return None;
            }
        }
        Some(())
    }

    /// # Safety
    /// As in `value`; `object` is an exact dict.
    unsafe fn dict(&mut self, object: *mut ffi::PyObject, place: Place, depth: usize) -> Option<()> {
        // SAFETY: the caller's promise; the dict does not change while no Python code runs, so the loop sees each pair.
        unsafe {
            let length = ffi::PyDict_Size(object).cast_unsigned();
            let Opened::New(_) = self.container(object, Token::Dict(length), place, depth)? else {
                return Some(());
            };
            let (mut position, mut key, mut item) = (0, std::ptr::null_mut(), std::ptr::null_mut());
            while ffi::PyDict_Next(object, &raw mut position, &raw mut key, &raw mut item) != 0 {
                self.value(key, Place::Key, depth + 1)?;
                self.value(item, Place::Item, depth + 1)?;
            }
        }
        Some(())
    }

    /// # Safety
    /// As in `value`; `object` is an exact tuple.
    unsafe fn tuple(&mut self, object: *mut ffi::PyObject, place: Place, depth: usize) -> Option<()> {
        // SAFETY: the caller's promise.
        unsafe {
            let length = ffi::PyTuple_GET_SIZE(object);
            if length == 0 {
                // There is only one.
                self.write(Token::Tuple(0));
                return Some(());
            }
            let opened = self.container(object, Token::Tuple(length.cast_unsigned()), place, depth)?;
            let Opened::New(numbered) = opened else { return Some(()) };
            if numbered {
                self.numbers.set_open(object.addr(), true);
            }
            for index in 0..length {
                self.value(ffi::PyTuple_GET_ITEM(object, index), Place::Item, depth + 1)?;
            }
            if numbered {
                self.numbers.set_open(object.addr(), false);
            }
        }
        Some(())
    }

    #[inline]
    fn make_room(&mut self, text: usize) -> Option<()> {
        // Without memory it is left to the pickler, which says so by an exception.
        if self.out.capacity() - self.out.len() < LONGEST_TOKEN + text {
            self.out.try_reserve(LONGEST_TOKEN + text).ok()?;
        }
        Some(())
    }

    #[inline]
    fn write(&mut self, token: Token<'_>) {
        compact::write(self.out, token, false);
    }

    /// Writes a string or bytes; the shortest are singletons of the interpreter and need no number.
    #[inline]
    fn text(&mut self, object: *mut ffi::PyObject, token: Token<'_>, singleton: bool, place: Place) -> Option<()> {
        if singleton || place == Place::Top || (place == Place::Item && unshared(object)) {
            self.write(token);
            return Some(());
        }
        self.numbered(object, token).map(drop)
    }

    #[inline]
    fn container(
        &mut self,
        object: *mut ffi::PyObject,
        token: Token<'_>,
        place: Place,
        depth: usize,
    ) -> Option<Opened> {
        if depth >= DEEPEST {
            return None;
        }
        if place == Place::Item && unshared(object) {
            self.write(token);
            return Some(Opened::New(false));
        }
        self.numbered(object, token)
    }

    fn numbered(&mut self, object: *mut ffi::PyObject, token: Token<'_>) -> Option<Opened> {
        match self.numbers.of(object.addr(), self.out.len()) {
            Some(seen) if seen.open => None,
            Some(seen) => {
                self.referred = true;
                compact::write(self.out, Token::Ref(seen.number), false);
                Some(Opened::Again)
            }
            None => {
                compact::write(self.out, token, true);
                Some(Opened::New(true))
            }
        }
    }
}

enum Opened {
    /// The items follow; whether it has a number.
    New(bool),
    /// A reference to it was written.
    Again,
}

/// The value of an exact `int`; `None` if it is longer than 64 bits.
///
/// # Safety
/// Attached; `object` is alive and an exact `int`.
#[inline]
unsafe fn integer(object: *mut ffi::PyObject) -> Option<i64> {
    let mut overflow = 0;
    // SAFETY: the caller's promise: for an `int` there is no error.
    let value = unsafe { ffi::PyLong_AsLongAndOverflow(object, &raw mut overflow) };
    (overflow == 0).then_some(value)
}

#[inline]
fn unshared(object: *mut ffi::PyObject) -> bool {
    // SAFETY: `object` is alive, as wherever this is called from `Encoder::value`.
    unsafe { ffi::Py_REFCNT(object) == 1 }
}

struct Decoder<'a, 'py> {
    reader: Reader<'a>,
    remembered: SmallVec<[Option<Bound<'py, PyAny>>; FEW]>,
    message: keys::Message,
}

impl<'a, 'py> Decoder<'a, 'py> {
    #[inline]
    fn new(reader: Reader<'a>) -> Self {
        Self { reader, remembered: SmallVec::new(), message: keys::Message::default() }
    }

    /// As `value`, in the shortest way for an integer.
    #[inline]
    fn item(&mut self, py: Python<'py>, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        match self.reader.int() {
            // SAFETY: attached; a new reference, or null with an exception set.
            Some(value) => unsafe { Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromLong(value)) },
            None => self.value(py, depth),
        }
    }

    /// As `value`, for the key of a dict.
    #[inline]
    fn key(&mut self, py: Python<'py>, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let Some((text, remember)) = self.reader.short_text() else { return self.value(py, depth) };
        // SAFETY: attached; a new reference, or null with an exception set.
        let key = unsafe { Bound::from_owned_ptr_or_err(py, keys::key(text, &mut self.message)) }?;
        if remember {
            self.remembered.push(Some(key.clone()));
        }
        Ok(key)
    }

    fn value(&mut self, py: Python<'py>, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        let (token, remember) = self.reader.token().map_err(Failure::from)?;
        // SAFETY: attached; each constructor returns a new reference or null with an exception set, which
        // `from_owned_ptr_or_err` tells apart.
        let simple = unsafe {
            match token {
                Token::Int(value) => Bound::from_owned_ptr_or_err(py, ffi::PyLong_FromLong(value)),
                Token::Str(text) => Bound::from_owned_ptr_or_err(py, string(text)),
                Token::Float(value) => Bound::from_owned_ptr_or_err(py, ffi::PyFloat_FromDouble(value)),
                Token::None => Ok(py.None().into_bound(py)),
                Token::Bool(value) => Ok(value.into_pyobject(py)?.to_owned().into_any()),
                Token::Bytes(bytes) => {
                    let length = bytes.len().cast_signed();
                    Bound::from_owned_ptr_or_err(py, ffi::PyBytes_FromStringAndSize(bytes.as_ptr().cast(), length))
                }
                Token::Ref(number) => return self.again(number),
                Token::List(length) => return self.list(py, length, remember, depth),
                Token::Tuple(length) => return self.tuple(py, length, remember, depth),
                Token::Dict(length) => return self.dict(py, length, remember, depth),
            }
        }?;
        if remember {
            self.remembered.push(Some(simple.clone()));
        }
        Ok(simple)
    }

    #[cold]
    fn again(&self, number: usize) -> PyResult<Bound<'py, PyAny>> {
        let seen = self.remembered.get(number).and_then(Option::clone);
        seen.ok_or_else(|| garbage("a reference to nothing"))
    }

    fn list(&mut self, py: Python<'py>, length: usize, remember: bool, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        check_depth(depth)?;
        // SAFETY: attached; every slot of the new list is filled below, and until then a slot is null, which the
        // collector and the deallocator accept. `SET_ITEM` takes over the reference.
        unsafe {
            let list = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(length.cast_signed()))?;
            if remember {
                self.remembered.push(Some(list.clone()));
            }
            for index in 0..length.cast_signed() {
                let item = self.item(py, depth + 1)?;
                ffi::PyList_SET_ITEM(list.as_ptr(), index, item.into_ptr());
            }
            Ok(list)
        }
    }

    fn tuple(&mut self, py: Python<'py>, length: usize, remember: bool, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        check_depth(depth)?;
        let number = self.remembered.len();
        if remember {
            self.remembered.push(None);
        }
        // SAFETY: as in `list`. No reference to the tuple exists until it is complete.
        let tuple = unsafe {
            let tuple = Bound::from_owned_ptr_or_err(py, ffi::PyTuple_New(length.cast_signed()))?;
            for index in 0..length.cast_signed() {
                let item = self.item(py, depth + 1)?;
                ffi::PyTuple_SET_ITEM(tuple.as_ptr(), index, item.into_ptr());
            }
            tuple
        };
        if remember {
            self.remembered[number] = Some(tuple.clone());
        }
        Ok(tuple)
    }

    fn dict(&mut self, py: Python<'py>, length: usize, remember: bool, depth: usize) -> PyResult<Bound<'py, PyAny>> {
        check_depth(depth)?;
        let dict = pyo3::types::PyDict::new(py).into_any();
        if remember {
            self.remembered.push(Some(dict.clone()));
        }
        for _ in 0..length {
            let key = self.key(py, depth + 1)?;
            let item = self.value(py, depth + 1)?;
            // SAFETY: attached, `dict` is a dict, and all three are alive; a negative result has an exception set.
            if unsafe { ffi::PyDict_SetItem(dict.as_ptr(), key.as_ptr(), item.as_ptr()) } < 0 {
                return Err(PyErr::fetch(py));
            }
        }
        Ok(dict)
    }
}

/// A new string of UTF-8; null with an exception set where it is none.
///
/// # Safety
/// Attached.
#[inline]
unsafe fn string(text: &[u8]) -> *mut ffi::PyObject {
    let length = text.len().cast_signed();
    // SAFETY: attached. The new string has room for `length` characters of a byte each, and nobody else has seen it.
    unsafe {
        // The shortest are the interpreter's own objects.
        if length < 2 || !text.is_ascii() {
            return ffi::PyUnicode_DecodeUTF8(text.as_ptr().cast(), length, std::ptr::null());
        }
        let made = ffi::PyUnicode_New(length, 127);
        if !made.is_null() {
            std::ptr::copy_nonoverlapping(text.as_ptr(), ffi::PyUnicode_DATA(made).cast(), text.len());
        }
        made
    }
}

fn check_depth(depth: usize) -> PyResult<()> {
    if depth > DEEPEST { Err(garbage("it is nested too deeply")) } else { Ok(()) }
}

#[cold]
fn garbage(why: &'static str) -> PyErr {
    Failure::from(rsmp_core::Error::corrupt("decode a message", why)).into()
}

/// `_rsmp._encode(object)`: the message as bytes, for tests against pickle.
#[pyfunction(name = "_encode")]
pub(crate) fn encode_for_test(object: &Bound<'_, PyAny>) -> PyResult<Vec<u8>> {
    let mut out = Vec::new();
    encode(object, &mut out)?;
    Ok(out)
}

/// `_rsmp._decode(message)`: the object a message holds, for tests against pickle.
#[pyfunction(name = "_decode")]
pub(crate) fn decode_for_test<'py>(py: Python<'py>, message: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    decode(py, message)
}
