//! Locks, semaphores and events: alone, and wanted by several threads.

use std::sync::atomic::{AtomicU32, AtomicU64};
use std::thread;
use std::time::Duration;

use divan::counter::ItemsCount;
use divan::{Bencher, black_box};
use rsmp_core::Deadline;
use rsmp_core::sync::event::Event;
use rsmp_core::sync::lock::Lock;
use rsmp_core::sync::rlock::RLock;
use rsmp_core::sync::semaphore::Semaphore;
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

const ROUNDS: usize = 10_000;

fn main() {
    divan::main();
}

fn soon() -> Deadline {
    Deadline::after(Duration::from_secs(20))
}

/// Acquire and release, nobody else there.
#[divan::bench]
fn lock(bencher: Bencher) {
    let (word, me) = (AtomicU64::new(0), Identity::current());
    bencher.bench_local(|| {
        let lock = Lock::new(black_box(&word));
        assert!(lock.try_acquire(me) && lock.release());
    });
}

/// The same, twice over by the same holder.
#[divan::bench]
fn rlock_twice(bencher: Bencher) {
    let (word, depth, releases, me) = (AtomicU64::new(0), AtomicU32::new(0), AtomicU64::new(0), Identity::current());
    bencher.bench_local(|| {
        let lock = RLock::new(black_box(&word), &depth, &releases);
        assert!(lock.try_acquire(me) && lock.try_acquire(me) && lock.release(me) && lock.release(me));
    });
}

/// Ten thousand acquires and releases by each of several threads; the time is that of all.
#[divan::bench(args = [1, 2, 4, 8], sample_count = 20)]
fn contended_lock(bencher: Bencher, threads: usize) {
    bencher.counter(ItemsCount::new(threads * ROUNDS)).bench(|| {
        let (word, spin, me) = (AtomicU64::new(0), Spin::new(), Identity::current());
        thread::scope(|scope| {
            for _ in 0..threads {
                scope.spawn(|| {
                    for _ in 0..ROUNDS {
                        let lock = Lock::new(&word);
                        assert!(lock.acquire(me, &spin, soon()) && lock.release());
                    }
                });
            }
        });
    });
}

/// Release and acquire, nobody waits.
#[divan::bench]
fn semaphore(bencher: Bencher) {
    let word = AtomicU32::new(0);
    Semaphore::new(&word).initialise(0);
    bencher.bench_local(|| {
        let semaphore = Semaphore::new(black_box(&word));
        assert!(semaphore.release(9) && semaphore.try_acquire());
    });
}

/// A thousand times there and back over two semaphores; the time is that of all.
#[divan::bench(sample_count = 20)]
fn semaphore_ping_pong(bencher: Bencher) {
    bencher.counter(ItemsCount::new(1_000_usize)).bench(|| {
        let (there, back) = (AtomicU32::new(0), AtomicU32::new(0));
        let turns = |wait: &AtomicU32, answer: &AtomicU32, first: bool| {
            let spin = Spin::new();
            for turn in 0..1_000 {
                if !(first && turn == 0) {
                    assert!(Semaphore::new(wait).acquire(&spin, soon()));
                }
                assert!(Semaphore::new(answer).release(9));
            }
        };
        for word in [&there, &back] {
            Semaphore::new(word).initialise(0);
        }
        thread::scope(|scope| {
            scope.spawn(|| turns(&there, &back, false));
            turns(&back, &there, true);
        });
    });
}

/// Set, look, clear.
#[divan::bench]
fn event(bencher: Bencher) {
    let word = AtomicU32::new(0);
    bencher.bench_local(|| {
        let event = Event::new(black_box(&word));
        event.set();
        assert!(event.is_set());
        event.clear();
    });
}
