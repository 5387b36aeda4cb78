//! Children: the native half of the `Popen` classes.
//!
//! # Safety
//! Descriptors that Python passes are numbers; they are borrowed for one call, during which the caller keeps them open.
#![allow(unsafe_code)]

use std::os::fd::{AsFd, AsRawFd, BorrowedFd, IntoRawFd, RawFd};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;
use pyo3::exceptions::PyValueError;
use pyo3::prelude::*;
use pyo3::sync::PyOnceLock;
use pyo3::types::{PyDict, PyTuple};
use rsmp_core::Deadline;
use rsmp_core::error::Kind as Failed;
use rsmp_core::shm::arena;
use rsmp_core::shm::waits::{Kind, What};
use rsmp_core::spawn::client::{self, Asking, Order, Source};
use rsmp_core::spawn::watch::{Outcome, Watch};
use rsmp_core::sys::lifeline::{self, Lifeline};
use rsmp_core::sys::seqpacket;
use rsmp_core::sys::{anonymous, child, descriptor};

use crate::block;
use crate::child::Forked;
use crate::error::Failure;

/// A child seen from its parent. Each `Popen` class is a subclass that launches in its own way and then adopts.
///
/// The exit code is taken from the kernel once, whoever of several threads gets there first, and kept.
#[pyclass(subclass, frozen, module = "rsmp._rsmp")]
pub(crate) struct Child {
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    pid: Option<i32>,
    sentinel: Option<RawFd>,
    exit_code: Option<i32>,
    watch: Option<Arc<Watch>>,
    lifeline: Option<Arc<Lifeline>>,
}

#[pymethods]
impl Child {
    #[new]
    #[pyo3(signature = (*_arguments, **_keywords))]
    fn new(_arguments: &Bound<'_, PyTuple>, _keywords: Option<&Bound<'_, PyDict>>) -> Self {
        Self { state: Mutex::default() }
    }

    /// Takes charge of the child `pid` of this process.
    fn _adopt(&self, pid: i32) -> PyResult<()> {
        let watch = Watch::child(pid).map_err(Failure::from)?;
        self.adopt(pid, watch);
        Ok(())
    }

    #[getter]
    fn pid(&self) -> Option<i32> {
        self.state.lock().pid
    }

    #[setter]
    fn set_pid(&self, pid: Option<i32>) {
        self.state.lock().pid = pid;
    }

    /// A descriptor that becomes readable when the child ends.
    #[getter]
    fn sentinel(&self) -> Option<RawFd> {
        self.state.lock().sentinel
    }

    #[setter]
    fn set_sentinel(&self, sentinel: Option<RawFd>) {
        self.state.lock().sentinel = sentinel;
    }

    /// The exit code as far as it is known without asking.
    #[getter]
    fn returncode(&self) -> Option<i32> {
        self.state.lock().exit_code
    }

    #[setter]
    fn set_returncode(&self, exit_code: Option<i32>) {
        self.state.lock().exit_code = exit_code;
    }

    /// Whether the child was launched by other means: nothing here knows it.
    #[getter]
    fn _foreign(&self) -> bool {
        let state = self.state.lock();
        state.watch.is_none() && state.exit_code.is_none()
    }

    /// Return the exit code, or None while the child runs. Waits only if `flag` is 0.
    #[pyo3(signature = (flag = libc::WNOHANG))]
    fn poll(&self, py: Python<'_>, flag: i32) -> PyResult<Option<i32>> {
        let deadline = if flag & libc::WNOHANG == 0 { Deadline::NEVER } else { Deadline::PASSED };
        self.collect(py, deadline)
    }

    /// Wait `timeout` seconds, for ever by default; return the exit code, or None while the child runs.
    #[pyo3(signature = (timeout = None))]
    fn wait(&self, py: Python<'_>, timeout: Option<f64>) -> PyResult<Option<i32>> {
        self.collect(py, Deadline::from_seconds(timeout))
    }

