//! A mutex in shared memory that survives its holder: `pthread_mutex_t`, process-shared and robust.
//!
//! The kernel learns of every lock through the C library's robust list, so when a thread dies holding one (killed, or by
//! `exec`) the next `lock` gets it with `Guard::owner_died`, and a thread asleep in `lock` is woken. The list is the C
//! library's; nothing here or elsewhere may set its own (`set_robust_list`), which would disable every other one.
//!
//! | state of the mutex   | who leaves it     | if the holder dies there                                            |
//! |----------------------|-------------------|---------------------------------------------------------------------|
//! | free                 | any `lock`        |                                                                     |
//! | held                 | the holder, drop  | the next `lock` succeeds with `owner_died`                          |
//! | held, owner died     | the holder, drop  | the same again: whoever repairs may die too, repairs are repeatable |
//!
//! Between `lock` and the guard's drop: no call into Python, no allocation that could call into it, no other wait.
//!
//! # Safety
//! The mutex is reached by address only, and only the C library writes it. `at` promises that the address holds an
//! initialised mutex and stays mapped for the lifetime chosen. It is never destroyed: a peer may be inside `lock`.
#![allow(unsafe_code)]

use core::cell::UnsafeCell;
use core::hint;
use core::marker::PhantomData;
use core::mem::MaybeUninit;
use core::ptr::NonNull;
use core::time::Duration;

use rustix::io::Errno;
use rustix::time::{ClockId, clock_gettime};

use crate::clock::Deadline;
use crate::error::{Error, Result};

/// Bytes a mutex takes; its address is a multiple of 8.
pub const SIZE: usize = size_of::<libc::pthread_mutex_t>();

// One cache line holds it on every platform.
const _: () = assert!(SIZE <= 64 && align_of::<libc::pthread_mutex_t>() <= 8);

/// `PTHREAD_MUTEX_ROBUST`, the same in glibc and musl; the libc crate does not name it for them.
const ROBUST: libc::c_int = 1;

/// Tries before sleeping. Sections are short, and longer spinning was measured to lower throughput.
const SPINS: u32 = 10;

#[repr(transparent)]
#[derive(Debug)]
pub struct RobustMutex(UnsafeCell<libc::pthread_mutex_t>);

// SAFETY: it is a mutex, made for concurrent threads and processes; the guard is what may not change threads.
unsafe impl Sync for RobustMutex {}

/// Holds the mutex; dropping it, on the thread that locked, lets go.
#[derive(Debug)]
#[must_use = "the mutex is released when the guard is dropped"]
pub struct Guard<'a> {
    mutex: &'a RobustMutex,
    owner_died: bool,
    /// The C library unlocks only on the locking thread.
    not_send: PhantomData<*const ()>,
}

impl RobustMutex {
    /// Makes a mutex at `address`, free.
    ///
    /// # Safety
    /// `[address, address + SIZE)` is mapped, shared, aligned to 8, and no other thread or process uses it yet.
    pub unsafe fn initialise(address: NonNull<u8>) -> Result<()> {
        let mut attributes = MaybeUninit::<libc::pthread_mutexattr_t>::uninit();
        let attributes = attributes.as_mut_ptr();
        // SAFETY: the attributes are initialised by the first call before the others read them, and the mutex memory is
        // the caller's to write. Errors of the setters cannot happen with these constants, but are checked all the same.
        let code = unsafe {
            match libc::pthread_mutexattr_init(attributes) {
                0 => {
                    let shared = libc::pthread_mutexattr_setpshared(attributes, libc::PTHREAD_PROCESS_SHARED);
                    let robust = libc::pthread_mutexattr_setrobust(attributes, ROBUST);
                    let created = libc::pthread_mutex_init(address.as_ptr().cast(), attributes);
                    libc::pthread_mutexattr_destroy(attributes);
                    [shared, robust, created].into_iter().find(|code| *code != 0).unwrap_or(0)
                }
                code => code,
            }
        };
        checked("create a shared mutex", code)
    }

    /// The mutex at `address`.
    ///
    /// # Safety
    /// `initialise` has run there, in this process or the one that created the memory, and the memory stays mapped for
    /// `'a`.
    #[inline]
    #[must_use]
    pub unsafe fn at<'a>(address: NonNull<u8>) -> &'a Self {
        // SAFETY: as promised by the caller; the type is transparent over the C library's.
        unsafe { address.cast::<Self>().as_ref() }
    }

