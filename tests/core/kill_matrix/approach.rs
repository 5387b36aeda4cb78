//! The short way to an instruction: stepping through everything before it, for every instruction, would take hours.
//!
//! One run of the operation notes where each instruction lies. To stop before instruction k, a process runs freely to a
//! breakpoint at the last instruction before k whose address had not come up earlier, and is stepped from there.

use std::collections::HashSet;

/// Fewer instructions than this are stepped through.
const NEAR: u64 = 100;

/// A place to stop at: the first time `address` is about to be executed, `after` instructions have been.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anchor {
    pub(crate) after: u64,
    pub(crate) address: u64,
}

/// Where the instructions of an operation lie, as one run of it found them.
#[derive(Debug, Default)]
pub(crate) struct Trace {
    anchors: Vec<Anchor>,
    seen: HashSet<u64>,
    length: u64,
}

impl Trace {
    /// The next instruction lies at `address`, if that can be found out.
    pub(crate) fn note(&mut self, address: Option<u64>) {
        if let Some(address) = address.filter(|address| self.seen.insert(*address)) {
            self.anchors.push(Anchor { after: self.length, address });
        }
        self.length += 1;
    }

    /// How many instructions the operation has.
    pub(crate) fn length(&self) -> u64 {
        self.length
    }

    /// Where to run to before stepping to the point after `steps` instructions.
    pub(crate) fn before(&self, steps: u64) -> Option<Anchor> {
        let count = self.anchors.partition_point(|anchor| anchor.after <= steps);
        self.anchors[..count].last().copied().filter(|anchor| anchor.after >= NEAR)
    }
}
