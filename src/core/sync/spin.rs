//! Spinning before sleeping: how long is worth it.
//!
//! Sleeping and being woken costs microseconds on the same CPU and tens of them on another, so it pays to look a while
//! longer when the other side answers soon, and only then. Each object learns from its own past how long that is: a wait
//! that ends while spinning lengthens the next spin to what it took and some more, one that does not halves it, down to
//! nothing; from time to time one is tried again.
//!
//! The other side may be waiting for this very CPU. So a spin gives way between looks, and where there is only one CPU
//! it does nothing else: that is how the other side gets to answer at all.

use core::hint;

use crate::atomic::{AtomicUsize, Ordering};
use crate::clock::{self, Deadline};
use crate::sys::cpu;

/// Nanoseconds: the first spin, the longest, the shortest after one that paid off, and what counts as none.
///
/// The other side may have to be woken first, so less than a wake takes is no trial.
const FIRST: usize = 40_000;
const LONGEST: usize = 50_000;
const SHORTEST: usize = 20_000;
const NONE: usize = 3_000;
/// A spin is tried again after this many waits without.
const RETRY: usize = 32;
/// When the last one gave way to somebody who kept the CPU, that was a moment's work of the system, or there is more work
/// than CPUs and each try costs a time slice: each time that it happens again, so many times more waits go without,
const CROWDED: usize = 4;
/// up to this many. Each spin that pays off takes one back.
const RETRY_CROWDED: usize = 2_000;
/// Looks between two times of giving way, if there is another CPU.
const LOOKS: u32 = 4;

/// What one object in one process has learnt.
#[derive(Debug)]
pub struct Spin {
    /// Nanoseconds to spin; below `NONE`, how many waits have gone without.
    budget: AtomicUsize,
    /// How many waits go without when a spin gives way to somebody who keeps the CPU.
    pause: AtomicUsize,
}

impl Default for Spin {
    fn default() -> Self {
        Self::new()
    }
}

impl Spin {
    #[must_use]
    pub const fn new() -> Self {
        Self { budget: AtomicUsize::new(FIRST), pause: AtomicUsize::new(RETRY) }
    }

    /// Calls `ready` until it gives a value, for as long as is worth it.
    pub fn until<T>(&self, deadline: Deadline, mut ready: impl FnMut() -> Option<T>) -> Option<T> {
        let budget = self.budget.load(Ordering::Relaxed);
        if budget < NONE {
            let again = budget == RETRY || budget == NONE - 1;
            self.budget.store(if again { FIRST } else { budget + 1 }, Ordering::Relaxed);
            return None;
        }
        if deadline == Deadline::PASSED {
            return None;
        }
        let start = clock::now();
        let looks = if cpu::available(start) > 1 { LOOKS } else { 1 };
        loop {
            for _ in 0..looks {
                if let Some(value) = ready() {
                    self.learn(budget, Some((clock::now() - start) as usize));
                    return Some(value);
                }
                hint::spin_loop();
            }
            let before = clock::now();
            cpu::give_way();
            let now = clock::now();
            if now - before >= LONGEST as u64 {
                self.step_back();
                return ready();
            }
            if now - start >= budget as u64 {
                let value = ready();
                self.learn(budget, None);
                return value;
            }
        }
    }

    /// The CPU was gone for long.
    #[cold]
    fn step_back(&self) {
        let pause = self.pause.load(Ordering::Relaxed);
        self.pause.store((pause * CROWDED).min(RETRY_CROWDED), Ordering::Relaxed);
        self.budget.store(NONE - 1 - pause, Ordering::Relaxed);
    }

    /// `took` is how long a spin that paid off lasted.
    fn learn(&self, budget: usize, took: Option<usize>) {
        if took.is_some() {
            let pause = self.pause.load(Ordering::Relaxed);
            if pause > RETRY {
                self.pause.store(pause - 1, Ordering::Relaxed);
            }
        }
        let next = match took {
            // Twice what it took, approached by half.
            Some(took) if took < LONGEST => usize::midpoint(budget, (took * 2).clamp(SHORTEST, LONGEST)),
            _ if budget / 2 < NONE => 0,
            _ => budget / 2,
        };
        self.budget.store(next, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use core::time::Duration;

    use super::*;

    #[test]
    fn what_never_pays_off_stops_and_is_tried_again() {
        let spin = Spin::new();
        let mut looks = 0_usize;
        let mut waits = 0_usize;
        while spin.budget.load(Ordering::Relaxed) >= NONE && waits < 1000 {
            assert_eq!(spin.until(Deadline::NEVER, || None::<()>), None);
            waits += 1;
        }
        assert!(waits < 10);
        for _ in 0..RETRY {
            assert_eq!(
                spin.until(Deadline::NEVER, || {
                    looks += 1;
                    None::<()>
                }),
                None
            );
        }
        assert_eq!(looks, 0);
        assert_eq!(
            spin.until(Deadline::NEVER, || {
                looks += 1;
                None::<()>
            }),
            None
        );
        assert_eq!(
            spin.until(Deadline::NEVER, || {
                looks += 1;
                None::<()>
            }),
            None
        );
        assert!(looks > 0);
    }

    /// Waits that go without a spin until one is tried again.
    fn waits_without(spin: &Spin) -> usize {
        let mut looks = 0_usize;
        for waits in 0.. {
            let _ = spin.until(Deadline::NEVER, || {
                looks += 1;
                Some(())
            });
            if looks > 0 {
                return waits;
            }
        }
        unreachable!()
    }

    #[test]
    fn a_crowd_that_stays_is_tried_less_and_less() {
        let spin = Spin::new();
        let tries: Vec<_> = (0..6)
            .map(|_| {
                spin.step_back();
                waits_without(&spin)
            })
            .collect();
        // One wait finds that it is time again, and the spin that paid off took one back.
        assert_eq!(tries[..3], [RETRY + 1, RETRY * CROWDED, (RETRY * CROWDED - 1) * CROWDED]);
        assert_eq!(tries[5], RETRY_CROWDED);
        for _ in 0..RETRY_CROWDED {
            assert_eq!(spin.until(Deadline::NEVER, || Some(())), Some(()));
        }
        spin.step_back();
        assert_eq!(waits_without(&spin), RETRY + 1, "the crowd has gone");
    }

    #[test]
    fn a_passed_deadline_does_not_spin() {
        assert_eq!(Spin::new().until(Deadline::PASSED, || Some(1)), None);
        let _ = Spin::new().until(Deadline::after(Duration::from_secs(1)), || Some(1));
    }
}
