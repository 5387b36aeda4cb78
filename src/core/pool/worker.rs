//! The worker's side: a record, claims, results.

use core::time::Duration;
use std::sync::Arc;

use super::board::{self, Board};
use super::layout::{
    Closing, INLINE, Kind, REPORT, REPORT_LEN_AT, REPORT_STATE_AT, SEQUENCE_MASK, SLOT_CAPACITY, SLOT_FUNCTION,
    SLOT_FUNCTION_ID, SLOT_INLINE, SLOT_KIND, SLOT_LEN, SLOT_OUTCOME, SLOT_PLACE, Stage, State,
};
use crate::atomic::{Ordering, in_order};
use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::sync::spin::Spin;
use crate::sys::futex::{self, Woken};
use crate::sys::process::Identity;

/// Some times what waking a sleeper costs.
const NAP: Duration = Duration::from_micros(100);

/// A process that takes tasks from a board.
#[derive(Debug)]
pub struct Worker {
    board: Arc<Board>,
    number: u32,
    spin: Spin,
}

/// What there is to do.
#[derive(Debug, PartialEq, Eq)]
pub enum Next {
    Task(Claim),
    Leave,
}

/// A task in this worker's hands.
#[derive(Debug, PartialEq, Eq)]
pub struct Claim {
    slot: u32,
    sequence: u64,
    /// What to do with the payload.
    pub kind: u32,
    /// Where the function is and its number, when it is not in the payload.
    pub function: Option<(u64, u64)>,
}

/// What came of watching for tasks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Watched {
    Something,
    Nothing,
    /// Another worker watches.
    Another,
}

impl Worker {
    /// About what waking a sleeper costs.
    pub const WAKE: Duration = Duration::from_micros(20);

    /// Takes a vacant record for process `pid`.
    pub fn enter(board: Arc<Board>, pid: u32) -> Result<Self> {
        for number in 0..board.layout.records {
            if board.pid_word(number).compare_exchange(0, pid, Ordering::AcqRel, Ordering::Relaxed).is_ok() {
                board.stage_word(number).store(Stage::Entered as u32, Ordering::Release);
                return Ok(Self { board, number, spin: Spin::default() });
            }
        }
        Err(Error::invalid("enter a pool", "it has no room for one more worker"))
    }

    #[must_use]
    pub fn board(&self) -> &Board {
        &self.board
    }

    /// Says how far this worker has come.
    pub fn advance(&self, stage: Stage) {
        self.board.stage_word(self.number).store(stage as u32, Ordering::Release);
    }

    /// Leaves word of why the initializer failed, unless another worker has; the end of a long text.
    pub fn report(&self, text: &str) -> Result<()> {
        let (region, layout) = (&self.board.region, &self.board.layout);
        self.advance(Stage::Failed);
        let state = region.word32(REPORT_STATE_AT);
        if state.compare_exchange(0, 1, Ordering::AcqRel, Ordering::Relaxed).is_err() {
            return Ok(());
        }
        region.allocate(layout.report, REPORT)?;
        let mut start = text.len().saturating_sub(REPORT);
        while !text.is_char_boundary(start) {
            start += 1;
        }
        let text = &text.as_bytes()[start..];
        region.copy_in(layout.report, text);
        region.word32(REPORT_LEN_AT).store(text.len() as u32, Ordering::Relaxed);
        state.store(2, Ordering::Release);
        Ok(())
    }

    /// Takes the oldest task that nobody has; never waits.
    #[must_use]
    pub fn claim(&self) -> Option<Next> {
        let board = &*self.board;
        loop {
            if board.closing() == Closing::Leave {
                return Some(Next::Leave);
            }
            let head = board.head().load(Ordering::SeqCst);
            if head >= board.tail().load(Ordering::SeqCst) {
                if board.closing() == Closing::Finish {
                    return Some(Next::Leave);
                }
                return None;
            }
            let slot = board.entry(head).load(Ordering::Acquire) as u32;
            let state = board.state(slot);
            let ready = State::new(head, 0, Kind::Ready);
            let taken = State::new(head, self.number, Kind::Taken);
            let won = state.compare_exchange(ready.0, taken.0, Ordering::SeqCst, Ordering::Relaxed).is_ok();
            // Whoever has it, the next task is behind it. Fails when another worker has moved on already.
            let _ = board.head().compare_exchange(head, head + 1, Ordering::SeqCst, Ordering::Relaxed);
            if won {
                return Some(Next::Task(self.read_claim(slot, head)));
            }
        }
    }

    /// Watches for something to claim for a moment, unless another worker does.
    pub fn watch(&self) -> Watched {
        let board = &*self.board;
        let me = self.number + 1;
        if board.spinner().compare_exchange(0, me, Ordering::SeqCst, Ordering::Relaxed).is_err() {
            return Watched::Another;
        }
        let found = self
            .spin
            .until(Deadline::NEVER, || (board.untaken() > 0 || board.closing() != Closing::Open).then_some(()));
        board.spinner().store(0, Ordering::SeqCst);
        if found.is_some() { Watched::Something } else { Watched::Nothing }
    }

    /// Waits until there may be something to claim, until `deadline` at the most.
    #[must_use]
    pub fn wait(&self, deadline: Deadline) -> Woken {
        let board = &*self.board;
        // Before the flag: should the owner take that down for another task, the bell is no longer what it was.
        let bell = board.bell().load(Ordering::SeqCst);
        board.sleepers().store(1, Ordering::SeqCst);
        in_order();
        if board.untaken() > 0 || board.closing() != Closing::Open {
            return Woken::Interrupted;
        }
        futex::wait(board.bell(), bell, deadline)
    }

