//! A chunk of a map, item by item: an argument is made when its turn comes, and a result that is a number is written at
//! once. Neither then needs memory that nobody has touched, which costs more than calling a small function.
//!
//! Results that may change later, or be one object twice, are kept to the end like the list that the standard library
//! pickles. From the first of them on, all are.

use pyo3::prelude::*;
use pyo3::types::PyList;

use super::{Call, Returned, spread};
use crate::codec::{Items, Numerals};
use crate::message::{Encoded, as_message};

/// The items of a payload, if `call` is for each of them and they can be made one by one.
pub(super) fn items<'py>(call: Call, tag: u8, payload: &[u8]) -> Option<Items<'_, 'py>> {
    let is_chunk = matches!(call, Call::Each | Call::EachSpread);
    as_message(tag, payload).filter(|_| is_chunk).and_then(Items::of)
}

/// Calls `function` with each item and returns the list of results.
pub(super) fn run<'py>(
    function: &Bound<'py, PyAny>,
    spreads: bool,
    mut items: Items<'_, 'py>,
) -> PyResult<Returned<'py>> {
    let py = function.py();
    let mut encoded = Encoded::unwritten();
    let mut numerals = Numerals::for_list(encoded.message(), items.len());
    let mut kept: Option<Bound<'py, PyList>> = None;
    while let Some(item) = items.next(py)? {
        let result = if spreads { function.call1(spread(&item)?)? } else { function.call1((item,))? };
        match &kept {
            Some(kept) => kept.append(result)?,
            None if numerals.push(&result) => {}
            None => {
                let list = numerals.list(py)?;
                list.append(result)?;
                kept = Some(list);
            }
        }
    }
    Ok(match kept {
        Some(kept) => Returned::Value(kept.into_any()),
        None => Returned::Encoded(encoded),
    })
}
