//! What is run. Miri reports what it sees; each case asserts what must hold besides.

use std::cell::UnsafeCell;
use std::sync::Arc;
use std::thread;

use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Deadline;
use crate::kernel::process::{self, Identity};
use crate::kernel::{Cell, descriptor, memory};
use crate::ring::{Batch, Limits, Ring};
use crate::shm::region::Region;
use crate::sync::barrier::{Arrival, Barrier, End};
use crate::sync::condition::Condition;
use crate::sync::event::Event;
use crate::sync::lock::Lock;
use crate::sync::rlock::RLock;
use crate::sync::semaphore::Semaphore;
use crate::sync::spin::Spin;

const NEVER: Deadline = Deadline::NEVER;

type Case = (&'static str, fn());

pub(crate) const ALL: &[Case] = &[
    ("queue: records of every length, between two processes", lengths),
    ("queue: a backlog of several segments, and what is left of it", backlog),
    ("queue: two put, two take", || traffic(Limits::default())),
    ("queue: two put through a bound, two take", || traffic(Limits { items: 2, bytes: 0 })),
    ("queue: long records, taken while more are put", long_records),
    ("queue: a consumer dies with a record, another with the lock", consumers_die),
    ("queue: a producer dies with a record half made, another with the lock", producers_die),
    ("queue: watched", watched),
    ("region: words and bytes", region),
    ("lock: one at a time", locks),
    ("lock: inherited from the dead", heirs),
    ("rlock: one at a time, and readers without it", rlocks),
    ("semaphore: one at a time", semaphores),
    ("event: what came before is seen", events),
    ("condition: as many as are notified", conditions),
    ("barrier: all or none", barriers),
];

fn in_threads(count: u32, body: impl Fn(u32) + Sync) {
    thread::scope(|scope| {
        for number in 1..count {
            let body = &body;
            scope.spawn(move || body(number));
        }
        body(0);
    });
}

fn ring(limits: Limits) -> Arc<Ring> {
    Ring::create(limits).expect("a queue")
}

/// The queue as another process has it: the same memory, and all else of its own.
fn other(ring: &Ring) -> Arc<Ring> {
    let event = descriptor::event().expect("an event");
    Ring::attach(memory::share(ring.file()), event).expect("a queue")
}

fn put(ring: &Ring, tag: u8, bytes: &[u8]) {
    let (first, second) = bytes.split_at(bytes.len() / 2);
    while ring.put_bytes(tag, &[first, second], NEVER).expect("put").is_none() {}
}

fn get(ring: &Arc<Ring>) -> (u8, Vec<u8>) {
    let mut batch = Batch::new();
    while ring.get(&mut batch, 1, NEVER).expect("get") == 0 {}
    let (tag, bytes) = batch.get(0);
    (tag, bytes.to_vec())
}

/// Made, and compared, in few steps.
fn pattern(len: usize, seed: usize) -> Vec<u8> {
    let mut bytes = vec![seed as u8; len];
    if let [first, .., last] = &mut *bytes {
        (*first, *last) = (len as u8, !(seed as u8));
    }
    bytes
}

fn lengths() {
    let ours = ring(Limits::default());
    let theirs = other(&ours);
    let lens = [0, 1, 7, 8, 9, 1000, 16 << 10, (16 << 10) + 1, 65_537];
    for round in 0..2 {
        for (tag, len) in (0..).zip(lens) {
            put(&ours, tag, &pattern(len, round));
        }
        assert_eq!(theirs.len(), lens.len() as u64);
        for (tag, len) in (0..).zip(lens) {
            assert!(get(&theirs) == (tag, pattern(len, round)), "{len}");
        }
        assert!(ours.is_empty());
    }
}

fn backlog() {
    let ours = ring(Limits::default());
    let theirs = other(&ours);
    for round in 0..3 {
        for index in 0..60 {
            put(&ours, 0, &pattern(9_000, round + index));
        }
        for index in 0..60 {
            assert!(get(&theirs).1 == pattern(9_000, round + index));
        }
    }
    theirs.rest().expect("rest");
    put(&theirs, 1, b"after");
    assert_eq!(get(&ours), (1, b"after".to_vec()));
}

fn traffic(limits: Limits) {
    const EACH: u64 = 12;
    let ours = ring(limits);
    let sum = AtomicU64::new(0);
    in_threads(4, |number| {
        let ring = if number % 2 == 0 { Arc::clone(&ours) } else { other(&ours) };
        for index in 0..EACH {
            if number < 2 {
                let len = if index % 5 == 0 { 17_000 } else { 8 + index as usize };
                let mut bytes = vec![0; len];
                bytes[..8].copy_from_slice(&(u64::from(number) * EACH + index).to_ne_bytes());
                put(&ring, 0, &bytes);
            } else {
                let bytes = get(&ring).1;
                sum.fetch_add(u64::from_ne_bytes(bytes[..8].try_into().expect("eight")), Ordering::Relaxed);
            }
        }
    });
    assert_eq!(sum.into_inner(), (0..2 * EACH).sum());
    assert!(ours.is_empty());
}

fn long_records() {
    let ours = ring(Limits::default());
    in_threads(2, |number| {
        let ring = if number == 0 { Arc::clone(&ours) } else { other(&ours) };
        let mut batch = Batch::new();
        for index in 0..8 {
            if number == 0 {
                put(&ring, 0, &pattern(40_000, index));
            } else {
                batch.clear();
                while ring.get(&mut batch, 1, NEVER).expect("get") == 0 {}
                // Read where it lies.
                assert!(batch.get(0).1 == pattern(40_000, index));
            }
        }
    });
}

fn consumers_die() {
    let ours = ring(Limits::default());
    for index in 0..6 {
        put(&ours, index, &pattern(20_000, index.into()));
    }
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut batch = Batch::new();
            assert_eq!(other(&ours).get(&mut batch, 2, NEVER).expect("get"), 2);
            process::die();
            std::mem::forget(batch);
        });
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            let mut batch = Batch::new();
            let taken = other(&ours).get_with(&mut batch, 1, NEVER, |_| process::die()).expect("get");
            assert_eq!(taken, 1);
            std::mem::forget(batch);
        });
    });
    for index in 3..6 {
        assert!(get(&ours) == (index, pattern(20_000, index.into())));
    }
    // The next to put mends what they left.
    for index in 0..6 {
        put(&ours, index, &pattern(20_000, index.into()));
        assert!(get(&ours) == (index, pattern(20_000, index.into())));
    }
}

