//! What stands under the modelled files: the futex, event descriptors, and processes that all live.

use loom::sync::{Condvar, Mutex};

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Deadline;

/// Sleepers of all futex words, in the order in which they came.
#[derive(Debug, Default)]
struct Sleepers {
    /// A number for each, and the address that it sleeps at.
    waiting: Vec<(u64, usize)>,
    next: u64,
}

loom::lazy_static! {
    static ref SLEEPERS: Mutex<Sleepers> = Mutex::new(Sleepers::default());
    static ref WOKEN: Condvar = Condvar::new();
}

/// `futex(2)`: looking at the word and falling asleep is one step against waking, as it is under the kernel's lock.
pub(crate) mod futex {
    use super::{AtomicU32, AtomicU64, Deadline, Ordering, SLEEPERS, WOKEN};

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) enum Woken {
        Changed,
        TimedOut,
        Interrupted,
    }

    pub(crate) fn wait(word: &AtomicU32, expected: u32, _: Deadline) -> Woken {
        sleep(core::ptr::from_ref(word) as usize, || word.load(Ordering::Acquire) == expected)
    }

    pub(crate) fn wait_low(word: &AtomicU64, expected: u64, _: Deadline) -> Woken {
        sleep(core::ptr::from_ref(word) as usize, || word.load(Ordering::Acquire) as u32 == expected as u32)
    }

    pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
        rouse(core::ptr::from_ref(word) as usize, count)
    }

    pub(crate) fn wake_all(word: &AtomicU32) -> usize {
        wake(word, u32::MAX)
    }

    pub(crate) fn wake_low(word: &AtomicU64, count: u32) -> usize {
        rouse(core::ptr::from_ref(word) as usize, count)
    }

    fn sleep(address: usize, expected: impl Fn() -> bool) -> Woken {
        let mut sleepers = SLEEPERS.lock().expect("no thread panics");
        if !expected() {
            return Woken::Changed;
        }
        let me = sleepers.next;
        sleepers.next += 1;
        sleepers.waiting.push((me, address));
        while sleepers.waiting.iter().any(|(number, _)| *number == me) {
            sleepers = WOKEN.wait(sleepers).expect("no thread panics");
        }
        Woken::Changed
    }

    fn rouse(address: usize, count: u32) -> usize {
        let mut sleepers = SLEEPERS.lock().expect("no thread panics");
        let mut woken = 0;
        sleepers.waiting.retain(|(_, at)| {
            let stays = *at != address || woken == count as usize;
            woken += usize::from(!stays);
            stays
        });
        if woken > 0 {
            WOKEN.notify_all();
        }
        woken
    }
}

/// An event descriptor: readable or not.
pub(crate) mod descriptor {
    use super::{AtomicU32, Ordering};
    use crate::error::Result;

    #[derive(Debug)]
    pub(crate) struct Event(pub(crate) AtomicU32);

    #[allow(clippy::unnecessary_wraps)] // as in the engine
    pub(crate) fn raise_event(event: &Event) -> Result<()> {
        event.0.store(1, Ordering::SeqCst);
        Ok(())
    }

    #[allow(clippy::unnecessary_wraps)]
    pub(crate) fn clear_event(event: &Event) -> Result<()> {
        event.0.store(0, Ordering::SeqCst);
        Ok(())
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

/// A cell of 256 bytes.
#[derive(Debug)]
pub(crate) struct Cell {
    words: Vec<AtomicU64>,
}

/// Not modelled: no condition spills here.
#[derive(Debug)]
pub(crate) struct Arena;

impl Cell {
    pub(crate) fn new() -> Self {
        Self { words: (0..32).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn word64(&self, at: usize) -> &AtomicU64 {
        &self.words[at / 8]
    }

    pub(crate) fn len(&self) -> usize {
        self.words.len() * 8
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn offset(&self) -> usize {
        0
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn arena(&self) -> &'static Arena {
        &Arena
    }
}

impl Arena {
    #[allow(clippy::unused_self)]
    pub(crate) fn waiters(&self) -> (&[AtomicU64], &AtomicU64) {
        unreachable!("a condition has room for the waiters of a model")
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn provide_waiters(&self, _: usize, _: usize) -> crate::error::Result<()> {
        unreachable!("as above")
    }
}
