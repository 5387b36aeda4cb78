//! Who may hold a cell of an arena: the table in its header, and the arithmetic of who can know of what.
//!
//! Cells travel to other processes in *sharing events* only: a fork, which shares every cell there is, and pickling for a
//! process being started, which counts as sharing every cell, too. The owner of the arena numbers its events. A process
//! that came into being by event `n` can hold what was allocated before `n` and let go of by the owner after it; what it
//! passes on to processes of its own reaches no further, so they inherit its number.
//!
//! An entry is two words, `who` and `event`:
//!
//! | `who`               | who changes it                             | what is left if that process dies there            |
//! |---------------------|--------------------------------------------|----------------------------------------------------|
//! | 0                   | any process, to its own `BUILDING`         | a free entry                                       |
//! | sharer, `BUILDING`  | that process, to `EXPECTED`                | a dead participant, freed by the next look         |
//! | sharer, `EXPECTED`  | the child, to itself; the sharer, to 0, if | counts as a holder for ever: the cells alive at    |
//! |                     | the child is known to be gone              | that moment are not used again                     |
//! | participant         | anyone, to 0, once it is dead              | a dead participant, freed by the next look         |
//!
//! `event` is written while the entry is `BUILDING` and read only later. When the table is full the word `full` is set
//! and stays: from then on no shared cell is used again.

use crate::atomic::{AtomicU64, Ordering};
use crate::sys::process::Identity;

/// Entries of the table.
pub const CAPACITY: usize = 1024;
/// Words of an entry.
pub const WORDS: usize = 2;

/// The event of a process that may hold any cell.
pub const EVERY_EVENT: u64 = u64::MAX;

/// Flags of `who`, in the bits that an identity leaves free.
const EXPECTED: u64 = 1 << 30;
const BUILDING: u64 = 1 << 31;

/// The number of an entry.
pub type Ticket = u32;

/// The table over its words, `CAPACITY * WORDS` of them, and the word `full`.
#[derive(Clone, Copy, Debug)]
pub struct Participants<'a> {
    words: &'a [AtomicU64],
    full: &'a AtomicU64,
}

/// Whether a process of `event` may hold a cell that was allocated after `born` events and let go of after `dropped`.
#[must_use]
pub fn may_hold(event: u64, born: u64, dropped: u64) -> bool {
    event == EVERY_EVENT || (born < event && event <= dropped)
}

impl<'a> Participants<'a> {
    /// # Panics
    /// If `words` is not a whole table.
    #[must_use]
    pub fn new(words: &'a [AtomicU64], full: &'a AtomicU64) -> Self {
        assert_eq!(words.len(), CAPACITY * WORDS, "a participants table has a fixed size");
        Self { words, full }
    }

    fn entry(self, ticket: Ticket) -> Option<(&'a AtomicU64, &'a AtomicU64)> {
        let at = ticket as usize * WORDS;
        Some((self.words.get(at)?, self.words.get(at + 1)?))
    }

    /// Enters a process that `sharer` is about to start. `None` when the table is full.
    #[must_use]
    pub fn expect(self, sharer: Identity, event: u64) -> Option<Ticket> {
        let ticket = self.claim(sharer).or_else(|| {
            self.forget_the_dead();
            self.claim(sharer)
        });
        let Some(ticket) = ticket else {
            self.full.store(1, Ordering::SeqCst);
            return None;
        };
        let (who, number) = self.entry(ticket)?;
        number.store(event, Ordering::Relaxed);
        // SYNC POINT: pairs with the load in `snapshot`.
        who.store(sharer.to_word() | EXPECTED, Ordering::SeqCst);
        Some(ticket)
    }

    fn claim(self, sharer: Identity) -> Option<Ticket> {
        let building = sharer.to_word() | BUILDING;
        (0..CAPACITY as Ticket).find(|ticket| {
            self.entry(*ticket).is_some_and(|(who, _)| {
                who.load(Ordering::Relaxed) == 0
                    && who.compare_exchange(0, building, Ordering::SeqCst, Ordering::Relaxed).is_ok()
            })
        })
    }

    /// The process expected under `ticket` is here, and is `me`. Returns its event; `None` when another came before.
    #[must_use]
    pub fn arrive(self, ticket: Ticket, me: Identity) -> Option<u64> {
        let (who, number) = self.entry(ticket)?;
        let word = who.load(Ordering::Acquire);
        let event = number.load(Ordering::Relaxed);
        let found = if word & EXPECTED == 0 {
            word
        } else {
            match who.compare_exchange(word, me.to_word(), Ordering::SeqCst, Ordering::Acquire) {
                Ok(_) => me.to_word(),
                Err(found) => found,
            }
        };
        (found == me.to_word()).then_some(event)
    }

