//! What the threads of a process wait for: one page of memory per process, written by itself, for others to read.
//!
//! A process gets its page when it first waits, a thread its slot when it first does; nothing is written by what need not
//! wait. Who wants to know opens the file through `/proc/PID/fd` (`inspect`) and asks nobody: a page of a process that hangs
//! is as good as any. It goes with the process, so the dead are never found waiting.
//!
//! | bytes      | content                                                                                              |
//! |------------|------------------------------------------------------------------------------------------------------|
//! | 0          | magic and version, written last                                                                      |
//! | 8          | the process: its identity. The child of a fork also holds the page of its parent, which is not its own |
//! | 16..80     | the process's name, UTF-8, padded with zeros                                                         |
//! | `SLOTS_AT` | the slots, `WORDS` words each                                                                        |
//!
//! A slot's words are `who`, `what`, `first`, `second`, `since`, `holder`, `seen` and one unused:
//!
//! | `who`  | `what`       | who changes it                               | what is left if the thread dies there             |
//! |--------|--------------|----------------------------------------------|---------------------------------------------------|
//! | 0      | 0            | any thread of the process, to itself         | a free slot                                       |
//! | thread | count, 0     | that thread: it waits for nothing, or the    | a slot that nobody uses, until the process dies   |
//! |        |              | other words change                           | and the page with it                              |
//! | thread | count, kind  | that thread; it counts up each time          | the same; readers know its thread for gone        |
//!
//! The other words are valid while `what` names a kind (Release; readers compare two readings of the slot). `holder` and
//! `seen` may change at any time: whom the thread last found with the lock, and since when.
//!
//! # Safety
//! Tables are leaked and never freed, so a pointer to one that was published stays good.
#![allow(unsafe_code)]

use core::cell::Cell;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};
use std::sync::OnceLock;

use crate::atomic::{AtomicPtr, AtomicU64, Ordering, fence};
use crate::clock;
use crate::error::Result;
use crate::shm::region::Region;
use crate::sys::memory::{self, PAGE};
use crate::sys::process::{self, Identity};

/// The name of the memory file.
pub const FILE: &str = "rsmp-waits";
const MAGIC: u64 = u64::from_le_bytes(*b"rsmpwai1");

const MAGIC_AT: usize = 0;
const OWNER_AT: usize = 8;
const NAME_AT: usize = 16;
const NAME_LEN: usize = 64;
const SLOTS_AT: usize = 128;
const WORDS: usize = 8;
const SLOT: usize = WORDS * 8;
const SLOTS: usize = (PAGE - SLOTS_AT) / SLOT;

/// In `what`: the kind, whether the wait ends by itself, and a count.
const KIND: u64 = 0xff;
const TIMED: u64 = 1 << 8;
const ONCE: u64 = 1 << 16;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $number:literal, $name:literal;)*) => {
        /// What can be waited for.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[repr(u8)]
        pub enum Kind { $($(#[$doc])* $kind = $number,)* }

        impl Kind {
            #[must_use]
            pub fn from_number(number: u8) -> Option<Self> {
                match number { $($number => Some(Self::$kind),)* _ => None }
            }

            #[must_use]
            pub fn name(self) -> &'static str {
                match self { $(Self::$kind => $name,)* }
            }
        }
    };
}

kinds! {
    Lock = 1, "Lock";
    RLock = 2, "RLock";
    Semaphore = 3, "Semaphore";
    Condition = 4, "Condition";
    Event = 5, "Event";
    Barrier = 6, "Barrier";
    QueueGet = 16, "Queue.get";
    QueuePut = 17, "Queue.put";
    QueueJoin = 18, "Queue.join";
    Process = 19, "Process.join";
    Receive = 20, "Connection.recv";
    Send = 21, "Connection.send";
    Any = 22, "connection.wait";
    PoolResult = 23, "Pool";
    PoolTask = 24, "Pool worker";
    ForkServer = 25, "fork server";
    Other = 31, "rsmp";
}

/// What a thread waits for: a kind, and two numbers that say which one.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct What {
    pub kind: Kind,
    /// Of an object in an arena: the arena's id and the offset. Of a queue: its file. Else a process, a descriptor or 0.
    pub first: u64,
    pub second: u64,
}

