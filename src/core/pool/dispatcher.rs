//! The owner's side: slots and memory, publishing tasks, collecting results, burying workers.
//!
//! Everything here but the board is private to the owner; its threads take turns (the caller locks).

use std::sync::Arc;

use super::blocks::{Block, Blocks, Freed};
use super::board::{Board, total};
use super::layout::{
    INLINE, Kind, QUEUE, SLOT, SLOT_CAPACITY, SLOT_FUNCTION, SLOT_FUNCTION_ID, SLOT_INLINE, SLOT_KIND, SLOT_LEN,
    SLOT_NEXT, SLOT_OUTCOME, SLOT_PLACE, SLOTS, Stage, State,
};
use crate::atomic::Ordering;
use crate::error::{Error, Kind as Failure, Result};
use crate::sys::futex;

/// Slots that are usable from the start; more are made usable in such steps.
const STEP: u32 = 256;

/// New memory of this size is mapped at once: all of it is about to be filled.
const LARGE: usize = 1 << 20;

/// A task to be published, but for its payload.
#[derive(Clone, Copy, Debug)]
pub struct Task {
    /// What to do with the payload; the worker gets it.
    pub kind: u32,
    pub function: Option<Function>,
    /// Bytes of payload.
    pub len: u64,
    /// Bytes of result expected.
    pub room: usize,
}

/// A slot and memory for a task, taken by `reserve`. Its payload is written without holding anybody up.
#[derive(Debug)]
#[must_use = "publish it or give it back"]
pub struct Reserved {
    pub slot: u32,
    place: u64,
    len: u64,
}

impl Reserved {
    /// Writes the payload.
    pub fn write(&self, board: &Board, payload: &[&[u8]]) -> Result<()> {
        if total(payload) != self.len {
            return Err(Error::invalid("write a task", "it is not as long as was said"));
        }
        board.copy_in(self.place, payload)
    }
}

/// A function that many tasks share, stored on the board.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Function {
    block: Block,
    /// Never used for another function.
    pub id: u64,
}

/// A finished task whose result is in the slot until `release`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Collected {
    pub slot: u32,
    pub outcome: u32,
}

/// What a dead worker leaves.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Estate {
    /// How far it had come; nothing if it never entered.
    pub stage: Option<Stage>,
    /// Tasks it was running.
    pub lost: Vec<u32>,
    /// How many it had claimed and not started: they are published again.
    pub again: usize,
}

/// Where a result is. It stays there until its slot is released.
#[derive(Clone, Copy, Debug)]
pub struct Place {
    place: u64,
    pub len: u64,
}

impl Place {
    pub fn bytes(self, board: &Board) -> Result<&[u8]> {
        board.own(self.place, self.len)
    }
}

#[derive(Debug)]
pub struct Dispatcher {
    board: Arc<Board>,
    /// Usable slots that hold nothing, the warmest last.
    free: Vec<u32>,
    usable: u32,
    in_use: u32,
    blocks: Blocks,
    /// The memory of each slot's payload, if it is not in the slot.
    memory: Vec<Option<Block>>,
    functions: u64,
}

impl Dispatcher {
    /// The dispatcher of a new board.
    pub fn create(records: u32) -> Result<Self> {
        let board = Arc::new(Board::create(records, STEP)?);
        let heap = board.layout.heap;
        let limit = board.reserve();
        Ok(Self {
            board,
            free: (0..STEP).rev().collect(),
            usable: STEP,
            in_use: 0,
            blocks: Blocks::new(heap, limit),
            memory: vec![None; STEP as usize],
            functions: 0,
        })
    }

    #[must_use]
    pub fn board(&self) -> &Arc<Board> {
        &self.board
    }

    /// Tasks that are published and not released.
    #[must_use]
    pub fn in_use(&self) -> u32 {
        self.in_use
    }

    /// Whether a task can be published now.
    #[must_use]
    pub fn has_room(&self) -> bool {
        self.in_use < SLOTS && self.queue_has_room()
    }

    /// Whether there are results to collect, and one more task would take memory that none has had yet or find none.
    #[inline]
    #[must_use]
    pub fn should_collect(&self) -> bool {
        self.free.is_empty() && self.board.has_news()
    }

    fn queue_has_room(&self) -> bool {
        // Taken entries that no worker has moved the head past yet count too.
        let tail = self.board.tail().load(Ordering::Relaxed);
        tail - self.board.head().load(Ordering::Acquire) < QUEUE as u64 - 1
    }

