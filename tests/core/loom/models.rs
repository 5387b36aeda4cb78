//! What is explored. Each model asserts what must hold in every execution; that it ends says that no wake is lost.

use loom::cell::UnsafeCell;
use loom::sync::Arc;
use loom::thread;

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Deadline;
use crate::kernel::{Cell, Identity, Spin};
use crate::pool::Pool;
use crate::ring::Ring;
use crate::sync::barrier::{Arrival, Barrier, End};
use crate::sync::condition::Condition;
use crate::sync::event::Event;
use crate::sync::lock::Lock;
use crate::sync::rlock::RLock;
use crate::sync::semaphore::Semaphore;

const NEVER: Deadline = Deadline::NEVER;

type Model = (&'static str, fn());

pub(crate) const ALL: &[Model] = &[
    ("lock: two take it in turn", || locks(2)),
    ("lock: three take it in turn", || locks(3)),
    ("rlock: two take it twice in turn", rlocks),
    ("rlock: one writes twice, one reads without it", || rlock_read(1)),
    ("rlock: two write, one reads without it", rlock_read_between),
    ("rlock: who reads without it is seen by the next holder", rlock_read_after_write),
    ("semaphore: two acquire, one releases twice", semaphores),
    ("semaphore: one at a time", semaphore_as_lock),
    ("event: two wait, one sets", events),
    ("event: one waits, another sets and clears", events_cleared),
    ("condition: one waits, another notifies", || conditions(1)),
    ("condition: two wait, another notifies twice", || conditions(2)),
    ("barrier: two arrive, twice", barriers),
    ("barrier: three arrive", barrier_of_three),
    ("barrier: one waits, another aborts", barrier_aborted),
    ("queue: one puts two, one gets them", || queues(1)),
    ("queue: one puts two, two get them", || queues(2)),
    ("queue: two put through a bound of one, one gets them", bounded),
    ("queue: marks are whole", marks),
    ("queue: the descriptor of one that is put and taken", descriptors),
    ("queue: watched while one is put", watching),
    ("pool: one worker runs two tasks", || pools(1, 2)),
    ("pool: two workers run two tasks", || pools(2, 2)),
    ("pool: a worker dies that was woken for the task", || heirs(1, Pool::die_woken)),
    ("pool: a worker dies that watches for the task", || heirs(2, Pool::die_watching)),
];

fn me(number: u64) -> Identity {
    Identity::number(number)
}

fn each(count: u64, body: impl Fn(u64) + Send + Sync + 'static) {
    let body = Arc::new(body);
    let others: Vec<_> = (1..count)
        .map(|number| {
            let body = Arc::clone(&body);
            thread::spawn(move || body(number + 1))
        })
        .collect();
    body(1);
    for other in others {
        other.join().expect("it does not panic");
    }
}

/// Memory that only the holder may touch: loom reports who else does.
struct Guarded(UnsafeCell<u32>);

// SAFETY: what the models show.
unsafe impl Sync for Guarded {}

impl Guarded {
    fn new() -> Self {
        Self(UnsafeCell::new(0))
    }

    fn raise(&self) -> u32 {
        // SAFETY: loom checks that nobody else is here.
        self.0.with_mut(|value| unsafe {
            *value += 1;
            *value
        })
    }
}

fn locks(count: u64) {
    let (word, guarded) = (AtomicU64::new(0), Guarded::new());
    each(count, move |number| {
        let lock = Lock::new(&word);
        while !lock.acquire(me(number), &Spin, NEVER) {}
        assert!(guarded.raise() <= count as u32);
        assert_eq!(lock.holder(), Some(me(number)));
        assert!(lock.release());
    });
}

fn rlocks() {
    let (word, depth, releases, guarded) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0), Guarded::new());
    each(2, move |number| {
        let lock = RLock::new(&word, &depth, &releases);
        while !lock.acquire(me(number), &Spin, NEVER) {}
        assert!(lock.try_acquire(me(number)) && lock.depth(me(number)) == 2);
        assert!(lock.release(me(number)));
        guarded.raise();
        assert!(lock.release(me(number)) && !lock.release(me(number)));
    });
}

/// Adds two to what the lock protects, one at a time, and lets go.
fn add_two(lock: RLock<'_>, number: u64, value: &AtomicU64) {
    while !lock.acquire(me(number), &Spin, NEVER) {}
    let found = value.load(Ordering::Relaxed);
    value.store(found + 1, Ordering::Relaxed);
    value.store(found + 2, Ordering::Relaxed);
    assert!(lock.release(me(number)));
}

