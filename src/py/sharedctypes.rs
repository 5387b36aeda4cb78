//! `rsmp.sharedctypes`: ctypes objects behind a lock.
//!
//! The wrapper takes the lock, reads or writes the object's memory itself and gives the lock back, all in one native
//! call. What it does not know (structures, pointers, wide characters, values that need a conversion) it leaves to the
//! ctypes object, with the lock held, so that conversions and errors are those of ctypes.

use std::sync::OnceLock;

use pyo3::exceptions::{PyAttributeError, PyRuntimeError};
use pyo3::intern;
use pyo3::prelude::*;
use pyo3::pybacked::PyBackedStr;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyList, PySlice, PyTuple};
use pyo3::{PyTraverseError, PyVisit};
use rsmp_core::Deadline;

use crate::cells::Cells;
use crate::synchronize::{Lock, Primitive, RLock};

mod fast;

/// Completes the classes of the module.
pub(crate) fn complete(py: Python<'_>) -> PyResult<()> {
    fast::add_value(&py.get_type::<Synchronized>())
}

/// What every wrapper keeps.
#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
pub(crate) struct SynchronizedBase {
    wrapped: OnceLock<Wrapped>,
}

/// The ctypes object, its lock, and its memory when that is made of plain numbers.
struct Wrapped {
    object: Py<PyAny>,
    lock: Py<PyAny>,
    native: Native,
    cells: Option<Cells>,
}

/// The lock again, if it is one that needs no Python call.
enum Native {
    Lock(Py<Lock>),
    RLock(Py<RLock>),
    No,
}

impl Native {
    /// A subclass may do as it likes in its methods: only the very classes of `rsmp.synchronize` are native.
    fn of(lock: &Bound<'_, PyAny>) -> PyResult<Self> {
        static CLASSES: PyOnceLock<(Py<PyAny>, Py<PyAny>)> = PyOnceLock::new();
        let py = lock.py();
        let (plain, recursive) = CLASSES.get_or_try_init(py, || {
            let module = py.import("rsmp.synchronize")?;
            PyResult::Ok((module.getattr("Lock")?.unbind(), module.getattr("RLock")?.unbind()))
        })?;
        let class = lock.get_type();
        if class.is(recursive) {
            Ok(Self::RLock(lock.cast::<RLock>()?.clone().unbind()))
        } else if class.is(plain) {
            Ok(Self::Lock(lock.cast::<Lock>()?.clone().unbind()))
        } else {
            Ok(Self::No)
        }
    }
}

impl SynchronizedBase {
    #[inline]
    fn wrapped(&self) -> PyResult<&Wrapped> {
        self.wrapped.get().ok_or_else(|| PyAttributeError::new_err("SynchronizedBase.__init__() was not called"))
    }
}

impl Wrapped {
    /// Number `index`, when it can be read as with the lock held without taking it.
    #[inline]
    fn glance<'py>(&self, py: Python<'py>, index: usize) -> Option<Bound<'py, PyAny>> {
        let (Native::RLock(lock), Some(cells)) = (&self.native, &self.cells) else { return None };
        let bits = lock.get().read(|| cells.load(index))??;
        cells.object(py, bits)
    }

    /// Stores number `index`, when that can be done without taking the lock: the caller has it.
    #[inline]
    fn set_held(&self, index: usize, value: &Bound<'_, PyAny>) -> bool {
        let (Native::RLock(lock), Some(cells)) = (&self.native, &self.cells) else { return false };
        lock.get().is_held() && cells.set(index, value)
    }

    /// Runs `what` with the lock held, taken and given back by the methods with these names if it is not native.
    #[inline]
    fn locked<T>(&self, py: Python<'_>, methods: Methods, what: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        match &self.native {
            Native::RLock(lock) => {
                lock.get().acquire_by(py, Some(Deadline::NEVER))?;
                let outcome = what();
                lock.get().let_go()?;
                outcome
            }
            Native::Lock(lock) => {
                lock.get().acquire_by(py, Some(Deadline::NEVER))?;
                let outcome = what();
                lock.get().let_go()?;
                outcome
            }
            Native::No => methods.around(self.lock.bind(py), what),
        }
    }
}

/// How the standard library uses the lock.
#[derive(Clone, Copy)]
enum Methods {
    /// In properties.
    AcquireRelease,
    /// In arrays.
    With,
}

impl Methods {
    fn around<T>(self, lock: &Bound<'_, PyAny>, what: impl FnOnce() -> PyResult<T>) -> PyResult<T> {
        let py = lock.py();
        match self {
            Self::AcquireRelease => {
                lock.call_method0(intern!(py, "acquire"))?;
                let outcome = what();
                lock.call_method0(intern!(py, "release"))?;
                outcome
            }
            Self::With => {
                lock.call_method0(intern!(py, "__enter__"))?;
                let outcome = what();
                let none = py.None();
                lock.call_method1(intern!(py, "__exit__"), (&none, &none, &none))?;
                outcome
            }
        }
    }
}

