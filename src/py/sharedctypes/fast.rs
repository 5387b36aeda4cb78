//! The attribute `value`, when the number is read without taking the lock or the caller has it.
//!
//! Everything else (waiting, conversions, errors) is left to the usual property.
//!
//! # Safety
//! The functions are reached only through a descriptor of the class `Synchronized`, which checks that `this` is one of its
//! instances, and with the interpreter attached. Its `closure` is the usual descriptor of that class, which is never freed.
#![allow(unsafe_code)]

use core::ffi::{c_int, c_void};

use pyo3::prelude::*;
use pyo3::types::PyType;
use pyo3::{Borrowed, ffi};

use super::{Synchronized, Wrapped};

/// What `this` wraps, if it is initialised.
///
/// # Safety
/// `this` is an instance of `Synchronized`, alive while the reference is used, and the interpreter is attached.
#[inline]
unsafe fn wrapped<'a>(py: Python<'a>, this: *mut ffi::PyObject) -> Option<&'a Wrapped> {
    // SAFETY: the caller's promise.
    let object: Borrowed<'a, 'a, Synchronized> = unsafe { Borrowed::from_ptr(py, this).cast_unchecked() };
    let wrapped: *const Wrapped = object.as_super().get().wrapped.get()?;
    // SAFETY: set once, and lives as long as the object.
    Some(unsafe { &*wrapped })
}

unsafe extern "C" fn get(this: *mut ffi::PyObject, closure: *mut c_void) -> *mut ffi::PyObject {
    // SAFETY: see the module header.
    unsafe {
        let py = Python::assume_attached();
        match wrapped(py, this).and_then(|wrapped| wrapped.glance(py, 0)) {
            Some(value) => value.into_ptr(),
            None => usual(closure.cast(), this),
        }
    }
}

#[cold]
unsafe fn usual(descriptor: *mut ffi::PyObject, this: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: see the module header; `add_value` has checked that there is such a function.
    unsafe {
        let get = (*ffi::Py_TYPE(descriptor)).tp_descr_get.unwrap_unchecked();
        get(descriptor, this, ffi::Py_TYPE(this).cast())
    }
}

unsafe extern "C" fn set(this: *mut ffi::PyObject, value: *mut ffi::PyObject, closure: *mut c_void) -> c_int {
    // SAFETY: see the module header; `value` is null when it is to be deleted.
    unsafe {
        let py = Python::assume_attached();
        if let Some(value) = Borrowed::from_ptr_or_opt(py, value)
            && wrapped(py, this).is_some_and(|wrapped| wrapped.set_held(0, &value))
        {
            return 0;
        }
        set_usual(closure.cast(), this, value)
    }
}

#[cold]
unsafe fn set_usual(descriptor: *mut ffi::PyObject, this: *mut ffi::PyObject, value: *mut ffi::PyObject) -> c_int {
    // SAFETY: as in `usual`.
    unsafe {
        let set = (*ffi::Py_TYPE(descriptor)).tp_descr_set.unwrap_unchecked();
        set(descriptor, this, value)
    }
}

/// Gives the class the attribute, in the place of the one it was made with.
pub(super) fn add_value(class: &Bound<'_, PyType>) -> PyResult<()> {
    let usual = class.getattr("value")?;
    // SAFETY: an object that is alive.
    let kind = unsafe { &*ffi::Py_TYPE(usual.as_ptr()) };
    if kind.tp_descr_get.is_none() || kind.tp_descr_set.is_none() {
        return Ok(());
    }
    // The interpreter keeps the definition as long as the class.
    let definition = Box::leak(Box::new(ffi::PyGetSetDef {
        name: c"value".as_ptr(),
        get: Some(get),
        set: Some(set),
        doc: core::ptr::null(),
        closure: usual.into_ptr().cast(),
    }));
    // SAFETY: the class is a type and the definition is never freed; a new reference or null is returned.
    let descriptor = unsafe {
        let descriptor = ffi::PyDescr_NewGetSet(class.as_type_ptr(), definition);
        Bound::from_owned_ptr_or_err(class.py(), descriptor)?
    };
    class.setattr("value", descriptor)
}
