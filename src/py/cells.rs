//! The numbers in a ctypes object's memory, to and from Python objects.
//!
//! # Safety
//! A `Cells` holds the address of a ctypes object's memory. Its owner keeps the object alive, and `rsmp.sharedctypes`
//! gives the address only of objects that are of a plain ctypes type and do not own their memory, which ctypes therefore
//! cannot move. Peers write the same bytes: they are only copied, through raw pointers.
#![allow(unsafe_code)]

use core::ptr;

use pyo3::ffi;
use pyo3::prelude::*;
use pyo3::types::{PyBool, PyBytes, PyFloat, PyInt, PyList, PySlice};
use rsmp_core::atomic::{AtomicU8, AtomicU16, AtomicU32, AtomicU64, Ordering};

use crate::pymalloc::Crowd;

/// What an int or a float takes, in bytes.
const OBJECT: usize = 32;

/// One number, or several of them side by side.
pub(crate) struct Cells {
    base: *mut u8,
    count: usize,
    kind: Kind,
}

// SAFETY: the address is that of memory shared between processes, which threads may share as well.
unsafe impl Send for Cells {}
// SAFETY: as above.
unsafe impl Sync for Cells {}

/// The ctypes types whose values are read and written here.
#[derive(Clone, Copy)]
enum Kind {
    I8,
    U8,
    I16,
    U16,
    I32,
    U32,
    I64,
    U64,
    F32,
    F64,
    Bool,
    Char,
}

impl Kind {
    /// By the `_type_` of the ctypes type.
    fn of(code: &str) -> Option<Self> {
        Some(match code {
            "b" => Self::I8,
            "B" => Self::U8,
            "h" => Self::I16,
            "H" => Self::U16,
            "i" => Self::I32,
            "I" => Self::U32,
            "l" | "q" => Self::I64,
            "L" | "Q" => Self::U64,
            "f" => Self::F32,
            "d" => Self::F64,
            "?" => Self::Bool,
            "c" => Self::Char,
            _ => return None,
        })
    }

    fn size(self) -> usize {
        match self {
            Self::I8 | Self::U8 | Self::Bool | Self::Char => 1,
            Self::I16 | Self::U16 => 2,
            Self::I32 | Self::U32 | Self::F32 => 4,
            Self::I64 | Self::U64 | Self::F64 => 8,
        }
    }
}

impl Cells {
    /// `count` numbers of the type with this `code` at `address`; `None` if the type is not one of those known here.
    pub(crate) fn new(code: &str, address: usize, count: usize) -> Option<Self> {
        Some(Self { base: ptr::with_exposed_provenance_mut(address), count, kind: Kind::of(code)? })
    }

    pub(crate) fn count(&self) -> usize {
        self.count
    }

    #[inline]
    fn address(&self, index: usize) -> Option<*mut u8> {
        // SAFETY: inside the object, whose memory holds `count` numbers of this size.
        (index < self.count).then(|| unsafe { self.base.add(index * self.kind.size()) })
    }

    #[inline]
    fn read<T: Copy>(address: *mut u8) -> T {
        // SAFETY: callers pass what `address` returned and the type of the kind, all of whose bit patterns are valid.
        unsafe { ptr::read_unaligned(address.cast::<T>()) }
    }

    #[inline]
    fn write<T: Copy>(address: *mut u8, value: T) {
        // SAFETY: as in `read`.
        unsafe { ptr::write_unaligned(address.cast::<T>(), value) }
    }