/// What readers find was never in the middle of somebody's doing, and does not go back.
fn rlock_read(readers: u64) {
    let (word, depth, releases, value) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0), AtomicU64::new(0));
    each(readers + 1, move |number| {
        let lock = RLock::new(&word, &depth, &releases);
        if number == 1 {
            add_two(lock, 1, &value);
            add_two(lock, 1, &value);
            return;
        }
        let mut last = 0;
        for _ in 0..2 {
            if let Some(found) = lock.read(|| me(number), || value.load(Ordering::Relaxed)) {
                assert!(found % 2 == 0 && found >= last, "{found} after {last}");
                last = found;
            }
        }
    });
}

fn rlock_read_between() {
    let (word, depth, releases, value) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0), AtomicU64::new(0));
    each(3, move |number| {
        let lock = RLock::new(&word, &depth, &releases);
        if number == 3 {
            let found = lock.read(|| me(number), || value.load(Ordering::Relaxed));
            assert!(found.is_none_or(|found| found % 2 == 0), "{found:?}");
        } else {
            add_two(lock, number, &value);
        }
    });
}

/// Of two who each write and then look at what the other wrote, one sees it, as if both had taken the lock.
fn rlock_read_after_write() {
    let (word, depth, releases) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0));
    let (value, beside) = (AtomicU64::new(0), AtomicU32::new(0));
    let (first, second) = (AtomicU32::new(2), AtomicU32::new(2));
    let seen = Arc::new((first, second));
    let shared = Arc::new((word, depth, releases, value, beside));
    let others = (Arc::clone(&seen), Arc::clone(&shared));
    let holder = thread::spawn(move || {
        let ((_, second), (word, depth, releases, value, beside)) = (&*others.0, &*others.1);
        add_two(RLock::new(word, depth, releases), 2, value);
        second.store(beside.load(Ordering::Relaxed), Ordering::Relaxed);
    });
    let ((first, second), (word, depth, releases, value, beside)) = (&*seen, &*shared);
    beside.store(1, Ordering::Relaxed);
    let found = RLock::new(word, depth, releases).read(|| me(1), || value.load(Ordering::Relaxed));
    first.store(u32::from(found != Some(0)), Ordering::Relaxed);
    holder.join().expect("it does not panic");
    assert!(first.load(Ordering::Relaxed) + second.load(Ordering::Relaxed) > 0, "neither saw the other");
}

fn semaphores() {
    let word = AtomicU32::new(0);
    each(3, move |number| {
        let semaphore = Semaphore::new(&word);
        if number == 1 {
            assert!(semaphore.release(2) && semaphore.release(2));
        } else {
            while !semaphore.acquire(&Spin, NEVER) {}
        }
    });
}

fn semaphore_as_lock() {
    let (word, guarded) = (AtomicU32::new(1), Guarded::new());
    each(2, move |_| {
        let semaphore = Semaphore::new(&word);
        for _ in 0..2 {
            while !semaphore.acquire(&Spin, NEVER) {}
            guarded.raise();
            assert!(semaphore.release(1));
        }
    });
}

fn events() {
    let (word, guarded) = (AtomicU32::new(0), Guarded::new());
    let read = move |guarded: &Guarded| guarded.0.with(|value| value.is_null());
    each(3, move |number| {
        let event = Event::new(&word);
        if number == 1 {
            guarded.raise();
            event.set();
        } else {
            let since = event.count();
            while !event.wait(since, &Spin, NEVER) {}
            // What happened before it was set is seen.
            assert!(!read(&guarded));
        }
    });
}

/// Whoever waits when it is set is let through, however soon it is cleared.
fn events_cleared() {
    let (word, waits) = (AtomicU32::new(0), AtomicU32::new(0));
    each(2, move |number| {
        let event = Event::new(&word);
        if number == 1 {
            let since = event.count();
            waits.store(1, Ordering::Release);
            while !event.wait(since, &Spin, NEVER) {}
        } else {
            if waits.load(Ordering::Acquire) == 0 {
                // It may begin to wait later than this: then it must find it set.
                event.set();
                return;
            }
            event.set();
            event.clear();
        }
    });
}

fn conditions(waiters: u64) {
    let (cell, word, guarded) = (Cell::new(), AtomicU64::new(0), AtomicU32::new(0));
    each(waiters + 1, move |number| {
        let (condition, lock) = (Condition::new(&cell), Lock::new(&word));
        let acquire = || while !lock.acquire(me(number), &Spin, NEVER) {};
        if number == 1 {
            for _ in 0..waiters {
                acquire();
                guarded.fetch_add(1, Ordering::Relaxed);
                assert!(condition.notify(1) <= 1);
                assert!(lock.release());
            }
        } else {
            acquire();
            while guarded.load(Ordering::Relaxed) == 0 {
                let place = condition.enter(me(number)).expect("room");
                assert!(lock.release());
                while !condition.wait(place, &Spin, NEVER) {}
                acquire();
                assert!(condition.leave(place), "it was let through without being notified");
            }
            guarded.fetch_sub(1, Ordering::Relaxed);
            assert!(lock.release());
        }
    });
}

