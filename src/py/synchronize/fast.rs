//! `acquire`, `release` and `with` by the interpreter's cheapest calling convention, for what needs no waiting.
//!
//! These are called more than all else, and take what is free in less time than a call by the usual entry takes.
//! Whatever is out of the ordinary (waiting, arguments, errors) is left to the usual methods, which are kept here and not
//! under names in the class: a subclass may have any name of its own.
//!
//! # Safety
//! The functions are reached only through method descriptors of the class `T` or a subclass of it, which check that `self`
//! is one of its instances, and with the interpreter attached. Classes are frozen: a shared reference to the Rust value is
//! always valid.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int};
use core::ptr;

use pyo3::exceptions::PyTypeError;
use pyo3::pyclass::boolean_struct::True;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyString, PyTuple, PyType};
use pyo3::{PyClass, ffi, prelude::*};

/// What is taken and given back.
pub(crate) trait Held: PyClass<Frozen = True> + Sync {
    /// Takes it if that needs no waiting.
    fn take(&self) -> bool;
    /// Gives it back; `false` when that is an error.
    fn give(&self) -> bool;
    /// Where the usual methods of the class are kept.
    fn usual() -> &'static Usual;
}

/// The methods that a class was made with.
pub(crate) struct Usual {
    acquire: PyOnceLock<Py<PyAny>>,
    release: PyOnceLock<Py<PyAny>>,
    enter: PyOnceLock<Py<PyAny>>,
}

impl Usual {
    pub(crate) const fn new() -> Self {
        Self { acquire: PyOnceLock::new(), release: PyOnceLock::new(), enter: PyOnceLock::new() }
    }
}

/// The Rust value of `this`.
///
/// # Safety
/// `this` is an instance of `T`, alive while the reference is used, and the interpreter is attached.
unsafe fn value<'a, T: Held>(this: *mut ffi::PyObject) -> &'a T {
    // SAFETY: the caller's promise.
    let object: Borrowed<'a, 'a, T> = unsafe { Borrowed::from_ptr(attached(), this).cast_unchecked() };
    let value: *const T = object.get();
    // SAFETY: the value lives as long as the object, and is frozen.
    unsafe { &*value }
}

fn attached<'py>() -> Python<'py> {
    // SAFETY: the interpreter calls the functions of this file attached.
    unsafe { Python::assume_attached() }
}

fn truth(value: bool) -> *mut ffi::PyObject {
    // SAFETY: the two objects live for ever; a new reference is returned.
    unsafe { ffi::Py_NewRef(if value { ffi::Py_True() } else { ffi::Py_False() }) }
}

fn none() -> *mut ffi::PyObject {
    // SAFETY: as in `truth`.
    unsafe { ffi::Py_NewRef(ffi::Py_None()) }
}

/// Calls the usual `method` of `this` with the arguments of a fast call.
#[cold]
unsafe fn call(
    method: &PyOnceLock<Py<PyAny>>,
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: `names` is null or the tuple of the keywords' names, whose values follow the other arguments.
    let keywords = if names.is_null() { 0 } else { unsafe { ffi::PyTuple_GET_SIZE(names) } };
    let mut all = vec![this];
    if count + keywords > 0 {
        // SAFETY: the interpreter passed that many arguments.
        all.extend_from_slice(unsafe { core::slice::from_raw_parts(args, (count + keywords).unsigned_abs()) });
    }
    let Some(method) = method.get(attached()) else {
        // SAFETY: the interpreter is attached. Before the class is complete nobody can have an instance.
        unsafe { ffi::PyErr_BadInternalCall() };
        return ptr::null_mut();
    };
    // SAFETY: `all` holds the object, the positional arguments and those that `names` names.
    unsafe { ffi::PyObject_Vectorcall(method.as_ptr(), all.as_ptr(), count.unsigned_abs() + 1, names) }
}

unsafe extern "C" fn acquire<T: Held>(
    this: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: see the module header; `args` holds `count` objects.
    unsafe {
        if names.is_null() {
            if count == 0 && value::<T>(this).take() {
                return truth(true);
            }
            if count == 1 && *args == ffi::Py_False() && value::<T>(this).take() {
                return truth(true);
            }
        }
        call(&T::usual().acquire, this, args, count, names)
    }
}