    /// Sleeps for a moment without being woken for new tasks, after having been awake for less than the wake cost
    /// ([`Self::WAKE`]) and while another worker watches: that one keeps up with the owner, and waking this one again and
    /// again would only hold it up.
    pub fn nap(&self) {
        let board = &*self.board;
        if board.untaken() == 0 {
            // Not on the bell, which is rung for tasks.
            futex::wait(board.closing_word(), Closing::Open as u32, Deadline::after(NAP));
        }
    }

    /// Whether the pool's owner has ended.
    #[must_use]
    pub fn owner_is_gone(&self) -> bool {
        !self.board.owner().is_some_and(Identity::is_alive)
    }

    fn read_claim(&self, slot: u32, sequence: u64) -> Claim {
        let at = self.board.layout.slot(slot);
        let region = &self.board.region;
        let function = region.word64(at + SLOT_FUNCTION).load(Ordering::Relaxed);
        let id = region.word64(at + SLOT_FUNCTION_ID).load(Ordering::Relaxed);
        let kind = region.word32(at + SLOT_KIND).load(Ordering::Relaxed);
        Claim { slot, sequence, kind, function: (function != 0).then_some((function, id)) }
    }

    /// Says that the task is being run: from here on it is not given to anybody else. Returns its payload, which stays
    /// as it is until this worker writes a result.
    pub fn start<'a>(&'a self, claim: &'a Claim) -> Result<&'a [u8]> {
        self.step(claim, Kind::Started);
        let at = self.board.layout.slot(claim.slot);
        self.board.own(self.place(claim), self.board.region.word64(at + SLOT_LEN).load(Ordering::Relaxed))
    }

    /// The pickle of the function at `place`, which stays as it is while a task that uses it is unfinished.
    pub fn function(&self, place: u64) -> Result<&[u8]> {
        let mut length = [0; 8];
        length.copy_from_slice(self.board.own(place, 8)?);
        self.board.own(place + 8, u64::from_le_bytes(length))
    }

    /// Bytes of result that the task's place can hold.
    #[must_use]
    pub fn capacity(&self, claim: &Claim) -> u64 {
        let at = self.board.layout.slot(claim.slot);
        match self.board.region.word64(at + SLOT_PLACE).load(Ordering::Relaxed) {
            0 => INLINE as u64,
            _ => self.board.region.word64(at + SLOT_CAPACITY).load(Ordering::Relaxed),
        }
    }

    /// Asks the owner for a place of `len` bytes; `granted` says when it is there.
    pub fn ask_for_room(&self, claim: &Claim, len: u64) -> Result<()> {
        let at = self.board.layout.slot(claim.slot);
        self.board.region.word64(at + SLOT_LEN).store(len, Ordering::Relaxed);
        self.step(claim, Kind::Needs);
        self.board.push_done(claim.slot);
        self.board.call_owner()
    }

    /// Waits for the owner's answer to `ask_for_room` until `deadline`. `None`: not yet. `false`: there is no memory.
    #[must_use]
    pub fn granted(&self, claim: &Claim, deadline: Deadline) -> Option<bool> {
        let needs = State::new(claim.sequence, self.number, Kind::Needs);
        let at = self.board.layout.slot(claim.slot);
        if self.board.state(claim.slot).load(Ordering::Acquire) == needs.0 {
            // The low half of the state word, which holds the kind.
            futex::wait(self.board.region.word32(at), needs.0 as u32, deadline);
        }
        if self.board.state(claim.slot).load(Ordering::Acquire) == needs.0 {
            return None;
        }
        let len = self.board.region.word64(at + SLOT_LEN).load(Ordering::Relaxed);
        Some(self.capacity(claim) >= len)
    }

    /// Writes the result to the task's place. It must fit (`capacity`).
    pub fn write(&self, claim: &Claim, result: &[&[u8]]) -> Result<()> {
        let at = self.board.layout.slot(claim.slot);
        let len = board::total(result);
        if len > self.capacity(claim) {
            return Err(Error::invalid("hand in a result", "it is longer than its place"));
        }
        self.board.copy_in(self.place(claim), result)?;
        self.board.region.word64(at + SLOT_LEN).store(len, Ordering::Relaxed);
        Ok(())
    }

    /// Hands in the result that was written.
    pub fn finish(&self, claim: &Claim, outcome: u32) -> Result<()> {
        let at = self.board.layout.slot(claim.slot);
        let region = &self.board.region;
        region.word32(at + SLOT_OUTCOME).store(outcome, Ordering::Relaxed);
        self.step(claim, Kind::Done);
        let depth = self.board.push_done(claim.slot);
        self.board.tell_owner(depth)
    }

    fn place(&self, claim: &Claim) -> u64 {
        let at = self.board.layout.slot(claim.slot);
        match self.board.region.word64(at + SLOT_PLACE).load(Ordering::Relaxed) {
            0 => (at + SLOT_INLINE) as u64,
            place => place,
        }
    }

    fn step(&self, claim: &Claim, kind: Kind) {
        let state = State::new(claim.sequence & SEQUENCE_MASK, self.number, kind);
        self.board.state(claim.slot).store(state.0, Ordering::SeqCst);
    }
}