    /// Locks, waiting at most to `deadline`; `None` when it passed. Signals do not interrupt the wait.
    #[inline]
    pub fn lock(&self, deadline: Deadline) -> Result<Option<Guard<'_>>> {
        // SAFETY: `self` is an initialised mutex (`at`), here and in every call below.
        let code = unsafe { libc::pthread_mutex_trylock(self.0.get()) };
        if code == libc::EBUSY { self.lock_slow(deadline) } else { self.locked(code) }
    }

    /// Locks if it is free.
    #[inline]
    pub fn try_lock(&self) -> Result<Option<Guard<'_>>> {
        self.lock(Deadline::PASSED)
    }

    #[cold]
    fn lock_slow(&self, deadline: Deadline) -> Result<Option<Guard<'_>>> {
        if deadline == Deadline::PASSED {
            return Ok(None);
        }
        for _ in 0..SPINS {
            hint::spin_loop();
            // SAFETY: as in `lock`.
            let code = unsafe { libc::pthread_mutex_trylock(self.0.get()) };
            if code != libc::EBUSY {
                return self.locked(code);
            }
        }
        let code = match deadline.remaining() {
            // SAFETY: as in `lock`.
            None => unsafe { libc::pthread_mutex_lock(self.0.get()) },
            Some(left) => {
                let until = on_the_wall_clock(left);
                // SAFETY: as in `lock`; the timespec outlives the call.
                unsafe { libc::pthread_mutex_timedlock(self.0.get(), &raw const until) }
            }
        };
        self.locked(code)
    }

    #[inline]
    fn locked(&self, code: libc::c_int) -> Result<Option<Guard<'_>>> {
        match code {
            0 | libc::EOWNERDEAD => {
                Ok(Some(Guard { mutex: self, owner_died: code == libc::EOWNERDEAD, not_send: PhantomData }))
            }
            libc::EBUSY | libc::ETIMEDOUT => Ok(None),
            code => Err(Error::os("lock a shared mutex", Errno::from_raw_os_error(code))),
        }
    }
}

impl Guard<'_> {
    /// Whether the last holder died with the mutex: repair what it guards before anything else.
    #[inline]
    #[must_use]
    pub fn owner_died(&self) -> bool {
        self.owner_died
    }
}

impl Drop for Guard<'_> {
    #[inline]
    fn drop(&mut self) {
        let mutex = self.mutex.0.get();
        // SAFETY: this thread holds the mutex (the guard is not `Send`). Without `consistent` an unlock would make it
        // unusable for ever.
        unsafe {
            if self.owner_died {
                libc::pthread_mutex_consistent(mutex);
            }
            libc::pthread_mutex_unlock(mutex);
        }
    }
}

/// `pthread_mutex_timedlock` takes the wall clock. A jump of it moves one wait, and callers wait in slices.
fn on_the_wall_clock(left: Duration) -> libc::timespec {
    let now = clock_gettime(ClockId::Realtime);
    let nanos = now.tv_nsec + i64::from(left.subsec_nanos());
    let seconds = i64::try_from(left.as_secs()).unwrap_or(i64::MAX);
    libc::timespec {
        tv_sec: now.tv_sec.saturating_add(seconds).saturating_add(nanos / 1_000_000_000),
        tv_nsec: nanos % 1_000_000_000,
    }
}

fn checked(op: &'static str, code: libc::c_int) -> Result<()> {
    if code == 0 { Ok(()) } else { Err(Error::os(op, Errno::from_raw_os_error(code))) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shm::region::Region;

    fn mutex() -> (Region, NonNull<u8>) {
        let region = Region::create("rsmp-test", 4096, 4096).expect("region");
        let address = NonNull::new(region.pointer(64, SIZE)).expect("mapped");
        // SAFETY: fresh memory of this test.
        unsafe { RobustMutex::initialise(address) }.expect("mutex");
        (region, address)
    }

    #[test]
    fn excludes_and_lets_go() {
        let (_region, address) = mutex();
        // SAFETY: initialised, and the region outlives it.
        let mutex = unsafe { RobustMutex::at(address) };
        let guard = mutex.try_lock().expect("lock").expect("free");
        assert!(!guard.owner_died());
        std::thread::scope(|scope| {
            let other = scope.spawn(|| {
                let soon = Deadline::after(Duration::from_millis(20));
                mutex.lock(soon).expect("lock").is_none() && mutex.try_lock().expect("lock").is_none()
            });
            assert!(other.join().expect("thread"));
            drop(guard);
            assert!(scope.spawn(|| mutex.try_lock().expect("lock").is_some()).join().expect("thread"));
        });
    }

    #[test]
    fn outlives_its_holder() {
        let (_region, address) = mutex();
        // SAFETY: initialised, and the region outlives it.
        let mutex = unsafe { RobustMutex::at(address) };
        for _ in 0..3 {
            std::thread::scope(|scope| {
                // A thread that ends holding it is a dead owner like a killed process.
                scope.spawn(|| core::mem::forget(mutex.try_lock().expect("lock").expect("free")));
            });
            let guard = mutex.lock(Deadline::after(Duration::from_secs(5))).expect("lock").expect("free");
            assert!(guard.owner_died());
            drop(guard);
            assert!(!mutex.try_lock().expect("lock").expect("free").owner_died());
        }
    }
}
