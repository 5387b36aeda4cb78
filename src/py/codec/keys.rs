//! Dictionary keys of earlier messages: those of a stream have the same few, and to make, hash and free each again takes
//! as long as all else in a small dict.
//!
//! In one message a key is used once: equal keys that were two objects are two afterwards, as pickle has it.
//!
//! # Safety
//! The cache is touched attached only, by code that lets no other thread run: strings are made, compared and freed
//! without running Python code or the collector. A free-threaded interpreter, where attached is not alone, has none.
#![allow(unsafe_code)]

use core::cell::{Cell, UnsafeCell};
use core::ptr;

use pyo3::ffi;

const ENTRIES: usize = 256;
/// Longer keys are names of nothing.
const LONGEST: usize = 32;

/// Which message is being read; zero until a key of it has been looked up.
#[derive(Clone, Copy, Default)]
pub(super) struct Message(u64);

#[derive(Clone, Copy)]
struct Entry {
    /// A string of ASCII that belongs to the cache, or null.
    key: *mut ffi::PyObject,
    /// The last message that it was used in.
    message: u64,
}

struct Cache {
    entries: UnsafeCell<[Entry; ENTRIES]>,
    messages: Cell<u64>,
}

// SAFETY: see the head of the file.
unsafe impl Sync for Cache {}

static CACHE: Cache =
    Cache { entries: UnsafeCell::new([Entry { key: ptr::null_mut(), message: 0 }; ENTRIES]), messages: Cell::new(0) };

/// A new reference to a string of UTF-8 that is a key in `message`; null with an exception set where it is none.
///
/// # Safety
/// Attached.
#[inline]
pub(super) unsafe fn key(text: &[u8], message: &mut Message) -> *mut ffi::PyObject {
    if cfg!(Py_GIL_DISABLED) || !(2..=LONGEST).contains(&text.len()) {
        // SAFETY: the caller's promise.
        return unsafe { super::string(text) };
    }
    if message.0 == 0 {
        CACHE.messages.set(CACHE.messages.get() + 1);
        message.0 = CACHE.messages.get();
    }
    // SAFETY: nobody else has a reference into the entries while this function runs (the head of the file), `place` is
    // below their number, and what they hold are strings of ASCII.
    unsafe {
        let entry = &mut (*CACHE.entries.get())[place(text)];
        if !entry.key.is_null() && characters(entry.key) == text {
            // One that is read item by item may have had others in between.
            if entry.message >= message.0 {
                return super::string(text);
            }
            entry.message = message.0;
            return ffi::Py_NewRef(entry.key);
        }
        let made = super::string(text);
        if !made.is_null() && text.is_ascii() {
            ffi::Py_XDECREF(entry.key);
            *entry = Entry { key: ffi::Py_NewRef(made), message: message.0 };
        }
        made
    }
}

/// # Safety
/// `string` is one of ASCII, alive as long as the result is used.
unsafe fn characters<'a>(string: *mut ffi::PyObject) -> &'a [u8] {
    // SAFETY: the caller's promise: a byte for each character.
    unsafe {
        let length = ffi::PyUnicode_GET_LENGTH(string).cast_unsigned();
        core::slice::from_raw_parts(ffi::PyUnicode_DATA(string).cast(), length)
    }
}

/// Where a key of two characters or more has its entry: both ends of it and its length, mixed.
fn place(text: &[u8]) -> usize {
    let ends = match (text.first_chunk::<8>(), text.last_chunk::<8>()) {
        (Some(first), Some(last)) => u64::from_le_bytes(*first) ^ u64::from_le_bytes(*last).rotate_left(29),
        _ => match (text.first_chunk::<4>(), text.last_chunk::<4>()) {
            (Some(first), Some(last)) => {
                u64::from(u32::from_le_bytes(*first)) | u64::from(u32::from_le_bytes(*last)) << 32
            }
            _ => text.iter().fold(0, |mixed, &byte| mixed << 8 | u64::from(byte)),
        },
    };
    // The multiplier is 2^64 divided by the golden ratio (Knuth, The Art of Computer Programming, volume 3, 6.4).
    ((ends ^ text.len() as u64).wrapping_mul(0x9E37_79B9_7F4A_7C15) >> 56) as usize
}