fn producers_die() {
    let ours = ring(Limits::default());
    let bytes = pattern(20_000, 1);
    let parts: &[&[u8]] = &[&bytes];
    thread::scope(|scope| {
        scope.spawn(|| {
            let theirs = other(&ours);
            let parcel = theirs.parcel(1, parts).expect("a parcel");
            process::die();
            std::mem::forget(parcel);
            std::mem::forget(theirs);
        });
    });
    thread::scope(|scope| {
        scope.spawn(|| {
            let theirs = other(&ours);
            let parcel = theirs.parcel(2, parts).expect("a parcel");
            process::die();
            assert_eq!(theirs.put(&[parcel], NEVER).expect("put"), 1);
            std::mem::forget(theirs);
        });
    });
    assert!(get(&ours) == (2, bytes.clone()));
    for _ in 0..4 {
        put(&ours, 3, &bytes);
        assert!(get(&ours) == (3, bytes.clone()));
    }
}

fn watched() {
    let ours = ring(Limits::default());
    ours.watch().expect("it cannot fail");
    in_threads(2, |number| {
        for index in 0..6 {
            if number == 0 {
                put(&ours, index, b"watched");
            } else {
                assert_eq!(get(&ours), (index, b"watched".to_vec()));
            }
        }
    });
    ours.settle().expect("it cannot fail");
}

fn region() {
    let ours = Region::create("miri", 8192, 8192).expect("a region");
    let theirs = Region::attach(memory::share(ours.file()), 8192).expect("a region");
    ours.word64(8).store(7 << 40, Ordering::Relaxed);
    ours.word32(16).store(5, Ordering::Relaxed);
    ours.copy_in(8100, b"to the end");
    let mut found = [0; 10];
    theirs.copy_out(8100, &mut found);
    assert_eq!(&found, b"to the end");
    assert_eq!((theirs.word64(8).load(Ordering::Relaxed), theirs.word32(16).load(Ordering::Relaxed)), (7 << 40, 5));
    theirs.give_back(4096, 4096).expect("it cannot fail");
    ours.copy_out(8100, &mut found);
    assert_eq!(found, [0; 10]);
}

/// Memory that only the holder may touch: Miri reports who else does.
#[derive(Default)]
struct Guarded(UnsafeCell<u32>);

// SAFETY: what the cases show.
unsafe impl Sync for Guarded {}

impl Guarded {
    fn raise(&self) -> u32 {
        // SAFETY: Miri checks that nobody else is here.
        unsafe {
            *self.0.get() += 1;
            *self.0.get()
        }
    }
}

