//! Where everything lies in a pool's region, and how the words are packed.
//!
//! ```text
//! 0        header: magic, sizes; one cache line for each word that different processes write
//! RECORDS  one record of 64 bytes for each worker
//! queue    QUEUE entries of 8 bytes: the published tasks in order
//! slots    SLOTS slots of 128 bytes: a task, later its result
//! report   why the initializer failed
//! heap     memory for what does not fit into a slot; only the owner allocates and frees
//! ```

use crate::sys::memory::PAGE;

pub const MAGIC: u64 = u64::from_le_bytes(*b"rsmppool");
pub const VERSION: u64 = 1;

pub(super) const MAGIC_AT: usize = 0;
pub(super) const VERSION_AT: usize = 8;
pub(super) const RECORDS_COUNT_AT: usize = 16;
/// The owner's identity word.
pub(super) const OWNER_AT: usize = 24;
/// See `Closing`.
pub(super) const CLOSING_AT: usize = 64;
/// Changes, and wakes sleeping workers, when there is something new for them.
pub(super) const BELL_AT: usize = 128;
/// 1: a worker may be asleep on the bell.
pub(super) const SLEEPERS_AT: usize = 132;
/// The worker (number + 1) that watches the tail instead of sleeping; 0: none.
pub(super) const SPINNER_AT: usize = 136;
/// Sequence number of the oldest entry of the queue that may be untaken.
pub(super) const HEAD_AT: usize = 192;
/// Sequence number of the next entry to be written.
pub(super) const TAIL_AT: usize = 256;
/// The stack of finished slots: `depth << 32 | slot + 1`.
pub(super) const DONE_AT: usize = 320;
/// The owner wants the event raised when the stack is this deep; 0: not at all.
pub(super) const WAITING_AT: usize = 384;
/// 1: a worker asks for room, however deep the stack is.
pub(super) const CALLS_AT: usize = 388;
/// What a worker has to say about its initializer: 0 nothing, 1 being written, 2 there.
pub(super) const REPORT_STATE_AT: usize = 448;
pub(super) const REPORT_LEN_AT: usize = 452;
pub(super) const RECORDS_AT: usize = 512;

/// Bytes for that report.
pub(super) const REPORT: usize = PAGE;

pub(super) const RECORD: usize = 64;
pub(super) const RECORD_PID: usize = 0;
/// See `Stage`.
pub(super) const RECORD_STAGE: usize = 4;

/// Tasks that can be handed out at one time. More wait in the owner, not yet pickled.
pub const SLOTS: u32 = 8192;
/// Entries of the queue: a slot is in it at most once, and once more while a dead worker's task is published again.
pub(super) const QUEUE: usize = SLOTS as usize * 2;

pub(super) const SLOT: usize = 128;
pub(super) const SLOT_STATE: usize = 0;
pub(super) const SLOT_NEXT: usize = 8;
/// What to do with the payload; the binding's business.
pub(super) const SLOT_KIND: usize = 12;
/// How the task ended; the binding's business.
pub(super) const SLOT_OUTCOME: usize = 16;
/// Bytes of payload.
pub(super) const SLOT_LEN: usize = 24;
/// Where the payload is; 0: in the slot.
pub(super) const SLOT_PLACE: usize = 32;
/// Bytes there are at that place.
pub(super) const SLOT_CAPACITY: usize = 40;
/// Where the function is; 0: in the payload.
pub(super) const SLOT_FUNCTION: usize = 48;
/// Number of the function, never used for another one.
pub(super) const SLOT_FUNCTION_ID: usize = 56;
pub(super) const SLOT_INLINE: usize = 64;
/// Payload that fits into the slot itself.
pub const INLINE: usize = SLOT - SLOT_INLINE;

/// The region's address space, tried in this order: less where the address space is limited.
pub(super) const RESERVES: [usize; 4] = [1 << 37, 1 << 33, 1 << 30, 1 << 27];

/// Offsets that depend on the number of worker records.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Layout {
    pub records: u32,
    pub(super) queue: usize,
    pub(super) slots: usize,
    pub(super) report: usize,
    pub(super) heap: usize,
}

impl Layout {
    #[must_use]
    pub fn new(records: u32) -> Self {
        let queue = (RECORDS_AT + records as usize * RECORD).next_multiple_of(SLOT);
        let slots = (queue + QUEUE * 8).next_multiple_of(SLOT);
        let report = (slots + SLOTS as usize * SLOT).next_multiple_of(PAGE);
        Self { records, queue, slots, report, heap: report + REPORT }
    }