fn barriers() {
    let (word, guarded) = (AtomicU64::new(0), AtomicU32::new(0));
    each(2, move |_| {
        for round in 1..=2 {
            guarded.fetch_add(1, Ordering::Relaxed);
            pass(Barrier::new(&word), 2);
            assert!(guarded.load(Ordering::Relaxed) >= 2 * round, "through before all had arrived");
        }
    });
}

fn barrier_of_three() {
    let word = AtomicU64::new(0);
    each(3, move |_| pass(Barrier::new(&word), 3));
}

fn pass(barrier: Barrier<'_>, parties: u64) {
    match barrier.arrive(parties, false, NEVER) {
        Some((_, Arrival::Passed)) => {}
        Some((_, Arrival::Wait(round))) => loop {
            match barrier.wait(round, &Spin, NEVER) {
                Some(End::Passed) => break,
                Some(End::Broken) => panic!("nobody broke it"),
                None => {}
            }
        },
        other => panic!("{other:?}"),
    }
}

fn barrier_aborted() {
    let word = AtomicU64::new(0);
    each(2, move |number| {
        let barrier = Barrier::new(&word);
        if number == 2 {
            barrier.abort();
            return;
        }
        match barrier.arrive(2, false, NEVER) {
            Some((0, Arrival::Wait(round))) => {
                let mut end = None;
                while end.is_none() {
                    end = barrier.wait(round, &Spin, NEVER);
                }
                assert_eq!(end, Some(End::Broken));
            }
            Some((_, Arrival::Broken)) => {}
            other => panic!("{other:?}"),
        }
    });
}

fn queues(consumers: u64) {
    let ring = Ring::new();
    each(consumers + 1, move |number| {
        for _ in 0..if number == 1 { 2 } else { 2 / consumers } {
            if number == 1 { ring.put() } else { ring.get() }
        }
    });
}

fn bounded() {
    let ring = Ring::new();
    each(3, move |number| {
        if number == 1 {
            ring.get_bounded();
            ring.get_bounded();
        } else {
            ring.put_bounded(1);
        }
    });
}

fn marks() {
    let ring = Ring::new();
    each(2, move |number| {
        for _ in 0..2 {
            if number == 1 {
                ring.put();
            } else {
                // Asserts that what it reads is one mark.
                let _ = ring.try_get();
            }
        }
    });
}

/// With the queue watched: when all is quiet, it is readable if it holds anything; and only a call can have left it
/// readable when it does not.
fn descriptors() {
    let ring = Arc::new(Ring::new());
    ring.watch().expect("it cannot fail");
    let shared = Arc::clone(&ring);
    let consumer = thread::spawn(move || shared.try_get());
    ring.put();
    let taken = consumer.join().expect("it does not panic");
    assert_eq!(taken, ring.is_empty());
    assert!(taken || ring.is_readable(), "a record that nobody is told of");
    ring.settle().expect("it cannot fail");
    assert_eq!(ring.is_readable(), !taken);
}

fn watching() {
    let ring = Arc::new(Ring::new());
    let shared = Arc::clone(&ring);
    let producer = thread::spawn(move || shared.put());
    ring.watch().expect("it cannot fail");
    producer.join().expect("it does not panic");
    assert!(ring.is_readable(), "a record that nobody is told of");
    assert!(ring.try_get() && !ring.is_readable());
}

/// Every task is run and every result seen, before the workers are told to leave.
fn pools(workers: u64, tasks: u64) {
    let pool = Pool::new(workers as u32, tasks);
    // The workers begin: what matters happens when they are about to sleep.
    each(workers + 1, move |number| {
        if number == workers + 1 {
            for task in 0..tasks {
                pool.publish(task);
            }
            pool.await_results(tasks as u32, || {});
            pool.leave();
        } else {
            pool.serve();
        }
    });
}

/// One of two workers dies, or is told to leave if it was not woken: the other runs the tasks all the same.
fn heirs(tasks: u64, die: fn(&Pool)) {
    let (pool, dead) = (Pool::new(2, tasks), AtomicU32::new(0));
    each(3, move |number| match number {
        3 => {
            let buried = core::cell::Cell::new(false);
            for task in 0..tasks {
                pool.publish(task);
                // Whoever sleeps on the event is told of deaths, too.
                pool.await_results(task as u32 + 1, || {
                    if dead.load(Ordering::Acquire) == 1 && !buried.replace(true) {
                        pool.bury();
                    }
                });
            }
            pool.leave();
        }
        1 => {
            die(&pool);
            dead.store(1, Ordering::Release);
            pool.kick();
        }
        _ => pool.serve(),
    });
}
