//! One process's view of a queue: encode, put, wait; take, decode. Shared by the queue classes and their two ends.

use core::cell::Cell;
use core::time::Duration;
use std::os::fd::{AsRawFd, RawFd};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;
use pyo3::exceptions::PyOSError;
use pyo3::prelude::*;
use pyo3::types::PyBytes;
use rsmp_core::ring::{Batch, Limits, Parcel, Put, Record, Ring, Taken};
use rsmp_core::shm::waits::{Kind, What};
use rsmp_core::sys::{foreign, memory, process};
use rsmp_core::{Deadline, clock, warm};

use crate::block;
use crate::error::Failure;
use crate::message::{self, Encoded};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

/// After so long without anything to get, a waiting consumer gives the queue's spare memory back.
const REST: Duration = Duration::from_millis(400);

/// The queues this process has open, by the identity of their memory: a queue that arrives twice in one start of a
/// process comes with the same descriptor.
static OPEN: Mutex<Vec<(u64, Weak<Ring>)>> = Mutex::new(Vec::new());

thread_local! {
    static BATCH: Cell<Option<Batch>> = const { Cell::new(None) };
}

#[derive(Debug)]
pub(crate) struct Channel {
    ring: Arc<Ring>,
    /// What tells the queue's memory from all other, once it is asked for.
    identity: OnceLock<u64>,
    /// The process that closed the queue; a forked child of it starts with an open one.
    closed_by: AtomicU32,
    /// Whether anything was put here, which is what makes closing also close the two ends.
    was_used: AtomicBool,
    pub(crate) reader_closed: AtomicBool,
    pub(crate) writer_closed: AtomicBool,
}

impl Channel {
    pub(crate) fn create(limits: Limits) -> PyResult<Self> {
        Ok(Self::over(Ring::create(limits).map_err(Failure::from)?))
    }

    /// Opens the queue behind two descriptors received from another process; they are the queue's from now on.
    pub(crate) fn open(file: RawFd, event: RawFd) -> PyResult<Self> {
        let identity = foreign::borrow(file).and_then(memory::identity).map_err(Failure::from)?;
        // Not for ever: a fork may have copied the lock while another thread held it.
        let mut open = OPEN.try_lock_for(Duration::from_secs(1));
        let known = open.as_mut().and_then(|open| {
            open.retain(|(_, ring)| ring.strong_count() > 0);
            open.iter().find(|(known, _)| *known == identity).and_then(|(_, ring)| ring.upgrade())
        });
        if let Some(ring) = known {
            if ring.file().as_raw_fd() != file {
                foreign::close(file).map_err(Failure::from)?;
                foreign::close(event).map_err(Failure::from)?;
            }
            return Ok(Self::over(ring));
        }
        let ring =
            foreign::adopt(file).and_then(|file| Ring::attach(file, foreign::adopt(event)?)).map_err(Failure::from)?;
        if let Some(open) = open.as_mut() {
            open.push((identity, Arc::downgrade(&ring)));
        }
        Ok(Self::over(ring))
    }

    fn over(ring: Arc<Ring>) -> Self {
        Self {
            ring,
            identity: OnceLock::new(),
            closed_by: AtomicU32::new(0),
            was_used: AtomicBool::new(false),
            reader_closed: AtomicBool::new(false),
            writer_closed: AtomicBool::new(false),
        }
    }

    /// How a thread says that it waits for this queue.
    pub(crate) fn waited_for(&self, kind: Kind) -> What {
        let identity = || memory::identity(self.ring.file()).unwrap_or(0);
        What::new(kind, *self.identity.get_or_init(identity), 0)
    }

    pub(crate) fn ring(&self) -> &Arc<Ring> {
        &self.ring
    }

    #[inline]
    pub(crate) fn is_closed(&self) -> bool {
        let closed_by = self.closed_by.load(Ordering::Relaxed);
        closed_by != 0 && closed_by == process::pid()
    }

    pub(crate) fn set_closed(&self, closed: bool) {
        self.closed_by.store(if closed { process::pid() } else { 0 }, Ordering::Relaxed);
    }

    /// As `Queue.close`: the ends of a queue that was put to here are closed, too.
    pub(crate) fn close(&self) {
        self.set_closed(true);
        if self.was_used.load(Ordering::Relaxed) {
            self.reader_closed.store(true, Ordering::Relaxed);
            self.writer_closed.store(true, Ordering::Relaxed);
        }
    }

    pub(crate) fn check_reader(&self) -> PyResult<()> {
        check(&self.reader_closed)
    }

    pub(crate) fn check_writer(&self) -> PyResult<()> {
        check(&self.writer_closed)
    }

    /// Puts an encoded object; `false` when the deadline passed.
    pub(crate) fn put(&self, py: Python<'_>, encoded: &Encoded<'_>, deadline: Deadline) -> PyResult<bool> {
        self.put_parts(py, encoded.tag(), encoded.parts().as_slice(), deadline)
    }

    pub(crate) fn put_parts(&self, py: Python<'_>, tag: u8, parts: &[&[u8]], deadline: Deadline) -> PyResult<bool> {
        let ring = &*self.ring;
        let is_long = parts.len() > 1 || parts[0].len() > message::LONG;
        let parcel = if is_long { block::aside(py, || ring.parcel(tag, parts)) } else { ring.parcel(tag, parts) };
        let parcel = parcel.map_err(Failure::from)?;
        Ok(self.put_parcels(py, core::slice::from_ref(&parcel), deadline)? > 0)
    }