    fn _send_signal(&self, py: Python<'_>, sig: i32) -> PyResult<()> {
        let state = self.state.lock();
        if state.exit_code.is_some() {
            return Ok(());
        }
        let Some(watch) = state.watch.clone() else {
            return Err(PyValueError::new_err("process is closed"));
        };
        drop(state);
        match child::signal(watch.process(), sig) {
            Ok(_) => Ok(()),
            // A process that is just ending may refuse.
            Err(error) => match self.collect(py, Deadline::from_seconds(Some(0.1)))? {
                Some(_) => Ok(()),
                None => Err(Failure::from(error).into()),
            },
        }
    }

    /// Ask the child to end (SIGTERM).
    fn terminate(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.call_method1("_send_signal", (libc::SIGTERM,)).map(drop)
    }

    /// End the child (SIGKILL).
    fn kill(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.call_method1("_send_signal", (libc::SIGKILL,)).map(drop)
    }

    /// Interrupt the child (SIGINT).
    fn interrupt(slf: &Bound<'_, Self>) -> PyResult<()> {
        slf.call_method1("_send_signal", (libc::SIGINT,)).map(drop)
    }

    /// Give the descriptors back.
    fn close(&self) {
        let mut state = self.state.lock();
        state.watch = None;
        state.lifeline = None;
    }

    /// Return the read end of this process's lifeline, for a child that is to die with this process.
    ///
    /// The lifeline lives as long as a child that was given it.
    fn _lifeline(&self, py: Python<'_>) -> PyResult<RawFd> {
        self.hang(py)
    }

    /// Fork a child that is `process`; False, and nothing done, where somebody has replaced a step on its way.
    ///
    /// `daemon`: it dies with this process. `held`: it lets Ctrl-C through before it runs.
    fn _fork(slf: Bound<'_, Self>, process: Bound<'_, PyAny>, daemon: bool, held: bool) -> PyResult<bool> {
        fork_together(vec![slf], vec![process], daemon, held)
    }

    /// Ask the fork server at the other end of `control` for a child that unpickles `payload`.
    ///
    /// False: there is no server.
    fn _ask(
        &self,
        py: Python<'_>,
        control: RawFd,
        tracker: RawFd,
        inherited: Vec<RawFd>,
        payload: &[u8],
        daemon: bool,
    ) -> PyResult<bool> {
        let lifeline = if daemon { Some(shared_lifeline(py)?) } else { None };
        let order = Order {
            control: borrowed(control)?,
            tracker: borrowed(tracker)?,
            lifeline: lifeline.as_ref().map(|line| line.reader()),
            inherited: inherited.into_iter().map(borrowed).collect::<PyResult<_>>()?,
            payload: Source::Bytes(payload),
        };
        let mut asking = Asking::new(order).map_err(Failure::from)?;
        if !sent(py, &mut asking)? {
            return Ok(false);
        }
        let Some((pid, process)) = block::until_for(py, SERVER, Deadline::NEVER, |until| asking.reply(until))? else {
            return Ok(false);
        };
        self.adopt(pid, asking.watch(process));
        self.state.lock().lifeline = lifeline;
        Ok(true)
    }
}

impl Child {
    fn hang(&self, py: Python<'_>) -> PyResult<RawFd> {
        let line = shared_lifeline(py)?;
        let read = line.reader().as_raw_fd();
        self.state.lock().lifeline = Some(line);
        Ok(read)
    }

    fn adopt(&self, pid: i32, watch: Watch) {
        let mut state = self.state.lock();
        state.pid = Some(pid);
        state.sentinel = Some(watch.process().as_raw_fd());
        state.watch = Some(Arc::new(watch));
    }

