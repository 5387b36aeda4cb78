//! `__enter__` and `__exit__` as `with` looks them up, without an allocation for each.
//!
//! Until 3.13 `with` binds both methods before it calls either, and an ordinary method descriptor makes a new object for
//! that, which cost more than the lock. The descriptor here binds by taking an object from a short list of used ones.
//! Whatever a program asks of a bound object (name, signature, representation, hash, pickle) the ordinary bound method
//! answers; asked of the class, the descriptor is the ordinary one. What tells them apart is `type()`, a weak reference, which
//! cannot be had, and that a profiler hears nothing of the two calls of a `with`.
//!
//! From 3.14 on `with` calls methods unbound, without the GIL the list would need a lock, and an interpreter that traces
//! references counts the objects in it as gone: `fast` leaves the ordinary descriptors in place there.
//!
//! # Safety
//! The interpreter calls these functions attached, holding the GIL, which guards the list of used objects; `rsmp._rsmp` is
//! loaded in one interpreter only (pyo3 refuses a second). Both structs start with the head of a Python object and are
//! reached only as instances of the types made here, whose slots these functions are, and which Python code can neither
//! instantiate nor subclass. A `Special` is never freed, so a pointer to it stays valid.
#![allow(unsafe_code)]

use core::ffi::{CStr, c_int, c_void};
use core::ptr;

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::PyType;
use pyo3::{Borrowed, ffi};
use rsmp_core::atomic::{AtomicPtr, AtomicUsize, Ordering};

use super::fast::{self, Held};

/// In the dictionary of a class: finds `__enter__` or `__exit__` of its instances.
#[repr(C)]
struct Special {
    head: ffi::PyObject,
    /// The ordinary method descriptor.
    ordinary: *mut ffi::PyObject,
    bind: ffi::descrgetfunc,
    /// Whose instances it binds.
    class: *mut ffi::PyTypeObject,
    bound: *mut ffi::PyTypeObject,
    call: ffi::vectorcallfunc,
}

/// A method and its object.
#[repr(C)]
struct BoundSpecial {
    head: ffi::PyObject,
    call: ffi::vectorcallfunc,
    /// A reference of its own, null in the list of used objects.
    this: *mut ffi::PyObject,
    special: *const Special,
    /// In the list of used objects, the next one there.
    next: *mut BoundSpecial,
}

/// Used objects, bound to nothing, and how many: some more than nested `with` need, which keep one each.
static USED: AtomicPtr<BoundSpecial> = AtomicPtr::new(ptr::null_mut());
static COUNT: AtomicUsize = AtomicUsize::new(0);
const MOST: usize = 8;

/// `call` of a bound `__enter__`.
unsafe extern "C" fn call_enter<T: Held>(
    bound: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a bound object of a descriptor of `T`, which binds instances of that only; the caller keeps it.
    unsafe {
        if names.is_null() && ffi::PyVectorcall_NARGS(count) == 0 {
            return fast::enter::<T>((*bound.cast::<BoundSpecial>()).this, ptr::null_mut());
        }
        call_ordinary(bound, args, count, names)
    }
}

/// `call` of a bound `__exit__`.
unsafe extern "C" fn call_exit<T: Held>(
    bound: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: as in `call_enter`.
    unsafe {
        if names.is_null() {
            return fast::release::<T>((*bound.cast::<BoundSpecial>()).this, ptr::null_mut(), 0);
        }
        call_ordinary(bound, args, count, names)
    }
}

/// Calls the ordinary bound method; `call` of what is in the list.
#[cold]
unsafe extern "C" fn call_ordinary(
    bound: *mut ffi::PyObject,
    args: *const *mut ffi::PyObject,
    count: usize,
    names: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a bound object, and the arguments of its call.
    unsafe { with(ordinary(bound), |method| ffi::PyObject_Vectorcall(method, args, count, names)) }
}