    /// Takes a slot and memory for a task; nothing when all slots are taken.
    pub fn reserve(&mut self, task: &Task) -> Result<Option<Reserved>> {
        if !self.queue_has_room() {
            return Ok(None);
        }
        let Some(slot) = self.take_slot()? else { return Ok(None) };
        let room = (task.len as usize).max(task.room);
        let block = if room > INLINE {
            match self.allocate(room) {
                Ok(block) => Some(block),
                Err(error) => {
                    self.free.push(slot);
                    return Err(error);
                }
            }
        } else {
            None
        };
        self.memory[slot as usize] = block;
        self.in_use += 1;
        let at = self.board.layout.slot(slot);
        let region = &self.board.region;
        self.set_place(slot, block);
        region.word32(at + SLOT_KIND).store(task.kind, Ordering::Relaxed);
        region.word64(at + SLOT_LEN).store(task.len, Ordering::Relaxed);
        let (function, id) = task.function.map_or((0, 0), |function| (function.block.place as u64, function.id));
        region.word64(at + SLOT_FUNCTION).store(function, Ordering::Relaxed);
        region.word64(at + SLOT_FUNCTION_ID).store(id, Ordering::Relaxed);
        let place = block.map_or(at + SLOT_INLINE, |block| block.place) as u64;
        Ok(Some(Reserved { slot, place, len: task.len }))
    }

    /// Publishes a task whose payload is written. Wakes nobody (`Board::ring`).
    #[allow(clippy::needless_pass_by_value)] // it is over
    pub fn publish(&self, reserved: Reserved) {
        self.enqueue(reserved.slot);
    }

    /// Bytes of memory that a slot's task holds, if it did not fit into the slot.
    #[must_use]
    pub fn held(&self, slot: u32) -> usize {
        self.memory[slot as usize].map_or(0, |block| block.capacity)
    }

    fn enqueue(&self, slot: u32) {
        let tail = self.board.tail().load(Ordering::Relaxed);
        self.board.state(slot).store(State::new(tail, 0, Kind::Ready).0, Ordering::Release);
        self.board.entry(tail).store(u64::from(slot), Ordering::Release);
        self.board.tail().store(tail + 1, Ordering::SeqCst);
    }

    fn take_slot(&mut self) -> Result<Option<u32>> {
        if let Some(slot) = self.free.pop() {
            return Ok(Some(slot));
        }
        if self.usable == SLOTS {
            return Ok(None);
        }
        let more = STEP.min(SLOTS - self.usable);
        self.board.region.allocate(self.board.layout.slot(self.usable), more as usize * SLOT)?;
        self.free.extend((self.usable..self.usable + more).rev());
        self.usable += more;
        self.memory.resize(self.usable as usize, None);
        Ok(self.free.pop())
    }

    fn allocate(&mut self, len: usize) -> Result<Block> {
        let region = &self.board.region;
        self.blocks
            .allocate(len, |place, len| {
                let usable = region.allocate(place, len).is_ok();
                if usable && len >= LARGE {
                    region.touch(place, len);
                }
                usable
            })
            .ok_or_else(|| Error::new("allocate memory for a task", Failure::OutOfMemory))
    }

    fn give_up(&mut self, block: Block) {
        if let Freed::GiveBack { place, len } = self.blocks.release(block) {
            // Only an optimisation: on failure the pages stay.
            let _ = self.board.region.give_back(place, len);
        }
    }

    fn set_place(&self, slot: u32, block: Option<Block>) {
        let at = self.board.layout.slot(slot);
        let (place, capacity) = block.map_or((0, INLINE), |block| (block.place, block.capacity));
        self.board.region.word64(at + SLOT_PLACE).store(place as u64, Ordering::Relaxed);
        self.board.region.word64(at + SLOT_CAPACITY).store(capacity as u64, Ordering::Relaxed);
    }

    /// Stores a function's pickle for tasks to share, until `drop_function`.
    pub fn store_function(&mut self, pickle: &[u8]) -> Result<Function> {
        let block = self.allocate(8 + pickle.len())?;
        self.board.region.copy_in(block.place, &(pickle.len() as u64).to_le_bytes());
        self.board.region.copy_in(block.place + 8, pickle);
        self.functions += 1;
        Ok(Function { block, id: self.functions })
    }

    /// Forgets a function that no published task uses any more.
    pub fn drop_function(&mut self, function: Function) {
        self.give_up(function.block);
    }

