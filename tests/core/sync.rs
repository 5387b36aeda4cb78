//! The primitives against naive models, between threads, and with processes that die.
#![allow(unsafe_code, clippy::unwrap_used)]

use std::cell::UnsafeCell;
use std::sync::Barrier as Start;
use std::thread;
use std::time::{Duration, Instant};

use proptest::prelude::*;
use rsmp_core::Deadline;
use rsmp_core::atomic::{AtomicU32, AtomicU64, Ordering};
use rsmp_core::error::Kind;
use rsmp_core::shm::arena::{self, Cell};
use rsmp_core::sync::barrier::{Arrival, Barrier, End};
use rsmp_core::sync::condition::{self, Condition};
use rsmp_core::sync::event::Event;
use rsmp_core::sync::lock::Lock;
use rsmp_core::sync::rlock::RLock;
use rsmp_core::sync::semaphore::{self, Semaphore};
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

fn soon() -> Deadline {
    Deadline::after(Duration::from_millis(20))
}

fn me() -> Identity {
    Identity::current()
}

/// Calls `step` in slices until it says that it is done.
fn until_done(mut step: impl FnMut(Deadline) -> bool) {
    let begun = Instant::now();
    while !step(Deadline::after(Duration::from_millis(100))) {
        assert!(begun.elapsed() < Duration::from_secs(20), "hung");
    }
}

/// A number that only its lock protects.
#[derive(Default)]
struct Unprotected(UnsafeCell<u64>);

// SAFETY: the tests below touch it under a lock only; that this is enough is what they test.
unsafe impl Sync for Unprotected {}

impl Unprotected {
    fn add_one(&self) {
        // SAFETY: as above.
        unsafe { *self.0.get() = std::hint::black_box(*self.0.get()) + 1 };
    }

    fn get(&self) -> u64 {
        // SAFETY: as above.
        unsafe { *self.0.get() }
    }
}

/// Runs `body` in four threads at once.
fn in_threads(body: impl Fn() + Sync) {
    let start = Start::new(4);
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                start.wait();
                body();
            });
        }
    });
}

#[test]
fn one_at_a_time_holds_a_lock() {
    let (word, spin, count) = (AtomicU64::new(0), Spin::new(), Unprotected::default());
    in_threads(|| {
        let lock = Lock::new(&word);
        for _ in 0..5000 {
            until_done(|until| lock.try_acquire(me()) || lock.acquire(me(), &spin, until));
            assert_eq!(lock.holder(), Some(me()));
            count.add_one();
            assert!(lock.release());
        }
    });
    assert_eq!(count.get(), 20_000);
    assert_eq!(Lock::new(&word).holder(), None);
}

#[test]
fn one_at_a_time_holds_an_rlock_however_deep() {
    let (word, depth, releases) = (AtomicU64::new(0), AtomicU32::new(9), AtomicU64::new(0));
    let (spin, count) = (Spin::new(), Unprotected::default());
    in_threads(|| {
        let lock = RLock::new(&word, &depth, &releases);
        for round in 0..3000 {
            until_done(|until| lock.try_acquire(me()) || lock.acquire(me(), &spin, until));
            let deeper = round % 3;
            for _ in 0..deeper {
                assert!(lock.try_acquire(me()));
            }
            assert_eq!(lock.depth(me()), deeper + 1);
            count.add_one();
            if round % 2 == 0 {
                let depth = lock.release_all(me());
                assert_eq!(depth, deeper + 1);
                until_done(|until| lock.acquire(me(), &spin, until));
                lock.restore(depth);
            }
            for _ in 0..=deeper {
                assert!(lock.release(me()));
            }
            assert!(!lock.is_held_by(me()));
        }
    });
    assert_eq!(count.get(), 12_000);
    assert!(!RLock::new(&word, &depth, &releases).release(me()));
}

#[test]
fn a_lock_is_released_by_anyone_and_only_when_held() {
    let word = AtomicU64::new(0);
    let lock = Lock::new(&word);
    assert!(!lock.release());
    assert!(lock.try_acquire(me()));
    assert!(!lock.try_acquire(me()));
    assert!(!lock.acquire(me(), &Spin::new(), soon()));
    thread::scope(|scope| {
        scope.spawn(|| assert!(lock.release()));
    });
    assert!(!lock.release());
}

