//! The arena: one memory file that holds a process's locks, events, conditions, barriers and small values as cells.
//!
//! A process allocates from arenas of its own only, so what is free is private knowledge and no lock is shared for it;
//! other processes map the file. A child of a fork starts an arena of its own when it first needs one.
//!
//! | bytes              | content                                                                              |
//! |--------------------|--------------------------------------------------------------------------------------|
//! | 0                  | magic and version                                                                    |
//! | 8                  | id: random, names the arena in pickles                                               |
//! | 16                 | owner: the identity of the allocating process                                        |
//! | 24                 | address space to reserve for it                                                      |
//! | 32                 | `events`: sharing events so far; only the owner adds                                 |
//! | 40                 | `full`: see `participants`                                                           |
//! | 48                 | waiters ever in use, see `sync::waiters`; any process raises it                      |
//! | `PARTICIPANTS_AT`  | the processes that may hold cells                                                    |
//! | `WAITERS_AT`       | waiters that found no room in their condition's own cell: a hole until needed        |
//! | `CELLS_AT`         | cells                                                                                |
//!
//! Everything up to `events` is written before any other process knows of the file. A killed owner leaves an arena from
//! which nobody allocates any more; its memory goes when the last process that maps it ends. A killed participant leaves
//! an entry in the table that the owner recognises as dead.
//!
//! A cell may carry a tag (`objects`), which says to readers from outside what it is: written once, before the cell is
//! shared, and taken away by the owner when the cell is free. A killed owner leaves the tags of what others may still use.
//!
//! A cell dropped by its owner before any sharing event is used again at once. Any other one waits until no process that
//! may hold it lives.
//!
//! # Safety
//! Arenas are never unmapped, so a `Cell` may hold an address. A cell's address range is inside the mapping and inside
//! what is allocated in the file: checked when the cell is made or restored.
#![allow(unsafe_code)]

use core::cell::RefCell;
use core::ptr::{self, NonNull};
use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::sync::Once;

use parking_lot::{Mutex, MutexGuard};

use crate::atomic::{AtomicPtr, AtomicU32, AtomicU64, Ordering};
use crate::error::{Error, Kind, Result};
use crate::shm::objects;
use crate::shm::participants::{self, EVERY_EVENT, Participants, Ticket};
use crate::shm::region::Region;
use crate::shm::waits::{self, What};
use crate::sys::memory::{self, PAGE};
use crate::sys::process::{self, ForkHooks, Identity};

/// Cells start on multiples of this, a cache line.
pub const LINE: usize = 64;
/// The largest cell; what is larger deserves a region of its own.
pub const MAX_CELL: usize = 256 * 1024;

/// "rsmpare" and the version of the layout.
pub(super) const MAGIC: u64 = u64::from_le_bytes(*b"rsmpare1");

pub(super) const MAGIC_AT: usize = 0;
pub(super) const ID_AT: usize = 8;
pub(super) const OWNER_AT: usize = 16;
const RESERVE_AT: usize = 24;
const EVENTS_AT: usize = 32;
const FULL_AT: usize = 40;
const WAITERS_MARK_AT: usize = 48;
const PARTICIPANTS_AT: usize = PAGE;
const WAITERS_AT: usize = PARTICIPANTS_AT + participants::CAPACITY * participants::WORDS * 8;
const WAITERS_LEN: usize = 512 * 1024;
pub(super) const CELLS_AT: usize = WAITERS_AT + WAITERS_LEN;

/// Address space of an arena. A program limited in that (`RLIMIT_AS`) gets smaller ones, and more of them.
const RESERVES: [usize; 3] = [64 << 20, 8 << 20, 1 << 20];
/// The file grows by at least and at most this much at a time.
const GROWTH: (usize, usize) = (16 * 1024, 1 << 20);
/// Let this many shared cells collect before looking who lives.
const QUARANTINE: usize = 64;

const _: () = assert!(CELLS_AT.is_multiple_of(PAGE) && CELLS_AT < RESERVES[2]);

/// An arena as this process sees it. Never unmapped.
#[derive(Debug)]
pub struct Arena {
    region: Region,
    id: u64,
    owner: Identity,
    /// The sharing event that brought the arena to this process; 0 in the owner.
    event: AtomicU64,
}

