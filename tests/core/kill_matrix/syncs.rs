//! Locks, semaphores, conditions, events and barriers.

use core::time::Duration;
use std::thread;

use rsmp_core::Deadline;
use rsmp_core::atomic::{AtomicBool, AtomicU64, Ordering};
use rsmp_core::shm::arena::{self, Cell};
use rsmp_core::shm::participants::{self, Participants};
use rsmp_core::sync::barrier::{Arrival, Barrier, End};
use rsmp_core::sync::condition::{self, Condition};
use rsmp_core::sync::event::Event;
use rsmp_core::sync::lock::Lock;
use rsmp_core::sync::rlock::RLock;
use rsmp_core::sync::semaphore::{MAXIMUM, Semaphore};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

use super::{Maker, Scenario, soon};

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
    ("event: set with a waiter", event_set),
    ("event: wait", event_wait),
    ("condition: wait", condition_wait),
    ("condition: notify", condition_notify),
    ("condition: wait, spilled", condition_wait_spilled),
    ("condition: wait, spilled into fresh memory", condition_wait_fresh),
    ("condition: notify, spilled", condition_notify_spilled),
    ("barrier: arrive and wait", barrier_wait),
    ("barrier: arrive as the last", barrier_last),
    ("barrier: arrive as the actor", barrier_act),
    ("arena: allocate and drop", arena_cells),
    ("participants: expect and cancel", participants_expect),
    ("participants: arrive", participants_arrive),
    ("participants: look who lives", participants_look),
];

/// The flag of a lock's word that says that somebody may sleep.
const WAITERS: u64 = 1 << 31;

/// Places in a condition's own cell.
const PLACES: usize = 12;

fn cell() -> Cell {
    arena::allocate(condition::SIZE).unwrap()
}

fn know_myself() {
    let _ = Identity::current();
}

fn slice() -> Deadline {
    Deadline::after(Duration::from_millis(5))
}

/// Tries in slices, as the binding does, for as long as a death may go unnoticed.
fn eventually(mut step: impl FnMut(Deadline) -> bool) -> bool {
    let until = soon();
    loop {
        let last = until.has_passed();
        if step(until.capped(Duration::from_millis(500))) {
            return true;
        }
        if last {
            return false;
        }
    }
}

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
        check: Box::new(|pid, _| check_lock(lock, pid)),
    });
}

/// A process that holds it lets go while a thread of the survivor sleeps. `robust`: the sleeper inherits from the dead.
fn releasing(run: &mut dyn FnMut(Scenario<'_>), name: &'static str, depth: u32, robust: bool) {
    let cell = cell();
    let (lock, levels) = (Lock::new(cell.word64(0)), RLock::new(cell.word64(0), cell.word32(8)));
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
        check: Box::new(|_, _| {
            let me = Identity::current();
            let inherited = eventually(|until| !matches!(lock.acquire_robust(me, &Spin::new(), until), Ok(false)));
            assert!(inherited && lock.holder() == Some(me) && lock.release());
        }),
    });
}

