//! A condition: places for those who wait, in the order in which they came.
//!
//! A condition's cell has room for a few waiters; more take places in the arena that all its conditions share. A place is
//! two words, `who` and `turn` (and `whose`, the condition, in the arena):
//!
//! | `who`             | who changes it                                    | what is left if that process dies there      |
//! |-------------------|---------------------------------------------------|----------------------------------------------|
//! | 0                 | a waiter, to itself                               | a free place                                 |
//! | waiter            | the waiter, to `WAITING`, once `turn` is written  | a place of the dead: taken over when places  |
//! |                   |                                                   | run short                                    |
//! | waiter, `WAITING` | the waiter, to 0, when it gives up; `notify`, to  | the same; `notify` also finds that nobody    |
//! |                   | `NOTIFIED` (Release), and then wakes it           | wakes up, and turns to the next              |
//! | waiter, `NOTIFIED`| the waiter, to 0 (Acquire)                        | the same. Died in `notify` before the wake:  |
//! |                   |                                                   | the sleeper looks at the end of its slice    |
//!
//! `turn` carries a flag, `ASLEEP`, from the first time that the waiter sleeps.
//!
//! The kernel says whether the wake reached a sleeper, so notifying waits for nobody: only a waiter that was not asleep
//! at that moment is looked up, and is passed over if its process is dead. One that has not slept yet is looked up in
//! less detail: it is about to look by itself.
//!
//! Waiting and notifying are done with the condition's lock held. Each step is one exchange all the same, so a lock that
//! was released by a stranger does no more harm here than a missed or spare wake.

use crate::atomic::{AtomicU64, Ordering};
use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::shm::arena::{Arena, Cell};
use crate::sync::spin::Spin;
use crate::sys::futex::{self, Woken};
use crate::sys::process::Identity;

const WAITING: u64 = 1 << 31;
const NOTIFIED: u64 = 1 << 30;
/// In `turn`.
const ASLEEP: u64 = 1 << 63;

/// Bytes of a condition's cell: the next turn, whether places in the arena are in use, and the places.
pub const SIZE: usize = 256;
const TURN_AT: usize = 0;
const SPILLED_AT: usize = 8;
const PLACES_AT: usize = 64;
const PLACES: usize = (SIZE - PLACES_AT) / 16;
/// Words of a place in the arena: `who`, `turn`, `whose` and one unused.
const SHARED_WORDS: usize = 4;

/// A condition in its cell.
#[derive(Clone, Copy, Debug)]
pub struct Condition<'a> {
    cell: &'a Cell,
}

/// Where a waiter is entered.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Place {
    index: usize,
    me: Identity,
}

impl<'a> Condition<'a> {
    /// # Panics
    /// If the cell is too small.
    #[must_use]
    pub fn new(cell: &'a Cell) -> Self {
        assert!(cell.len() >= SIZE, "a condition takes {SIZE} bytes");
        Self { cell }
    }

