//! The fork server's loop around the fork, which is Python's `os.fork`.
//!
//! # Safety
//! The server process owns the control descriptor that it was started with.
#![allow(unsafe_code)]

use std::os::fd::{FromRawFd, IntoRawFd, OwnedFd, RawFd};

use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rsmp_core::Deadline;
use rsmp_core::spawn::request::{Payload, Request};
use rsmp_core::spawn::server::{self, Event, Server, Standby};

use crate::block;
use crate::error::Failure;

/// The server's table of children; made in the server process around its end of the control socket.
#[pyclass(frozen, module = "rsmp._rsmp")]
pub(crate) struct ForkServer {
    server: Mutex<Option<Server>>,
}

/// A child to fork: one that was asked for, or one to have in reserve.
#[pyclass(frozen, module = "rsmp._rsmp")]
pub(crate) struct ForkRequest {
    /// The child is to stand by.
    #[pyo3(get)]
    standby: bool,
    request: Mutex<Option<Box<Request>>>,
}

#[pymethods]
impl ForkServer {
    #[new]
    fn new(control: RawFd) -> PyResult<Self> {
        if control < 0 {
            return Err(PyValueError::new_err("not a descriptor"));
        }
        // SAFETY: the server process was started with this descriptor for its own; nothing else there knows of it.
        let control = unsafe { OwnedFd::from_raw_fd(control) };
        let server = Server::new(control).map_err(Failure::from)?;
        Ok(Self { server: Mutex::new(Some(server)) })
    }

    /// Wait for the next request, reaping and reporting children meanwhile; None when the last client is gone.
    fn next(&self, py: Python<'_>) -> PyResult<Option<ForkRequest>> {
        let event = block::serve(py, Deadline::NEVER, |until| match self.server.lock().as_mut() {
            Some(server) => server.next(until),
            None => Ok(Some(Event::Done)),
        })?;
        Ok(match event {
            Some(Event::Asked(request)) => Some(ForkRequest { standby: false, request: Mutex::new(Some(request)) }),
            Some(Event::StandBy) => Some(ForkRequest { standby: true, request: Mutex::new(None) }),
            Some(Event::Done) | None => None,
        })
    }

    /// Watch the child that was forked as `pid`, and tell who asked for it.
    fn started(&self, request: &ForkRequest, pid: i32) -> PyResult<()> {
        let mut server = self.server.lock();
        let Some(server) = server.as_mut() else { return Ok(()) };
        let outcome = match request.request.lock().take() {
            Some(request) => server.started(request.status, pid),
            None => server.standing_by(pid),
        };
        Ok(outcome.map_err(Failure::from)?)
    }

    /// Tell who asked that the fork failed with `errno`.
    fn refuse(&self, request: &ForkRequest, errno: i32) {
        match (request.request.lock().take(), self.server.lock().as_mut()) {
            (Some(request), _) => server::refused(&request.status, errno),
            (None, Some(server)) => server.no_standby(),
            (None, None) => {}
        }
    }

    /// In the forked standby: wait until a child is asked for and return the request, or None when none can be any more.
    fn stand_by(&self, py: Python<'_>) -> PyResult<Option<ForkRequest>> {
        let Some(server) = self.server.lock().take() else { return Ok(None) };
        let Some(standby) = server.into_standby().map_err(Failure::from)? else { return Ok(None) };
        let request = block::serve(py, Deadline::NEVER, |until| Standby::next(&standby, until))?.flatten();
        Ok(request.map(|request| ForkRequest { standby: false, request: Mutex::new(Some(request)) }))
    }

    /// Close everything that is the server's alone: this is a forked child.
    fn close(&self) {
        *self.server.lock() = None;
    }
}

type Descriptors = (RawFd, RawFd, RawFd, RawFd, Option<RawFd>, Vec<RawFd>);

#[pymethods]
impl ForkRequest {
    /// In the forked child: return the payload (bytes, or a descriptor to read them from) and the descriptors that are
    /// its own now: status, parent, control, tracker, lifeline, inherited.
    fn enter(&self, py: Python<'_>) -> PyResult<(Py<PyAny>, Descriptors)> {
        let Some(request) = self.request.lock().take() else {
            return Err(PyValueError::new_err("the request has been answered"));
        };
        let Request { status, parent, control, tracker, lifeline, payload, inherited } = *request;
        let payload = match payload {
            Payload::Inline(bytes) => PyBytes::new(py, &bytes).into_any().unbind(),
            Payload::File(file) => file.into_raw_fd().into_pyobject(py)?.into_any().unbind(),
        };
        let inherited = inherited.into_iter().map(IntoRawFd::into_raw_fd).collect();
        let lifeline = lifeline.map(IntoRawFd::into_raw_fd);
        Ok((
            payload,
            (
                status.into_raw_fd(),
                parent.into_raw_fd(),
                control.into_raw_fd(),
                tracker.into_raw_fd(),
                lifeline,
                inherited,
            ),
        ))
    }
}