    /// Puts the parcels in order; returns how many were put before the deadline passed.
    fn put_parcels(&self, py: Python<'_>, parcels: &[Parcel<'_>], deadline: Deadline) -> PyResult<usize> {
        if !self.was_used.load(Ordering::Relaxed) {
            self.was_used.store(true, Ordering::Relaxed);
        }
        let mut done = 0;
        while done < parcels.len() {
            let rest = &parcels[done..];
            let put = match self.ring.try_put(rest).map_err(Failure::from)? {
                Put::Done(count) => Some(count),
                Put::Full if deadline == Deadline::PASSED => None,
                Put::Full | Put::Busy => block::until_for(py, self.waited_for(Kind::QueuePut), deadline, |until| {
                    let count = self.ring.put(rest, until)?;
                    Ok((count > 0).then_some(count))
                })?,
            };
            match put {
                Some(count) => done += count,
                None => break,
            }
        }
        if self.ring.is_pause_due() && deadline != Deadline::PASSED {
            block::aside(py, || self.ring.pause());
        }
        Ok(done)
    }

    /// Puts encoded objects in order; returns how many were put before the deadline passed.
    pub(crate) fn put_many(&self, py: Python<'_>, encoded: &[Encoded<'_>], deadline: Deadline) -> PyResult<usize> {
        let parts: Vec<_> = encoded.iter().map(Encoded::parts).collect();
        let parcels = encoded.iter().zip(&parts);
        let parcels = parcels.map(|(encoded, parts)| self.ring.parcel(encoded.tag(), parts.as_slice()));
        let parcels = parcels.collect::<rsmp_core::Result<Vec<_>>>().map_err(Failure::from)?;
        self.put_parcels(py, &parcels, deadline)
    }

    /// Takes an object; `None` when the deadline passed.
    pub(crate) fn get<'py>(&self, py: Python<'py>, deadline: Deadline) -> PyResult<Option<Bound<'py, PyAny>>> {
        let taken = self.take(py, 1, deadline, |batch| {
            let (mut records, bytes) = batch.drain();
            records.next().map(|record| decode(py, record, bytes)).transpose()
        })?;
        Ok(taken.flatten())
    }

    /// Takes one to `max` objects, none when the deadline passed.
    pub(crate) fn get_many<'py>(
        &self,
        py: Python<'py>,
        max: usize,
        deadline: Deadline,
    ) -> PyResult<Vec<Bound<'py, PyAny>>> {
        let taken = self.take(py, max, deadline, |batch| {
            let (records, bytes) = batch.drain();
            records.map(|record| decode(py, record, bytes)).collect::<PyResult<Vec<_>>>()
        })?;
        Ok(taken.unwrap_or_default())
    }

    /// Takes a message as the pickle that the standard library would have sent.
    pub(crate) fn get_pickle<'py>(&self, py: Python<'py>) -> PyResult<Bound<'py, PyBytes>> {
        let pickle = self.take(py, 1, Deadline::NEVER, |batch| {
            let (tag, payload) = batch.get(0);
            message::as_pickle(py, tag, payload)
        })?;
        pickle.ok_or_else(|| PyOSError::new_err("nothing was received"))
    }

    fn take<T>(
        &self,
        py: Python<'_>,
        max: usize,
        deadline: Deadline,
        convert: impl FnOnce(&mut Batch) -> PyResult<T>,
    ) -> PyResult<Option<T>> {
        let mut batch = BATCH.take().unwrap_or_default();
        let taken = match self.ring.try_get(&mut batch, max).map_err(Failure::from)? {
            Taken::Done(_) => true,
            Taken::Empty if deadline == Deadline::PASSED => false,
            Taken::Empty | Taken::Busy => self.wait_and_take(py, max, deadline, &mut batch)?,
        };
        // What was taken is gone from the queue: an object that cannot be made is an error, not a message to come.
        let outcome = if taken { convert(&mut batch).map(Some) } else { Ok(None) };
        batch.clear();
        BATCH.set(Some(batch));
        outcome
    }

    fn wait_and_take(&self, py: Python<'_>, max: usize, deadline: Deadline, batch: &mut Batch) -> PyResult<bool> {
        let taken = block::until_for(py, self.waited_for(Kind::QueueGet), deadline, |until| {
            let started = clock::now();
            let count = self.ring.get(batch, max, until)?;
            if count == 0 && clock::now() - started > REST.as_nanos() as u64 {
                self.ring.rest()?;
                warm::release();
            }
            Ok((count > 0).then_some(()))
        })?;
        Ok(taken.is_some())
    }

    /// Whether there is something to get, waiting for it at most to the deadline.
    pub(crate) fn poll(&self, py: Python<'_>, deadline: Deadline) -> PyResult<bool> {
        let found = || Ok((!self.ring.is_empty()).then_some(()));
        if found().map_err(Failure::from)?.is_some() {
            return Ok(true);
        }
        self.ring.settle().map_err(Failure::from)?;
        let found = block::until_for(py, self.waited_for(Kind::QueueGet), deadline, |until| {
            self.ring.wait(until);
            found()
        })?;
        Ok(found.is_some())
    }
}

fn decode<'py>(py: Python<'py>, record: Record, bytes: &[u8]) -> PyResult<Bound<'py, PyAny>> {
    match record {
        Record::Inline { tag, start, len } => message::decode(py, tag, &bytes[start..start + len]),
        Record::Slab { tag, lease } => message::decode_lease(py, tag, &lease),
    }
}

fn check(closed: &AtomicBool) -> PyResult<()> {
    if closed.load(Ordering::Relaxed) { Err(PyOSError::new_err("handle is closed")) } else { Ok(()) }
}