    fn collect(&self, py: Python<'_>, deadline: Deadline) -> PyResult<Option<i32>> {
        let state = self.state.lock();
        if state.exit_code.is_some() {
            return Ok(state.exit_code);
        }
        let Some(watch) = state.watch.clone() else { return Ok(None) };
        let pid = state.pid;
        drop(state);
        let what = What::new(Kind::Process, u64::from(pid.unwrap_or_default().unsigned_abs()), 0);
        let outcome = block::until_for(py, what, deadline, |until| watch.outcome(until))?;
        let mut state = self.state.lock();
        if let (None, Some(Outcome::Exited(code))) = (state.exit_code, outcome) {
            state.exit_code = Some(code);
        }
        Ok(state.exit_code)
    }
}

/// Fork a child for each of `processes`, seen by the one of `children` at its place, one right after the other; False, and
/// nothing done, where somebody has replaced a step on the way of one of them. When a fork fails, those before it run.
///
/// What this process touches between two forks it has to copy twice: all that can be is done before the first or after
/// the last. `daemon` and `held` are those of `Child._fork`.
#[pyfunction]
#[allow(clippy::needless_pass_by_value)] // what Python passes
pub(crate) fn fork_together(
    children: Vec<Bound<'_, Child>>,
    processes: Vec<Bound<'_, PyAny>>,
    daemon: bool,
    held: bool,
) -> PyResult<bool> {
    let mut lifeline = None;
    for child in children.iter().filter(|_| daemon) {
        lifeline = Some(child.get().hang(child.py())?);
    }
    let mut ready = Vec::with_capacity(processes.len());
    for process in &processes {
        let Some(forked) = Forked::prepare(process, lifeline, held)? else { return Ok(false) };
        ready.push(forked);
    }
    let mut started = Vec::with_capacity(ready.len());
    let mut failed = None;
    for forked in &ready {
        match fork(forked) {
            Ok(child) => started.push(child),
            Err(error) => {
                failed = Some(error);
                break;
            }
        }
    }
    for (child, (pid, watch)) in children.iter().zip(started) {
        child.get().adopt(pid, watch);
    }
    failed.map_or(Ok(true), Err)
}

/// Forks one.
fn fork(forked: &Forked<'_>) -> PyResult<(i32, Watch)> {
    // Opened before the fork, so that no other process can have got the number of a parent that is gone already; here
    // its place is then taken by the child's. So there is one, but for what other threads open.
    let sentinel = child::open_self().map_err(Failure::from)?;
    let pid = forked.fork(sentinel.as_raw_fd())?;
    drop(sentinel);
    arena::forked(pid.unsigned_abs());
    match Watch::child(pid) {
        Ok(watch) => Ok((pid, watch)),
        Err(error) => {
            child::kill_unwatched(pid);
            Err(Failure::from(error).into())
        }
    }
}

/// What is waited for while the fork server has not answered.
const SERVER: What = What::new(Kind::ForkServer, 0, 0);

/// The lifeline of this process while a child hangs on it.
static LIFELINE: Mutex<Weak<Lifeline>> = Mutex::new(Weak::new());

/// The hook that lets go of it in forks, registered with the first.
static FORGETTING: PyOnceLock<()> = PyOnceLock::new();

fn shared_lifeline(py: Python<'_>) -> PyResult<Arc<Lifeline>> {
    FORGETTING.get_or_try_init(py, || {
        let hooks = PyDict::new(py);
        hooks.set_item("after_in_child", wrap_pyfunction!(forget_lifeline, py)?)?;
        py.import("os")?.call_method("register_at_fork", (), Some(&hooks)).map(drop)
    })?;
    let mut shared = LIFELINE.lock();
    if let Some(line) = shared.upgrade() {
        return Ok(line);
    }
    let line = Arc::new(Lifeline::new().map_err(Failure::from)?);
    *shared = Arc::downgrade(&line);
    Ok(line)
}

/// Let go of the parent's lifeline after a fork: the children that hang on it are not this process's.
#[pyfunction]
fn forget_lifeline() {
    if let Some(line) = core::mem::take(&mut *LIFELINE.lock()).upgrade() {
        line.cut();
    }
}