impl Arena {
    fn create() -> Result<&'static Self> {
        let mut result = Err(Error::new("create an arena", Kind::OutOfMemory));
        for reserve in RESERVES {
            result = Region::create("rsmp-arena", reserve, WAITERS_AT);
            match &result {
                Err(error) if *error.kind() == Kind::OutOfMemory => {}
                _ => break,
            }
        }
        let region = result?;
        let id = memory::random()?;
        let owner = Identity::current();
        region.word64(ID_AT).store(id, Ordering::Relaxed);
        region.word64(OWNER_AT).store(owner.to_word(), Ordering::Relaxed);
        region.word64(RESERVE_AT).store(region.len() as u64, Ordering::Relaxed);
        region.word64(MAGIC_AT).store(MAGIC, Ordering::Release);
        Ok(Box::leak(Box::new(Self { region, id, owner, event: AtomicU64::new(0) })))
    }

    fn open(file: OwnedFd, id: u64) -> Result<&'static Self> {
        let op = "map an arena";
        let mut header = [0_u8; 32];
        if !memory::peek(&file, &mut header)? {
            return Err(Error::corrupt(op, "the file is too short"));
        }
        let word =
            |at: usize| header.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes);
        let reserve = word(RESERVE_AT) as usize;
        let known = word(MAGIC_AT) == MAGIC && word(ID_AT) == id && RESERVES.contains(&reserve);
        let (true, Some(owner)) = (known, Identity::from_word(word(OWNER_AT))) else {
            return Err(Error::corrupt(op, "the descriptor is not that of the arena"));
        };
        let region = Region::attach(file, reserve)?;
        Ok(Box::leak(Box::new(Self { region, id, owner, event: AtomicU64::new(EVERY_EVENT) })))
    }

    #[must_use]
    pub fn id(&self) -> u64 {
        self.id
    }

    #[must_use]
    pub fn file(&self) -> BorrowedFd<'_> {
        self.region.file()
    }

    /// Whether this process allocates here.
    fn is_own(&self) -> bool {
        self.owner.is_same_process(Identity::current())
    }

    fn events(&self) -> &AtomicU64 {
        self.region.word64(EVENTS_AT)
    }

    fn words64(&self, offset: usize, count: usize) -> &[AtomicU64] {
        let address = NonNull::new(self.region.pointer(offset, count * 8));
        // SAFETY: inside the mapping, which starts on a page and stays; used for the header's words only, all atomics.
        address.map_or(&[], |address| unsafe { memory::words(address, count) })
    }

    fn participants(&self) -> Participants<'_> {
        let words = self.words64(PARTICIPANTS_AT, participants::CAPACITY * participants::WORDS);
        Participants::new(words, self.region.word64(FULL_AT))
    }

    /// A process is about to be started that is told of cells of this arena. `None`: it counts as a holder for ever.
    #[must_use]
    pub fn expect_process(&self) -> Option<Ticket> {
        let event = if self.is_own() {
            self.events().fetch_add(1, Ordering::SeqCst) + 1
        } else {
            self.event.load(Ordering::Relaxed)
        };
        self.participants().expect(Identity::current(), event)
    }

    /// The process that this one expected under `ticket` is gone, or never came to be.
    pub fn cancel_process(&self, ticket: Ticket) {
        self.participants().cancel(ticket, Identity::current());
    }

    /// This process is the one expected under `ticket`.
    fn arrive(&self, ticket: Option<Ticket>) {
        let (participants, me) = (self.participants(), Identity::current());
        let event = ticket.and_then(|ticket| participants.arrive(ticket, me)).unwrap_or_else(|| {
            // Nobody foresaw it, or somebody else came on its ticket.
            let ticket = participants.expect(me, EVERY_EVENT);
            ticket.and_then(|ticket| participants.arrive(ticket, me)).unwrap_or(EVERY_EVENT)
        });
        self.event.store(event, Ordering::Relaxed);
    }

    /// The words for waiters that found no room in their condition's cell; the mark says how many of them are in use.
    #[must_use]
    pub fn waiters(&self) -> (&[AtomicU64], &AtomicU64) {
        (self.words64(WAITERS_AT, WAITERS_LEN / 8), self.region.word64(WAITERS_MARK_AT))
    }

    /// Makes `count` of those words from `first` usable.
    pub fn provide_waiters(&self, first: usize, count: usize) -> Result<()> {
        self.region.allocate(WAITERS_AT + first * 8, count * 8)
    }

    /// A cell that another process allocated, from its pickle.
    pub fn cell(&'static self, offset: usize, len: usize) -> Result<Cell> {
        let end = offset.checked_add(len);
        let in_file = memory::size(self.file())?;
        let known = offset >= CELLS_AT
            && offset.is_multiple_of(LINE)
            && end.is_some_and(|end| end <= self.region.len() && end as u64 <= in_file);
        if !known {
            return Err(Error::corrupt("find a cell", "the offset is outside the arena"));
        }
        Ok(self.cell_at(offset, len, None))
    }

    fn cell_at(&'static self, offset: usize, len: usize, born: Option<u64>) -> Cell {
        let address = NonNull::new(self.region.pointer(offset, len));
        let address = address.unwrap_or_else(|| unreachable!("a mapping does not start at address zero"));
        Cell { arena: self, address, offset, len, born }
    }
}

