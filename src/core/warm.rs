//! Private memory for large buffers that come and go: what is dropped is kept for the next one, while its pages are there.
//!
//! Touching fresh pages costs ten times as much as copying into warm ones. What is kept is bounded, and the kernel may
//! take its huge pages when memory is short. A forked child inherits what is kept, empty.

use core::ptr::NonNull;

use parking_lot::Mutex;

use crate::error::Result;
use crate::sys::anonymous::Anonymous;

/// Bytes that are kept.
const KEPT: usize = 64 << 20;

static STORE: Store = Store { spaces: Mutex::new(Vec::new()) };

/// At least as many bytes as were asked for; garbage at first. Dropped, it is kept for the next one.
#[derive(Debug)]
pub struct Space {
    memory: Option<Anonymous>,
}

/// What is kept, the warmest last. Never waited for: a fork may have copied the lock while another thread held it.
#[derive(Debug)]
struct Store {
    spaces: Mutex<Vec<Anonymous>>,
}

impl Space {
    pub fn take(len: usize) -> Result<Self> {
        let memory = match STORE.take(len) {
            Some(memory) => memory,
            None => Anonymous::new(len)?,
        };
        Ok(Self { memory: Some(memory) })
    }

    #[must_use]
    pub fn start(&self) -> NonNull<u8> {
        self.memory.as_ref().map_or(NonNull::dangling(), Anonymous::base)
    }
}

impl Drop for Space {
    fn drop(&mut self) {
        if let Some(memory) = self.memory.take() {
            STORE.keep(memory);
        }
    }
}

/// Gives everything that is kept back to the system.
pub fn release() {
    let spaces = STORE.spaces.try_lock().map(|mut spaces| core::mem::take(&mut *spaces));
    drop(spaces);
}

impl Store {
    fn take(&self, len: usize) -> Option<Anonymous> {
        let mut spaces = self.spaces.try_lock()?;
        // Not one that is much larger: it would be held for as long as this one is used.
        let fits = |space: &Anonymous| space.len() >= len && space.len() / 2 <= len;
        let position = spaces.iter().rposition(fits)?;
        let memory = spaces.remove(position);
        drop(spaces);
        memory.reclaim().ok()?;
        Some(memory)
    }

    fn keep(&self, memory: Anonymous) {
        if memory.len() > KEPT {
            return;
        }
        memory.offer();
        let mut coldest = Vec::new();
        if let Some(mut spaces) = self.spaces.try_lock() {
            let mut total = memory.len() + spaces.iter().map(Anonymous::len).sum::<usize>();
            while total > KEPT && !spaces.is_empty() {
                let first = spaces.remove(0);
                total -= first.len();
                coldest.push(first);
            }
            spaces.push(memory);
        }
        // Unmapped without the lock.
        drop(coldest);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn store() -> Store {
        Store { spaces: Mutex::new(Vec::new()) }
    }

    fn fresh(len: usize) -> Anonymous {
        Anonymous::new(len).expect("memory")
    }

    fn kept(store: &Store) -> usize {
        store.spaces.lock().iter().map(Anonymous::len).sum()
    }

    #[test]
    fn the_warmest_that_fits_is_used_again() {
        let store = store();
        let (first, second) = (fresh(5 << 20), fresh(5 << 20));
        let warmest = second.base();
        store.keep(first);
        store.keep(second);
        assert_eq!(store.take(5 << 20).map(|memory| memory.base()), Some(warmest));
        assert_eq!(store.take((5 << 20) + 1).map(|memory| memory.base()), None);
        assert_eq!(store.take(1 << 20).map(|memory| memory.base()), None, "far too large");
        assert_eq!(store.take(3 << 20).map(|memory| memory.len()), Some(5 << 20));
    }

    #[test]
    fn what_is_kept_is_bounded() {
        let store = store();
        for _ in 0..20 {
            store.keep(fresh(8 << 20));
        }
        assert_eq!(kept(&store), KEPT);
        store.keep(fresh(KEPT + 1));
        assert_eq!(kept(&store), KEPT, "too large to be kept");
        store.keep(fresh(KEPT));
        assert_eq!(kept(&store), KEPT);
    }

    #[test]
    fn nobody_waits_for_the_store() {
        let store = store();
        let held = store.spaces.lock();
        store.keep(fresh(1 << 20));
        assert!(store.take(1).is_none());
        drop(held);
        assert_eq!(kept(&store), 0);
    }

    #[test]
    fn spaces_are_writable_to_the_last_byte_and_apart() {
        let spaces: Vec<_> = (0..6).map(|_| Space::take((3 << 20) + 5).expect("memory")).collect();
        let mut starts: Vec<_> = spaces.iter().map(|space| space.start().as_ptr() as usize).collect();
        starts.sort_unstable();
        for pair in starts.windows(2) {
            assert!(pair[0] + (3 << 20) + 5 <= pair[1]);
        }
        assert!(starts.iter().all(|start| start.is_multiple_of(4096)));
    }
}
