//! Memory for very many objects that are made at once: huge pages for pymalloc's arenas.
//!
//! The interpreter takes memory for small objects in arenas of 1 MiB (`PyObject_GetArenaAllocator`), whose pages come one
//! by one at the first touch: more than half the time that a list of a million ints takes. While a `Crowd` is there,
//! arenas are halves of huge pages. Which ones is kept here, as the interpreter frees arenas whenever they are empty.
//!
//! | word           | states                                                                                           |
//! |----------------|--------------------------------------------------------------------------------------------------|
//! | `PAIRS`        | pairs of arenas that crowds may still take; 0 after the last one; a wrong number does no harm    |
//! | `SPARE`        | 0, or the address of a half that nobody uses: whoever swaps it out owns it                       |
//! | each of `OURS` | 0, or the address of an arena that the interpreter has: from when it is handed out until it is freed |
//!
//! All by atomic operations, as interpreters of one process may run at the same time; no order is needed beyond that of
//! the one word.
//!
//! # Safety
//! An address in `SPARE` or `OURS` is that of 1 MiB that an `Anonymous` was made for and that nobody else unmaps. The
//! functions given to the interpreter are called by it alone, as its documentation says: `free` gets each address that
//! `allocate` returned once.
#![allow(unsafe_code)]

use core::ffi::c_void;
use core::ptr::{self, NonNull};
use core::sync::atomic::{AtomicUsize, Ordering};
use std::sync::OnceLock;

use pyo3::ffi;
use pyo3::prelude::*;
use rsmp_core::sys::anonymous::Anonymous;
use rsmp_core::sys::memory::Mapping;

/// The size of an arena, of which two are a huge page. Interpreters whose arenas are others keep theirs.
const ARENA: usize = 1 << 20;
/// With fewer bytes of objects there is too little to gain.
const LEAST: usize = 4 * ARENA;
/// For 2 GiB of objects; what is beyond them is in small pages.
const PLACES: usize = 2048;

/// How many crowds there are,
static CROWDS: AtomicUsize = AtomicUsize::new(0);
/// and how many pairs of arenas they may still fill.
static PAIRS: AtomicUsize = AtomicUsize::new(0);
static SPARE: AtomicUsize = AtomicUsize::new(0);
static OURS: [AtomicUsize; PLACES] = [const { AtomicUsize::new(0) }; PLACES];
/// What the interpreter used before.
static USUAL: OnceLock<Usual> = OnceLock::new();

struct Usual(ffi::PyObjectArenaAllocator);

// SAFETY: two functions and what they are called with, which the interpreter calls from any thread.
unsafe impl Send for Usual {}
// SAFETY: as above.
unsafe impl Sync for Usual {}

/// A time in which many objects are made.
pub(crate) struct Crowd(());

impl Crowd {
    /// To be held while `bytes` of objects are made; `None` if that is not much.
    pub(crate) fn expect(py: Python<'_>, bytes: usize) -> Option<Self> {
        if bytes < LEAST || cfg!(Py_GIL_DISABLED) {
            return None;
        }
        install(py);
        CROWDS.fetch_add(1, Ordering::Relaxed);
        // Some of the objects fit into arenas that are there: half a pair too many would be memory for nothing.
        PAIRS.fetch_add(bytes / (2 * ARENA) - 1, Ordering::Relaxed);
        Some(Self(()))
    }
}

#[cold]
fn install(_: Python<'_>) {
    if USUAL.get().is_some() {
        return;
    }
    let mut usual = ffi::PyObjectArenaAllocator { ctx: ptr::null_mut(), alloc: None, free: None };
    // SAFETY: attached; fills the structure.
    unsafe { ffi::PyObject_GetArenaAllocator(&raw mut usual) };
    if USUAL.set(Usual(usual)).is_ok() {
        let mut ours = ffi::PyObjectArenaAllocator { ctx: ptr::null_mut(), alloc: Some(allocate), free: Some(free) };
        // SAFETY: attached; the structure is copied, and this library is never unloaded.
        unsafe { ffi::PyObject_SetArenaAllocator(&raw mut ours) };
    }
}

impl Drop for Crowd {
    fn drop(&mut self) {
        if CROWDS.fetch_sub(1, Ordering::Relaxed) == 1 {
            PAIRS.store(0, Ordering::Relaxed);
            put_by(0);
        }
    }
}

extern "C" fn allocate(_: *mut c_void, size: usize) -> *mut c_void {
    if size == ARENA
        && let Some(arena) = take()
    {
        return arena.as_ptr().cast();
    }
    let Some(Usual(usual)) = USUAL.get() else { return ptr::null_mut() };
    usual.alloc.map_or(ptr::null_mut(), |allocate| allocate(usual.ctx, size))
}

extern "C" fn free(_: *mut c_void, arena: *mut c_void, size: usize) {
    let address = arena.expose_provenance();
    let place = OURS.iter().find(|place| place.load(Ordering::Relaxed) == address);
    if let Some(place) = place {
        place.store(0, Ordering::Relaxed);
        unmap(address);
    } else if let Some(Usual(usual)) = USUAL.get()
        && let Some(free) = usual.free
    {
        free(usual.ctx, arena, size);
    }
}

fn take() -> Option<NonNull<u8>> {
    let mut arena = SPARE.swap(0, Ordering::Relaxed);
    if arena == 0 {
        PAIRS.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |pairs| pairs.checked_sub(1)).ok()?;
        arena = Anonymous::new(2 * ARENA).ok()?.leak().expose_provenance().get();
        put_by(arena + ARENA);
    }
    let taken = OURS.iter().any(|place| {
        place.load(Ordering::Relaxed) == 0
            && place.compare_exchange(0, arena, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    });
    if !taken {
        unmap(arena);
        return None;
    }
    NonNull::new(ptr::with_exposed_provenance_mut(arena))
}

/// Keeps `half` for the next arena, in place of the one that is kept.
fn put_by(half: usize) {
    match SPARE.swap(half, Ordering::Relaxed) {
        0 => {}
        kept => unmap(kept),
    }
}

fn unmap(arena: usize) {
    if let Some(base) = NonNull::new(ptr::with_exposed_provenance_mut(arena)) {
        // SAFETY: see the module header: what is in neither place any more is ours alone.
        drop(unsafe { Mapping::from_raw(base, ARENA) });
    }
}
