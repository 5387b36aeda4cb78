//! What stands under the modelled files: the futex, event descriptors, and processes that all live.

#[path = "../standin/arena.rs"]
mod arena;
#[path = "../standin/futex.rs"]
pub(crate) mod futex;

use std::collections::BTreeMap;
use std::os::fd::{BorrowedFd, OwnedFd};

use loom::sync::{Condvar, Mutex, MutexGuard};

pub(crate) use self::arena::{Arena, Cell};

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Deadline;

/// Sleepers of all futex words, in the order in which they came.
#[derive(Debug, Default)]
struct Sleepers {
    /// A number for each, and the address that it sleeps at.
    waiting: Vec<(u64, usize)>,
    next: u64,
    /// Event descriptors that are.
    readable: Vec<i32>,
}

loom::lazy_static! {
    static ref SLEEPERS: Mutex<Sleepers> = Mutex::new(Sleepers::default());
    static ref WOKEN: Condvar = Condvar::new();
}

fn sleepers() -> MutexGuard<'static, Sleepers> {
    SLEEPERS.lock().expect("no thread panics")
}

/// Sleeps until something has changed.
fn nap(sleepers: MutexGuard<'static, Sleepers>) -> MutexGuard<'static, Sleepers> {
    WOKEN.wait(sleepers).expect("no thread panics")
}

fn notify() {
    WOKEN.notify_all();
}

/// An event descriptor: readable or not. A queue's is a word; a pool's has a number, and can be slept on.
pub(crate) mod descriptor {
    use std::fs::File;
    use std::os::fd::{AsRawFd, OwnedFd};

    use super::{AtomicU32, Ordering, nap, notify, sleepers};
    use crate::error::Result;

    #[derive(Debug)]
    pub(crate) struct Event(pub(crate) AtomicU32);

    pub(crate) trait Readable {
        fn set(&self, readable: bool);
    }

    impl Readable for Event {
        fn set(&self, readable: bool) {
            self.0.store(u32::from(readable), Ordering::SeqCst);
        }
    }

    impl Readable for OwnedFd {
        fn set(&self, readable: bool) {
            let mut sleepers = sleepers();
            sleepers.readable.retain(|number| *number != self.as_raw_fd());
            if readable {
                sleepers.readable.push(self.as_raw_fd());
                notify();
            }
        }
    }

    /// A number that no other open descriptor has.
    #[allow(clippy::unnecessary_wraps)] // as in the engine
    pub(crate) fn event() -> Result<OwnedFd> {
        Ok(File::open("/dev/null").expect("it is always there").into())
    }

    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn raise_event(event: &impl Readable) -> Result<()> {
        event.set(true);
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn clear_event(event: &impl Readable) -> Result<()> {
        event.set(false);
        Ok(())
    }

    /// `poll(2)`: sleeps until the event is readable.
    pub(crate) fn sleep(event: &impl AsRawFd) {
        let mut sleepers = sleepers();
        while !sleepers.readable.contains(&event.as_raw_fd()) {
            sleepers = nap(sleepers);
        }
    }
}

/// What of a memory file nothing here comes to.
pub(crate) mod memory {
    use core::ptr::NonNull;
    use std::os::fd::AsFd;

    pub(crate) const PAGE: usize = 4096;

    pub(crate) fn size(_: impl AsFd) -> crate::error::Result<u64> {
        unreachable!("nobody attaches to a pool here")
    }

    pub(crate) unsafe fn own_bytes<'a>(_: NonNull<u8>, _: usize) -> &'a [u8] {
        unreachable!("tasks have no payload here")
    }
}

/// A region's words, each made when it is first asked for, which must be before threads share it: loom reports those that
/// were not.
#[derive(Debug, Default)]
pub(crate) struct Region {
    words: std::sync::Mutex<BTreeMap<usize, Box<Word>>>,
    len: usize,
}

#[derive(Debug)]
enum Word {
    Narrow(AtomicU32),
    Wide(AtomicU64),
}

impl Region {
    #[allow(clippy::unnecessary_wraps)] // as in the engine
    pub(crate) fn create(_: &str, len: usize, _: usize) -> crate::error::Result<Self> {
        Ok(Self { words: std::sync::Mutex::default(), len })
    }

    pub(crate) fn attach(_: OwnedFd, _: usize) -> crate::error::Result<Self> {
        unreachable!("nobody attaches to a pool here")
    }

    pub(crate) fn file(&self) -> BorrowedFd<'_> {
        unreachable!("as above")
    }

    pub(crate) fn len(&self) -> usize {
        self.len
    }

    pub(crate) fn allocate(&self, _: usize, _: usize) -> crate::error::Result<()> {
        unreachable!("tasks have no payload here")
    }

    pub(crate) fn pointer(&self, _: usize, _: usize) -> *mut u8 {
        unreachable!("as above")
    }

    pub(crate) fn copy_in(&self, _: usize, _: &[u8]) {
        unreachable!("as above")
    }

    pub(crate) fn copy_out(&self, _: usize, _: &mut [u8]) {
        unreachable!("as above")
    }

    fn word(&self, at: usize, fresh: impl FnOnce() -> Word) -> &Word {
        let mut words = self.words.lock().expect("no thread panics");
        let word = core::ptr::from_ref(&**words.entry(at).or_insert_with(|| Box::new(fresh())));
        // SAFETY: it has a place of its own, where it stays as long as the region: nothing is ever taken out.
        unsafe { &*word }
    }

    pub(crate) fn word32(&self, at: usize) -> &AtomicU32 {
        match self.word(at, || Word::Narrow(AtomicU32::new(0))) {
            Word::Narrow(word) => word,
            Word::Wide(_) => unreachable!("nobody waits for room here"),
        }
    }

    pub(crate) fn word64(&self, at: usize) -> &AtomicU64 {
        match self.word(at, || Word::Wide(AtomicU64::new(0))) {
            Word::Wide(word) => word,
            Word::Narrow(_) => unreachable!("as above"),
        }
    }
}

/// Never spins: whoever waits goes to sleep.
#[derive(Debug, Default)]
pub(crate) struct Spin;

impl Spin {
    #[allow(clippy::unused_self)]
    pub(crate) fn until<T>(&self, _: Deadline, _: impl FnMut() -> Option<T>) -> Option<T> {
        None
    }
}

/// A process and thread, alive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity(u64);

/// Bits that an identity leaves free.
const FREE: u64 = 3 << 30;

impl Identity {
    pub(crate) fn number(number: u64) -> Self {
        Self(number)
    }

    pub(crate) fn current() -> Self {
        Self(1)
    }

    pub(crate) fn to_word(self) -> u64 {
        self.0
    }

    pub(crate) fn from_word(word: u64) -> Option<Self> {
        (word & !FREE != 0).then_some(Self(word & !FREE))
    }

    pub(crate) fn pid(self) -> u32 {
        self.0 as u32
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn is_alive(self) -> bool {
        true
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn is_known(self) -> bool {
        true
    }
}

pub(crate) fn pid() -> u32 {
    1
}

pub(crate) fn is_alive(_: u32) -> bool {
    true
}