    /// Number `index` as a Python object; `None` if there is no such number.
    #[inline]
    pub(crate) fn get<'py>(&self, py: Python<'py>, index: usize) -> Option<Bound<'py, PyAny>> {
        let address = self.address(index)?;
        let bits = match self.kind.size() {
            1 => Self::read::<u8>(address).into(),
            2 => Self::read::<u16>(address).into(),
            4 => Self::read::<u32>(address).into(),
            _ => Self::read::<u64>(address),
        };
        self.object(py, bits)
    }

    /// The bits of number `index`, as they were at one moment; `None` if there is no such number, or one that no single
    /// load gives.
    #[inline]
    pub(crate) fn load(&self, index: usize) -> Option<u64> {
        let address = self.address(index)?;
        if !address.addr().is_multiple_of(self.kind.size()) {
            return None;
        }
        // SAFETY: inside the object and aligned to its size; every process may change it, at any time.
        Some(unsafe {
            match self.kind.size() {
                1 => AtomicU8::from_ptr(address).load(Ordering::Relaxed).into(),
                2 => AtomicU16::from_ptr(address.cast()).load(Ordering::Relaxed).into(),
                4 => AtomicU32::from_ptr(address.cast()).load(Ordering::Relaxed).into(),
                _ => AtomicU64::from_ptr(address.cast()).load(Ordering::Relaxed),
            }
        })
    }

    /// The number of these bits as a Python object.
    #[inline]
    pub(crate) fn object<'py>(&self, py: Python<'py>, bits: u64) -> Option<Bound<'py, PyAny>> {
        Some(match self.kind {
            Kind::I8 => int(py, (bits as u8).cast_signed().into()),
            Kind::I16 => int(py, (bits as u16).cast_signed().into()),
            Kind::I32 => int(py, (bits as u32).cast_signed().into()),
            Kind::U8 | Kind::U16 | Kind::U32 | Kind::I64 => int(py, bits.cast_signed()),
            Kind::U64 => bits.into_pyobject(py).ok()?.into_any(),
            Kind::F32 => PyFloat::new(py, f32::from_bits(bits as u32).into()).into_any(),
            Kind::F64 => PyFloat::new(py, f64::from_bits(bits)).into_any(),
            Kind::Bool => PyBool::new(py, bits != 0).to_owned().into_any(),
            Kind::Char => PyBytes::new(py, &[bits as u8]).into_any(),
        })
    }

    /// Stores `value` as number `index`; `false` if ctypes has to convert it or to refuse it.
    #[inline]
    pub(crate) fn set(&self, index: usize, value: &Bound<'_, PyAny>) -> bool {
        let Some(address) = self.address(index) else { return false };
        match self.kind {
            Kind::F32 | Kind::F64 => {
                let Ok(number) = value.cast_exact::<PyFloat>() else { return false };
                if let Kind::F32 = self.kind {
                    Self::write(address, number.value() as f32);
                } else {
                    Self::write(address, number.value());
                }
            }
            Kind::Bool => {
                let Ok(truth) = value.cast_exact::<PyBool>() else { return false };
                Self::write(address, u8::from(truth.is_true()));
            }
            Kind::Char => match value.cast_exact::<PyBytes>().map(PyBytesMethods::as_bytes) {
                Ok(&[byte]) => Self::write(address, byte),
                _ => return false,
            },
            _ => {
                let Ok(number) = value.cast_exact::<PyInt>() else { return false };
                // SAFETY: `number` is an int, for which this cannot fail: it keeps the low 64 bits, as ctypes does.
                let bits = unsafe { ffi::PyLong_AsUnsignedLongLongMask(number.as_ptr()) };
                match self.kind.size() {
                    1 => Self::write(address, bits as u8),
                    2 => Self::write(address, bits as u16),
                    4 => Self::write(address, bits as u32),
                    _ => Self::write(address, bits),
                }
            }
        }
        true
    }

    /// `index` counted from the front; `None` if it is out of range or no plain int.
    #[inline]
    pub(crate) fn position(&self, index: &Bound<'_, PyAny>) -> Option<usize> {
        let index: isize = index.cast_exact::<PyInt>().ok()?.extract().ok()?;
        let index = if index < 0 { index + self.count.cast_signed() } else { index };
        usize::try_from(index).ok().filter(|index| *index < self.count)
    }

    /// The positions that `slice` names, in its order.
    pub(crate) fn positions(
        &self,
        slice: &Bound<'_, PySlice>,
    ) -> PyResult<impl ExactSizeIterator<Item = usize> + use<>> {
        let indices = slice.indices(self.count.cast_signed())?;
        let (start, step) = (indices.start, indices.step);
        Ok((0..indices.slicelength).map(move |index| (start + index.cast_signed() * step).cast_unsigned()))
    }

    /// A slice as ctypes gives it: `bytes` of characters, a list of anything else.
    pub(crate) fn slice<'py>(&self, slice: &Bound<'py, PySlice>) -> PyResult<Bound<'py, PyAny>> {
        let py = slice.py();
        let positions = self.positions(slice)?;
        if let Kind::Char = self.kind {
            let bytes: Vec<u8> = positions.filter_map(|index| self.address(index).map(Self::read::<u8>)).collect();
            return Ok(PyBytes::new(py, &bytes).into_any());
        }
        match self.kind {
            Kind::I8 => self.list(py, positions, |value: i8| int(py, value.into())),
            Kind::U8 => self.list(py, positions, |value: u8| int(py, value.into())),
            Kind::I16 => self.list(py, positions, |value: i16| int(py, value.into())),
            Kind::U16 => self.list(py, positions, |value: u16| int(py, value.into())),
            Kind::I32 => self.list(py, positions, |value: i32| int(py, value.into())),
            Kind::U32 => self.list(py, positions, |value: u32| int(py, value.into())),
            Kind::I64 => self.list(py, positions, |value: i64| int(py, value)),
            Kind::F32 => self.list(py, positions, |value: f32| PyFloat::new(py, value.into()).into_any()),
            Kind::F64 => self.list(py, positions, |value: f64| PyFloat::new(py, value).into_any()),
            _ => Ok(PyList::new(py, positions.filter_map(|index| self.get(py, index)).collect::<Vec<_>>())?.into_any()),
        }
    }

    /// A list of the numbers at `positions`, all of type `T`.
    #[inline]
    fn list<'py, T: Copy>(
        &self,
        py: Python<'py>,
        positions: impl ExactSizeIterator<Item = usize>,
        convert: impl Fn(T) -> Bound<'py, PyAny>,
    ) -> PyResult<Bound<'py, PyAny>> {
        let len = positions.len();
        let _crowd = Crowd::expect(py, len.saturating_mul(OBJECT));
        // SAFETY: a new list, whose `len` empty places are all filled before anybody else sees it: `convert` runs no
        // Python code, and a list that is not full yet cannot be dropped, as nothing in between fails.
        unsafe {
            let list = Bound::from_owned_ptr_or_err(py, ffi::PyList_New(len.cast_signed()))?;
            for (place, position) in positions.enumerate() {
                let address = self.base.add(position.min(self.count - 1) * size_of::<T>());
                ffi::PyList_SET_ITEM(list.as_ptr(), place.cast_signed(), convert(Self::read(address)).into_ptr());
            }
            Ok(list)
        }
    }

    /// Stores `values` from the first number on; `false` if ctypes has to convert or to refuse one of them.
    pub(crate) fn fill(&self, values: &Bound<'_, PyList>) -> bool {
        values.len() == self.count && values.iter().enumerate().all(|(index, value)| self.set(index, &value))
    }
}

fn int(py: Python<'_>, value: i64) -> Bound<'_, PyAny> {
    match value.into_pyobject(py) {
        Ok(number) => number.into_any(),
        Err(never) => match never {},
    }
}

/// Stores `values` as the numbers of the ctypes array with this type code, address and count; `False` if ctypes has to.
#[pyfunction]
pub(crate) fn fill_array(values: &Bound<'_, PyList>, code: &str, address: usize, count: usize) -> bool {
    Cells::new(code, address, count).is_some_and(|cells| cells.fill(values))
}
