//! The words that owner and workers share. Both sides reach them through a `Board`.
//!
//! | word     | who changes it                  | what is left if that process dies in between                         |
//! |----------|---------------------------------|----------------------------------------------------------------------|
//! | closing  | owner                           | the workers leave                                                    |
//! | bell     | owner                           |                                                                      |
//! | sleepers | workers set, owner clears       | set for a dead sleeper: one wake too many                            |
//! | spinner  | a worker, 0 to itself and back  | the dead worker's number: the owner clears it when it buries it      |
//! | head     | workers, each past a taken task | behind: the next worker moves it on                                  |
//! | tail     | owner                           |                                                                      |
//! | done     | workers push, owner takes all   | a finished slot that was not pushed: the owner finds it when burying |
//! | waiting  | owner sets, a worker clears     | cleared, event not raised: the owner learns of the death and looks   |
//! | report   | the first worker that fails     | being written for ever: there is no report                           |
//! | calls    | workers set, owner clears       | set for a dead worker: one look too many                             |
//! | record   | its worker, `Vacant` by owner   | names the dead process: that is how the owner finds it               |
//!
//! Workers sleep on `bell`, which is rung for tasks, and nap on `closing`, which nobody rings for them.
//!
//! # Safety
//! `own` makes a slice of shared memory. Its callers hold what they read: a worker the payload of the task it has started,
//! the owner a result it has collected; nobody else writes there until they are done with it.
#![allow(unsafe_code)]

use core::ptr::NonNull;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use super::layout::{
    BELL_AT, CALLS_AT, CLOSING_AT, Closing, DONE_AT, HEAD_AT, Layout, MAGIC, MAGIC_AT, OWNER_AT, RECORD_PID,
    RECORD_STAGE, RECORDS_COUNT_AT, REPORT, REPORT_LEN_AT, REPORT_STATE_AT, RESERVES, SLEEPERS_AT, SLOT_NEXT,
    SLOT_STATE, SPINNER_AT, Stage, TAIL_AT, VERSION, VERSION_AT, WAITING_AT,
};
use crate::atomic::{AtomicU32, AtomicU64, Ordering, fence, in_order};
use crate::error::{Error, Result};
use crate::shm::region::Region;
use crate::sys::process::Identity;
use crate::sys::{descriptor, futex, memory};

/// A pool's region, mapped, and the two events that tell its owner to look at it.
#[derive(Debug)]
pub struct Board {
    pub(super) region: Region,
    pub(super) layout: Layout,
    event: OwnedFd,
    attention: OwnedFd,
}

impl Board {
    /// A new board for up to `records` workers at one time, owned by this process.
    pub fn create(records: u32, initial_slots: u32) -> Result<Self> {
        let layout = Layout::new(records);
        let initial = layout.slot(initial_slots);
        let mut outcome = Err(Error::invalid("create a pool", "no address space"));
        for reserve in RESERVES {
            outcome = Region::create("rsmp-pool", reserve, initial);
            if outcome.is_ok() {
                break;
            }
        }
        let region = outcome?;
        region.word32(RECORDS_COUNT_AT).store(records, Ordering::Relaxed);
        region.word64(OWNER_AT).store(Identity::current().to_word(), Ordering::Relaxed);
        region.word64(VERSION_AT).store(VERSION, Ordering::Relaxed);
        region.word64(MAGIC_AT).store(MAGIC, Ordering::Release);
        Ok(Self { region, layout, event: descriptor::event()?, attention: descriptor::event()? })
    }