/// Memory in an arena, starting on a cache line, zero when allocated.
#[derive(Debug)]
pub struct Cell {
    arena: &'static Arena,
    address: NonNull<u8>,
    offset: usize,
    len: usize,
    /// How many sharing events there had been; `None` when another process allocated it.
    born: Option<u64>,
}

// SAFETY: a cell is shared memory: words in it are atomics, and whoever places more there synchronises access to it.
unsafe impl Send for Cell {}
// SAFETY: as above.
unsafe impl Sync for Cell {}

impl Cell {
    #[must_use]
    pub fn arena(&self) -> &'static Arena {
        self.arena
    }

    #[must_use]
    pub fn offset(&self) -> usize {
        self.offset
    }

    #[must_use]
    pub fn len(&self) -> usize {
        self.len
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Says to readers from outside what lies here.
    #[inline]
    pub fn tag(&self, kind: waits::Kind) {
        self.word64(objects::TAG_AT).store(objects::tag(self.arena.id, self.offset, kind), Ordering::Relaxed);
    }

    /// How a thread says that it waits for what lies here.
    #[inline]
    #[must_use]
    pub fn waited_for(&self, kind: waits::Kind) -> What {
        What::new(kind, self.arena.id, self.offset as u64)
    }

    /// The address in this process.
    #[inline]
    #[must_use]
    pub fn address(&self) -> NonNull<u8> {
        self.address
    }

    #[inline]
    fn check(&self, at: usize, size: usize) {
        if !at.is_multiple_of(size) || at + size > self.len {
            outside(at);
        }
    }

    /// The 32-bit word at byte `at`.
    #[inline]
    #[must_use]
    pub fn word32(&self, at: usize) -> &AtomicU32 {
        self.check(at, 4);
        // SAFETY: in bounds and aligned as just checked, the arena stays mapped, every process uses it as an atomic.
        unsafe { AtomicU32::from_ptr(self.address.as_ptr().add(at).cast::<u32>()) }
    }

    /// The 64-bit word at byte `at`.
    #[inline]
    #[must_use]
    pub fn word64(&self, at: usize) -> &AtomicU64 {
        self.check(at, 8);
        // SAFETY: as in `word32`.
        unsafe { AtomicU64::from_ptr(self.address.as_ptr().add(at).cast::<u64>()) }
    }
}

#[cold]
fn outside(at: usize) -> ! {
    panic!("word {at} is outside the cell")
}

impl Drop for Cell {
    fn drop(&mut self) {
        if let Some(born) = self.born
            && self.arena.is_own()
        {
            state().release(self.arena, self.offset, self.len, born);
        }
    }
}

/// A new cell of at least `len` bytes, zero.
pub fn allocate(len: usize) -> Result<Cell> {
    if len > MAX_CELL {
        return Err(Error::invalid("allocate shared memory", "the block is too large for the arena"));
    }
    state().allocate(size_class(len))
}

