//! How much memory may still be taken: the machine's and the control group's limits.

use std::fs;

use crate::atomic::{AtomicU64, Ordering};

/// Bytes allocated without asking. Asking reads a few files of /proc, some tens of microseconds.
const UNASKED: u64 = 16 << 20;

/// Left for everybody else.
const SPARE: u64 = 64 << 20;

static SINCE_ASKED: AtomicU64 = AtomicU64::new(0);

/// Whether `len` more bytes are there to be had. Where the system does not say, they are.
pub(super) fn allow(len: u64) -> bool {
    if SINCE_ASKED.fetch_add(len, Ordering::Relaxed).saturating_add(len) < UNASKED {
        return true;
    }
    let left = [machine(), control_group()].into_iter().flatten().min();
    let enough = left.is_none_or(|left| len.saturating_add(SPARE) <= left);
    // After a refusal the next request asks again.
    SINCE_ASKED.store(if enough { 0 } else { UNASKED }, Ordering::Relaxed);
    enough
}

fn machine() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let kilobytes = field(&text, "MemAvailable:")?.saturating_add(field(&text, "SwapFree:").unwrap_or(0));
    Some(kilobytes.saturating_mul(1024))
}

/// What this process's control group (version 2) may still take; its page cache counts as free.
fn control_group() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let path = groups.lines().find_map(|line| line.strip_prefix("0::"))?;
    let read = |name: &str| fs::read_to_string(format!("/sys/fs/cgroup{path}/{name}")).ok();
    let limit: u64 = read("memory.max")?.trim().parse().ok()?;
    let current: u64 = read("memory.current")?.trim().parse().ok()?;
    let stat = read("memory.stat")?;
    let cache = field(&stat, "file ")?.saturating_sub(field(&stat, "shmem ").unwrap_or(0));
    Some(limit.saturating_sub(current.saturating_sub(cache)))
}

/// The first number on the line that starts with `name`.
fn field(text: &str, name: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(name))?;
    line.split_whitespace().next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_than_there_is_is_refused_and_small_requests_go_on() {
        assert!(!allow(u64::MAX));
        assert!(!allow(1 << 60));
        assert!(allow(4096));
    }

    #[test]
    fn reads_numbered_lines() {
        let text = "MemTotal: 5 kB\nMemAvailable:  77 kB\nfile 8\nfile_mapped 9\n";
        assert_eq!(
            (field(text, "MemAvailable:"), field(text, "file "), field(text, "none")),
            (Some(77), Some(8), None)
        );
    }
}