fn locks() {
    let (word, guarded, spin) = (AtomicU64::new(0), Guarded::default(), Spin::new());
    in_threads(3, |_| {
        let lock = Lock::new(&word);
        for _ in 0..8 {
            while !lock.acquire(Identity::current(), &spin, NEVER) {}
            guarded.raise();
            assert_eq!(lock.holder(), Some(Identity::current()));
            assert!(lock.release());
        }
    });
    assert_eq!(guarded.raise(), 25);
}

fn heirs() {
    let (word, spin) = (AtomicU64::new(0), Spin::new());
    thread::scope(|scope| {
        scope.spawn(|| {
            assert!(Lock::new(&word).try_acquire(Identity::current()));
            process::die();
        });
    });
    let lock = Lock::new(&word);
    let mut acquired = lock.acquire_robust(Identity::current(), &spin, NEVER);
    while let Ok(false) = acquired {
        acquired = lock.acquire_robust(Identity::current(), &spin, NEVER);
    }
    assert!(acquired.is_err(), "it is told of the death");
    assert!(lock.release());
}

fn rlocks() {
    let (word, depth, releases, value) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0), AtomicU64::new(0));
    let (guarded, spin) = (Guarded::default(), Spin::new());
    in_threads(3, |number| {
        let lock = RLock::new(&word, &depth, &releases);
        for _ in 0..6 {
            if number == 2 {
                let found = lock.read(Identity::current, || value.load(Ordering::Relaxed));
                assert!(found.is_none_or(|found| found % 2 == 0), "{found:?}");
                continue;
            }
            while !lock.acquire(Identity::current(), &spin, NEVER) {}
            assert!(lock.try_acquire(Identity::current()) && lock.depth(Identity::current()) == 2);
            guarded.raise();
            value.store(value.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            assert!(lock.release(Identity::current()));
            value.store(value.load(Ordering::Relaxed) + 1, Ordering::Relaxed);
            assert!(lock.release(Identity::current()));
        }
    });
}

fn semaphores() {
    let (word, guarded, spin) = (AtomicU32::new(1), Guarded::default(), Spin::new());
    in_threads(3, |_| {
        let semaphore = Semaphore::new(&word);
        for _ in 0..6 {
            while !semaphore.acquire(&spin, NEVER) {}
            guarded.raise();
            assert!(semaphore.release(1));
        }
    });
}

fn events() {
    let (word, guarded, spin) = (AtomicU32::new(0), Guarded::default(), Spin::new());
    in_threads(3, |number| {
        let event = Event::new(&word);
        if number == 0 {
            guarded.raise();
            event.set();
            return;
        }
        let since = event.count();
        while !event.wait(since, &spin, NEVER) {}
        // SAFETY: Miri checks that it was written before.
        assert_eq!(unsafe { *guarded.0.get() }, 1);
    });
}

fn conditions() {
    let (cell, word, items, spin) = (Cell::new(), AtomicU64::new(0), Guarded::default(), Spin::new());
    in_threads(3, |number| {
        let (condition, lock, me) = (Condition::new(&cell), Lock::new(&word), Identity::current());
        let acquire = || while !lock.acquire(me, &spin, NEVER) {};
        acquire();
        if number == 0 {
            items.raise();
            items.raise();
            let _ = condition.notify(2);
        } else {
            // SAFETY: under the lock.
            while unsafe { *items.0.get() } == 0 {
                let place = condition.enter(me).expect("room");
                assert!(lock.release());
                while !condition.wait(place, &spin, NEVER) {}
                acquire();
                assert!(condition.leave(place), "it was let through without being notified");
            }
            // SAFETY: as above.
            unsafe { *items.0.get() -= 1 };
        }
        assert!(lock.release());
    });
}

fn barriers() {
    let (word, arrived, spin) = (AtomicU64::new(0), AtomicU32::new(0), Spin::new());
    in_threads(3, |_| {
        let barrier = Barrier::new(&word);
        for round in 1..=2 {
            arrived.fetch_add(1, Ordering::Relaxed);
            match barrier.arrive(3, false, NEVER) {
                Some((_, Arrival::Passed)) => {}
                Some((_, Arrival::Wait(turn))) => {
                    let mut end = None;
                    while end.is_none() {
                        end = barrier.wait(turn, &spin, NEVER);
                    }
                    assert_eq!(end, Some(End::Passed));
                }
                other => panic!("{other:?}"),
            }
            assert!(arrived.load(Ordering::Relaxed) >= 3 * round, "through before all had arrived");
        }
    });
}
