//! What stands under the engine's files: memory files, the futex, robust mutexes, and threads as processes, which can die.
#![allow(clippy::unnecessary_wraps)] // as in the engine

#[path = "../standin/arena.rs"]
mod arena;
#[path = "../standin/futex.rs"]
pub(crate) mod futex;

use core::time::Duration;
use std::cell::Cell as Local;
use std::collections::HashSet;
use std::sync::{Condvar, Mutex, MutexGuard};

pub(crate) use self::arena::{Arena, Cell};
use crate::atomic::{AtomicU32, Ordering};

/// Memory files: of a fixed size, all zero, never freed.
pub(crate) mod memory {
    use core::ptr::NonNull;
    use core::slice;
    use std::alloc::{Layout, alloc_zeroed};
    use std::collections::HashMap;
    use std::fs::File;
    use std::os::fd::{AsFd, AsRawFd, OwnedFd, RawFd};
    use std::sync::Mutex;

    use crate::atomic::{AtomicU64, Ordering};
    use crate::error::{Error, Kind, Result};

    pub(crate) const PAGE: usize = 4096;
    const CAPACITY: u64 = 4 << 20;

    struct Memory {
        base: NonNull<u8>,
        size: AtomicU64,
    }

    // SAFETY: as of the engine's mapping.
    unsafe impl Send for Memory {}
    // SAFETY: as above.
    unsafe impl Sync for Memory {}

    static FILES: Mutex<Option<HashMap<RawFd, &'static Memory>>> = Mutex::new(None);

    fn open(memory: &'static Memory) -> OwnedFd {
        let file = OwnedFd::from(File::open("/dev/null").expect("it is always there"));
        FILES.lock().expect("no panic").get_or_insert_default().insert(file.as_raw_fd(), memory);
        file
    }

    fn of(file: impl AsFd) -> &'static Memory {
        FILES.lock().expect("no panic").get_or_insert_default()[&file.as_fd().as_raw_fd()]
    }

    pub(crate) fn create(_: &str) -> Result<OwnedFd> {
        let layout = Layout::from_size_align(CAPACITY as usize, PAGE).expect("a layout");
        // SAFETY: the layout is not empty.
        let base = NonNull::new(unsafe { alloc_zeroed(layout) }).expect("memory");
        Ok(open(Box::leak(Box::new(Memory { base, size: AtomicU64::new(0) }))))
    }

    /// The file as another process receives it.
    pub(crate) fn share(file: impl AsFd) -> OwnedFd {
        open(of(file))
    }

    pub(crate) fn allocate(file: impl AsFd, offset: u64, len: u64) -> Result<()> {
        if offset + len > CAPACITY {
            return Err(Error::new("allocate shared memory", Kind::OutOfMemory));
        }
        of(file).size.fetch_max(offset + len, Ordering::Relaxed);
        Ok(())
    }

    pub(crate) fn allocate_filled(file: impl AsFd, offset: u64, len: u64, parts: &[&[u8]]) -> Result<()> {
        allocate(&file, offset, len)?;
        let mut at = offset as usize;
        for part in parts {
            // SAFETY: inside the file, of which nobody else uses that part yet.
            unsafe { of(&file).base.add(at).copy_from_nonoverlapping(NonNull::from(*part).cast(), part.len()) };
            at += part.len();
        }
        Ok(())
    }

    pub(crate) fn give_back(file: impl AsFd, offset: u64, len: u64) -> Result<()> {
        // SAFETY: inside the file; who gives a part back has it for itself.
        unsafe { of(file).base.add(offset as usize).write_bytes(0, len as usize) };
        Ok(())
    }

    pub(crate) fn size(file: impl AsFd) -> Result<u64> {
        Ok(of(file).size.load(Ordering::Relaxed))
    }

    pub(crate) use size as held;

    pub(crate) fn peek(_: impl AsFd, _: &mut [u8]) -> Result<bool> {
        unreachable!("nobody looks from outside here")
    }

    pub(crate) unsafe fn touch(_: NonNull<u8>, _: usize) {}

    pub(crate) unsafe fn words<'a>(address: NonNull<u8>, len: usize) -> &'a [AtomicU64] {
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts(address.as_ptr().cast(), len) }
    }

    pub(crate) unsafe fn own_bytes<'a>(address: NonNull<u8>, len: usize) -> &'a [u8] {
        // SAFETY: the caller's promise.
        unsafe { slice::from_raw_parts(address.as_ptr(), len) }
    }

    #[derive(Debug)]
    pub(crate) struct Mapping {
        base: NonNull<u8>,
        len: usize,
    }

    // SAFETY: as of the engine's.
    unsafe impl Send for Mapping {}
    // SAFETY: as above.
    unsafe impl Sync for Mapping {}

    impl Mapping {
        pub(crate) fn new(file: impl AsFd, len: usize) -> Result<Self> {
            Self::part(file, 0, len)
        }

        pub(crate) fn part(file: impl AsFd, offset: u64, len: usize) -> Result<Self> {
            if offset + len as u64 > CAPACITY {
                return Err(Error::new("map shared memory", Kind::OutOfMemory));
            }
            // SAFETY: just checked.
            Ok(Self { base: unsafe { of(file).base.add(offset as usize) }, len })
        }

        pub(crate) unsafe fn from_raw(base: NonNull<u8>, len: usize) -> Self {
            Self { base, len }
        }

        pub(crate) fn touch(&self, _: usize, _: usize) {}

        pub(crate) fn base(&self) -> NonNull<u8> {
            self.base
        }

        pub(crate) fn len(&self) -> usize {
            self.len
        }

        pub(crate) fn is_empty(&self) -> bool {
            self.len == 0
        }
    }

    impl Drop for Mapping {
        fn drop(&mut self) {
            // The memory stays.
        }
    }
}