impl What {
    #[must_use]
    pub const fn new(kind: Kind, first: u64, second: u64) -> Self {
        Self { kind, first, second }
    }

    /// The other end of a descriptor.
    #[must_use]
    pub fn on(kind: Kind, fd: BorrowedFd<'_>) -> Self {
        Self::new(kind, u64::from(fd.as_raw_fd().unsigned_abs()), 0)
    }
}

#[derive(Debug)]
struct Table {
    pid: u32,
    /// `None` when there was no memory or no descriptor for it.
    region: Option<Region>,
}

/// The latest table; the child of a fork finds its parent's, which it leaves alone.
static TABLE: AtomicPtr<Table> = AtomicPtr::new(core::ptr::null_mut());

static NAMER: OnceLock<fn() -> Option<String>> = OnceLock::new();

/// Sets the function that knows this process's name; it is called once per process, in the middle of a wait.
pub fn name_by(namer: fn() -> Option<String>) {
    let _ = NAMER.set(namer);
}

impl Table {
    fn open() -> Self {
        Self { pid: process::pid(), region: Self::region().ok() }
    }

    fn region() -> Result<Region> {
        let region = Region::create(FILE, PAGE, PAGE)?;
        region.word64(OWNER_AT).store(Identity::current().to_word(), Ordering::Relaxed);
        if let Some(name) = NAMER.get().and_then(|namer| namer()) {
            let len = name.floor_char_boundary(NAME_LEN);
            region.copy_in(NAME_AT, &name.as_bytes()[..len]);
        }
        region.word64(MAGIC_AT).store(MAGIC, Ordering::Release);
        Ok(region)
    }

    /// This process's.
    fn current() -> &'static Self {
        let known = TABLE.load(Ordering::Acquire);
        // SAFETY: null, or leaked below and never freed.
        match unsafe { known.as_ref() } {
            Some(table) if table.pid == process::pid() => table,
            _ => Self::first(known),
        }
    }

    #[cold]
    fn first(known: *mut Self) -> &'static Self {
        let fresh = Box::into_raw(Box::new(Self::open()));
        match TABLE.compare_exchange(known, fresh, Ordering::AcqRel, Ordering::Acquire) {
            // SAFETY: leaked by this function, here or in the thread that was faster; never freed.
            Ok(_) => unsafe { &*fresh },
            Err(theirs) => {
                // SAFETY: from the box above, and nobody else has seen it.
                drop(unsafe { Box::from_raw(fresh) });
                // SAFETY: as above.
                unsafe { &*theirs }
            }
        }
    }

    fn claim(&'static self, me: Identity) -> Option<Slot> {
        let region = self.region.as_ref()?;
        let at = |index| SLOTS_AT + index * SLOT;
        let free = |index: &usize| {
            let who = region.word64(at(*index));
            who.load(Ordering::Relaxed) == 0
                && who.compare_exchange(0, me.to_word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
        };
        (0..SLOTS).find(free).map(|index| Slot { region, at: at(index) })
    }
}

/// The slot of a thread.
#[derive(Clone, Copy, Debug)]
struct Slot {
    region: &'static Region,
    at: usize,
}

impl Slot {
    #[inline]
    fn word(self, index: usize) -> &'static AtomicU64 {
        self.region.word64(self.at + index * 8)
    }

    #[inline]
    fn write(self, record: Record) {
        let what = self.word(1);
        let count = (what.load(Ordering::Relaxed) & !(ONCE - 1)).wrapping_add(ONCE);
        what.store(count, Ordering::Relaxed);
        // A reader that sees a word of this record must not take it for one of the record before.
        fence(Ordering::Release);
        for (index, value) in (2..).zip([record.first, record.second, record.since, record.holder, record.seen]) {
            self.word(index).store(value, Ordering::Relaxed);
        }
        what.store(count | record.what, Ordering::Release);
    }

    #[inline]
    fn read(self) -> Record {
        let word = |index| self.word(index).load(Ordering::Relaxed);
        let what = word(1) & (ONCE - 1);
        Record { what, first: word(2), second: word(3), since: word(4), holder: word(5), seen: word(6) }
    }

    #[inline]
    fn clear(self) {
        let what = self.word(1);
        what.store(what.load(Ordering::Relaxed) & !(ONCE - 1), Ordering::Release);
    }
}