/// What `use_it` makes of `owned`, a new reference or null for an error.
unsafe fn with<T>(owned: *mut ffi::PyObject, use_it: impl FnOnce(*mut ffi::PyObject) -> *mut T) -> *mut T {
    if owned.is_null() {
        return ptr::null_mut();
    }
    let result = use_it(owned);
    // SAFETY: the reference that the caller gave away.
    unsafe { ffi::Py_DECREF(owned) };
    result
}

/// The ordinary method in the place of `bound`, or the descriptor if that is in the list: a new reference, or null for an
/// error.
unsafe fn ordinary(bound: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a bound object, see the module header; both pointers in it are valid or null while it lives.
    unsafe {
        let BoundSpecial { this, special, .. } = *bound.cast::<BoundSpecial>();
        if this.is_null() {
            return ffi::Py_NewRef((*special).ordinary);
        }
        ((*special).bind)((*special).ordinary, this, ffi::Py_TYPE(this).cast())
    }
}

/// `tp_descr_get` of `Special`.
unsafe extern "C" fn bind(
    special: *mut ffi::PyObject,
    this: *mut ffi::PyObject,
    owner: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: see the module header; `this` is null or an object. A bound object is complete before anything runs that
    // could look at it.
    unsafe {
        let special = &*special.cast::<Special>();
        if this.is_null() || !is_instance(this, special.class) {
            return (special.bind)(special.ordinary, this, owner);
        }
        let used = USED.load(Ordering::Relaxed);
        // Whoever looks at all that the collector knows may have come by what is in the list.
        let bound = if used.is_null() || ffi::Py_REFCNT(used.cast()) != 1 {
            let new = ffi::PyObject_GC_New::<BoundSpecial>(special.bound);
            if new.is_null() {
                return ptr::null_mut();
            }
            (*new).this = ptr::null_mut();
            ffi::PyObject_GC_Track(new.cast());
            new
        } else {
            USED.store((*used).next, Ordering::Relaxed);
            COUNT.store(COUNT.load(Ordering::Relaxed) - 1, Ordering::Relaxed);
            used
        };
        (*bound).call = special.call;
        (*bound).special = special;
        (*bound).this = ffi::Py_NewRef(this);
        bound.cast()
    }
}

#[inline]
unsafe fn is_instance(this: *mut ffi::PyObject, class: *mut ffi::PyTypeObject) -> bool {
    // SAFETY: an object and a type, both alive.
    unsafe {
        let is = ffi::Py_TYPE(this);
        is == class || ffi::PyType_IsSubtype(is, class) != 0
    }
}

/// `tp_dealloc` of `BoundSpecial`.
unsafe extern "C" fn drop_bound(bound: *mut ffi::PyObject) {
    // SAFETY: nobody has the object any more. The list takes a reference to it, and it keeps the one to its type. It
    // stays known to the collector, which leaves alone what somebody refers to. What runs when the reference to `this`
    // goes may bind and drop others, so the list is looked at after that.
    unsafe {
        let bound = bound.cast::<BoundSpecial>();
        let this = (*bound).this;
        ffi::Py_INCREF(bound.cast());
        (*bound).this = ptr::null_mut();
        (*bound).call = call_ordinary;
        ffi::Py_XDECREF(this);
        let count = COUNT.load(Ordering::Relaxed);
        if count < MOST {
            (*bound).next = USED.load(Ordering::Relaxed);
            USED.store(bound, Ordering::Relaxed);
            COUNT.store(count + 1, Ordering::Relaxed);
            return;
        }
        let class = ffi::Py_TYPE(bound.cast());
        ffi::PyObject_GC_UnTrack(bound.cast());
        // What looked at all that the collector knows while `this` went may hold it: then it stays, bound to nothing.
        if ffi::Py_REFCNT(bound.cast()) == 1 {
            ffi::PyObject_GC_Del(bound.cast());
            ffi::Py_DECREF(class.cast());
        } else {
            ffi::PyObject_GC_Track(bound.cast());
            ffi::Py_DECREF(bound.cast());
        }
    }
}