    /// The board behind descriptors received from its owner.
    pub fn attach(file: OwnedFd, event: OwnedFd, attention: OwnedFd, reserve: usize) -> Result<Self> {
        let op = "attach to a pool";
        if memory::size(&file)? < Layout::new(0).queue as u64 {
            return Err(Error::corrupt(op, "its memory is too short"));
        }
        let region = Region::attach(file, reserve)?;
        if region.word64(MAGIC_AT).load(Ordering::Acquire) != MAGIC
            || region.word64(VERSION_AT).load(Ordering::Relaxed) != VERSION
        {
            return Err(Error::corrupt(op, "this is no pool of this version"));
        }
        let layout = Layout::new(region.word32(RECORDS_COUNT_AT).load(Ordering::Relaxed));
        if layout.heap > reserve {
            return Err(Error::corrupt(op, "its sizes make no sense"));
        }
        Ok(Self { region, layout, event, attention })
    }

    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.region.file()
    }

    /// Readable when as many tasks have finished as `ask` said.
    #[must_use]
    pub fn event(&self) -> BorrowedFd<'_> {
        self.event.as_fd()
    }

    /// Readable when the owner should look and nobody waits for the event.
    #[must_use]
    pub fn attention(&self) -> BorrowedFd<'_> {
        self.attention.as_fd()
    }

    /// Bytes of address space, to be given to `attach`.
    #[must_use]
    pub fn reserve(&self) -> usize {
        self.region.len()
    }

    #[must_use]
    pub fn owner(&self) -> Option<Identity> {
        Identity::from_word(self.region.word64(OWNER_AT).load(Ordering::Relaxed))
    }

    /// Tasks that no worker has taken.
    #[must_use]
    pub fn untaken(&self) -> u64 {
        let head = self.head().load(Ordering::SeqCst);
        self.tail().load(Ordering::SeqCst).saturating_sub(head)
    }

    #[must_use]
    pub fn closing(&self) -> Closing {
        match self.closing_word().load(Ordering::Acquire) {
            0 => Closing::Open,
            1 => Closing::Finish,
            _ => Closing::Leave,
        }
    }

    /// Tells the workers to leave.
    pub fn close(&self, how: Closing) {
        self.closing_word().fetch_max(how as u32, Ordering::SeqCst);
        self.ring_all();
    }

    /// Wakes up to `count` sleeping workers for tasks just published.
    pub fn ring(&self, count: u32) {
        fence(Ordering::SeqCst);
        if self.spinner().load(Ordering::SeqCst) != 0 && self.untaken() <= 1 {
            // The worker that watches the tail takes it, or looks once more before it sleeps.
            return;
        }
        if self.sleepers().load(Ordering::SeqCst) == 0 {
            return;
        }
        self.sleepers().store(0, Ordering::SeqCst);
        self.bell().fetch_add(1, Ordering::SeqCst);
        if futex::wake(self.bell(), count) >= count as usize {
            // There may be more. Set once too often, it costs one call of the kernel.
            self.sleepers().store(1, Ordering::SeqCst);
        }
    }

    /// Wakes every worker.
    pub fn ring_all(&self) {
        self.bell().fetch_add(1, Ordering::SeqCst);
        futex::wake_all(self.bell());
    }

    /// How many finished slots are on the stack.
    #[must_use]
    pub fn finished(&self) -> u32 {
        (self.done().load(Ordering::SeqCst) >> 32) as u32
    }

    /// Whether there is anything to collect.
    #[must_use]
    pub fn has_news(&self) -> bool {
        self.done().load(Ordering::SeqCst) != 0 || self.calls().load(Ordering::Relaxed) != 0
    }

    /// Pushes a slot on the stack of finished ones; returns its depth now.
    pub(super) fn push_done(&self, slot: u32) -> u32 {
        let next = self.region.word32(self.layout.slot(slot) + SLOT_NEXT);
        let mut old = self.done().load(Ordering::Relaxed);
        loop {
            next.store(old as u32, Ordering::Relaxed);
            let depth = (old >> 32) + 1;
            let new = depth << 32 | (u64::from(slot) + 1);
            match self.done().compare_exchange_weak(old, new, Ordering::SeqCst, Ordering::Relaxed) {
                Ok(_) => return depth as u32,
                Err(now) => old = now,
            }
        }
    }

    /// Raises the event if the owner waits for a stack of `depth`.
    pub(super) fn tell_owner(&self, depth: u32) -> Result<()> {
        in_order();
        let wanted = self.waiting().load(Ordering::SeqCst);
        if wanted != 0 && depth >= wanted && self.waiting().swap(0, Ordering::SeqCst) != 0 {
            descriptor::raise_event(&self.event)?;
        }
        Ok(())
    }

    /// Makes the owner look, whatever it waits for.
    pub(super) fn call_owner(&self) -> Result<()> {
        self.calls().store(1, Ordering::SeqCst);
        let waits = self.waiting().swap(0, Ordering::SeqCst) != 0;
        descriptor::raise_event(if waits { &self.event } else { &self.attention })
    }

    /// Wakes the thread of the owner that waits for the event.
    pub fn kick(&self) -> Result<()> {
        descriptor::raise_event(&self.event)
    }

    /// Asks for the event at a stack of `depth` slots. `false`: it is that deep already, or a worker asks for room.
    #[must_use]
    pub fn ask(&self, depth: u32) -> bool {
        self.waiting().store(depth.max(1), Ordering::SeqCst);
        in_order();
        if self.finished() >= depth.max(1) || self.calls().load(Ordering::SeqCst) != 0 {
            self.waiting().store(0, Ordering::SeqCst);
            return false;
        }
        true
    }

    /// Takes the request of `ask` back.
    pub fn ask_no_more(&self) {
        if self.waiting().load(Ordering::Relaxed) != 0 {
            self.waiting().store(0, Ordering::SeqCst);
        }
    }

    /// Wakes the thread of the owner that waits for attention.
    pub fn call_supervisor(&self) -> Result<()> {
        descriptor::raise_event(&self.attention)
    }

    pub fn clear_event(&self) -> Result<()> {
        descriptor::clear_event(&self.event)
    }

    pub fn clear_attention(&self) -> Result<()> {
        descriptor::clear_event(&self.attention)
    }

    /// The worker's process and how far it has come.
    #[must_use]
    pub fn record(&self, worker: u32) -> (u32, Stage) {
        let stage = Stage::from_word(self.stage_word(worker).load(Ordering::Acquire));
        (self.pid_word(worker).load(Ordering::Acquire), stage)
    }

    /// How many workers take tasks.
    #[must_use]
    pub fn serving(&self) -> usize {
        (0..self.layout.records).filter(|&worker| self.record(worker).1 == Stage::Serving).count()
    }

    /// Why the initializer failed, if a worker has left word.
    #[must_use]
    pub fn report(&self) -> Option<String> {
        if self.region.word32(REPORT_STATE_AT).load(Ordering::Acquire) != 2 {
            return None;
        }
        let len = self.region.word32(REPORT_LEN_AT).load(Ordering::Relaxed) as usize;
        let mut text = vec![0; len.min(REPORT)];
        self.region.copy_out(self.layout.report, &mut text);
        Some(String::from_utf8_lossy(&text).into_owned())
    }

    /// The worker that is process `pid`.
    #[must_use]
    pub fn find(&self, pid: u32) -> Option<u32> {
        (0..self.layout.records).find(|&worker| self.pid_word(worker).load(Ordering::Acquire) == pid)
    }

    pub(super) fn pid_word(&self, worker: u32) -> &AtomicU32 {
        self.region.word32(self.layout.record(worker) + RECORD_PID)
    }

    pub(super) fn stage_word(&self, worker: u32) -> &AtomicU32 {
        self.region.word32(self.layout.record(worker) + RECORD_STAGE)
    }

    pub(super) fn state(&self, slot: u32) -> &AtomicU64 {
        self.region.word64(self.layout.slot(slot) + SLOT_STATE)
    }

    pub(super) fn entry(&self, sequence: u64) -> &AtomicU64 {
        self.region.word64(self.layout.entry(sequence))
    }

    pub(super) fn bell(&self) -> &AtomicU32 {
        self.region.word32(BELL_AT)
    }

    pub(super) fn closing_word(&self) -> &AtomicU32 {
        self.region.word32(CLOSING_AT)
    }

    pub(super) fn sleepers(&self) -> &AtomicU32 {
        self.region.word32(SLEEPERS_AT)
    }

    pub(super) fn spinner(&self) -> &AtomicU32 {
        self.region.word32(SPINNER_AT)
    }

    pub(super) fn head(&self) -> &AtomicU64 {
        self.region.word64(HEAD_AT)
    }

    pub(super) fn tail(&self) -> &AtomicU64 {
        self.region.word64(TAIL_AT)
    }

    pub(super) fn done(&self) -> &AtomicU64 {
        self.region.word64(DONE_AT)
    }

    pub(super) fn calls(&self) -> &AtomicU32 {
        self.region.word32(CALLS_AT)
    }

    pub(super) fn waiting(&self) -> &AtomicU32 {
        self.region.word32(WAITING_AT)
    }

    /// The bytes of `[place, place + len)`, which are the caller's; a range that is not in the region is an error.
    pub(super) fn own(&self, place: u64, len: u64) -> Result<&[u8]> {
        let (place, len) = self.check(place, len)?;
        let address = NonNull::new(self.region.pointer(place, len))
            .ok_or_else(|| Error::corrupt("reach a task's memory", "it is not mapped"))?;
        // SAFETY: in bounds, mapped as long as `self`; that nobody writes there, the caller answers for.
        Ok(unsafe { memory::own_bytes(address, len) })
    }

    /// Copies `parts` to `place`, one behind the other.
    pub(super) fn copy_in(&self, place: u64, parts: &[&[u8]]) -> Result<()> {
        let (mut place, _) = self.check(place, total(parts))?;
        for part in parts {
            self.region.copy_in(place, part);
            place += part.len();
        }
        Ok(())
    }

    fn check(&self, place: u64, len: u64) -> Result<(usize, usize)> {
        let limit = self.region.len() as u64;
        if place > limit || len > limit - place {
            return Err(Error::corrupt("reach a task's memory", format!("{place}+{len} is outside the pool")));
        }
        Ok((place as usize, len as usize))
    }
}

/// The length of all parts together.
#[must_use]
pub fn total(parts: &[&[u8]]) -> u64 {
    parts.iter().map(|part| part.len() as u64).sum()
}