#[test]
fn a_dead_holders_lock_is_inherited_by_one() {
    let word = AtomicU64::new(0);
    let lock = Lock::new(&word);
    let dead = Identity::from_word(me().to_word() ^ (1 << 22)).unwrap();
    assert!(!dead.is_alive());
    assert!(lock.try_acquire(dead));
    assert!(!lock.acquire(me(), &Spin::new(), soon()), "not without asking for it");
    let error = lock.acquire_robust(me(), &Spin::new(), soon()).unwrap_err();
    assert_eq!(*error.kind(), Kind::OwnerDied { pid: dead.pid() });
    assert_eq!(lock.holder(), Some(me()));
    assert_eq!(lock.inherit(me()), None, "the holder lives");
    assert_eq!(lock.acquire_robust(me(), &Spin::new(), soon()), Ok(false));
    assert!(lock.release());
    assert_eq!(lock.inherit(me()), None);
    assert_eq!(lock.acquire_robust(me(), &Spin::new(), soon()), Ok(true));
}

#[test]
fn who_died_before_the_wake_delays_sleepers_by_a_slice_at_most() {
    let (word, spin) = (AtomicU64::new(0), Spin::new());
    let lock = Lock::new(&word);
    assert!(lock.try_acquire(me()));
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| until_done(|until| lock.acquire(me(), &spin, until)));
        thread::sleep(Duration::from_millis(30));
        // What is left of a release whose process died right after it.
        word.store(0, Ordering::Release);
        sleeper.join().unwrap();
    });
    assert!(lock.release());
    let word = AtomicU32::new(0);
    let semaphore = Semaphore::new(&word);
    thread::scope(|scope| {
        let sleeper = scope.spawn(|| until_done(|until| semaphore.acquire(&spin, until)));
        thread::sleep(Duration::from_millis(30));
        word.fetch_add(1, Ordering::Release);
        sleeper.join().unwrap();
    });
    assert_eq!(semaphore.value(), 0);
}

#[test]
fn a_semaphore_hands_out_what_it_was_given() {
    let (word, spin) = (AtomicU32::new(0), Spin::new());
    let semaphore = Semaphore::new(&word);
    thread::scope(|scope| {
        for _ in 0..3 {
            scope.spawn(|| (0..4000).for_each(|_| until_done(|until| semaphore.acquire(&spin, until))));
        }
        for _ in 0..2 {
            scope.spawn(|| (0..6000).for_each(|_| assert!(semaphore.release(semaphore::MAXIMUM))));
        }
    });
    assert_eq!(semaphore.value(), 0);
    semaphore.initialise(semaphore::MAXIMUM);
    assert!(!semaphore.release(semaphore::MAXIMUM));
    assert_eq!(semaphore.value(), semaphore::MAXIMUM);
}

#[test]
fn an_event_that_was_set_lets_through_whoever_waited() {
    let (word, spin) = (AtomicU32::new(0), Spin::new());
    let event = Event::new(&word);
    assert!(!event.wait(event.count(), &spin, soon()));
    thread::scope(|scope| {
        let waiting: Vec<_> = (0..3)
            .map(|_| {
                let since = event.count();
                let spin = &spin;
                scope.spawn(move || until_done(|until| event.wait(since, spin, until)))
            })
            .collect();
        thread::sleep(Duration::from_millis(20));
        event.set();
        event.set();
        assert!(event.is_set());
        event.clear();
        for it in waiting {
            it.join().unwrap();
        }
    });
    assert!(!event.is_set());
    assert!(!event.wait(event.count(), &spin, soon()));
    event.set();
    assert!(event.wait(event.count(), &spin, Deadline::PASSED));
}

fn condition_cell() -> Cell {
    arena::allocate(condition::SIZE).unwrap()
}

#[test]
fn a_condition_wakes_as_many_as_it_says_in_the_order_they_came() {
    let cell = condition_cell();
    let condition = Condition::new(&cell);
    // More than have room in the cell.
    let places: Vec<_> = (0..40).map(|_| condition.enter(me()).unwrap()).collect();
    assert_eq!(condition.sleepers(), 40);
    let spin = Spin::new();
    let notified = |place| condition.wait(place, &spin, Deadline::PASSED);
    assert!(!condition.leave(places[1]), "gave up");
    assert_eq!(condition.notify(2), 2);
    assert_eq!(condition.sleepers(), 37);
    assert!(notified(places[0]) && notified(places[2]) && !notified(places[3]));
    assert!(condition.leave(places[0]) && condition.leave(places[2]));
    let late = condition.enter(me()).unwrap();
    assert_eq!(condition.notify(36), 36);
    assert!(places[3..39].iter().all(|place| notified(*place)));
    assert!(!notified(places[39]) && !notified(late));
    assert_eq!(condition.notify(usize::MAX), 2);
    assert_eq!(condition.notify(usize::MAX), 0);
    assert!(places[3..].iter().all(|place| condition.leave(*place)) && condition.leave(late));
    assert_eq!(condition.sleepers(), 0);
}