    fn arena(self) -> &'static Arena {
        self.cell.arena()
    }

    /// The words `who` and `turn` of the place.
    fn place(self, index: usize) -> (&'a AtomicU64, &'a AtomicU64) {
        match index.checked_sub(PLACES) {
            None => (self.cell.word64(PLACES_AT + index * 16), self.cell.word64(PLACES_AT + index * 16 + 8)),
            Some(shared) => {
                let words = &self.arena().waiters().0[shared * SHARED_WORDS..];
                (&words[0], &words[1])
            }
        }
    }

    /// Enters `me` as the last to wait.
    pub fn enter(self, me: Identity) -> Result<Place> {
        let turn = self.cell.word64(TURN_AT).fetch_add(1, Ordering::Relaxed);
        let index = match (0..PLACES).find(|index| take(self.place(*index).0, me)) {
            Some(index) => index,
            // Places of the dead are looked for one at a time: each look costs more than all else here.
            None if self.take_over(turn as usize % PLACES, me) => turn as usize % PLACES,
            None => self.enter_shared(me)?,
        };
        let (who, number) = self.place(index);
        number.store(turn, Ordering::Relaxed);
        // SYNC POINT: pairs with the acquire in `waiting`.
        who.store(me.to_word() | WAITING, Ordering::Release);
        Ok(Place { index, me })
    }

    fn take_over(self, index: usize, me: Identity) -> bool {
        let (who, _) = self.place(index);
        let word = who.load(Ordering::Relaxed);
        Identity::from_word(word).is_some_and(|it| !it.is_alive())
            && who.compare_exchange(word, me.to_word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    #[cold]
    fn enter_shared(self, me: Identity) -> Result<usize> {
        let (words, mark) = self.arena().waiters();
        let places = words.len() / SHARED_WORDS;
        for shared in 0..places {
            if shared as u64 >= mark.load(Ordering::Relaxed) {
                self.arena().provide_waiters(shared * SHARED_WORDS, SHARED_WORDS)?;
                mark.fetch_max(shared as u64 + 1, Ordering::Relaxed);
            }
            let place = &words[shared * SHARED_WORDS..][..SHARED_WORDS];
            if take(&place[0], me) || self.take_over(PLACES + shared, me) {
                place[2].store(self.cell.offset() as u64, Ordering::Relaxed);
                self.cell.word64(SPILLED_AT).store(1, Ordering::Relaxed);
                return Ok(PLACES + shared);
            }
        }
        Err(Error::invalid("wait on a condition", format!("more than {places} wait already")))
    }

    fn is_notified(self, place: Place) -> bool {
        let word = self.place(place.index).0.load(Ordering::Acquire);
        word != place.me.to_word() | WAITING
    }

    /// Waits to be notified, to `until` at most. May return early, with `false`.
    #[must_use]
    pub fn wait(self, place: Place, spin: &Spin, until: Deadline) -> bool {
        if spin.until(until, || self.is_notified(place).then_some(())).is_some() {
            return true;
        }
        let (who, turn) = self.place(place.index);
        turn.fetch_or(ASLEEP, Ordering::Relaxed);
        loop {
            if self.is_notified(place) {
                return true;
            }
            if futex::wait_low(who, place.me.to_word() | WAITING, until) != Woken::Changed {
                return self.is_notified(place);
            }
        }
    }

    /// Gives the place up. Returns whether it had been notified.
    #[must_use]
    pub fn leave(self, place: Place) -> bool {
        let (who, _) = self.place(place.index);
        let waiting = place.me.to_word() | WAITING;
        if who.compare_exchange(waiting, 0, Ordering::Relaxed, Ordering::Relaxed).is_ok() {
            return false;
        }
        let notified = place.me.to_word() | NOTIFIED;
        who.compare_exchange(notified, 0, Ordering::Acquire, Ordering::Relaxed).is_ok()
    }

    /// The places of those who wait, each with its turn.
    fn waiting(self) -> Vec<(u64, usize)> {
        let waiting = |index: usize| {
            let (who, turn) = self.place(index);
            (who.load(Ordering::Acquire) & WAITING != 0).then(|| (turn.load(Ordering::Relaxed) & !ASLEEP, index))
        };
        let mut found: Vec<(u64, usize)> = (0..PLACES).filter_map(waiting).collect();
        if self.cell.word64(SPILLED_AT).load(Ordering::Relaxed) != 0 {
            let (words, mark) = self.arena().waiters();
            let whose = self.cell.offset() as u64;
            let all = words.chunks_exact(SHARED_WORDS).take(mark.load(Ordering::Relaxed) as usize).enumerate();
            let own = all.filter(|(_, place)| place[2].load(Ordering::Relaxed) == whose);
            let before = found.len();
            found.extend(own.filter_map(|(shared, _)| waiting(PLACES + shared)));
            if found.len() == before {
                self.cell.word64(SPILLED_AT).store(0, Ordering::Relaxed);
            }
        }
        found
    }

    /// How many wait.
    #[must_use]
    pub fn sleepers(self) -> usize {
        self.waiting().len()
    }

    /// Wakes `count` live waiters, those who came first, or all there are. Returns how many.
    #[allow(clippy::must_use_candidate)]
    pub fn notify(self, count: usize) -> usize {
        let mut waiting = self.waiting();
        waiting.sort_unstable();
        let mut woken = 0;
        for (_, index) in waiting {
            if woken == count {
                break;
            }
            let (who, turn) = self.place(index);
            let word = who.load(Ordering::Relaxed);
            let (Some(it), true) = (Identity::from_word(word), word & WAITING != 0) else { continue };
            let notified = it.to_word() | NOTIFIED;
            if who.compare_exchange(word, notified, Ordering::Release, Ordering::Relaxed).is_err() {
                continue;
            }
            let lives = || if turn.load(Ordering::Relaxed) & ASLEEP == 0 { it.is_known() } else { it.is_alive() };
            if futex::wake_low(who, 1) == 0 && !lives() {
                let _ = who.compare_exchange(notified, 0, Ordering::Relaxed, Ordering::Relaxed);
                continue;
            }
            woken += 1;
        }
        woken
    }
}

fn take(who: &AtomicU64, me: Identity) -> bool {
    who.load(Ordering::Relaxed) == 0
        && who.compare_exchange(0, me.to_word(), Ordering::Acquire, Ordering::Relaxed).is_ok()
}