fn rlock(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let lock = RLock::new(cell.word64(0), cell.word32(8));
    run(Scenario {
        name: "acquire twice and release twice",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            let me = Identity::current();
            assert!(lock.acquire(me, &Spin::new(), Deadline::NEVER) && lock.try_acquire(me));
            assert!(lock.release(me) && lock.release(me));
        }),
        check: Box::new(|pid, _| {
            let me = Identity::current();
            assert!(!lock.release(me), "released by a stranger");
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

fn taken(waiter: &thread::ScopedJoinHandle<'_, bool>) -> bool {
    thread::sleep(Duration::from_millis(1));
    waiter.is_finished()
}

/// Gives threads of the survivor the time to fall asleep.
fn asleep() {
    thread::sleep(Duration::from_millis(2));
}

fn eventually_within(time: Duration, mut step: impl FnMut(Deadline) -> bool) -> bool {
    let until = Deadline::after(time);
    while !until.has_passed() {
        if step(until.capped(Duration::from_millis(500))) {
            return true;
        }
    }
    false
}

fn event_set(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let event = Event::new(cell.word32(0));
    thread::scope(|scope| {
        let since = event.count();
        let waiter = scope
            .spawn(move || eventually_within(Duration::from_secs(30), |until| event.wait(since, &Spin::new(), until)));
        asleep();
        run(Scenario {
            name: "set with a waiter",
            prepare: Box::new(know_myself),
            operation: Box::new(|| event.set()),
            check: Box::new(|_, done| {
                assert!(event.is_set() || !done);
                if !event.is_set() {
                    event.set();
                }
                assert!(eventually(|_| taken(&waiter)), "the waiter sleeps on");
                event.clear();
                assert!(!event.is_set());
            }),
        });
        event.set();
    });
}

fn event_wait(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let event = Event::new(cell.word32(0));
    run(Scenario {
        name: "wait",
        prepare: Box::new(know_myself),
        operation: Box::new(|| assert!(!event.wait(event.count(), &Spin::new(), slice()))),
        check: Box::new(|_, _| {
            let since = event.count();
            event.set();
            event.clear();
            assert!(event.wait(since, &Spin::new(), soon()));
        }),
    });
}

/// A waiter is killed; another one lives, and is the one to be woken.
fn condition_wait(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let condition = Condition::new(&cell);
    run(Scenario {
        name: "wait",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            let place = condition.enter(Identity::current()).unwrap();
            assert!(!condition.wait(place, &Spin::new(), slice()));
            assert!(!condition.leave(place));
        }),
        check: Box::new(|_, done| {
            assert!(condition.sleepers() <= usize::from(!done));
            let place = condition.enter(Identity::current()).unwrap();
            assert_eq!(condition.notify(1), 1);
            assert!(condition.wait(place, &Spin::new(), soon()), "the dead took the notification");
            assert!(condition.leave(place));
            assert_eq!(condition.notify(usize::MAX), 0);
            // Its place can be had again: there are many more waits than places.
            for _ in 0..40 {
                let place = condition.enter(Identity::current()).unwrap();
                assert!(!condition.leave(place));
            }
        }),
    });
}

fn condition_notify(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let condition = Condition::new(&cell);
    thread::scope(|scope| {
        let wait = || {
            let place = condition.enter(Identity::current()).unwrap();
            let notified =
                eventually_within(Duration::from_secs(30), |until| condition.wait(place, &Spin::new(), until));
            condition.leave(place) && notified
        };
        let waiters = [scope.spawn(wait), scope.spawn(wait)];
        while condition.sleepers() < 2 {
            thread::yield_now();
        }
        asleep();
        run(Scenario {
            name: "notify",
            prepare: Box::new(know_myself),
            operation: Box::new(|| assert_eq!(condition.notify(1), 1)),
            check: Box::new(|_, done| {
                let left = condition.sleepers();
                assert!(left == 1 || (left == 2 && !done), "{left} left");
                if left == 1 {
                    assert!(eventually(|_| waiters.iter().any(taken)), "the notified sleeps on");
                }
                assert_eq!(condition.notify(usize::MAX), left);
                assert!(eventually(|_| waiters.iter().all(taken)), "a waiter sleeps on");
            }),
        });
        condition.notify(usize::MAX);
    });
}

/// So many wait already that a waiter's place is in the arena.
fn condition_wait_spilled(run: &mut dyn FnMut(Scenario<'_>)) {
    spilled(run, "wait, spilled", 0);
}

/// The place's memory is not there yet: all places that ever were are taken.
fn condition_wait_fresh(run: &mut dyn FnMut(Scenario<'_>)) {
    let ever = cell().arena().waiters().1.load(Ordering::Relaxed) as usize;
    spilled(run, "wait, spilled into fresh memory", ever);
}

fn spilled(run: &mut dyn FnMut(Scenario<'_>), name: &'static str, more: usize) {
    let cell = cell();
    let condition = Condition::new(&cell);
    let enter = || condition.enter(Identity::current()).unwrap();
    let others: Vec<_> = (0..PLACES + more).map(|_| enter()).collect();
    run(Scenario {
        name,
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            let place = enter();
            assert!(!condition.wait(place, &Spin::new(), slice()));
            assert!(!condition.leave(place));
        }),
        check: Box::new(|_, done| {
            assert!((0..=usize::from(!done)).contains(&(condition.sleepers() - others.len())));
            // Those who came first, then whoever lives.
            assert_eq!(condition.notify(others.len()), others.len());
            assert!(others.iter().all(|place| condition.leave(*place)));
            let places: Vec<_> = (0..=PLACES).map(|_| enter()).collect();
            assert_eq!(condition.notify(usize::MAX), PLACES + 1, "the dead took a notification");
            assert!(places.iter().all(|place| condition.wait(*place, &Spin::new(), soon()) && condition.leave(*place)));
            assert_eq!((condition.notify(usize::MAX), condition.sleepers()), (0, 0));
            // Its place can be had again: no more are in use than those who wait at a time.
            let mark = cell.arena().waiters().1.load(Ordering::Relaxed);
            for _ in 0..20 {
                let places: Vec<_> = (0..=PLACES).map(|_| enter()).collect();
                assert!(places.iter().all(|place| !condition.leave(*place)));
            }
            assert_eq!(cell.arena().waiters().1.load(Ordering::Relaxed), mark);
        }),
    });
}

fn condition_notify_spilled(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let condition = Condition::new(&cell);
    let others: Vec<_> = (0..PLACES).map(|_| condition.enter(Identity::current()).unwrap()).collect();
    thread::scope(|scope| {
        let wait = || {
            let place = condition.enter(Identity::current()).unwrap();
            let notified =
                eventually_within(Duration::from_secs(30), |until| condition.wait(place, &Spin::new(), until));
            condition.leave(place) && notified
        };
        let waiters = [scope.spawn(wait), scope.spawn(wait)];
        while condition.sleepers() < PLACES + 2 {
            thread::yield_now();
        }
        asleep();
        run(Scenario {
            name: "notify, spilled",
            prepare: Box::new(know_myself),
            operation: Box::new(|| assert_eq!(condition.notify(PLACES + 1), PLACES + 1)),
            check: Box::new(|_, done| {
                let left = condition.sleepers();
                assert!(left >= 1 && (!done || left == 1), "{left} left");
                if left == 1 {
                    assert!(eventually(|_| waiters.iter().any(taken)), "the notified sleeps on");
                }
                assert_eq!(condition.notify(usize::MAX), left);
                assert!(eventually(|_| waiters.iter().all(taken)), "a waiter sleeps on");
                assert!(others.iter().all(|place| condition.leave(*place)), "a notification went to nobody");
            }),
        });
        condition.notify(usize::MAX);
    });
}

fn barrier_wait(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let barrier = Barrier::new(cell.word64(0));
    run(Scenario {
        name: "arrive and wait",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            let Some((0, Arrival::Wait(round))) = barrier.arrive(2, false, Deadline::NEVER) else {
                panic!("not first")
            };
            let _ = barrier.wait(round, &Spin::new(), slice());
        }),
        check: Box::new(|_, done| {
            let waiting = barrier.waiting();
            assert!(waiting <= 1 && (!done || waiting == 1));
            match barrier.arrive(2, false, soon()) {
                Some((1, Arrival::Passed)) => assert_eq!(waiting, 1),
                Some((0, Arrival::Wait(round))) => {
                    assert_eq!(waiting, 0);
                    assert_eq!(barrier.wait(round, &Spin::new(), slice()), None);
                    assert_eq!(barrier.expire(round), Some(End::Broken));
                    barrier.reset();
                }
                other => panic!("{other:?}"),
            }
            assert!(barrier.waiting() == 0 && !barrier.is_broken());
        }),
    });
}

