//! `Event`: one word; setting it waits for nobody.

use pyo3::prelude::*;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Deadline;
use rsmp_core::shm::arena::LINE;
use rsmp_core::shm::waits::Kind;
use rsmp_core::sync::event;
use rsmp_core::sync::spin::Spin;

use super::{Place, seconds};
use crate::block;

#[pyclass(module = "rsmp._rsmp", subclass, frozen)]
pub(crate) struct Event {
    place: Place,
    spin: Spin,
}

impl Event {
    #[inline]
    fn event(&self) -> PyResult<event::Event<'_>> {
        Ok(event::Event::new(self.place.get()?.word32(0)))
    }
}

#[pymethods]
impl Event {
    #[new]
    #[pyo3(signature = (*_args, **_kwargs))]
    fn new(_args: &Bound<'_, PyTuple>, _kwargs: Option<&Bound<'_, PyDict>>) -> Self {
        Self { place: Place::default(), spin: Spin::new() }
    }

    /// Gives the event its memory, not set.
    fn _open(&self) -> PyResult<()> {
        self.place.open(Kind::Event, LINE, |_| ())
    }

    fn _share<'py>(slf: &Bound<'py, Self>) -> PyResult<Bound<'py, PyTuple>> {
        slf.get().place.share(slf.as_any())
    }

    fn _restore(&self, state: &Bound<'_, PyAny>) -> PyResult<()> {
        self.place.restore(state)
    }

    /// Return whether the event is set.
    fn is_set(&self) -> PyResult<bool> {
        Ok(self.event()?.is_set())
    }

    /// Set the event and wake all who wait for it.
    fn set(&self) -> PyResult<()> {
        self.event()?.set();
        Ok(())
    }

    /// Unset the event.
    fn clear(&self) -> PyResult<()> {
        self.event()?.clear();
        Ok(())
    }

    /// Wait until the event is set, for `timeout` seconds at most. Return whether it was.
    #[pyo3(signature = (timeout=None), text_signature = "($self, /, timeout=None)")]
    fn wait(&self, py: Python<'_>, timeout: Option<&Bound<'_, PyAny>>) -> PyResult<bool> {
        let event = self.event()?;
        if event.is_set() {
            return Ok(true);
        }
        let deadline = Deadline::from_seconds(seconds(timeout)?);
        let since = event.count();
        let what = self.place.get()?.waited_for(Kind::Event);
        let set = block::until_for(py, what, deadline, |until| Ok(event.wait(since, &self.spin, until).then_some(())))?;
        Ok(set.is_some())
    }
}