/// `tp_traverse` of `BoundSpecial`.
unsafe extern "C" fn traverse(bound: *mut ffi::PyObject, visit: ffi::visitproc, arg: *mut c_void) -> c_int {
    // SAFETY: an object that the collector tracks, which holds its type and what it is bound to.
    unsafe {
        let this = (*bound.cast::<BoundSpecial>()).this;
        match if this.is_null() { 0 } else { visit(this, arg) } {
            0 => visit(ffi::Py_TYPE(bound).cast(), arg),
            stop => stop,
        }
    }
}

unsafe extern "C" fn bound_attribute(bound: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a bound object and a name.
    unsafe { with(ordinary(bound), |method| ffi::PyObject_GetAttr(method, name)) }
}

unsafe extern "C" fn bound_repr(bound: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a bound object.
    unsafe { with(ordinary(bound), |method| ffi::PyObject_Repr(method)) }
}

unsafe extern "C" fn bound_hash(bound: *mut ffi::PyObject) -> ffi::Py_hash_t {
    let mut hash = -1;
    // SAFETY: a bound object.
    unsafe {
        with(ordinary(bound), |method| {
            hash = ffi::PyObject_Hash(method);
            ptr::null_mut::<()>()
        });
    }
    hash
}

unsafe extern "C" fn bound_compare(
    bound: *mut ffi::PyObject,
    other: *mut ffi::PyObject,
    how: c_int,
) -> *mut ffi::PyObject {
    // SAFETY: a bound object and any other one.
    unsafe {
        with(ordinary(bound), |method| {
            let same = ffi::Py_TYPE(bound) == ffi::Py_TYPE(other);
            let other = if same { ordinary(other) } else { ffi::Py_NewRef(other) };
            with(other, |other| ffi::PyObject_RichCompare(method, other, how))
        })
    }
}

unsafe extern "C" fn special_attribute(special: *mut ffi::PyObject, name: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a descriptor of this file and a name.
    unsafe { ffi::PyObject_GetAttr((*special.cast::<Special>()).ordinary, name) }
}

unsafe extern "C" fn special_repr(special: *mut ffi::PyObject) -> *mut ffi::PyObject {
    // SAFETY: a descriptor of this file.
    unsafe { ffi::PyObject_Repr((*special.cast::<Special>()).ordinary) }
}

unsafe extern "C" fn special_call(
    special: *mut ffi::PyObject,
    args: *mut ffi::PyObject,
    keywords: *mut ffi::PyObject,
) -> *mut ffi::PyObject {
    // SAFETY: a descriptor of this file, a tuple, and a dictionary or null.
    unsafe { ffi::PyObject_Call((*special.cast::<Special>()).ordinary, args, keywords) }
}

/// A type made of `slots`, which end with a zero.
fn make(
    py: Python<'_>,
    name: &'static CStr,
    size: usize,
    flags: core::ffi::c_ulong,
    slots: &mut [ffi::PyType_Slot],
) -> PyResult<Py<PyType>> {
    let flags =
        flags | ffi::Py_TPFLAGS_DEFAULT | ffi::Py_TPFLAGS_IMMUTABLETYPE | ffi::Py_TPFLAGS_DISALLOW_INSTANTIATION;
    let mut spec = ffi::PyType_Spec {
        name: name.as_ptr(),
        basicsize: (size as u32).cast_signed(),
        itemsize: 0,
        flags: flags as _,
        slots: slots.as_mut_ptr(),
    };
    // SAFETY: the interpreter copies the specification and what the slots point to, but for names, which are static; the
    // slots fit the struct of that size. A new reference to a type, or null.
    unsafe { Ok(Bound::from_owned_ptr_or_err(py, ffi::PyType_FromSpec(&raw mut spec))?.cast_into_unchecked().unbind()) }
}