/// The words of a slot, but for who and the count.
#[derive(Clone, Copy, Debug)]
struct Record {
    what: u64,
    first: u64,
    second: u64,
    since: u64,
    holder: u64,
    seen: u64,
}

/// The slot of this thread in the table of process `pid`; none when the table has none left.
#[derive(Clone, Copy, Debug)]
struct Mine {
    pid: u32,
    slot: Option<Slot>,
}

/// Gives the slot back when the thread ends.
struct Keeper(Cell<Option<Mine>>);

impl Keeper {
    /// What this thread has in this process's table, if it has looked for a slot already.
    #[inline]
    fn get(&self) -> Option<Mine> {
        self.0.get().filter(|mine| mine.pid == process::pid())
    }

    #[inline]
    fn slot(&self) -> Option<Slot> {
        self.get().and_then(|mine| mine.slot)
    }

    #[cold]
    fn first(&self) -> Option<Slot> {
        let slot = Table::current().claim(Identity::current());
        self.0.set(Some(Mine { pid: process::pid(), slot }));
        slot
    }
}

impl Drop for Keeper {
    fn drop(&mut self) {
        if let Some(slot) = self.slot() {
            slot.clear();
            slot.word(0).store(0, Ordering::Release);
        }
    }
}

thread_local! {
    static KEEPER: Keeper = const { Keeper(Cell::new(None)) };
}

/// A wait that is under way. What the thread waited for before is in its slot again when this is dropped: the handler of a
/// signal may wait in the middle of a wait.
#[derive(Debug)]
pub struct Wait {
    before: Option<Record>,
}

/// The calling thread is about to wait for `what`; `timed` when the wait ends by itself.
#[inline]
#[must_use]
pub fn begin(what: What, timed: bool) -> Wait {
    let mut before = None;
    let _ = KEEPER.try_with(|keeper| {
        let slot = keeper.get().map_or_else(|| keeper.first(), |mine| mine.slot);
        let Some(slot) = slot else { return };
        let old = slot.read();
        if old.what != 0 {
            before = Some(old);
        }
        let kind = u64::from(what.kind as u8) | if timed { TIMED } else { 0 };
        // Nearly every send goes through at once, and the clock would cost more than all the rest here.
        let since = if what.kind == Kind::Send { 0 } else { clock::coarse() };
        let (first, second) = (what.first, what.second);
        slot.write(Record { what: kind, first, second, since, holder: 0, seen: 0 });
    });
    Wait { before }
}

impl Drop for Wait {
    #[inline]
    fn drop(&mut self) {
        // The child of a fork in the middle of a wait has no slot, and nothing to restore.
        let slot = KEEPER.try_with(Keeper::slot).ok().flatten();
        match (slot, self.before) {
            (Some(slot), None) => slot.clear(),
            (Some(slot), Some(before)) => slot.write(before),
            (None, _) => {}
        }
    }
}

/// The thread has just looked at the lock that it waits for, and found it held by `holder`.
pub fn found(holder: Option<Identity>) {
    let Some(slot) = KEEPER.try_with(Keeper::slot).ok().flatten() else { return };
    let holder = holder.map_or(0, Identity::to_word);
    if slot.word(5).load(Ordering::Relaxed) != holder {
        slot.word(6).store(clock::coarse(), Ordering::Relaxed);
        slot.word(5).store(holder, Ordering::Relaxed);
    }
}

/// What one thread of some process waits for, as its page says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Waiting {
    pub who: Identity,
    pub what: What,
    pub timed: bool,
    /// On the monotonic clock (nanoseconds), to a few milliseconds; 0 when it is not known, as of a send.
    pub since: u64,
    /// Whom it found with the lock when it looked, and since when.
    pub holder: Option<(Identity, u64)>,
}

/// A page, as read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    pub owner: Identity,
    pub name: String,
    pub waiting: Vec<Waiting>,
}

