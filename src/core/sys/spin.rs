//! Looking again for a moment before going to sleep.
//!
//! Waking a process that sleeps on another CPU costs some 20 us here, whatever the primitive; an answer that comes sooner
//! than that is cheaper to wait for. Who looks takes a CPU from someone else, so it is done only
//! - with more than one CPU (affinity and the control group's quota counted), and
//! - as long as it has lately paid off: each waiter keeps a score, and a waiter out of credit tries again only now and then.

use core::hint;
use std::fs;

use crate::atomic::{AtomicU8, AtomicU32, Ordering};
use crate::clock;

/// About what falling asleep and being woken costs.
const LONGEST_NANOS: u64 = 25_000;

/// Pauses between two looks: a look is a system call, and its locks are the sender's too.
const PAUSES: u32 = 8;

const MOST_CREDIT: u8 = 16;
const FIRST_CREDIT: u8 = 6;
/// A look in vain costs more than this many that find something.
const PRICE: u8 = 3;
/// Out of credit, every so many waits look all the same.
const RETRY: u8 = 64;

/// How often the CPUs are counted anew.
const RECOUNT: u32 = 4096;

static CPUS: AtomicU32 = AtomicU32::new(0);
static ASKED: AtomicU32 = AtomicU32::new(0);

/// One waiter's experience with looking. Not shared between processes.
#[derive(Debug)]
pub struct Spin {
    credit: AtomicU8,
    /// Waits since the last look.
    idle: AtomicU8,
}

impl Default for Spin {
    fn default() -> Self {
        Self { credit: AtomicU8::new(FIRST_CREDIT), idle: AtomicU8::new(0) }
    }
}

impl Spin {
    /// Calls `look` until it finds something or it is time to sleep.
    pub fn look<T>(&self, mut look: impl FnMut() -> Option<T>) -> Option<T> {
        if !self.is_worthwhile() {
            return None;
        }
        if let Some(found) = look() {
            return Some(found);
        }
        let end = clock::now() + LONGEST_NANOS;
        let found = loop {
            for _ in 0..PAUSES {
                hint::spin_loop();
            }
            let found = look();
            if found.is_some() || clock::now() >= end {
                break found;
            }
        };
        let credit = self.credit.load(Ordering::Relaxed);
        let credit = if found.is_some() { (credit + 1).min(MOST_CREDIT) } else { credit.saturating_sub(PRICE) };
        self.credit.store(credit, Ordering::Relaxed);
        found
    }

    fn is_worthwhile(&self) -> bool {
        if self.credit.load(Ordering::Relaxed) == 0 {
            let idle = self.idle.load(Ordering::Relaxed).wrapping_add(1) % RETRY;
            self.idle.store(idle, Ordering::Relaxed);
            if idle != 0 {
                return false;
            }
        }
        spare_cpus() > 0
    }
}

/// How many CPUs this process may use beyond the one it runs on.
fn spare_cpus() -> u32 {
    let asked = ASKED.fetch_add(1, Ordering::Relaxed);
    let known = CPUS.load(Ordering::Relaxed);
    let cpus = if known == 0 || asked.is_multiple_of(RECOUNT) {
        let cpus = count_cpus();
        CPUS.store(cpus, Ordering::Relaxed);
        cpus
    } else {
        known
    };
    cpus - 1
}

fn count_cpus() -> u32 {
    let allowed = rustix::thread::sched_getaffinity(None).map_or(1, |set| set.count());
    quota().map_or(allowed, |quota| allowed.min(quota)).max(1)
}

/// Whole CPUs the control group may use at a time; `None` without a limit.
fn quota() -> Option<u32> {
    let group = fs::read_to_string("/proc/self/cgroup").ok()?;
    let group = group.lines().find_map(|line| line.strip_prefix("0::"))?;
    // Inside a container the group's own files are at the root.
    let limit = [format!("/sys/fs/cgroup{group}/cpu.max"), "/sys/fs/cgroup/cpu.max".to_owned()]
        .iter()
        .find_map(|path| fs::read_to_string(path).ok())?;
    let (quota, period) = limit.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<u64>().ok()?, period.parse::<u64>().ok()?);
    u32::try_from(quota.checked_div(period)?).ok()
}