/// Takes no arguments, but 3.11 and 3.12 call what may take some with less ado.
pub(super) unsafe extern "C" fn release<T: Held>(
    this: *mut ffi::PyObject,
    args: *mut *mut ffi::PyObject,
    count: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: see the module header; `args` holds `count` objects.
    unsafe {
        if count == 0 && value::<T>(this).give() {
            return none();
        }
        call(&T::usual().release, this, args, count, ptr::null_mut())
    }
}

pub(super) unsafe extern "C" fn enter<T: Held>(this: *mut ffi::PyObject, _: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: see the module header.
    unsafe {
        if value::<T>(this).take() {
            return truth(true);
        }
        call(&T::usual().enter, this, ptr::null(), 0, ptr::null_mut())
    }
}

unsafe extern "C" fn exit<T: Held>(
    this: *mut ffi::PyObject,
    _: *mut *mut ffi::PyObject,
    _: ffi::Py_ssize_t,
) -> *mut ffi::PyObject {
    // SAFETY: see the module header.
    unsafe { release::<T>(this, ptr::null_mut(), 0) }
}

/// A new object of `class`, as its `__new__` without arguments makes it.
pub(super) fn instance<'py, T: Held>(class: &Bound<'py, PyType>) -> PyResult<Bound<'py, T>> {
    let py = class.py();
    let arguments = PyTuple::empty(py);
    // SAFETY: attached, and `class` is a type. A `tp_new` takes the class, a tuple and a dictionary or null, and returns
    // a new reference, or null with an exception set.
    let made = unsafe {
        let Some(new) = (*class.as_type_ptr()).tp_new else {
            return Err(PyTypeError::new_err(format!("cannot create instances of {class}")));
        };
        Bound::from_owned_ptr_or_err(py, new(class.as_type_ptr(), arguments.as_ptr(), ptr::null_mut()))?
    };
    Ok(made.cast_into::<T>()?)
}

/// Gives the class its methods, in the place of those it was made with.
pub(super) fn add_methods<T: Held>(class: &Bound<'_, PyType>) -> PyResult<()> {
    let methods: [(&CStr, ffi::PyMethodDefPointer, c_int, &CStr); 4] = [
        (
            c"acquire",
            ffi::PyMethodDefPointer { PyCFunctionFastWithKeywords: acquire::<T> },
            ffi::METH_FASTCALL | ffi::METH_KEYWORDS,
            c"acquire($self, /, block=True, timeout=None)\n--\n\nTake it; wait for it when `block`, for `timeout` seconds \
              at most. Return whether it was taken.",
        ),
        (
            c"release",
            ffi::PyMethodDefPointer { PyCFunctionFast: release::<T> },
            ffi::METH_FASTCALL,
            c"release($self, /)\n--\n\nGive it back.",
        ),
        (
            c"__enter__",
            ffi::PyMethodDefPointer { PyCFunction: enter::<T> },
            ffi::METH_NOARGS,
            c"__enter__($self, /)\n--\n\nTake it, waiting as long as that needs.",
        ),
        (
            c"__exit__",
            ffi::PyMethodDefPointer { PyCFunctionFast: exit::<T> },
            ffi::METH_FASTCALL,
            c"__exit__($self, /, *args)\n--\n\nGive it back.",
        ),
    ];
    let usual = T::usual();
    for (name, place) in [("acquire", &usual.acquire), ("release", &usual.release), ("__enter__", &usual.enter)] {
        place.get_or_try_init(class.py(), || class.getattr(name).map(Bound::unbind))?;
    }
    for (name, function, flags, doc) in methods {
        // The interpreter keeps the definition as long as the class.
        let definition = Box::leak(Box::new(ffi::PyMethodDef {
            ml_name: name.as_ptr(),
            ml_meth: function,
            ml_flags: flags,
            ml_doc: doc.as_ptr(),
        }));
        // SAFETY: the class is a type and the definition is never freed; a new reference or null is returned.
        let descriptor = unsafe {
            let descriptor = ffi::PyDescr_NewMethod(class.as_type_ptr(), definition);
            Bound::from_owned_ptr_or_err(class.py(), descriptor)?
        };
        #[cfg(not(any(Py_3_14, Py_GIL_DISABLED, py_sys_config = "Py_TRACE_REFS")))]
        let descriptor = super::special::cheapest::<T>(class, name, descriptor)?;
        class.setattr(PyString::new(class.py(), &name.to_string_lossy()), descriptor)?;
    }
    Ok(())
}