impl Page {
    /// Reads a page from its file; `None` when that holds no whole one.
    pub fn read(file: impl AsFd) -> Result<Option<Self>> {
        let (mut once, mut again) = ([0_u8; PAGE], [0_u8; PAGE]);
        for _ in 0..8 {
            if !memory::peek(&file, &mut once)? || !memory::peek(&file, &mut again)? {
                return Ok(None);
            }
            if once == again {
                break;
            }
        }
        // A slot that differs all the same belongs to a thread that is not hanging.
        Ok(Self::parse(&once, &again))
    }

    fn parse(once: &[u8; PAGE], again: &[u8; PAGE]) -> Option<Self> {
        let word = |bytes: &[u8], at: usize| {
            bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
        };
        let owner = Identity::from_word(word(once, OWNER_AT)).filter(|_| word(once, MAGIC_AT) == MAGIC)?;
        let name = once[NAME_AT..NAME_AT + NAME_LEN].split(|byte| *byte == 0).next().unwrap_or_default();
        let slot = |at: usize| {
            if once[at..at + SLOT] != again[at..at + SLOT] {
                return None;
            }
            let word = |index: usize| word(once, at + index * 8);
            let who = Identity::from_word(word(0))?;
            let kind = Kind::from_number((word(1) & KIND) as u8)?;
            let holder = Identity::from_word(word(5)).map(|holder| (holder, word(6)));
            let what = What::new(kind, word(2), word(3));
            Some(Waiting { who, what, timed: word(1) & TIMED != 0, since: word(4), holder })
        };
        let waiting = (0..SLOTS).filter_map(|index| slot(SLOTS_AT + index * SLOT)).collect();
        Some(Self { owner, name: String::from_utf8_lossy(name).into_owned(), waiting })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn own_page() -> Page {
        let region = Table::current().region.as_ref().expect("memory");
        Page::read(region.file()).expect("a readable page").expect("a whole page")
    }

    fn mine() -> Vec<Waiting> {
        let me = Identity::current();
        own_page().waiting.into_iter().filter(|waiting| waiting.who == me).collect()
    }

    #[test]
    fn the_layout_is_what_peers_read() {
        assert_eq!((SLOTS_AT, SLOT, SLOTS), (128, 64, 62));
        for kind in [Kind::Lock, Kind::Barrier, Kind::QueueGet, Kind::Other] {
            assert_eq!(Kind::from_number(kind as u8), Some(kind));
        }
        assert_eq!(Kind::from_number(0), None);
    }

    #[test]
    fn a_wait_is_seen_while_it_lasts_and_the_one_around_it_afterwards() {
        let outer = What::new(Kind::Lock, 7, 64);
        let wait = begin(outer, false);
        found(Identity::of_process(1));
        {
            let _inner = begin(What::new(Kind::Process, 42, 0), true);
            let seen = mine();
            assert_eq!(seen.len(), 1);
            assert_eq!((seen[0].what.kind, seen[0].what.first, seen[0].timed), (Kind::Process, 42, true));
            assert_eq!(seen[0].holder, None);
        }
        let seen = mine();
        assert_eq!((seen[0].what, seen[0].timed), (outer, false));
        assert_eq!(seen[0].holder.map(|(holder, _)| holder), Identity::of_process(1));
        assert!(seen[0].since <= clock::now());
        drop(wait);
        assert_eq!(mine(), []);
        assert!(own_page().owner.is_same_process(Identity::current()));
    }

    #[test]
    fn a_thread_gives_its_slot_back() {
        let taken = |_| {
            let thread = || {
                let _wait = begin(What::new(Kind::Event, 1, 2), false);
                assert_eq!(mine().len(), 1, "there was no slot");
            };
            std::thread::spawn(thread).join().expect("a thread with a slot");
        };
        (0..2 * SLOTS).for_each(taken);
    }

    #[test]
    fn what_is_no_page_is_none() {
        let file = memory::create("rsmp-test").expect("a file");
        assert_eq!(Page::read(&file), Ok(None));
        memory::allocate(&file, 0, PAGE as u64).expect("memory");
        assert_eq!(Page::read(&file), Ok(None), "no magic");
    }
}