/// The arena `id`, from the descriptor that `file` gives when this process does not know it yet.
pub fn attach(id: u64, ticket: Option<Ticket>, file: impl FnOnce() -> Result<OwnedFd>) -> Result<&'static Arena> {
    let mut state = state();
    if let Some(arena) = state.mapped.iter().copied().find(|arena| arena.id == id) {
        if let Some(ticket) = ticket {
            // Used up already, unless the arena came here on two ways: then this entry counts beside the other.
            let _ = arena.participants().arrive(ticket, Identity::current());
        }
        return Ok(arena);
    }
    let arena = Arena::open(file()?, id)?;
    arena.arrive(ticket);
    state.mapped.push(arena);
    Ok(arena)
}

/// The processes that may know of what this one knows of: those that map one of its arenas, itself included.
#[must_use]
pub fn family() -> Vec<u32> {
    let mut pids = vec![process::pid()];
    for arena in &state().mapped {
        pids.push(arena.owner.pid());
        pids.extend(arena.participants().pids());
    }
    pids.sort_unstable();
    pids.dedup();
    pids
}

/// Where this process has the cell at `offset` of the arena `id`.
#[must_use]
pub fn address(id: u64, offset: usize) -> Option<usize> {
    let state = state();
    let arena = state.mapped.iter().find(|arena| arena.id == id)?;
    (offset < arena.region.len()).then(|| arena.region.pointer(offset, 0).addr())
}

/// The fork this thread has just made gave the child `pid`: a child killed before its first step is then seen as dead.
pub fn forked(pid: u32) {
    let tickets = TICKETS.take();
    let Some(child) = (if tickets.is_empty() { None } else { Identity::of_process(pid) }) else { return };
    for (arena, ticket) in tickets {
        if let Some(ticket) = ticket {
            // It changes nothing when the child came first.
            let _ = arena.participants().arrive(ticket, child);
        }
    }
}

/// Rounds up so that few sizes exist and at most an eighth is wasted.
fn size_class(len: usize) -> usize {
    let lines = len.div_ceil(LINE).max(1);
    lines.next_multiple_of((lines.next_power_of_two() / 8).max(1)) * LINE
}

/// What this process knows of arenas.
#[derive(Debug, Default)]
struct State {
    /// Every arena mapped here, its own included.
    mapped: Vec<&'static Arena>,
    own: Vec<Allocator>,
}

#[derive(Debug)]
struct Allocator {
    arena: &'static Arena,
    /// Where never used cells start, and where the allocated part of the file ends.
    next: usize,
    ready: usize,
    free: BTreeMap<usize, Vec<usize>>,
    quarantine: Vec<Quarantined>,
    /// The length of the quarantine at which to look again who lives.
    look_at: usize,
}

#[derive(Clone, Copy, Debug)]
struct Quarantined {
    offset: usize,
    len: usize,
    born: u64,
    dropped: u64,
}

impl State {
    fn allocate(&mut self, len: usize) -> Result<Cell> {
        for own in self.own.iter_mut().rev() {
            if let Some(cell) = own.allocate(len)? {
                return Ok(cell);
            }
        }
        let arena = Arena::create()?;
        self.mapped.push(arena);
        self.own.push(Allocator {
            arena,
            next: CELLS_AT,
            ready: CELLS_AT,
            free: BTreeMap::new(),
            quarantine: Vec::new(),
            look_at: QUARANTINE,
        });
        let cell = self.own.last_mut().map_or(Ok(None), |own| own.allocate(len))?;
        cell.ok_or_else(|| Error::new("allocate shared memory", Kind::OutOfMemory))
    }

    fn release(&mut self, arena: &'static Arena, offset: usize, len: usize, born: u64) {
        if let Some(own) = self.own.iter_mut().rev().find(|own| ptr::eq(own.arena, arena)) {
            own.release(offset, len, born);
        }
    }
}