/// A mutex in shared memory that remembers when its holder died.
pub(crate) mod robust {
    use core::marker::PhantomData;
    use core::ptr::NonNull;

    use super::process;
    use crate::atomic::{AtomicU32, Ordering};
    use crate::clock::Deadline;
    use crate::error::Result;

    const FREE: u32 = 0;
    const HELD: u32 = 1;
    const DIED: u32 = 2;

    #[derive(Debug)]
    #[repr(transparent)]
    pub(crate) struct RobustMutex(AtomicU32);

    #[derive(Debug)]
    pub(crate) struct Guard<'a> {
        mutex: &'a RobustMutex,
        owner_died: bool,
        not_send: PhantomData<*const ()>,
    }

    impl RobustMutex {
        pub(crate) unsafe fn initialise(address: NonNull<u8>) -> Result<()> {
            // SAFETY: the caller's promise.
            unsafe { address.cast::<u32>().write(FREE) };
            Ok(())
        }

        pub(crate) unsafe fn at<'a>(address: NonNull<u8>) -> &'a Self {
            // SAFETY: the caller's promise.
            unsafe { address.cast::<Self>().as_ref() }
        }

        pub(crate) fn lock(&self, deadline: Deadline) -> Result<Option<Guard<'_>>> {
            loop {
                for (from, owner_died) in [(FREE, false), (DIED, true)] {
                    if self.0.compare_exchange(from, HELD, Ordering::Acquire, Ordering::Relaxed).is_ok() {
                        return Ok(Some(Guard { mutex: self, owner_died, not_send: PhantomData }));
                    }
                }
                if deadline.has_passed() {
                    return Ok(None);
                }
                std::thread::yield_now();
            }
        }

        pub(crate) fn try_lock(&self) -> Result<Option<Guard<'_>>> {
            self.lock(Deadline::PASSED)
        }
    }

    impl Guard<'_> {
        pub(crate) fn owner_died(&self) -> bool {
            self.owner_died
        }
    }

    impl Drop for Guard<'_> {
        fn drop(&mut self) {
            // Who dies does not come to here any more.
            let state = if process::is_dying() { DIED } else { FREE };
            self.mutex.0.store(state, Ordering::Release);
        }
    }
}

