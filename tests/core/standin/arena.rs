//! Cells of an arena, where no condition spills into the arena itself.

use crate::atomic::AtomicU64;

/// A cell of 256 bytes.
#[derive(Debug)]
pub(crate) struct Cell {
    words: Vec<AtomicU64>,
}

/// Nobody comes to it.
#[derive(Debug)]
pub(crate) struct Arena;

impl Cell {
    pub(crate) fn new() -> Self {
        Self { words: (0..32).map(|_| AtomicU64::new(0)).collect() }
    }

    pub(crate) fn word64(&self, at: usize) -> &AtomicU64 {
        &self.words[at / 8]
    }

    pub(crate) fn len(&self) -> usize {
        self.words.len() * 8
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn offset(&self) -> usize {
        0
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn arena(&self) -> &'static Arena {
        &Arena
    }
}

impl Arena {
    #[allow(clippy::unused_self)]
    pub(crate) fn waiters(&self) -> (&[AtomicU64], &AtomicU64) {
        unreachable!("a condition has room for its waiters")
    }

    #[allow(clippy::unused_self)]
    pub(crate) fn provide_waiters(&self, _: usize, _: usize) -> crate::error::Result<()> {
        unreachable!("as above")
    }
}
