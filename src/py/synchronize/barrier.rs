//! `Barrier`. The parties, the action and the timeout are the Python object's; the round is here.

use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple, PyType};
use rsmp_core::Deadline;
use rsmp_core::shm::arena::LINE;
use rsmp_core::shm::waits::Kind;
use rsmp_core::sync::barrier::{self, Arrival, End, Round};
use rsmp_core::sync::spin::Spin;

use super::{Place, seconds};
use crate::block;

#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
pub(crate) struct Barrier {
    place: Place,
    spin: Spin,
}

impl Barrier {
    fn barrier(&self) -> PyResult<barrier::Barrier<'_>> {
        Ok(barrier::Barrier::new(self.place.get()?.word64(0)))
    }

    /// Runs the action of the last to arrive.
    fn act(self_: barrier::Barrier<'_>, round: Round, action: &Bound<'_, PyAny>) -> PyResult<()> {
        match action.call0() {
            Ok(_) if self_.finish(round) => Ok(()),
            Ok(_) => Err(broken(action.py())),
            Err(error) => {
                self_.abort();
                Err(error)
            }
        }
    }

    fn wait_for_end(&self, py: Python<'_>, round: Round, deadline: Deadline) -> PyResult<()> {
        let barrier = self.barrier()?;
        let what = self.place.get()?.waited_for(Kind::Barrier);
        let wait = |deadline| block::until_for(py, what, deadline, |until| Ok(barrier.wait(round, &self.spin, until)));
        let ended = wait(deadline).inspect_err(|_| barrier.leave(round))?;
        // Out of time: the round breaks, but not while the action runs, which comes to an end by itself.
        let ended = match ended.or_else(|| barrier.expire(round)) {
            Some(end) => Some(end),
            None => wait(Deadline::NEVER)?,
        };
        if ended == Some(End::Passed) { Ok(()) } else { Err(broken(py)) }
    }
}

/// `threading.BrokenBarrierError`.
fn broken(py: Python<'_>) -> PyErr {
    static CLASS: PyOnceLock<Py<PyType>> = PyOnceLock::new();
    match CLASS.import(py, "threading", "BrokenBarrierError") {
        Ok(class) => PyErr::from_type(class.clone(), ()),
        Err(error) => error,
    }
}

#[pymethods]
impl Barrier {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { place: Place::default(), spin: Spin::new() }
    }

    /// Gives the barrier its memory, empty and whole.
    fn _open(&self) -> PyResult<()> {
        self.place.open(Kind::Barrier, LINE, |_| ())
    }

    fn _share<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        slf.get().place.share(slf.as_any())
    }

    fn _restore(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        self.place.restore(state)
    }

    /// Waits until `parties` are there; the last to come runs `action`. Returns the index of the arrival.
    #[pyo3(signature = (parties, action, timeout))]
    fn _meet(
        &self,
        py: Python<'_>,
        parties: i64,
        action: Option<&Bound<'_, PyAny>>,
        timeout: Option<&Bound<'_, PyAny>>,
    ) -> PyResult<u64> {
        let barrier = self.barrier()?;
        // As with the standard library, nobody is ever the last of none.
        let parties = u64::try_from(parties).unwrap_or(0);
        let acts = action.is_some();
        let what = self.place.get()?.waited_for(Kind::Barrier);
        let arrived = match barrier.arrive(parties, acts, Deadline::PASSED) {
            Some(arrived) => Some(arrived),
            None => block::until_for(py, what, Deadline::NEVER, |until| Ok(barrier.arrive(parties, acts, until)))?,
        };
        let Some((index, arrival)) = arrived else { return Err(broken(py)) };
        match (arrival, action) {
            (Arrival::Passed, _) => {}
            (Arrival::Act(round), Some(action)) => Self::act(barrier, round, action)?,
            (Arrival::Wait(round), _) => {
                self.wait_for_end(py, round, Deadline::from_seconds(seconds(timeout)?))?;
            }
            (Arrival::Broken | Arrival::Act(_), _) => return Err(broken(py)),
        }
        Ok(index)
    }

    /// Empty the barrier; whoever waits gets `BrokenBarrierError`.
    fn reset(&self) -> PyResult<()> {
        self.barrier()?.reset();
        Ok(())
    }

    /// Break the barrier; whoever waits, now or later, gets `BrokenBarrierError`.
    fn abort(&self) -> PyResult<()> {
        self.barrier()?.abort();
        Ok(())
    }

    /// How many wait.
    #[getter]
    fn n_waiting(&self) -> PyResult<u64> {
        Ok(self.barrier()?.waiting())
    }

    /// Whether it is broken.
    #[getter]
    fn broken(&self) -> PyResult<bool> {
        Ok(self.barrier()?.is_broken())
    }
}
