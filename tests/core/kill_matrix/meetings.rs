//! Where processes wait for each other: events, conditions and barriers.

use core::time::Duration;
use std::thread;

use rsmp_core::Deadline;
use rsmp_core::atomic::Ordering;
use rsmp_core::sync::barrier::{Arrival, Barrier, End};
use rsmp_core::sync::condition::Condition;
use rsmp_core::sync::event::Event;
use rsmp_core::sync::spin::Spin;
use rsmp_core::sys::process::Identity;

use super::survivor::{asleep, cell, eventually, eventually_within, know_myself, slice, taken};
use super::{Maker, Scenario, soon};

pub(crate) const ALL: &[Maker] = &[
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
];

/// Places in a condition's own cell.
const PLACES: usize = 12;

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
            look: None,
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
        look: None,
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
        look: None,
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

/// Two threads wait and sleep during `then`, and go when it is over.
fn with_two_waiters(condition: Condition<'_>, then: impl FnOnce(&[thread::ScopedJoinHandle<'_, bool>; 2])) {
    let before = condition.sleepers();
    thread::scope(|scope| {
        let wait = || {
            let place = condition.enter(Identity::current()).unwrap();
            let notified =
                eventually_within(Duration::from_secs(30), |until| condition.wait(place, &Spin::new(), until));
            condition.leave(place) && notified
        };
        let waiters = [scope.spawn(wait), scope.spawn(wait)];
        while condition.sleepers() < before + 2 {
            thread::yield_now();
        }
        asleep();
        then(&waiters);
        condition.notify(usize::MAX);
    });
}

fn condition_notify(run: &mut dyn FnMut(Scenario<'_>)) {
    let cell = cell();
    let condition = Condition::new(&cell);
    with_two_waiters(condition, |waiters| {
        run(Scenario {
            name: "notify",
            prepare: Box::new(know_myself),
            operation: Box::new(|| assert_eq!(condition.notify(1), 1)),
            look: None,
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
        look: None,
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
    with_two_waiters(condition, |waiters| {
        run(Scenario {
            name: "notify, spilled",
            prepare: Box::new(know_myself),
            operation: Box::new(|| assert_eq!(condition.notify(PLACES + 1), PLACES + 1)),
            look: None,
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
        look: None,
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
        look: None,
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
        look: None,
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