#[pymethods]
impl SynchronizedBase {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { wrapped: OnceLock::new() }
    }

    /// Wraps `object`, guarded by `lock`. With a `code`, the `_type_` of a plain ctypes type, `address` is where its
    /// `count` numbers are.
    fn _bind(
        &self,
        py: Python<'_>,
        object: Py<PyAny>,
        lock: Py<PyAny>,
        code: Option<PyBackedStr>,
        address: usize,
        count: usize,
    ) -> PyResult<()> {
        let native = Native::of(lock.bind(py))?;
        let cells = code.and_then(|code| Cells::new(&code, address, count));
        self.wrapped
            .set(Wrapped { object, lock, native, cells })
            .map_err(|_| PyRuntimeError::new_err("SynchronizedBase.__init__() was called twice"))
    }

    #[getter(_obj)]
    fn wrapped_object(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.wrapped()?.object.clone_ref(py))
    }

    #[getter(_lock)]
    fn guard(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        Ok(self.wrapped()?.lock.clone_ref(py))
    }

    /// The ctypes object.
    fn get_obj(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.wrapped_object(py)
    }

    /// The lock that guards it.
    fn get_lock(&self, py: Python<'_>) -> PyResult<Py<PyAny>> {
        self.guard(py)
    }

    fn __traverse__(&self, visit: PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(wrapped) = self.wrapped.get() else { return Ok(()) };
        visit.call(&wrapped.object)?;
        visit.call(&wrapped.lock)
    }
}

/// A simple ctypes object behind a lock.
#[pyclass(module = "rsmp._rsmp", extends = SynchronizedBase, subclass, frozen)]
pub(crate) struct Synchronized;

#[pymethods]
impl Synchronized {
    #[new]
    #[pyo3(signature = (*args, **kwargs))]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(SynchronizedBase::new(args, kwargs)).add_subclass(Self)
    }

    // What `fast` leaves.
    #[getter]
    fn value<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let wrapped = slf.as_super().get().wrapped()?;
        wrapped.locked(py, Methods::AcquireRelease, || {
            match wrapped.cells.as_ref().and_then(|cells| cells.get(py, 0)) {
                Some(value) => Ok(value),
                None => wrapped.object.bind(py).getattr("value"),
            }
        })
    }

    // What `fast` leaves.
    #[setter]
    fn set_value(slf: &Bound<'_, Self>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let wrapped = slf.as_super().get().wrapped()?;
        wrapped.locked(slf.py(), Methods::AcquireRelease, || match &wrapped.cells {
            Some(cells) if cells.set(0, value) => Ok(()),
            _ => wrapped.object.bind(slf.py()).setattr("value", value),
        })
    }
}

/// A ctypes array behind a lock.
#[pyclass(module = "rsmp._rsmp", extends = SynchronizedBase, subclass, frozen)]
pub(crate) struct SynchronizedArray;

#[pymethods]
impl SynchronizedArray {
    #[new]
    #[pyo3(signature = (*args, **kwargs))]
    fn new(args: &Bound<'_, PyTuple>, kwargs: Option<&Bound<'_, PyDict>>) -> PyClassInitializer<Self> {
        PyClassInitializer::from(SynchronizedBase::new(args, kwargs)).add_subclass(Self)
    }

    fn __len__(slf: &Bound<'_, Self>) -> PyResult<usize> {
        let wrapped = slf.as_super().get().wrapped()?;
        match &wrapped.cells {
            Some(cells) => Ok(cells.count()),
            None => wrapped.object.bind(slf.py()).len(),
        }
    }

    fn __getitem__<'py>(slf: &Bound<'py, Self>, index: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = slf.py();
        let wrapped = slf.as_super().get().wrapped()?;
        if let Some(cells) = &wrapped.cells
            && let Some(value) = cells.position(index).and_then(|index| wrapped.glance(py, index))
        {
            return Ok(value);
        }
        wrapped.locked(py, Methods::With, || {
            if let Some(cells) = &wrapped.cells {
                if let Some(value) = cells.position(index).and_then(|index| cells.get(py, index)) {
                    return Ok(value);
                }
                if let Ok(slice) = index.cast::<PySlice>() {
                    return cells.slice(slice);
                }
            }
            wrapped.object.bind(py).get_item(index)
        })
    }

    fn __setitem__(slf: &Bound<'_, Self>, index: &Bound<'_, PyAny>, value: &Bound<'_, PyAny>) -> PyResult<()> {
        let py = slf.py();
        let wrapped = slf.as_super().get().wrapped()?;
        let object = wrapped.object.bind(py);
        wrapped.locked(py, Methods::With, || {
            let Some(cells) = &wrapped.cells else { return object.set_item(index, value) };
            if cells.position(index).is_some_and(|index| cells.set(index, value)) {
                return Ok(());
            }
            let (Ok(slice), Ok(values)) = (index.cast::<PySlice>(), value.cast_exact::<PyList>()) else {
                return object.set_item(index, value);
            };
            let positions = cells.positions(slice)?;
            if positions.len() != values.len() {
                return object.set_item(index, value); // raises
            }
            for (position, value) in positions.zip(values) {
                if !cells.set(position, &value) {
                    object.set_item(position, value)?;
                }
            }
            Ok(())
        })
    }
}