    /// Adds the tasks finished since the last time to `finished`, in the order they finished, and gives workers the
    /// room they asked for.
    pub fn collect(&mut self, finished: &mut Vec<Collected>) {
        let start = finished.len();
        // Before the stack is taken: who calls has pushed.
        self.board.calls().store(0, Ordering::SeqCst);
        let mut link = self.board.done().swap(0, Ordering::SeqCst) as u32;
        let mut steps = 0;
        // A link that leads nowhere could only come from a process that scribbles over the board.
        while link != 0 && link <= self.usable && steps <= self.usable {
            let slot = link - 1;
            link = self.board.region.word32(self.board.layout.slot(slot) + SLOT_NEXT).load(Ordering::Relaxed);
            steps += 1;
            match State(self.board.state(slot).load(Ordering::Acquire)).kind() {
                Some(Kind::Done) => finished.push(self.take_result(slot)),
                Some(Kind::Needs) => self.grant(slot),
                _ => {}
            }
        }
        finished[start..].reverse();
    }

    fn take_result(&self, slot: u32) -> Collected {
        self.board.state(slot).store(0, Ordering::Relaxed);
        let outcome = self.board.region.word32(self.board.layout.slot(slot) + SLOT_OUTCOME).load(Ordering::Relaxed);
        Collected { slot, outcome }
    }

    fn grant(&mut self, slot: u32) {
        let at = self.board.layout.slot(slot);
        let wanted = self.board.region.word64(at + SLOT_LEN).load(Ordering::Relaxed);
        let block = usize::try_from(wanted).ok().and_then(|wanted| self.allocate(wanted).ok());
        if let Some(block) = block {
            if let Some(old) = self.memory[slot as usize].replace(block) {
                self.give_up(old);
            }
            self.set_place(slot, Some(block));
        }
        let state = State(self.board.state(slot).load(Ordering::Acquire));
        self.board.state(slot).store(state.with(Kind::Granted).0, Ordering::Release);
        futex::wake_all(self.board.region.word32(at));
    }

    /// Where a collected result is and how long.
    pub fn result(&self, slot: u32) -> Result<Place> {
        let at = self.board.layout.slot(slot);
        let len = self.board.region.word64(at + SLOT_LEN).load(Ordering::Relaxed);
        let (place, capacity) =
            self.memory[slot as usize].map_or((at + SLOT_INLINE, INLINE), |block| (block.place, block.capacity));
        if len > capacity as u64 {
            return Err(Error::corrupt("read a result", "it is longer than its place"));
        }
        Ok(Place { place: place as u64, len })
    }

    /// Publishes the task in `slot`, which its worker has lost, again: its payload, of which a part may be overwritten by a
    /// result, is `payload` once more. Wakes nobody (`Board::ring`).
    pub fn publish_again(&self, slot: u32, payload: &[u8]) -> Result<()> {
        let at = self.board.layout.slot(slot);
        let (place, capacity) =
            self.memory[slot as usize].map_or((at + SLOT_INLINE, INLINE), |block| (block.place, block.capacity));
        if payload.len() > capacity {
            return Err(Error::invalid("publish a task again", "it has grown"));
        }
        self.board.copy_in(place as u64, &[payload])?;
        self.board.region.word64(at + SLOT_LEN).store(payload.len() as u64, Ordering::Relaxed);
        self.enqueue(slot);
        Ok(())
    }

    /// Gives a slot and its memory back, once its result has been read or its task is lost.
    pub fn release(&mut self, slot: u32) {
        if let Some(block) = self.memory[slot as usize].take() {
            self.give_up(block);
        }
        self.board.state(slot).store(0, Ordering::Relaxed);
        self.free.push(slot);
        self.in_use -= 1;
    }

    /// Settles what the worker that was process `pid` leaves; the process is gone. Its finished tasks go to `finished`.
    pub fn bury(&mut self, pid: u32, finished: &mut Vec<Collected>) -> Estate {
        // Whatever it pushed is on the stack; what is `Done` after this was never pushed.
        self.collect(finished);
        let mut estate = Estate::default();
        let Some(worker) = self.board.find(pid) else { return estate };
        estate.stage = Some(self.board.record(worker).1);
        for slot in 0..self.usable {
            let state = State(self.board.state(slot).load(Ordering::Acquire));
            if state.worker() != worker {
                continue;
            }
            match state.kind() {
                Some(Kind::Taken) => {
                    self.enqueue(slot);
                    estate.again += 1;
                }
                Some(Kind::Started | Kind::Needs | Kind::Granted) => estate.lost.push(slot),
                Some(Kind::Done) => finished.push(self.take_result(slot)),
                _ => {}
            }
        }
        let _ = self.board.spinner().compare_exchange(worker + 1, 0, Ordering::SeqCst, Ordering::Relaxed);
        self.board.stage_word(worker).store(Stage::Vacant as u32, Ordering::Release);
        self.board.pid_word(worker).store(0, Ordering::Release);
        // It may have been woken for a task that it never took.
        self.board.ring_all();
        estate
    }
}