/// Die with the process whose lifeline's read end this is. The descriptor may be closed afterwards.
#[pyfunction]
pub(crate) fn tie_to_lifeline(descriptor: RawFd) -> PyResult<()> {
    let own = lifeline::tie(borrowed(descriptor)?).map_err(Failure::from)?;
    // Stays open until this process ends or executes another program.
    let _ = own.into_raw_fd();
    Ok(())
}

/// Open a process descriptor of this process, for a child that wants to know when it ends.
#[pyfunction]
pub(crate) fn open_self() -> PyResult<RawFd> {
    Ok(child::open_self().map_err(Failure::from)?.into_raw_fd())
}

/// Return two connected message sockets: the fork server's end and its clients'.
#[pyfunction]
pub(crate) fn message_pair() -> PyResult<(RawFd, RawFd)> {
    let (server, clients) = seqpacket::pair().map_err(Failure::from)?;
    Ok((server.into_raw_fd(), clients.into_raw_fd()))
}

/// Return a descriptor to read `payload` from.
#[pyfunction]
pub(crate) fn payload_file(payload: &[u8]) -> PyResult<RawFd> {
    Ok(client::file_of(payload).map_err(Failure::from)?.into_raw_fd())
}

/// Make the threads that this process starts from now on allocate from the arena that it has.
#[pyfunction]
pub(crate) fn share_one_arena() {
    anonymous::share_one_arena();
}

/// Whether anybody has the other end of a pipe open to read what is written to `pipe`.
#[pyfunction]
pub(crate) fn has_reader(pipe: RawFd) -> PyResult<bool> {
    Ok(descriptor::has_reader(borrowed(pipe)?).map_err(Failure::from)?)
}

/// Announce to who asked for this child of the fork server that it is about to end with `code`.
#[pyfunction]
pub(crate) fn announce(status: RawFd, code: i32) -> PyResult<()> {
    client::announce(borrowed(status)?, code);
    Ok(())
}

/// Ask the fork server at the other end of `control` for a child; None when there is no server.
///
/// Returns what to read its pid and exit code from, and what to write its payload to.
#[pyfunction]
pub(crate) fn request_process(
    py: Python<'_>,
    control: RawFd,
    tracker: RawFd,
    inherited: Vec<RawFd>,
) -> PyResult<Option<(RawFd, RawFd)>> {
    let (payload, to_payload) = descriptor::pipe().map_err(Failure::from)?;
    let order = Order {
        control: borrowed(control)?,
        tracker: borrowed(tracker)?,
        lifeline: None,
        inherited: inherited.into_iter().map(borrowed).collect::<PyResult<_>>()?,
        payload: Source::File(payload.as_fd()),
    };
    let mut asking = Asking::new(order).map_err(Failure::from)?;
    if !sent(py, &mut asking)? {
        return Ok(None);
    }
    Ok(Some((asking.into_status().into_raw_fd(), to_payload.into_raw_fd())))
}

/// Sends a request. `false`: there is no server.
fn sent(py: Python<'_>, asking: &mut Asking<'_>) -> PyResult<bool> {
    let outcome = block::until_for(py, SERVER, Deadline::NEVER, |until| match asking.send(until) {
        Err(error) if *error.kind() == Failed::EndOfStream => Ok(Some(false)),
        other => Ok(other?.map(|()| true)),
    })?;
    Ok(outcome == Some(true))
}

pub(crate) fn borrowed<'a>(descriptor: RawFd) -> PyResult<BorrowedFd<'a>> {
    if descriptor < 0 {
        return Err(PyValueError::new_err(format!("{descriptor} is no file descriptor")));
    }
    // SAFETY: not -1, and kept open by the caller (see the head of this file).
    Ok(unsafe { BorrowedFd::borrow_raw(descriptor) })
}
