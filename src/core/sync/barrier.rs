//! A barrier: one word. Each round ends by being passed or broken, and the word remembers how the latest ones ended, so
//! nobody waits for the others to have left a round.
//!
//! | bits   | content                                                                                       |
//! |--------|-----------------------------------------------------------------------------------------------|
//! | 0      | `BROKEN`: nobody may wait until `reset`                                                       |
//! | 1      | `WAITERS`: somebody may sleep                                                                 |
//! | 2      | `ACTING`: all are there, and one of them runs the action                                      |
//! | 3..32  | the round                                                                                     |
//! | 32..54 | how many have arrived; while `ACTING`, the process that runs the action                       |
//! | 54..64 | how the ten latest rounds ended, the latest in bit 54: 1 is broken                            |
//!
//! | word             | who changes it                                   | what is left if that process dies there         |
//! |------------------|--------------------------------------------------|-------------------------------------------------|
//! | filling, n       | whoever arrives, to n + 1; a waiter that is      | an arrival that counts, as everybody who waits  |
//! |                  | interrupted, to n - 1; the last, to the next     | has arrived; the round ends when the others     |
//! |                  | round or to `ACTING`; `abort`, a waiter out of   | are there. Before the wake: sleepers look again |
//! |                  | time, to broken; `reset`, to the next round      | at the end of their slice                       |
//! | `ACTING`         | the actor, to the next round; `abort`, `reset`   | the round breaks: those who wait look whether   |
//! |                  |                                                  | the actor lives                                 |
//! | `BROKEN`         | `reset`                                          | a whole state                                   |
//!
//! Each change is one exchange of the word (`AcqRel`); who sees a round end has seen all that came before every arrival.

use crate::atomic::{AtomicU64, Ordering};
use crate::clock::Deadline;
use crate::sync::spin::Spin;
use crate::sys::futex::{self, Woken};
use crate::sys::process;

const BROKEN: u64 = 1;
const WAITERS: u64 = 1 << 1;
const ACTING: u64 = 1 << 2;
const ROUND_SHIFT: u32 = 3;
const ROUND_MASK: u64 = (1 << 29) - 1;
const COUNT_SHIFT: u32 = 32;
const COUNT_MASK: u64 = (1 << 22) - 1;
const HISTORY_SHIFT: u32 = 54;
const HISTORY: u32 = 10;

/// A word taken apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct State {
    broken: bool,
    waiters: bool,
    acting: bool,
    round: u64,
    /// Arrivals, or the actor.
    count: u64,
    history: u64,
}

impl State {
    fn unpack(word: u64) -> Self {
        Self {
            broken: word & BROKEN != 0,
            waiters: word & WAITERS != 0,
            acting: word & ACTING != 0,
            round: (word >> ROUND_SHIFT) & ROUND_MASK,
            count: (word >> COUNT_SHIFT) & COUNT_MASK,
            history: word >> HISTORY_SHIFT,
        }
    }

    fn pack(self) -> u64 {
        u64::from(self.broken)
            | if self.waiters { WAITERS } else { 0 }
            | if self.acting { ACTING } else { 0 }
            | ((self.round & ROUND_MASK) << ROUND_SHIFT)
            | ((self.count & COUNT_MASK) << COUNT_SHIFT)
            | (self.history << HISTORY_SHIFT)
    }

    fn next_round(self, how: End) -> Self {
        let broken = u64::from(how == End::Broken);
        Self {
            broken: self.broken,
            waiters: false,
            acting: false,
            round: (self.round + 1) & ROUND_MASK,
            count: 0,
            history: ((self.history << 1) | broken) & ((1 << HISTORY) - 1),
        }
    }
}

/// How a round ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    Passed,
    Broken,
}

/// What an arrival has to do next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arrival {
    /// Wait for the round to end.
    Wait(Round),
    /// It was the last, and the round is over.
    Passed,
    /// It is the last: run the action, then `finish` or `abort`.
    Act(Round),
    /// The barrier is broken.
    Broken,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Round(u64);

#[derive(Clone, Copy, Debug)]
pub struct Barrier<'a>(&'a AtomicU64);

impl<'a> Barrier<'a> {
    #[must_use]
    pub fn new(word: &'a AtomicU64) -> Self {
        Self(word)
    }

    fn load(self) -> State {
        State::unpack(self.0.load(Ordering::Acquire))
    }

    /// Changes the word by `change` and wakes everybody when the round ends. Returns the state before, `Err` when `change`
    /// declines.
    fn update(self, mut change: impl FnMut(State) -> Option<State>) -> Result<State, State> {
        let packed = |word| change(State::unpack(word)).map(State::pack);
        let before = self.0.fetch_update(Ordering::AcqRel, Ordering::Acquire, packed);
        let before = before.map(State::unpack).map_err(State::unpack)?;
        if before.waiters && self.load().round != before.round {
            futex::wake_low(self.0, i32::MAX.unsigned_abs());
        }
        Ok(before)
    }