    pub(super) fn record(&self, worker: u32) -> usize {
        assert!(worker < self.records, "worker {worker} has no record");
        RECORDS_AT + worker as usize * RECORD
    }

    pub(super) fn entry(&self, sequence: u64) -> usize {
        self.queue + (sequence as usize & (QUEUE - 1)) * 8
    }

    pub(super) fn slot(&self, slot: u32) -> usize {
        assert!(slot < SLOTS, "slot {slot} does not exist");
        self.slots + slot as usize * SLOT
    }
}

/// Where a task is on its way through a slot.
///
/// | kind    | who moves it on        | to                 | if that process dies here               |
/// |---------|------------------------|--------------------|-----------------------------------------|
/// | Free    | owner                  | Ready              | the workers leave                       |
/// | Ready   | any worker, by CAS     | Taken              | nobody has it yet: another one takes it |
/// | Taken   | the worker in the word | Started            | the owner publishes the task again      |
/// | Started | that worker            | Done, Needs        | the task is lost, and reported          |
/// | Needs   | owner, by CAS          | Granted            | the task is lost, and reported          |
/// | Granted | that worker            | Done               | the task is lost, and reported          |
/// | Done    | owner                  | Free               | the result stands                       |
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Kind {
    Free = 0,
    Ready = 1,
    Taken = 2,
    Started = 3,
    /// The result does not fit at the slot's place; `SLOT_LEN` says how long it is.
    Needs = 4,
    Granted = 5,
    Done = 6,
}

/// A slot's state word: `sequence << 24 | worker << 8 | kind`. The sequence keeps a slow worker from taking a later task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct State(pub(super) u64);

pub(super) const SEQUENCE_MASK: u64 = (1 << 40) - 1;

impl State {
    pub(super) fn new(sequence: u64, worker: u32, kind: Kind) -> Self {
        Self((sequence & SEQUENCE_MASK) << 24 | u64::from(worker & 0xffff) << 8 | kind as u64)
    }

    pub(super) fn kind(self) -> Option<Kind> {
        Some(match self.0 & 0xff {
            0 => Kind::Free,
            1 => Kind::Ready,
            2 => Kind::Taken,
            3 => Kind::Started,
            4 => Kind::Needs,
            5 => Kind::Granted,
            6 => Kind::Done,
            _ => return None,
        })
    }

    pub(super) fn worker(self) -> u32 {
        (self.0 >> 8) as u32 & 0xffff
    }

    pub(super) fn with(self, kind: Kind) -> Self {
        Self(self.0 & !0xff | kind as u64)
    }
}

/// What the workers are told when no task is left.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Closing {
    Open = 0,
    /// Leave once no task is left.
    Finish = 1,
    /// Leave now.
    Leave = 2,
}

/// How far a worker has come. Written by the worker; `Vacant` by the owner, once the process is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Stage {
    Vacant = 0,
    /// Runs the initializer.
    Entered = 1,
    /// Takes tasks.
    Serving = 2,
    /// The initializer failed.
    Failed = 3,
    /// Ran as many tasks as it may, or was told to leave.
    Left = 4,
}

impl Stage {
    pub(super) fn from_word(word: u32) -> Self {
        match word {
            1 => Self::Entered,
            2 => Self::Serving,
            3 => Self::Failed,
            4 => Self::Left,
            _ => Self::Vacant,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn offsets() {
        let layout = Layout::new(8);
        assert_eq!((layout.queue, layout.slots, layout.heap), (1024, 132_096, 1_187_840));
        assert_eq!(layout.slots % SLOT, 0);
        assert_eq!(layout.heap % PAGE, 0);
        assert_eq!(layout.slot(1) - layout.slot(0), SLOT);
        assert_eq!(layout.entry(QUEUE as u64), layout.entry(0));
        assert_eq!(INLINE, 64);
    }

    #[test]
    fn state_words() {
        let state = State::new(77, 3, Kind::Taken);
        assert_eq!((state.kind(), state.worker()), (Some(Kind::Taken), 3));
        assert_eq!(state.with(Kind::Done), State::new(77, 3, Kind::Done));
        assert_eq!(State(0).kind(), Some(Kind::Free));
        assert_eq!(State(0xff).kind(), None);
    }
}