fn slot(number: c_int, function: *mut c_void) -> ffi::PyType_Slot {
    ffi::PyType_Slot { slot: number, pfunc: function }
}

/// The types of `Special` and `BoundSpecial`.
fn types(py: Python<'_>) -> PyResult<&(Py<PyType>, Py<PyType>)> {
    static TYPES: PyOnceLock<(Py<PyType>, Py<PyType>)> = PyOnceLock::new();
    TYPES.get_or_try_init(py, || {
        let special = make(
            py,
            c"rsmp._rsmp.SpecialMethod",
            size_of::<Special>(),
            0,
            &mut [
                slot(ffi::Py_tp_descr_get, bind as *mut c_void),
                slot(ffi::Py_tp_call, special_call as *mut c_void),
                slot(ffi::Py_tp_getattro, special_attribute as *mut c_void),
                slot(ffi::Py_tp_repr, special_repr as *mut c_void),
                slot(0, ptr::null_mut()),
            ],
        )?;
        let mut members = [
            ffi::PyMemberDef {
                name: c"__vectorcalloffset__".as_ptr(),
                type_code: ffi::Py_T_PYSSIZET,
                offset: core::mem::offset_of!(BoundSpecial, call).cast_signed(),
                flags: ffi::Py_READONLY,
                doc: ptr::null(),
            },
            ffi::PyMemberDef::default(),
        ];
        let flags = ffi::Py_TPFLAGS_HAVE_GC | ffi::Py_TPFLAGS_HAVE_VECTORCALL;
        let bound = make(
            py,
            c"rsmp._rsmp.BoundSpecialMethod",
            size_of::<BoundSpecial>(),
            flags,
            &mut [
                slot(ffi::Py_tp_dealloc, drop_bound as *mut c_void),
                slot(ffi::Py_tp_traverse, traverse as *mut c_void),
                slot(ffi::Py_tp_call, ffi::PyVectorcall_Call as *mut c_void),
                slot(ffi::Py_tp_getattro, bound_attribute as *mut c_void),
                slot(ffi::Py_tp_repr, bound_repr as *mut c_void),
                slot(ffi::Py_tp_hash, bound_hash as *mut c_void),
                slot(ffi::Py_tp_richcompare, bound_compare as *mut c_void),
                slot(ffi::Py_tp_members, members.as_mut_ptr().cast()),
                slot(0, ptr::null_mut()),
            ],
        )?;
        Ok((special, bound))
    })
}

/// The method descriptor `ordinary` of `class`, called `name`, or one that binds as it does at less cost.
pub(super) fn cheapest<'py, T: Held>(
    class: &Bound<'py, PyType>,
    name: &CStr,
    ordinary: Bound<'py, PyAny>,
) -> PyResult<Bound<'py, PyAny>> {
    let call: ffi::vectorcallfunc = match name.to_bytes() {
        b"__enter__" => call_enter::<T>,
        b"__exit__" => call_exit::<T>,
        _ => return Ok(ordinary),
    };
    let py = class.py();
    let (special, bound) = types(py)?;
    // SAFETY: an object of `special`'s size, completed before anybody sees it. One reference is given away for ever, so
    // that bound objects need not hold it, and so are those to the class and to the ordinary descriptor.
    unsafe {
        let Some(bind) = (*ffi::Py_TYPE(ordinary.as_ptr())).tp_descr_get else { return Ok(ordinary) };
        let made = ffi::PyType_GenericAlloc(special.as_ptr().cast(), 0);
        let made = Borrowed::from_ptr_or_err(py, made)?.to_owned();
        let fields = made.as_ptr().cast::<Special>();
        (*fields).ordinary = ordinary.into_ptr();
        (*fields).bind = bind;
        (*fields).class = class.clone().into_ptr().cast();
        (*fields).bound = bound.as_ptr().cast();
        (*fields).call = call;
        Ok(made)
    }
}