    /// The process that `sharer` expected under `ticket` is gone, or never came to be.
    pub fn cancel(self, ticket: Ticket, sharer: Identity) {
        if let Some((who, _)) = self.entry(ticket) {
            // It fails when the process came after all; then the entry is freed as that of a dead one.
            let _ = who.compare_exchange(sharer.to_word() | EXPECTED, 0, Ordering::SeqCst, Ordering::Relaxed);
        }
    }

    fn forget_the_dead(self) {
        for who in self.words.iter().step_by(WORDS) {
            let word = who.load(Ordering::Relaxed);
            if word & EXPECTED == 0 && Identity::from_word(word).is_some_and(|it| !it.is_alive()) {
                let _ = who.compare_exchange(word, 0, Ordering::SeqCst, Ordering::Relaxed);
            }
        }
    }

    /// The events of all processes that live or are still expected. `None` when they are not all known.
    #[must_use]
    pub fn events(self) -> Option<Vec<u64>> {
        self.forget_the_dead();
        let mut entries = self.snapshot();
        loop {
            // A participant may enter a child of its own behind the reader's back and die, and be forgotten, before the
            // reader gets to it. What two readings in a row agree on was all there at one moment.
            let again = self.snapshot();
            if again == entries {
                break;
            }
            entries = again;
        }
        if self.full.load(Ordering::SeqCst) != 0 {
            return None;
        }
        let live = entries.into_iter().filter(|(who, _)| *who != 0);
        Some(live.map(|(who, event)| if who & BUILDING == 0 { event } else { EVERY_EVENT }).collect())
    }

    /// The processes entered, or about to enter others; some of them may have ended.
    pub fn pids(self) -> impl Iterator<Item = u32> + use<'a> {
        let who = self.words.iter().step_by(WORDS);
        who.filter_map(|who| Identity::from_word(who.load(Ordering::Relaxed))).map(Identity::pid)
    }

    fn snapshot(self) -> Vec<(u64, u64)> {
        let entry = |words: &[AtomicU64]| match words {
            [who, number] => (who.load(Ordering::SeqCst), number.load(Ordering::Relaxed)),
            _ => (0, 0),
        };
        self.words.chunks_exact(WORDS).map(entry).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table() -> (Vec<AtomicU64>, AtomicU64) {
        ((0..CAPACITY * WORDS).map(|_| AtomicU64::new(0)).collect(), AtomicU64::new(0))
    }

    #[test]
    fn a_cell_is_known_to_those_who_came_between_its_birth_and_its_end() {
        assert!(!may_hold(3, 3, 3), "allocated after the third event");
        assert!(may_hold(4, 3, 4));
        assert!(may_hold(4, 3, 9));
        assert!(!may_hold(10, 3, 9), "let go of before the tenth event");
        assert!(may_hold(EVERY_EVENT, 3, 3));
    }

    #[test]
    fn expected_processes_count_until_cancelled_and_arrived_ones_until_dead() {
        let (words, full) = table();
        let table = Participants::new(&words, &full);
        let me = Identity::current();
        let first = table.expect(me, 1).expect("room");
        let second = table.expect(me, 2).expect("room");
        assert_eq!(table.events(), Some(vec![1, 2]));
        assert_eq!(table.arrive(second, me), Some(2));
        assert_eq!(table.arrive(second, me), Some(2), "announced twice");
        let other = Identity::from_word(me.to_word() ^ 1).expect("an identity");
        assert_eq!(table.arrive(second, other), None, "a ticket is for one process");
        table.cancel(second, me);
        table.cancel(first, me);
        assert_eq!(table.events(), Some(vec![2]), "an arrived process is not cancelled");
        assert_eq!(table.arrive(99_999, me), None);
    }

    #[test]
    fn a_dead_participant_makes_room() {
        let (words, full) = table();
        let table = Participants::new(&words, &full);
        let me = Identity::current();
        // Another process of this one's id, earlier: the start time tells them apart.
        let dead = Identity::from_word(me.to_word() ^ (1 << 22)).expect("an identity");
        for event in 0..CAPACITY as u64 {
            let ticket = table.expect(me, event).expect("room");
            assert_eq!(table.arrive(ticket, dead), Some(event));
        }
        assert!(table.expect(me, 7).is_some());
        assert_eq!(table.events(), Some(vec![7]));
    }

    #[test]
    fn a_full_table_means_nothing_is_known() {
        let (words, full) = table();
        let table = Participants::new(&words, &full);
        let me = Identity::current();
        for event in 0..CAPACITY as u64 {
            assert!(table.expect(me, event).is_some());
        }
        assert_eq!(table.expect(me, 0), None);
        assert_eq!(table.events(), None);
    }
}
