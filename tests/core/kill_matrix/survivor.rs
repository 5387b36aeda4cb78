//! What scenarios have in common: memory, patience, and threads of the survivor that sleep.

use core::time::Duration;
use std::thread;

use rsmp_core::Deadline;
use rsmp_core::shm::arena::{self, Cell};
use rsmp_core::sync::condition;
use rsmp_core::sys::process::Identity;

use super::soon;

pub(crate) fn cell() -> Cell {
    arena::allocate(condition::SIZE).unwrap()
}

pub(crate) fn know_myself() {
    let _ = Identity::current();
}

pub(crate) fn slice() -> Deadline {
    Deadline::after(Duration::from_millis(5))
}

/// Tries in slices, as the binding does, for as long as a death may go unnoticed.
pub(crate) fn eventually(mut step: impl FnMut(Deadline) -> bool) -> bool {
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

pub(crate) fn taken(waiter: &thread::ScopedJoinHandle<'_, bool>) -> bool {
    thread::sleep(Duration::from_millis(1));
    waiter.is_finished()
}

/// Gives threads of the survivor the time to fall asleep.
pub(crate) fn asleep() {
    thread::sleep(Duration::from_millis(2));
}

pub(crate) fn eventually_within(time: Duration, mut step: impl FnMut(Deadline) -> bool) -> bool {
    let until = Deadline::after(time);
    while !until.has_passed() {
        if step(until.capped(Duration::from_millis(500))) {
            return true;
        }
    }
    false
}