/// Sleepers of all futex words.
#[derive(Debug)]
struct Sleepers {
    /// A number for each, and the address that it sleeps at.
    waiting: Vec<(u64, usize)>,
    next: u64,
}

static SLEEPERS: Mutex<Sleepers> = Mutex::new(Sleepers { waiting: Vec::new(), next: 0 });
static WOKEN: Condvar = Condvar::new();

fn sleepers() -> MutexGuard<'static, Sleepers> {
    SLEEPERS.lock().expect("no panic")
}

/// Sleeps until something has changed, or a deadline is to be looked at.
fn nap(sleepers: MutexGuard<'static, Sleepers>) -> MutexGuard<'static, Sleepers> {
    WOKEN.wait_timeout(sleepers, Duration::from_millis(1)).expect("no panic").0
}

fn notify() {
    WOKEN.notify_all();
}

/// Events nobody looks at.
pub(crate) mod descriptor {
    use std::fs::File;
    use std::os::fd::{AsFd, OwnedFd};

    use crate::error::Result;

    pub(crate) fn event() -> Result<OwnedFd> {
        Ok(File::open("/dev/null").expect("it is always there").into())
    }

    pub(crate) fn raise_event(_: impl AsFd) -> Result<()> {
        Ok(())
    }

    pub(crate) fn clear_event(_: impl AsFd) -> Result<()> {
        Ok(())
    }
}

/// One CPU: nobody spins.
pub(crate) mod cpu {
    pub(crate) fn available(_: u64) -> u32 {
        1
    }

    pub(crate) fn give_way() {
        std::thread::yield_now();
    }

    pub(crate) fn fence() {
        crate::atomic::fence(crate::atomic::Ordering::SeqCst);
    }

    pub(crate) use fence as fence_after_update;
}

/// Each thread is a process.
pub(crate) mod process {
    use super::{AtomicU32, HashSet, Local, Mutex, Ordering};

    thread_local! {
        static PID: Local<u32> = const { Local::new(0) };
        static DYING: Local<bool> = const { Local::new(false) };
    }
    static LAST: AtomicU32 = AtomicU32::new(0);
    static DEAD: Mutex<Option<HashSet<u32>>> = Mutex::new(None);

    pub(crate) fn pid() -> u32 {
        if PID.get() == 0 {
            PID.set(LAST.fetch_add(1, Ordering::Relaxed) + 1);
        }
        PID.get()
    }

    /// Every other process is one more fork, for everybody.
    pub(crate) fn forks() -> u32 {
        LAST.load(Ordering::Relaxed)
    }

    /// From here on this process is dead for the others: the locks that it has are left as they are.
    pub(crate) fn die() {
        DYING.set(true);
        DEAD.lock().expect("no panic").get_or_insert_default().insert(pid());
    }

    pub(crate) fn is_dying() -> bool {
        DYING.get()
    }

    pub(crate) fn is_alive(pid: u32) -> bool {
        !DEAD.lock().expect("no panic").get_or_insert_default().contains(&pid)
    }

    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub(crate) struct Identity(u64);

    impl Identity {
        pub(crate) const FLAGS: u64 = 0b11 << 30;

        pub(crate) fn current() -> Self {
            Self(u64::from(pid()) << 32 | u64::from(pid()))
        }

        pub(crate) fn to_word(self) -> u64 {
            self.0
        }

        pub(crate) fn from_word(word: u64) -> Option<Self> {
            let word = word & !Self::FLAGS;
            (word != 0).then_some(Self(word))
        }

        pub(crate) fn pid(self) -> u32 {
            (self.0 >> 32) as u32
        }

        pub(crate) fn is_alive(self) -> bool {
            is_alive(self.pid())
        }

        pub(crate) fn is_known(self) -> bool {
            self.is_alive()
        }

        pub(crate) fn is_same_process(self, other: Self) -> bool {
            self.pid() == other.pid()
        }
    }
}
