//! One call of `apply`, `map` or `imap` and the results it has so far.

use std::collections::{HashMap, VecDeque};
use std::sync::OnceLock;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use parking_lot::Mutex;
use pyo3::gc::{PyTraverseError, PyVisit};
use pyo3::prelude::*;
use pyo3::types::PyList;

static NUMBERS: AtomicU64 = AtomicU64::new(0);

/// A result or an exception, as it goes to the caller.
pub(super) struct Ending {
    pub(super) ok: bool,
    pub(super) value: Py<PyAny>,
}

impl Ending {
    pub(super) fn failed(py: Python<'_>, error: PyErr) -> Self {
        Self { ok: false, value: error.into_value(py).into_any() }
    }
}

/// What a job collects.
pub(super) enum Shape {
    Single(Option<Ending>),
    Map {
        list: Py<PyList>,
        chunk: usize,
        length: usize,
        left: usize,
        failure: Option<Py<PyAny>>,
    },
    Stream {
        ordered: bool,
        items: VecDeque<Ending>,
        early: HashMap<usize, Ending>,
        settled: usize,
        length: Option<usize>,
    },
}

/// What a job waits to do, and what it keeps alive meanwhile.
#[derive(Default)]
pub(super) struct Attached {
    pub(super) pool: Option<Py<PyAny>>,
    pub(super) callback: Option<Py<PyAny>>,
    pub(super) error_callback: Option<Py<PyAny>>,
}

pub(super) struct Job {
    pub(super) number: u64,
    ready: AtomicBool,
    /// Whether a callback will have to be run.
    pub(super) watched: bool,
    /// Whether a task has come back.
    pub(super) begun: AtomicBool,
    /// What its tasks call, for messages.
    pub(super) function: OnceLock<Py<PyAny>>,
    /// Results a caller has taken from a stream.
    pub(super) taken: AtomicUsize,
    state: Mutex<State>,
}

struct State {
    shape: Shape,
    attached: Attached,
}

/// What settling a task did to its job.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Progress {
    /// Nothing that a waiting caller would see.
    Nothing,
    /// A stream has something new, or is known to end.
    Item,
    /// All of its tasks are settled.
    Complete,
}

/// What a stream gives.
pub(super) enum Next {
    Item(Ending),
    End,
}

impl Job {
    pub(super) fn new(shape: Shape, attached: Attached) -> Self {
        Self {
            number: NUMBERS.fetch_add(1, Ordering::Relaxed),
            ready: AtomicBool::new(false),
            watched: attached.callback.is_some() || attached.error_callback.is_some(),
            begun: AtomicBool::new(false),
            function: OnceLock::new(),
            taken: AtomicUsize::new(0),
            state: Mutex::new(State { shape, attached }),
        }
    }

    pub(super) fn single(attached: Attached) -> Self {
        Self::new(Shape::Single(None), attached)
    }

    pub(super) fn map(py: Python<'_>, length: usize, chunk: usize, attached: Attached) -> PyResult<Self> {
        let list = PyList::new(py, (0..length).map(|_| py.None()))?.unbind();
        let left = rsmp_core::pool::chunks::count(length, chunk);
        Ok(Self::new(Shape::Map { list, chunk, length, left, failure: None }, attached))
    }

    pub(super) fn stream(ordered: bool, attached: Attached) -> Self {
        let (items, early) = (VecDeque::new(), HashMap::new());
        Self::new(Shape::Stream { ordered, items, early, settled: 0, length: None }, attached)
    }

    /// Whether the caller can have its result.
    pub(super) fn ready(&self) -> bool {
        self.ready.load(Ordering::Acquire)
    }

    pub(super) fn set_ready(&self) {
        self.ready.store(true, Ordering::Release);
    }

    /// How many more tasks must be settled before a caller that waits can go on; at least one.
    pub(super) fn needs(&self) -> usize {
        match &self.state.lock().shape {
            Shape::Map { left, .. } => (*left).max(1),
            Shape::Single(_) | Shape::Stream { .. } => 1,
        }
    }

    /// Whether nothing is to be waited for from the start.
    pub(super) fn is_empty(&self) -> bool {
        matches!(self.state.lock().shape, Shape::Map { left: 0, .. })
    }