    /// Arrives, waiting to `until` at most for another round's action to end. `None` when it still runs.
    ///
    /// The index tells the arrivals of a round apart: 0 for the first.
    #[must_use]
    pub fn arrive(self, parties: u64, acts: bool, until: Deadline) -> Option<(u64, Arrival)> {
        loop {
            let change = |state: State| {
                if state.broken || state.acting {
                    None
                } else if state.count + 1 != parties {
                    Some(State { count: state.count + 1, ..state })
                } else if acts {
                    Some(State { acting: true, count: u64::from(process::pid()), ..state })
                } else {
                    Some(state.next_round(End::Passed))
                }
            };
            match self.update(change) {
                Ok(before) if before.count + 1 != parties => {
                    return Some((before.count, Arrival::Wait(Round(before.round))));
                }
                Ok(before) if acts => return Some((before.count, Arrival::Act(Round(before.round)))),
                Ok(before) => return Some((before.count, Arrival::Passed)),
                Err(state) if state.broken => return Some((0, Arrival::Broken)),
                Err(state) => {
                    let ended = self.sleep(state, until);
                    if !ended && !self.look_after_actor(Round(state.round)) {
                        return None;
                    }
                }
            }
        }
    }

    /// The action is done. `false` when the barrier was broken or reset meanwhile.
    #[must_use]
    pub fn finish(self, Round(round): Round) -> bool {
        let change = |state: State| (state.acting && state.round == round).then(|| state.next_round(End::Passed));
        self.update(change).is_ok()
    }

    /// How the round ended, if it has.
    fn ended(self, Round(round): Round) -> Option<End> {
        let state = self.load();
        let ago = state.round.wrapping_sub(round) & ROUND_MASK;
        match u32::try_from(ago).unwrap_or(u32::MAX) {
            0 => None,
            ago if ago <= HISTORY && (state.history >> (ago - 1)) & 1 == 1 => Some(End::Broken),
            _ => Some(End::Passed),
        }
    }

    /// Sleeps while the word's low half is that of `state`. `false` when nothing has changed.
    fn sleep(self, state: State, until: Deadline) -> bool {
        let asleep = State { waiters: true, ..state };
        let (word, asleep) = (state.pack(), asleep.pack());
        if word != asleep && self.0.compare_exchange(word, asleep, Ordering::Relaxed, Ordering::Relaxed).is_err() {
            return true;
        }
        futex::wait_low(self.0, asleep, until) == Woken::Changed
    }

    /// Waits for the round to end, to `until` at most. May return early, with `None`.
    #[must_use]
    pub fn wait(self, round: Round, spin: &Spin, until: Deadline) -> Option<End> {
        if let Some(end) = spin.until(until, || self.ended(round)) {
            return Some(end);
        }
        loop {
            let state = self.load();
            if let Some(end) = self.ended(round) {
                return Some(end);
            }
            if !self.sleep(state, until) {
                self.look_after_actor(round);
                return self.ended(round);
            }
        }
    }

    /// Breaks the round when the process that runs its action is dead. `false` when the action still runs.
    fn look_after_actor(self, Round(round): Round) -> bool {
        let state = self.load();
        if !state.acting || state.round != round {
            return true;
        }
        if process::is_alive(state.count as u32) {
            return false;
        }
        let broken = |now: State| (now == State { waiters: now.waiters, ..state }).then(|| broken(now));
        let _ = self.update(broken);
        true
    }

    /// A waiter's time is over: breaks the round, unless it has ended or its action runs already (`None`).
    #[must_use]
    pub fn expire(self, round: Round) -> Option<End> {
        let change = |state: State| (state.round == round.0 && !state.acting && !state.broken).then(|| broken(state));
        match self.update(change) {
            Ok(_) => Some(End::Broken),
            Err(_) => self.ended(round),
        }
    }

    /// A waiter goes away without breaking the barrier: it has not arrived after all.
    pub fn leave(self, Round(round): Round) {
        let change = |state: State| {
            (state.round == round && !state.acting && state.count > 0)
                .then(|| State { count: state.count - 1, ..state })
        };
        let _ = self.update(change);
    }

    /// Breaks the barrier.
    pub fn abort(self) {
        let _ = self.update(|state| (!state.broken).then(|| broken(state)));
    }

    /// Makes it empty and whole; whoever waits finds it broken.
    pub fn reset(self) {
        let change = |state: State| {
            if state.count > 0 {
                Some(State { broken: false, ..state.next_round(End::Broken) })
            } else {
                state.broken.then_some(State { broken: false, ..state })
            }
        };
        let _ = self.update(change);
    }

    /// How many wait.
    #[must_use]
    pub fn waiting(self) -> u64 {
        arrived(self.0.load(Ordering::Acquire))
    }

    #[must_use]
    pub fn is_broken(self) -> bool {
        self.load().broken
    }
}

/// How many wait at the barrier whose word this is.
#[must_use]
pub fn arrived(word: u64) -> u64 {
    let state = State::unpack(word);
    if state.broken || state.acting { 0 } else { state.count }
}

fn broken(state: State) -> State {
    State { broken: true, ..state.next_round(End::Broken) }
}