impl Allocator {
    /// `None` when the arena is full.
    fn allocate(&mut self, len: usize) -> Result<Option<Cell>> {
        let born = Some(self.arena.events().load(Ordering::Relaxed));
        if self.quarantine.len() >= self.look_at {
            self.look_who_lives();
        }
        if let Some(offset) = self.free.get_mut(&len).and_then(Vec::pop) {
            let cell = self.arena.cell_at(offset, len, born);
            // SAFETY: the range is the cell's, and nobody else knows of the cell.
            unsafe { ptr::write_bytes(cell.address.as_ptr(), 0, len) };
            return Ok(Some(cell));
        }
        let end = self.next + len;
        if end > self.arena.region.len() {
            return Ok(None);
        }
        if end > self.ready {
            let (least, most) = GROWTH;
            let growth = (self.ready - CELLS_AT).clamp(least, most).max(len).next_multiple_of(PAGE);
            let growth = growth.min(self.arena.region.len() - self.ready);
            self.arena.region.allocate(self.ready, growth)?;
            self.ready += growth;
        }
        let offset = core::mem::replace(&mut self.next, end);
        Ok(Some(self.arena.cell_at(offset, len, born)))
    }

    fn release(&mut self, offset: usize, len: usize, born: u64) {
        let dropped = self.arena.events().load(Ordering::Relaxed);
        self.untag(offset, born == dropped);
        if born == dropped {
            self.free.entry(len).or_default().push(offset);
        } else {
            self.quarantine.push(Quarantined { offset, len, born, dropped });
        }
    }

    /// The owner let go of a cell: nobody has it any more, or others may.
    fn untag(&self, offset: usize, free: bool) {
        let word = self.arena.region.word64(offset + objects::TAG_AT);
        if free {
            // Whatever it was: what is in a free cell matters to nobody.
            word.store(0, Ordering::Relaxed);
            return;
        }
        let tag = word.load(Ordering::Relaxed);
        if objects::kind(self.arena.id, offset, tag).is_some() {
            word.store(tag | objects::DROPPED, Ordering::Relaxed);
        }
    }

    fn look_who_lives(&mut self) {
        if let Some(events) = self.arena.participants().events() {
            let held =
                |cell: &Quarantined| events.iter().any(|event| participants::may_hold(*event, cell.born, cell.dropped));
            let (keep, free): (Vec<_>, Vec<_>) = self.quarantine.iter().copied().partition(held);
            for cell in free {
                self.untag(cell.offset, true);
                self.free.entry(cell.len).or_default().push(cell.offset);
            }
            self.quarantine = keep;
        }
        self.look_at = (self.quarantine.len() * 2).max(QUARANTINE);
    }
}

/// Replaced in the child of a fork: the lock of the old one may be in any state there.
static STATE: AtomicPtr<Mutex<State>> = AtomicPtr::new(ptr::null_mut());

fn state() -> MutexGuard<'static, State> {
    state_lock().lock()
}

fn state_lock() -> &'static Mutex<State> {
    let state = STATE.load(Ordering::Acquire);
    // SAFETY: it is null or was leaked from a box by `publish`, and never freed.
    unsafe { state.as_ref() }.unwrap_or_else(|| first_state())
}

#[cold]
fn first_state() -> &'static Mutex<State> {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        publish(State::default());
        process::at_fork(ForkHooks { prepare: before_fork, parent: after_fork_in_parent, child: after_fork_in_child });
    });
    state_lock()
}

fn publish(state: State) {
    STATE.store(Box::into_raw(Box::new(Mutex::new(state))), Ordering::Release);
}

thread_local! {
    /// The state is held over a fork, so that the child finds it whole.
    static FORKING: RefCell<Option<MutexGuard<'static, State>>> = const { RefCell::new(None) };
    /// What the latest fork of this thread expects of the child, in each arena.
    static TICKETS: RefCell<Vec<(&'static Arena, Option<Ticket>)>> = const { RefCell::new(Vec::new()) };
}

fn before_fork() {
    let state = state();
    TICKETS.set(state.mapped.iter().map(|arena| (*arena, arena.expect_process())).collect());
    FORKING.set(Some(state));
}

fn after_fork_in_parent() {
    // When the fork failed nobody comes for the tickets, and what was alive is not used again.
    drop(FORKING.take());
}

fn after_fork_in_child() {
    let Some(mut old) = FORKING.take() else { return };
    for (arena, ticket) in TICKETS.take() {
        arena.arrive(ticket);
    }
    let state = State { mapped: core::mem::take(&mut old.mapped), ..State::default() };
    // Unlocking could wait for threads that exist in the parent only.
    core::mem::forget(old);
    publish(state);
}
