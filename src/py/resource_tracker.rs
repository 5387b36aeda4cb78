//! `rsmp.resource_tracker`: one write that tells the standard tracker of a name, as long as it is as it was made.

use std::os::fd::RawFd;

use pyo3::intern;
use pyo3::prelude::*;
use pyo3::types::{PyString, PyTuple};
use rsmp_core::Deadline;
use rsmp_core::sys::descriptor;

use crate::block;
use crate::process::borrowed;

/// Characters in a name that surely fits into a message, which is written in one piece.
const LONGEST: usize = 200;

/// What a call to the tracker goes through; a tool may replace any of it.
#[pyclass(module = "rsmp._rsmp", frozen)]
pub(crate) struct Tracker {
    module: Py<PyAny>,
    standard: Py<PyAny>,
    /// Functions of the module.
    calls: Vec<Step>,
    /// Methods of the tracker.
    steps: Vec<Step>,
}

struct Step {
    name: Py<PyString>,
    function: Py<PyAny>,
}

impl Step {
    fn of(owner: &Bound<'_, PyAny>, names: &Bound<'_, PyTuple>) -> PyResult<Vec<Self>> {
        let step = |name: Bound<'_, PyAny>| {
            let name = name.cast_into::<PyString>()?;
            let function = owner.getattr(&name)?.unbind();
            Ok(Self { name: name.unbind(), function })
        };
        names.iter().map(step).collect()
    }

    /// Whether `owner` still has it. A method is made anew by each look, and equal to itself.
    fn is_kept_by(&self, owner: &Bound<'_, PyAny>) -> bool {
        let function = self.function.bind(owner.py());
        owner.getattr(&self.name).is_ok_and(|found| found.is(function) || found.eq(function).unwrap_or(false))
    }
}

#[pymethods]
impl Tracker {
    #[new]
    fn new(module: &Bound<'_, PyAny>, calls: &Bound<'_, PyTuple>, steps: &Bound<'_, PyTuple>) -> PyResult<Self> {
        let tracker = module.getattr("_resource_tracker")?;
        let (calls, steps) = (Step::of(module, calls)?, Step::of(&tracker, steps)?);
        Ok(Self { module: module.clone().unbind(), standard: tracker.unbind(), calls, steps })
    }

    /// Whether nobody has replaced anything.
    fn is_as_made(&self, py: Python<'_>) -> bool {
        let (module, tracker) = (self.module.bind(py), self.standard.bind(py));
        module.getattr(intern!(py, "_resource_tracker")).is_ok_and(|found| found.is(tracker))
            && self.calls.iter().all(|step| step.is_kept_by(module))
            && self.steps.iter().all(|step| step.is_kept_by(tracker))
    }

    /// Write that `call` is to be made for the shared memory `name`; `False`, and nothing written, if nobody reads it or
    /// only the standard functions can say it.
    fn tell(&self, py: Python<'_>, call: &str, name: &str) -> PyResult<bool> {
        let is_plain = |byte: &u8| matches!(byte, b' '..=b'~') && *byte != b':';
        if name.len() > LONGEST || !name.as_bytes().iter().all(is_plain) || !self.is_as_made(py) {
            return Ok(false);
        }
        let pipe = self.standard.bind(py).getattr(intern!(py, "_fd"))?;
        let Some(Ok(pipe)) = pipe.extract::<Option<RawFd>>()?.map(borrowed) else { return Ok(false) };
        let message = format!("{}:{name}:shared_memory\n", call.to_ascii_uppercase());
        let write = |_| Ok(descriptor::write_once(pipe, message.as_bytes()).transpose());
        let written = block::system_call(py, Deadline::NEVER, write)?;
        Ok(matches!(written, Some(Ok(()))))
    }
}
