//! Pools: tasks from the calling threads to the workers and results back to whoever waits for them.
//!
//! | file      | what lives there                                                                        |
//! |-----------|-----------------------------------------------------------------------------------------|
//! | `engine`  | `PoolEngine`, one for each pool: its state and what Python calls                         |
//! | `send`    | how tasks go out                                                                        |
//! | `pump`    | the feeds, and who may take from them                                                   |
//! | `settle`  | how tasks and jobs end                                                                  |
//! | `wait`    | how threads of the owner wait for results, and what the supervisor thread does          |
//! | `lobby`   | which of the waiting threads sleeps on the board's event                                 |
//! | `feed`    | where tasks come from when there is no room for all of them yet                          |
//! | `payload` | what goes out for a task: an object, or a part of a list, tuple or range                |
//! | `job`     | one call of `apply`, `map` or `imap` and the results it has so far                       |
//! | `result`  | `PoolResult` and `PoolIterator`, what the caller holds of a job                          |
//! | `desk`    | tasks to worker processes: pickled, published, told apart when they come back            |
//! | `shop`    | tasks to worker threads: handed over as they are                                         |
//! | `channel` | `PoolChannel`: the worker process                                                        |
//! | `chunk`   | how a worker goes through a chunk                                                       |

pub(crate) mod channel;
mod chunk;
mod desk;
pub(crate) mod engine;
mod feed;
mod job;
mod lobby;
mod payload;
mod pump;
pub(crate) mod result;
mod send;
mod settle;
mod shop;
mod wait;

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};

use crate::message::Encoded;

/// What a worker does with a function and a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Call {
    /// `function(*payload[0], **payload[1])`
    Full = 0,
    /// `function(*payload)`
    Plain = 1,
    /// `function(payload)`
    One = 2,
    /// `[function(item) for item in payload]`
    Each = 3,
    /// `[function(*item) for item in payload]`
    EachSpread = 4,
}

/// What came of a task that did not raise.
enum Returned<'py> {
    Value(Bound<'py, PyAny>),
    /// It has been written already.
    Encoded(Encoded<'py>),
}

/// Set in a task's kind: the payload is a pair, and its first half is the function.
const FUNCTION_INSIDE: u32 = 1 << 8;

/// How the payload is to be read (the tag of `message`), above what to do with it or how it ended.
const TAG_SHIFT: u32 = 16;

/// How a task ended, and what its payload is.
mod outcome {
    /// A result.
    pub(super) const RETURNED: u32 = 0;
    /// An exception.
    pub(super) const RAISED: u32 = 1;
    /// The result was None; no payload.
    pub(super) const NOTHING: u32 = 2;
    /// There was no memory for the result; no payload.
    pub(super) const NO_MEMORY: u32 = 3;
}

impl Call {
    fn from_kind(kind: u32) -> Option<Self> {
        Some(match kind & 0xff {
            0 => Self::Full,
            1 => Self::Plain,
            2 => Self::One,
            3 => Self::Each,
            4 => Self::EachSpread,
            _ => return None,
        })
    }

    /// Does it.
    fn run<'py>(self, function: &Bound<'py, PyAny>, payload: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyAny>> {
        let py = function.py();
        match self {
            Self::One => function.call1((payload,)),
            Self::Plain => function.call1(spread(payload)?),
            Self::Full => {
                let (positional, named) = payload.extract::<(Bound<'py, PyAny>, Bound<'py, PyAny>)>()?;
                let keywords = match named.cast_into::<PyDict>() {
                    Ok(keywords) => keywords,
                    Err(other) => py.get_type::<PyDict>().call1((other.into_inner(),))?.cast_into()?,
                };
                function.call(spread(&positional)?, Some(&keywords))
            }
            Self::Each => {
                let results = pyo3::types::PyList::empty(py);
                for item in payload.try_iter()? {
                    results.append(function.call1((item?,))?)?;
                }
                Ok(results.into_any())
            }
            Self::EachSpread => {
                let results = pyo3::types::PyList::empty(py);
                for item in payload.try_iter()? {
                    results.append(function.call1(spread(&item?)?)?)?;
                }
                Ok(results.into_any())
            }
        }
    }
}

/// Any iterable as the tuple of positional arguments.
fn spread<'py>(arguments: &Bound<'py, PyAny>) -> PyResult<Bound<'py, PyTuple>> {
    match arguments.cast_exact::<PyTuple>() {
        Ok(tuple) => Ok(tuple.clone()),
        Err(_) => PyTuple::new(arguments.py(), arguments.try_iter()?.collect::<PyResult<Vec<_>>>()?),
    }
}

/// `rsmp.pool`, for the exceptions and the slow paths that live there.
fn module(py: Python<'_>) -> PyResult<Bound<'_, PyModule>> {
    py.import("rsmp.pool")
}
