//! Which of the waiting threads sleeps on the board's event, and how the others learn what it finds.
//!
//! The board can wake one sleeper of the owner. The first thread to wait is that sleeper, the leader; the others sleep on
//! a condition variable until somebody has something to announce. Leadership lasts for one sleep.

use std::time::Instant;

use parking_lot::{Condvar, Mutex};
use rsmp_core::Deadline;

#[derive(Default)]
pub(super) struct Lobby {
    state: Mutex<State>,
    changed: Condvar,
}

#[derive(Default)]
struct State {
    /// Counts announcements, so that none is missed between a look and a sleep.
    generation: u64,
    leader: bool,
    followers: u32,
    /// The supervisor sleeps on its own event and wants to hear of announcements.
    supervisor: bool,
}

/// Who must be woken by other means than the condition variable.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kick {
    pub(super) leader: bool,
    pub(super) supervisor: bool,
}

/// Leadership, until dropped.
pub(super) struct Lead<'a>(&'a Lobby);

impl Lobby {
    pub(super) fn generation(&self) -> u64 {
        self.state.lock().generation
    }

    /// Says that something changed: a job is done, leadership is free, the pool is over.
    pub(super) fn announce(&self) -> Kick {
        let mut state = self.state.lock();
        state.generation += 1;
        if state.followers > 0 {
            self.changed.notify_all();
        }
        Kick { leader: state.leader, supervisor: std::mem::take(&mut state.supervisor) }
    }

    /// Whether a thread sleeps on the board's event.
    pub(super) fn has_leader(&self) -> bool {
        self.state.lock().leader
    }

    /// Becomes the leader unless there is one, or something was announced since `generation`.
    pub(super) fn lead(&self, generation: u64) -> Option<Lead<'_>> {
        let mut state = self.state.lock();
        if state.leader || state.generation != generation {
            return None;
        }
        state.leader = true;
        Some(Lead(self))
    }

    /// Sleeps until something is announced that was not at `generation`. `None`: not until `deadline`.
    pub(super) fn follow(&self, generation: u64, deadline: Deadline) -> Option<()> {
        let mut state = self.state.lock();
        let until = deadline.remaining().map(|left| Instant::now() + left);
        state.followers += 1;
        while state.generation == generation {
            let timed_out = if let Some(until) = until {
                self.changed.wait_until(&mut state, until).timed_out()
            } else {
                self.changed.wait(&mut state);
                false
            };
            if timed_out {
                break;
            }
        }
        state.followers -= 1;
        (state.generation != generation).then_some(())
    }

    /// Asks for the supervisor's own event at the next announcement. `false`: there was one since `generation`.
    pub(super) fn listen(&self, generation: u64) -> bool {
        let mut state = self.state.lock();
        state.supervisor = state.generation == generation;
        state.supervisor
    }
}

impl Drop for Lead<'_> {
    fn drop(&mut self) {
        let mut state = self.0.state.lock();
        state.leader = false;
        if state.followers > 0 {
            // One of them takes over.
            state.generation += 1;
            self.0.changed.notify_all();
        }
    }
}