fn barrier_last(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let barrier = Barrier::new(cell.word64(0));
    let Some((0, Arrival::Wait(round))) = barrier.arrive(2, false, soon()) else { panic!("not first") };
    run(Scenario {
        name: "arrive as the last",
        prepare: Box::new(know_myself),
        operation: Box::new(|| assert_eq!(barrier.arrive(2, false, Deadline::NEVER), Some((1, Arrival::Passed)))),
        check: Box::new(move |_, done| {
            let passed = barrier.waiting() == 0;
            assert!(passed || !done);
            if !passed {
                assert_eq!(barrier.arrive(2, false, soon()), Some((1, Arrival::Passed)));
            }
            assert_eq!(barrier.wait(round, &Spin::new(), soon()), Some(End::Passed));
        }),
    });
}

fn barrier_act(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let barrier = Barrier::new(cell.word64(0));
    let Some((0, Arrival::Wait(round))) = barrier.arrive(2, true, soon()) else { panic!("not first") };
    run(Scenario {
        name: "arrive as the actor",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            let Some((1, Arrival::Act(round))) = barrier.arrive(2, true, Deadline::NEVER) else { panic!("not last") };
            assert!(barrier.finish(round));
        }),
        check: Box::new(move |_, done| {
            let mut end = None;
            if barrier.waiting() == 1 {
                assert!(!done);
                assert_eq!(barrier.wait(round, &Spin::new(), slice()), None);
                barrier.abort();
            }
            assert!(eventually(|until| {
                end = barrier.wait(round, &Spin::new(), until);
                end.is_some()
            }));
            assert!(!done || end == Some(End::Passed));
            barrier.reset();
            assert!(!barrier.is_broken() && barrier.waiting() == 0);
        }),
    });
}