    /// Takes the ending of task `index`. `bare`: of a single item where the job counts in chunks.
    pub(super) fn settle(&self, py: Python<'_>, index: usize, ending: Ending, bare: bool) -> PyResult<Progress> {
        // What must not be dropped under the lock: it may run Python.
        let _dropped;
        let mut state = self.state.lock();
        match &mut state.shape {
            Shape::Single(place) => {
                if place.is_some() {
                    return Ok(Progress::Nothing);
                }
                *place = Some(ending);
                Ok(Progress::Complete)
            }
            Shape::Map { list, chunk, length, left, failure } => {
                if *left == 0 {
                    return Ok(Progress::Nothing);
                }
                *left -= 1;
                let progress = if *left == 0 { Progress::Complete } else { Progress::Nothing };
                if !ending.ok {
                    if failure.is_none() {
                        *failure = Some(ending.value);
                    } else {
                        _dropped = ending.value;
                    }
                } else if failure.is_none() {
                    let (list, start, end) = (list.clone_ref(py), index * *chunk, ((index + 1) * *chunk).min(*length));
                    // A list of our own with None in it: replacing its items runs no Python.
                    if bare {
                        list.bind(py).set_item(start, ending.value)?;
                    } else {
                        let items = ending.value.bind(py).cast::<PyList>()?;
                        let count = items.len().min(end.saturating_sub(start));
                        let items = if count == items.len() { items.clone() } else { items.get_slice(0, count) };
                        list.bind(py).set_slice(start, start + count, &items)?;
                        _dropped = ending.value;
                    }
                } else {
                    _dropped = ending.value;
                }
                Ok(progress)
            }
            Shape::Stream { ordered, items, early, settled, length } => {
                let before = items.len();
                if !*ordered || index == *settled {
                    items.push_back(ending);
                    *settled += 1;
                    while let Some(next) = early.remove(settled) {
                        items.push_back(next);
                        *settled += 1;
                    }
                } else {
                    early.insert(index, ending);
                }
                Ok(if *length == Some(*settled) {
                    Progress::Complete
                } else if items.len() > before {
                    Progress::Item
                } else {
                    Progress::Nothing
                })
            }
        }
    }

    /// Says that there are no tasks but the first `count`.
    pub(super) fn end(&self, count: usize) -> Progress {
        let mut state = self.state.lock();
        match &mut state.shape {
            Shape::Single(_) => Progress::Nothing,
            Shape::Map { chunk, length, left, .. } => {
                let missing = rsmp_core::pool::chunks::count(*length, *chunk).saturating_sub(count);
                if missing == 0 || *left == 0 {
                    return Progress::Nothing;
                }
                *left -= missing.min(*left);
                if *left == 0 { Progress::Complete } else { Progress::Nothing }
            }
            Shape::Stream { settled, length, .. } => {
                *length = Some(count);
                if *settled == count { Progress::Complete } else { Progress::Item }
            }
        }
    }

    /// Ends the job with an error wherever something is still missing.
    pub(super) fn fail(&self, py: Python<'_>, error: &Py<PyAny>) -> Progress {
        let mut state = self.state.lock();
        match &mut state.shape {
            Shape::Single(place) => {
                if place.is_some() {
                    return Progress::Nothing;
                }
                *place = Some(Ending { ok: false, value: error.clone_ref(py) });
            }
            Shape::Map { left, failure, .. } => {
                if *left == 0 {
                    return Progress::Nothing;
                }
                *left = 0;
                failure.get_or_insert_with(|| error.clone_ref(py));
            }
            Shape::Stream { items, settled, length, .. } => {
                if *length == Some(*settled) {
                    return Progress::Nothing;
                }
                items.push_back(Ending { ok: false, value: error.clone_ref(py) });
                *settled += 1;
                *length = Some(*settled);
            }
        }
        Progress::Complete
    }

