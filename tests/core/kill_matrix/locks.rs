//! Locks, recursive or not, and semaphores.

use core::time::Duration;
use std::thread;

use rsmp_core::Deadline;
use rsmp_core::atomic::{AtomicBool, Ordering};
use rsmp_core::sync::lock::Lock;
use rsmp_core::sync::rlock::RLock;
use rsmp_core::sync::semaphore::{MAXIMUM, Semaphore};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

use super::survivor::{asleep, cell, eventually, eventually_within, know_myself, slice, taken};
use super::{Maker, Scenario};

pub(crate) const ALL: &[Maker] = &[
    ("lock: acquire and release", lock),
    ("lock: release with a sleeper", lock_release),
    ("lock: release with a robust sleeper", lock_release_robust),
    ("lock: wait", lock_wait),
    ("lock: acquire robustly from the dead", lock_robust),
    ("rlock: acquire twice and release twice", rlock),
    ("rlock: release twice with a sleeper", rlock_release),
    ("semaphore: acquire and release", semaphore),
    ("semaphore: release with a waiter", semaphore_release),
];

/// The flag of a lock's word that says that somebody may sleep.
const WAITERS: u64 = 1 << 31;

fn check_lock(lock: Lock<'_>, pid: u32) {
    let me = Identity::current();
    let spin = Spin::new();
    match lock.holder() {
        None => assert!(eventually(|until| lock.acquire(me, &spin, until)), "a free lock cannot be had"),
        Some(holder) => {
            assert!(holder.pid() == pid && !holder.is_alive(), "held by nobody known");
            assert!(!lock.try_acquire(me));
            assert_eq!(lock.inherit(me), Some(holder));
        }
    }
    assert_eq!(lock.holder(), Some(me));
    assert!(lock.release() && lock.holder().is_none());
}

fn lock(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let lock = Lock::new(cell.word64(0));
    run(Scenario {
        name: "acquire and release",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            assert!(lock.acquire(Identity::current(), &Spin::new(), Deadline::NEVER));
            assert!(lock.release());
        }),
        look: None,
        check: Box::new(|pid, _| check_lock(lock, pid)),
    });
}

/// A process that holds it lets go while a thread of the survivor sleeps. `robust`: the sleeper inherits from the dead.
fn releasing(run: &mut dyn FnMut(Scenario<'_>), name: &'static str, depth: u32, robust: bool) {
    let cell = cell();
    let (lock, levels) = (Lock::new(cell.word64(0)), RLock::new(cell.word64(0), cell.word32(8), cell.word64(32)));
    let ended = AtomicBool::new(false);
    let asleep = || cell.word64(0).load(Ordering::Relaxed) & WAITERS != 0;
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| {
            let me = Identity::current();
            while lock.holder().is_none() && !ended.load(Ordering::Relaxed) {
                thread::sleep(Duration::from_micros(100));
            }
            eventually_within(Duration::from_secs(30), |until| {
                if robust {
                    !matches!(lock.acquire_robust(me, &Spin::new(), until), Ok(false))
                } else {
                    lock.acquire(me, &Spin::new(), until)
                }
            })
        });
        run(Scenario {
            name,
            prepare: Box::new(|| {
                let me = Identity::current();
                for _ in 0..depth {
                    assert!(levels.try_acquire(me));
                }
                while !asleep() {
                    thread::sleep(Duration::from_micros(100));
                }
                // From the flag to the sleep.
                thread::sleep(Duration::from_millis(1));
            }),
            operation: Box::new(|| {
                if depth == 1 {
                    assert!(lock.release());
                } else {
                    for _ in 0..depth {
                        assert!(levels.release(Identity::current()));
                    }
                }
            }),
            look: None,
            check: Box::new(|pid, done| {
                if let Some(holder) = lock.holder()
                    && holder.pid() == pid
                    && !robust
                {
                    assert!(!done && !holder.is_alive());
                    // Nobody but the program can know that it may be had.
                    assert!(lock.release());
                }
                assert!(eventually(|_| taken(&sleeper)), "the sleeper sleeps on");
                // The sleeper is another thread.
                assert_eq!(lock.holder().map(Identity::pid), Some(std::process::id()));
                assert!(lock.release());
                check_lock(lock, pid);
            }),
        });
        ended.store(true, Ordering::Relaxed);
    });
}