#[test]
fn conditions_of_one_arena_do_not_wake_each_others_waiters() {
    let cells = [condition_cell(), condition_cell()];
    let conditions = cells.each_ref().map(Condition::new);
    let places: Vec<_> = (0..60).map(|at| conditions[at % 2].enter(me()).unwrap()).collect();
    assert_eq!(conditions.map(Condition::sleepers), [30, 30]);
    assert_eq!(conditions[0].notify(usize::MAX), 30);
    assert_eq!(conditions.map(Condition::sleepers), [0, 30]);
    for (at, place) in places.into_iter().enumerate() {
        assert_eq!(conditions[at % 2].leave(place), at % 2 == 0);
    }
}

#[test]
fn a_notifier_passes_over_the_dead_and_waits_for_nobody() {
    let cell = condition_cell();
    let condition = Condition::new(&cell);
    let ready = arena::allocate(8).unwrap();
    let children: Vec<i32> = (0..3)
        .map(|_| {
            // SAFETY: the child only waits on shared memory, until it is killed.
            match unsafe { libc::fork() } {
                0 => {
                    let place = condition.enter(me()).unwrap();
                    ready.word32(0).fetch_add(1, Ordering::Release);
                    let spin = Spin::new();
                    while !condition.wait(place, &spin, Deadline::NEVER) {}
                    // SAFETY: leaves without running what belongs to the parent.
                    unsafe { libc::_exit(0) }
                }
                pid => pid,
            }
        })
        .collect();
    until_done(|_| ready.word32(0).load(Ordering::Acquire) == 3);
    thread::sleep(Duration::from_millis(100));
    let last = condition.enter(me()).unwrap();
    assert_eq!(condition.sleepers(), 4);
    for pid in &children[..2] {
        // SAFETY: children of this process; the first stays a zombie for a while.
        unsafe { libc::kill(*pid, libc::SIGKILL) };
    }
    let dead = |pid: i32| Identity::of_process(pid.cast_unsigned()).is_none_or(|it| !it.is_alive());
    until_done(|_| children[..2].iter().all(|pid| dead(*pid)));
    // SAFETY: as above.
    unsafe { libc::waitpid(children[1], std::ptr::null_mut(), 0) };
    let begun = Instant::now();
    assert_eq!(condition.notify(2), 2);
    assert!(begun.elapsed() < Duration::from_millis(100));
    assert!(condition.leave(last));
    for pid in [children[0], children[2]] {
        // SAFETY: as above.
        unsafe { libc::waitpid(pid, std::ptr::null_mut(), 0) };
    }
    assert_eq!(condition.sleepers(), 0);
}

#[test]
fn a_barrier_lets_all_pass_again_and_again() {
    let (word, spin) = (AtomicU64::new(0), Spin::new());
    let barrier = Barrier::new(&word);
    let (arrived, acted) = (AtomicU64::new(0), AtomicU64::new(0));
    in_threads(|| {
        for round in 0..500_u64 {
            arrived.fetch_add(1, Ordering::Relaxed);
            let mut it = None;
            until_done(|until| {
                it = barrier.arrive(4, round % 2 == 0, until);
                it.is_some()
            });
            match it.unwrap().1 {
                Arrival::Act(turn) => {
                    acted.fetch_add(1, Ordering::Relaxed);
                    assert!(barrier.finish(turn));
                }
                Arrival::Wait(turn) => until_done(|until| match barrier.wait(turn, &spin, until) {
                    Some(end) => {
                        assert_eq!(end, End::Passed);
                        true
                    }
                    None => false,
                }),
                Arrival::Passed => {}
                Arrival::Broken => unreachable!("nobody breaks it"),
            }
            assert!(arrived.load(Ordering::Relaxed) >= (round + 1) * 4);
        }
    });
    assert_eq!(acted.load(Ordering::Relaxed), 250);
    assert_eq!(barrier.waiting(), 0);
}