    /// The ending of a job that is not a stream.
    pub(super) fn ending(&self, py: Python<'_>) -> Option<Ending> {
        let state = self.state.lock();
        match &state.shape {
            Shape::Single(ending) => {
                ending.as_ref().map(|ending| Ending { ok: ending.ok, value: ending.value.clone_ref(py) })
            }
            Shape::Map { failure: Some(failure), .. } => Some(Ending { ok: false, value: failure.clone_ref(py) }),
            Shape::Map { list, .. } => Some(Ending { ok: true, value: list.clone_ref(py).into_any() }),
            Shape::Stream { .. } => None,
        }
    }

    /// The ending of a job that is not a stream, when nobody will ask for it again.
    pub(super) fn take_ending(&self, py: Python<'_>) -> Option<Ending> {
        if let Shape::Single(ending) = &mut self.state.lock().shape {
            return ending.take();
        }
        self.ending(py)
    }

    /// The next item of a stream, if it is there.
    pub(super) fn next(&self) -> Option<Next> {
        let mut state = self.state.lock();
        let Shape::Stream { items, settled, length, .. } = &mut state.shape else { return Some(Next::End) };
        match items.pop_front() {
            Some(item) => {
                self.taken.fetch_add(1, Ordering::Relaxed);
                Some(Next::Item(item))
            }
            None if *length == Some(*settled) => Some(Next::End),
            None => None,
        }
    }

    /// Undoes `next`, for a caller who was interrupted.
    pub(super) fn put_back(&self, item: Ending) {
        if let Shape::Stream { items, .. } = &mut self.state.lock().shape {
            self.taken.fetch_sub(1, Ordering::Relaxed);
            items.push_front(item);
        }
    }

    /// Whether `next` would give something.
    pub(super) fn has_next(&self) -> bool {
        match &self.state.lock().shape {
            Shape::Stream { items, settled, length, .. } => !items.is_empty() || *length == Some(*settled),
            _ => true,
        }
    }

    /// Items settled in order and length, for a stream; tasks left and their chunk size, for a map.
    pub(super) fn figures(&self) -> (usize, Option<usize>) {
        match &self.state.lock().shape {
            Shape::Stream { settled, length, .. } => (*settled, *length),
            Shape::Map { left, chunk, .. } => (*left, Some(*chunk)),
            Shape::Single(_) => (0, None),
        }
    }

    /// The pool that the job keeps alive.
    pub(super) fn pool(&self, py: Python<'_>) -> Option<Py<PyAny>> {
        self.state.lock().attached.pool.as_ref().map(|pool| pool.clone_ref(py))
    }

    /// Shows the collector what only this job holds. Skipped while another thread uses the job: it is reachable then.
    pub(super) fn traverse(&self, visit: &PyVisit<'_>) -> Result<(), PyTraverseError> {
        let Some(state) = self.state.try_lock() else { return Ok(()) };
        if let Some(function) = self.function.get() {
            visit.call(function)?;
        }
        let Attached { pool, callback, error_callback } = &state.attached;
        for object in [pool, callback, error_callback].into_iter().flatten() {
            visit.call(object)?;
        }
        match &state.shape {
            Shape::Single(ending) => ending.iter().try_for_each(|ending| visit.call(&ending.value)),
            Shape::Map { list, failure, .. } => {
                visit.call(list)?;
                failure.iter().try_for_each(|failure| visit.call(failure))
            }
            Shape::Stream { items, early, .. } => {
                items.iter().chain(early.values()).try_for_each(|ending| visit.call(&ending.value))
            }
        }
    }

    /// Lets go of everything: the job is garbage.
    pub(super) fn clear(&self) {
        let Some(mut state) = self.state.try_lock() else { return };
        let attached = std::mem::take(&mut state.attached);
        let shape = std::mem::replace(&mut state.shape, Shape::Single(None));
        drop(state);
        drop((attached, shape));
    }

    /// Lets go of the pool and the callbacks, and returns them for that.
    pub(super) fn release(&self) -> Attached {
        std::mem::take(&mut self.state.lock().attached)
    }

    /// The callback for how the job ended.
    pub(super) fn take_callback(&self, ok: bool) -> Option<Py<PyAny>> {
        let mut state = self.state.lock();
        if ok { state.attached.callback.take() } else { state.attached.error_callback.take() }
    }
}
