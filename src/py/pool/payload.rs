//! What goes out for a task: an object, or a part of a list, tuple or range, which is written as it lies there.

use pyo3::prelude::*;
use pyo3::types::{PyList, PyRange, PyTuple};

use crate::codec;
use crate::message::Encoded;

pub(super) enum Payload<'a, 'py> {
    Object(Bound<'py, PyAny>),
    Part(Part<'a>),
}

/// Items of a sequence, as a tuple.
pub(super) struct Part<'a> {
    pub(super) sequence: &'a Sequence,
    pub(super) start: usize,
    pub(super) count: usize,
}

/// Where the items of a map are, if taking them runs no code of the program.
pub(super) enum Sequence {
    List(Py<PyList>),
    Tuple(Py<PyTuple>),
    /// Every number fits.
    Range {
        first: i64,
        step: i64,
        length: usize,
    },
}

impl Sequence {
    pub(super) fn of(iterable: &Bound<'_, PyAny>) -> Option<Self> {
        if let Ok(list) = iterable.cast_exact::<PyList>() {
            return Some(Self::List(list.clone().unbind()));
        }
        if let Ok(tuple) = iterable.cast_exact::<PyTuple>() {
            return Some(Self::Tuple(tuple.clone().unbind()));
        }
        let range = iterable.cast_exact::<PyRange>().ok()?;
        let length = range.len().ok()?;
        let first: i64 = range.getattr("start").ok()?.extract().ok()?;
        let step: i64 = range.getattr("step").ok()?.extract().ok()?;
        i64::try_from(length).ok()?.checked_mul(step)?.checked_add(first)?;
        Some(Self::Range { first, step, length })
    }

    /// A list may have another length each time.
    pub(super) fn len(&self, py: Python<'_>) -> usize {
        match self {
            Self::List(list) => list.bind(py).len(),
            Self::Tuple(tuple) => tuple.bind(py).len(),
            Self::Range { length, .. } => *length,
        }
    }

    fn item<'py>(&self, py: Python<'py>, index: usize) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::List(list) => list.bind(py).get_item(index),
            Self::Tuple(tuple) => tuple.bind(py).get_item(index),
            Self::Range { first, step, .. } => Ok(number(*first, *step, index).into_pyobject(py)?.into_any()),
        }
    }
}

impl<'py> Payload<'_, 'py> {
    /// As an object.
    pub(super) fn object(&self, py: Python<'py>) -> PyResult<Bound<'py, PyAny>> {
        match self {
            Self::Object(object) => Ok(object.clone()),
            Self::Part(Part { sequence, start, count }) => {
                let items = (*start..start + count).map(|index| sequence.item(py, index));
                Ok(PyTuple::new(py, items.collect::<PyResult<Vec<_>>>()?)?.into_any())
            }
        }
    }

    pub(super) fn encode(&self, py: Python<'py>) -> PyResult<Encoded<'py>> {
        match self {
            Self::Object(object) => Encoded::new(object),
            Self::Part(part) => match Encoded::written(|out| part.write(py, out)) {
                Some(encoded) => Ok(encoded),
                None => Encoded::new(&self.object(py)?),
            },
        }
    }
}

impl Part<'_> {
    fn write(&self, py: Python<'_>, out: &mut Vec<u8>) -> bool {
        let Self { start, count, .. } = *self;
        match self.sequence {
            Sequence::List(list) => codec::encode_part(list.bind(py).as_any(), start, count, out),
            Sequence::Tuple(tuple) => codec::encode_part(tuple.bind(py).as_any(), start, count, out),
            Sequence::Range { first, step, .. } => {
                codec::encode_numbers((start..start + count).map(|index| number(*first, *step, index)), out)
            }
        }
    }
}

/// Number `index` of a range. What is behind its end fits, so this does.
fn number(first: i64, step: i64, index: usize) -> i64 {
    first + step * (index as u64).cast_signed()
}