#[test]
fn a_barrier_whose_actor_died_is_broken() {
    let cell = arena::allocate(8).unwrap();
    let barrier = Barrier::new(cell.word64(0));
    let Some((0, Arrival::Wait(round))) = barrier.arrive(2, true, Deadline::PASSED) else { unreachable!() };
    // SAFETY: the child arrives and dies acting.
    let pid = unsafe { libc::fork() };
    if pid == 0 {
        let acts = matches!(barrier.arrive(2, true, Deadline::PASSED), Some((1, Arrival::Act(_))));
        // SAFETY: leaves without running what belongs to the parent.
        unsafe { libc::_exit(i32::from(!acts)) }
    }
    let mut status = 0;
    // SAFETY: a child of this process.
    unsafe { libc::waitpid(pid, &raw mut status, 0) };
    assert_eq!(status, 0);
    assert_eq!(barrier.arrive(2, true, soon()), Some((0, Arrival::Broken)));
    assert_eq!(barrier.wait(round, &Spin::new(), soon()), Some(End::Broken));
    assert!(barrier.is_broken());
}

/// What the word of a barrier should say, in plain terms.
#[derive(Debug, Default)]
struct Model {
    broken: bool,
    acting: bool,
    count: u64,
    /// How each round ended.
    ends: Vec<End>,
}

#[derive(Clone, Copy, Debug)]
enum Op {
    Arrive { acts: bool },
    Finish,
    Expire,
    Leave,
    Abort,
    Reset,
}

const PARTIES: u64 = 3;

proptest! {
    #[test]
    fn a_barrier_does_as_its_model(ops in prop::collection::vec(prop_oneof![
        6 => any::<bool>().prop_map(|acts| Op::Arrive { acts }),
        3 => Just(Op::Finish),
        1 => Just(Op::Expire),
        1 => Just(Op::Leave),
        1 => Just(Op::Abort),
        2 => Just(Op::Reset),
    ], 0..60)) {
        let word = AtomicU64::new(0);
        let barrier = Barrier::new(&word);
        let mut model = Model::default();
        // The rounds that somebody waits in, with their numbers, and the one that acts.
        let (mut rounds, mut actor) = (Vec::new(), None);
        for op in ops {
            let now = model.ends.len();
            match op {
                Op::Arrive { acts } => {
                    let arrived = barrier.arrive(PARTIES, acts, Deadline::PASSED);
                    if model.broken {
                        prop_assert_eq!(arrived, Some((0, Arrival::Broken)));
                    } else if model.acting {
                        prop_assert_eq!(arrived, None);
                    } else {
                        let (index, arrival) = arrived.unwrap();
                        prop_assert_eq!(index, model.count);
                        model.count += 1;
                        match arrival {
                            Arrival::Wait(round) => {
                                prop_assert!(model.count < PARTIES);
                                rounds.push((now, round));
                            }
                            Arrival::Act(round) => {
                                prop_assert!(acts && model.count == PARTIES);
                                model.acting = true;
                                actor = Some(round);
                            }
                            Arrival::Passed => {
                                prop_assert!(!acts && model.count == PARTIES);
                                model.count = 0;
                                model.ends.push(End::Passed);
                            }
                            Arrival::Broken => prop_assert!(false),
                        }
                    }
                }
                Op::Finish => if let Some(round) = actor.take() {
                    prop_assert_eq!(barrier.finish(round), model.acting);
                    if model.acting {
                        (model.acting, model.count) = (false, 0);
                        model.ends.push(End::Passed);
                    }
                },
                Op::Expire => if let Some((number, round)) = rounds.last().copied() {
                    let ends = number == now && !model.acting;
                    let end = barrier.expire(round);
                    if ends {
                        (model.broken, model.count) = (true, 0);
                        model.ends.push(End::Broken);
                    }
                    prop_assert_eq!(end, model.ends.get(number).copied());
                },
                Op::Leave => if let Some((number, round)) = rounds.pop() {
                    barrier.leave(round);
                    if number == now && !model.acting {
                        model.count -= 1;
                    } else if number == now {
                        rounds.push((number, round));
                    }
                },
                Op::Abort => {
                    barrier.abort();
                    if !model.broken {
                        (model.broken, model.acting, model.count) = (true, false, 0);
                        model.ends.push(End::Broken);
                    }
                }
                Op::Reset => {
                    barrier.reset();
                    if model.count > 0 {
                        model.ends.push(End::Broken);
                    }
                    (model.broken, model.acting, model.count) = (false, false, 0);
                }
            }
            prop_assert_eq!(barrier.is_broken(), model.broken);
            let filling = !model.broken && !model.acting;
            prop_assert_eq!(barrier.waiting(), if filling { model.count } else { 0 });
            for (number, round) in &rounds {
                // The word remembers ten rounds.
                if model.ends.len() - number <= 10 {
                    let end = barrier.wait(*round, &Spin::new(), Deadline::PASSED);
                    prop_assert_eq!(end, model.ends.get(*number).copied());
                }
            }
        }
    }
}
