//! `futex(2)`: looking at the word and falling asleep is one step against waking, as it is under the kernel's lock.

use super::{nap, notify, sleepers};
use crate::atomic::{AtomicU32, AtomicU64, Ordering};
use crate::clock::Deadline;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Woken {
    Changed,
    TimedOut,
    Interrupted,
}

pub(crate) fn wait(word: &AtomicU32, expected: u32, until: Deadline) -> Woken {
    sleep(core::ptr::from_ref(word) as usize, until, || word.load(Ordering::Acquire) == expected)
}

pub(crate) fn wait_low(word: &AtomicU64, expected: u64, until: Deadline) -> Woken {
    sleep(core::ptr::from_ref(word) as usize, until, || word.load(Ordering::Acquire) as u32 == expected as u32)
}

pub(crate) fn wake(word: &AtomicU32, count: u32) -> usize {
    rouse(core::ptr::from_ref(word) as usize, count)
}

pub(crate) fn wake_all(word: &AtomicU32) -> usize {
    wake(word, u32::MAX)
}

pub(crate) fn wake_low(word: &AtomicU64, count: u32) -> usize {
    rouse(core::ptr::from_ref(word) as usize, count)
}

fn sleep(address: usize, until: Deadline, expected: impl Fn() -> bool) -> Woken {
    let mut sleepers = sleepers();
    if !expected() {
        return Woken::Changed;
    }
    let me = sleepers.next;
    sleepers.next += 1;
    sleepers.waiting.push((me, address));
    while sleepers.waiting.iter().any(|(number, _)| *number == me) {
        if until.has_passed() {
            sleepers.waiting.retain(|(number, _)| *number != me);
            return Woken::TimedOut;
        }
        sleepers = nap(sleepers);
    }
    Woken::Changed
}

fn rouse(address: usize, count: u32) -> usize {
    let mut sleepers = sleepers();
    let mut woken = 0;
    sleepers.waiting.retain(|(_, at)| {
        let stays = *at != address || woken == count as usize;
        woken += usize::from(!stays);
        stays
    });
    if woken > 0 {
        notify();
    }
    woken
}