fn lock_release(run: &mut dyn FnMut(Scenario<'_>)) {
    releasing(run, "release with a sleeper", 1, false);
}

fn lock_release_robust(run: &mut dyn FnMut(Scenario<'_>)) {
    releasing(run, "release with a robust sleeper", 1, true);
}

fn rlock_release(run: &mut dyn FnMut(Scenario<'_>)) {
    releasing(run, "release twice with a sleeper", 2, false);
}

fn lock_wait(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let lock = Lock::new(cell.word64(0));
    assert!(lock.try_acquire(Identity::current()));
    run(Scenario {
        name: "wait",
        prepare: Box::new(know_myself),
        operation: Box::new(|| assert!(!lock.acquire(Identity::current(), &Spin::new(), slice()))),
        look: None,
        check: Box::new(|pid, _| {
            assert_eq!(lock.holder(), Some(Identity::current()));
            assert!(lock.release());
            check_lock(lock, pid);
        }),
    });
}

/// The word of a lock that a process held when it was killed.
fn dead_holder(lock: Lock<'_>) -> bool {
    let holder = super::Stepped::start(|| assert!(lock.try_acquire(Identity::current())), || {});
    holder.map(super::Stepped::kill).is_some()
}

fn lock_robust(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let lock = Lock::new(cell.word64(0));
    if !dead_holder(lock) {
        return;
    }
    run(Scenario {
        name: "acquire robustly from the dead",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            let me = Identity::current();
            // Tells by an error whose it was.
            let _ = lock.acquire_robust(me, &Spin::new(), Deadline::after(Duration::from_secs(2)));
        }),
        look: None,
        check: Box::new(|_, _| {
            let me = Identity::current();
            let inherited = eventually(|until| !matches!(lock.acquire_robust(me, &Spin::new(), until), Ok(false)));
            assert!(inherited && lock.holder() == Some(me) && lock.release());
        }),
    });
}

fn rlock(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let lock = RLock::new(cell.word64(0), cell.word32(8), cell.word64(32));
    run(Scenario {
        name: "acquire twice and release twice",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            let me = Identity::current();
            assert!(lock.acquire(me, &Spin::new(), Deadline::NEVER) && lock.try_acquire(me));
            assert!(lock.release(me) && lock.release(me));
        }),
        look: None,
        check: Box::new(|pid, _| {
            let me = Identity::current();
            assert!(!lock.release(me), "released by a stranger");
            let held = lock.holder().is_some();
            assert_eq!(lock.read(|| me, || ()).is_none(), held, "a reader does not see whether it is held");
            check_lock(Lock::new(cell.word64(0)), pid);
            assert!(lock.try_acquire(me) && lock.depth(me) == 1 && lock.release(me) && lock.holder().is_none());
        }),
    });
}

fn semaphore(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let semaphore = Semaphore::new(cell.word32(0));
    semaphore.initialise(2);
    run(Scenario {
        name: "acquire and release",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            assert!(semaphore.acquire(&Spin::new(), Deadline::NEVER));
            assert!(semaphore.release(2));
        }),
        look: None,
        check: Box::new(|_, done| {
            let value = semaphore.value();
            assert!(value == 2 || (value == 1 && !done), "{value}");
            for _ in 0..value {
                assert!(semaphore.try_acquire());
            }
            assert!(!semaphore.try_acquire() && semaphore.release(2) && semaphore.try_acquire());
        }),
    });
}

fn semaphore_release(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let semaphore = Semaphore::new(cell.word32(0));
    thread::scope(|scope| {
        let waiter =
            scope.spawn(|| eventually_within(Duration::from_secs(30), |until| semaphore.acquire(&Spin::new(), until)));
        asleep();
        run(Scenario {
            name: "release with a waiter",
            prepare: Box::new(know_myself),
            operation: Box::new(|| assert!(semaphore.release(MAXIMUM))),
            look: None,
            check: Box::new(|_, done| {
                if !done && !taken(&waiter) && semaphore.value() == 0 {
                    assert!(semaphore.release(MAXIMUM));
                }
                assert!(eventually(|_| taken(&waiter)), "the waiter sleeps on");
                assert!(semaphore.value() <= 1);
            }),
        });
    });
}
