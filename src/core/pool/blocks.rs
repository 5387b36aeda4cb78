//! The owner's allocator for payloads: offsets into the heap of a pool's region. Its books are private memory.
//!
//! Small blocks come in powers of two and keep their size, used again last in, first out, while they are warm in the
//! cache. Large ones are runs of pages; neighbours are joined when freed.

use std::collections::{BTreeMap, BTreeSet};

/// The smallest block.
const SMALLEST: usize = 128;
/// The largest block kept by size; above, runs of pages.
const LARGEST: usize = 8192;
const CLASSES: usize = (LARGEST / SMALLEST).ilog2() as usize + 1;
const PAGE: usize = 4096;
/// Small blocks are cut from runs of this size.
const CARVED: usize = 16 * PAGE;
/// Free memory kept warm; above this the pages of a freed run are given back to the system.
const KEPT: usize = 64 << 20;

/// A block: where and how long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Block {
    pub place: usize,
    pub capacity: usize,
}

/// What freeing a block asks of the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Freed {
    Kept,
    /// Give these pages back to the system.
    GiveBack {
        place: usize,
        len: usize,
    },
}

#[derive(Debug)]
pub struct Blocks {
    classes: [Vec<usize>; CLASSES],
    /// Free runs of pages by place, and by size.
    by_place: BTreeMap<usize, usize>,
    by_size: BTreeSet<(usize, usize)>,
    free: usize,
    /// Behind everything handed out so far.
    end: usize,
    limit: usize,
}

impl Blocks {
    /// An allocator for `[start, limit)`; `start` is on a page.
    #[must_use]
    pub fn new(start: usize, limit: usize) -> Self {
        debug_assert!(start.is_multiple_of(PAGE));
        Self {
            classes: Default::default(),
            by_place: BTreeMap::new(),
            by_size: BTreeSet::new(),
            free: 0,
            end: start,
            limit,
        }
    }

    /// A block of at least `len` bytes. `grow(place, len)` makes memory usable that was not used before; when it
    /// fails, or no address space is left, there is none.
    pub fn allocate(&mut self, len: usize, mut grow: impl FnMut(usize, usize) -> bool) -> Option<Block> {
        if len > LARGEST {
            let capacity = len.checked_next_multiple_of(PAGE)?;
            return self.run(capacity, &mut grow).map(|place| Block { place, capacity });
        }
        let class = class_of(len);
        let capacity = SMALLEST << class;
        if self.classes[class].is_empty() {
            let run = self.run(CARVED, &mut grow)?;
            self.classes[class].extend((0..CARVED / capacity).rev().map(|index| run + index * capacity));
        }
        self.classes[class].pop().map(|place| Block { place, capacity })
    }

    /// Takes a block of `allocate` back.
    pub fn release(&mut self, block: Block) -> Freed {
        if block.capacity <= LARGEST {
            self.classes[class_of(block.capacity)].push(block.place);
            return Freed::Kept;
        }
        let (mut place, mut len) = (block.place, block.capacity);
        if let Some((&before, &its)) = self.by_place.range(..place).next_back()
            && before + its == place
        {
            self.remove(before, its);
            (place, len) = (before, its + len);
        }
        if let Some(&its) = self.by_place.get(&(place + len)) {
            self.remove(place + len, its);
            len += its;
        }
        self.insert(place, len);
        if self.free > KEPT {
            // Only what was just freed: its pages are the ones that are surely there.
            return Freed::GiveBack { place: block.place, len: block.capacity };
        }
        Freed::Kept
    }

    fn run(&mut self, len: usize, grow: &mut impl FnMut(usize, usize) -> bool) -> Option<usize> {
        if let Some(&(size, place)) = self.by_size.range((len, 0)..).next() {
            self.remove(place, size);
            if size > len {
                self.insert(place + len, size - len);
            }
            return Some(place);
        }
        let place = self.end;
        let end = place.checked_add(len).filter(|&end| end <= self.limit)?;
        if !grow(place, len) {
            return None;
        }
        self.end = end;
        Some(place)
    }

    fn insert(&mut self, place: usize, len: usize) {
        self.by_place.insert(place, len);
        self.by_size.insert((len, place));
        self.free += len;
    }

    fn remove(&mut self, place: usize, len: usize) {
        self.by_place.remove(&place);
        self.by_size.remove(&(len, place));
        self.free -= len;
    }
}

fn class_of(len: usize) -> usize {
    len.max(SMALLEST).next_power_of_two().ilog2() as usize - SMALLEST.ilog2() as usize
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn small_blocks_are_used_again_last_in_first_out() {
        let mut blocks = Blocks::new(0, 1 << 20);
        let first = blocks.allocate(100, |_, _| true).expect("room");
        assert_eq!(first.capacity, 128);
        let second = blocks.allocate(129, |_, _| true).expect("room");
        assert_eq!(second.capacity, 256);
        assert_eq!(blocks.release(first), Freed::Kept);
        assert_eq!(blocks.allocate(1, |_, _| true), Some(first));
    }

    #[test]
    fn neighbours_are_joined() {
        let mut blocks = Blocks::new(0, 1 << 20);
        let parts: Vec<_> = (0..4).map(|_| blocks.allocate(20_000, |_, _| true).expect("room")).collect();
        for part in [&parts[1], &parts[3], &parts[0], &parts[2]] {
            blocks.release(*part);
        }
        let whole = blocks.allocate(80_000, |_, _| panic!("grew")).expect("room");
        assert_eq!((whole.place, whole.capacity), (0, 81_920));
    }

    #[test]
    fn no_room_is_no_block() {
        let mut blocks = Blocks::new(0, 1 << 20);
        assert_eq!(blocks.allocate(2 << 20, |_, _| true), None);
        assert_eq!(blocks.allocate(10_000, |_, _| false), None);
        assert_eq!(blocks.allocate(usize::MAX, |_, _| true), None);
    }

    #[derive(Clone, Debug)]
    enum Step {
        Allocate(usize),
        Release(usize),
    }

    fn steps() -> impl Strategy<Value = Vec<Step>> {
        let step = prop_oneof![
            (0_usize..300).prop_map(Step::Allocate),
            (0_usize..200_000).prop_map(Step::Allocate),
            any::<usize>().prop_map(Step::Release),
        ];
        proptest::collection::vec(step, 1..300)
    }

    proptest! {
        #[test]
        fn blocks_never_overlap(steps in steps()) {
            let mut blocks = Blocks::new(PAGE, 8 << 20);
            let mut grown = PAGE;
            let mut live: Vec<Block> = Vec::new();
            for step in steps {
                match step {
                    Step::Allocate(len) => {
                        let block = blocks.allocate(len, |place, len| {
                            assert_eq!(place, grown);
                            grown += len;
                            true
                        });
                        if let Some(block) = block {
                            prop_assert!(block.capacity >= len);
                            prop_assert!(block.place >= PAGE && block.place + block.capacity <= grown);
                            for other in &live {
                                let apart = other.place + other.capacity <= block.place
                                    || block.place + block.capacity <= other.place;
                                prop_assert!(apart, "{other:?} {block:?}");
                            }
                            live.push(block);
                        }
                    }
                    Step::Release(which) if !live.is_empty() => {
                        blocks.release(live.swap_remove(which % live.len()));
                    }
                    Step::Release(_) => {}
                }
            }
        }
    }
}