/// A process makes an arena of its own and uses cells again; ours does not mind.
fn arena_cells(run: &mut dyn FnMut(Scenario<'_>)) {
    let kept = cell();
    kept.word64(0).store(7, Ordering::Relaxed);
    run(Scenario {
        name: "allocate and drop",
        prepare: Box::new(know_myself),
        operation: Box::new(|| {
            let first = arena::allocate(arena::LINE).unwrap();
            drop(arena::allocate(3 * arena::LINE).unwrap());
            drop(first);
        }),
        check: Box::new(|pid, _| {
            arena::forked(pid);
            let cells: Vec<Cell> = (0..50).map(|_| cell()).collect();
            assert!(
                cells.iter().all(|cell| cell.offset() != kept.offset() && cell.word64(0).load(Ordering::Relaxed) == 0)
            );
            assert_eq!(kept.word64(0).load(Ordering::Relaxed), 7);
        }),
    });
}

const TABLE: usize = participants::CAPACITY * participants::WORDS;

/// A table of participants in a cell, one word of which says that it is full.
fn with_table(then: impl FnOnce(Participants<'_>)) {
    let cell = arena::allocate(TABLE * 8 + arena::LINE).unwrap();
    let words: Vec<&AtomicU64> = (0..TABLE).map(|word| cell.word64(word * 8)).collect();
    // SAFETY: the words lie one behind the other in the cell, which outlives the table.
    let words = unsafe { core::slice::from_raw_parts(core::ptr::from_ref(words[0]), TABLE) };
    then(Participants::new(words, cell.word64(TABLE * 8)));
}

/// As many more as the table has room for; those of processes that live count, and so does what the dead expected.
fn check_room(table: Participants<'_>, taken: usize) {
    let me = Identity::current();
    let tickets: Vec<_> = (0..participants::CAPACITY - taken).map(|_| table.expect(me, 3).expect("room")).collect();
    assert_eq!(table.events().map(|events| events.len()), Some(participants::CAPACITY));
    for ticket in tickets {
        table.cancel(ticket, me);
    }
    assert_eq!(table.events().map(|events| events.len()), Some(taken));
}

fn participants_expect(run: &mut dyn FnMut(Scenario<'_>)) {
    with_table(|table| {
        run(Scenario {
            name: "expect and cancel",
            prepare: Box::new(know_myself),
            operation: Box::new(|| {
                let me = Identity::current();
                let ticket = table.expect(me, 7).expect("room");
                table.cancel(ticket, me);
            }),
            check: Box::new(|_, done| {
                let events = table.events().expect("it is not full");
                assert!(events.is_empty() || (!done && events == [7]), "{events:?}");
                check_room(table, events.len());
            }),
        });
    });
}

fn participants_arrive(run: &mut dyn FnMut(Scenario<'_>)) {
    with_table(|table| {
        let me = Identity::current();
        let ticket = table.expect(me, 7).expect("room");
        run(Scenario {
            name: "arrive",
            prepare: Box::new(know_myself),
            operation: Box::new(|| assert_eq!(table.arrive(ticket, Identity::current()), Some(7))),
            check: Box::new(|_, done| {
                let events = table.events().expect("it is not full");
                assert!(events.is_empty() || (!done && events == [7]), "{events:?}");
                // Whoever expected it sees it end.
                table.cancel(ticket, me);
                check_room(table, 0);
            }),
        });
    });
}

/// Looking frees what the dead have left, and is killed doing it.
fn participants_look(run: &mut dyn FnMut(Scenario<'_>)) {
    with_table(|table| {
        let me = Identity::current();
        // Of this process's id, and begun at another time.
        let dead = Identity::from_word(me.to_word() ^ (1 << 22)).unwrap();
        for event in 0..3 {
            let ticket = table.expect(me, event).expect("room");
            assert_eq!(table.arrive(ticket, dead), Some(event));
        }
        let living = table.expect(me, 9).expect("room");
        assert_eq!(table.arrive(living, me), Some(9));
        run(Scenario {
            name: "look who lives",
            prepare: Box::new(know_myself),
            operation: Box::new(|| assert_eq!(table.events(), Some(vec![9]))),
            check: Box::new(|_, _| {
                assert_eq!(table.events(), Some(vec![9]));
                check_room(table, 1);
            }),
        });
    });
}
