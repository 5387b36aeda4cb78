//! The kill matrix: a process is killed after instruction k of an operation, for every k, and those who are left must find
//! everything in one of the states that the tables of the engine's sources promise.
//!
//! A run visits some instructions of every operation, others each time (the seed is printed). `RSMP_MATRIX=full` visits
//! all of them, better with `--release`, where operations have a tenth of the instructions; `RSMP_MATRIX=n` n of each.
//! `RSMP_MATRIX_ONLY=word` runs the operations whose names have that word, `RSMP_SEED` the same instructions again.
//!
//! # Safety
//! The test program has one thread when it forks, but for those that wait in scenarios, which hold no lock of the
//! allocator for long: the C library's locks are consistent in the child.
#![allow(unsafe_code, clippy::print_stdout, clippy::unwrap_used)]

mod pools;
mod queues;
mod stepper;
mod syncs;

use core::time::Duration;
use std::time::Instant;

use stepper::{Step, Stepped};

/// Half a slice more than the engine's waits take to notice what a dead process did not tell.
pub(crate) const SOON: Duration = Duration::from_millis(700);

/// Instructions of each operation visited by default.
const VISITED: u64 = 16;

/// What is done to the shared state, and what must hold afterwards.
pub(crate) struct Scenario<'a> {
    pub(crate) name: &'static str,
    /// In the process that will be killed, before it is stepped.
    pub(crate) prepare: Box<dyn Fn() + 'a>,
    /// What is stepped through.
    pub(crate) operation: Box<dyn Fn() + 'a>,
    /// Run by the survivor; `pid` is dead, and it came to the end if `done`.
    pub(crate) check: Box<dyn FnOnce(u32, bool) + 'a>,
}

/// Makes a state anew and hands a scenario over it to the visitor.
pub(crate) type Make = fn(&mut dyn FnMut(Scenario<'_>));

/// An operation: its name, and how a scenario of it is made.
pub(crate) type Maker = (&'static str, Make);

struct Random(u64);

impl Random {
    fn below(&mut self, limit: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % limit.max(1)
    }
}

/// Steps through the operation up to instruction `at`, kills and checks. Returns the steps taken and whether it ended.
fn visit(make: Make, at: u64) -> Option<(u64, bool)> {
    let mut outcome = None;
    make(&mut |scenario| {
        let Scenario { name, prepare, operation, check } = scenario;
        let Some(process) = Stepped::start(prepare, operation) else { return };
        let mut steps = 0;
        let mut done = false;
        while steps < at && !done {
            done = process.step() == Step::Done;
            steps += 1;
        }
        let pid = process.pid();
        process.kill();
        let begun = Instant::now();
        let place = Place { name, steps };
        check(pid, done);
        assert!(begun.elapsed() < Duration::from_secs(2), "{name}: the survivor took {:?}", begun.elapsed());
        core::mem::forget(place);
        outcome = Some((steps, done));
    });
    outcome
}

/// Says where it was when a check fails.
struct Place {
    name: &'static str,
    steps: u64,
}

impl Drop for Place {
    fn drop(&mut self) {
        println!("{}: killed after instruction {}", self.name, self.steps);
    }
}

fn environment(name: &str) -> Option<String> {
    std::env::var(name).ok()
}

fn main() {
    without_string_instructions();
    let mode = environment("RSMP_MATRIX");
    let full = mode.as_deref() == Some("full");
    let visited = mode.as_deref().and_then(|mode| mode.parse().ok()).unwrap_or(VISITED);
    let only = environment("RSMP_MATRIX_ONLY");
    let seed = environment("RSMP_SEED").and_then(|seed| seed.parse().ok()).unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
        u64::from(now.subsec_nanos()) | 1
    });
    let mut random = Random(seed);
    println!("kill matrix: seed {seed}");
    pin();
    queues::warm_up();
    let mut points = 0;
    let mut operations = 0;
    for (name, make) in queues::ALL.iter().chain(syncs::ALL).chain(pools::ALL) {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let begun = Instant::now();
        // The first time some things are set up that stay.
        let _ = visit(*make, 0);
        let Some((length, true)) = visit(*make, u64::MAX) else {
            println!("kill matrix: skipped, processes may not be traced here");
            return;
        };
        let stride = if full { 1 } else { (length / visited).max(1) };
        let mut at = 0;
        let mut here = 1;
        while at < length {
            let point = if full { at } else { at + random.below(stride) };
            visit(*make, point);
            here += 1;
            at += stride;
        }
        println!("{name:44} {length:7} instructions, {here:6} visited ({:.1} s)", begun.elapsed().as_secs_f64());
        points += here;
        operations += 1;
    }
    println!("kill matrix: {points} points of {operations} operations visited, every invariant holds");
    println!("test result: ok. {operations} passed; 0 failed; 0 ignored");
}

/// Starts the program anew with a C library that copies by ordinary instructions: stepped through, `rep movsb` takes a step
/// for each byte.
fn without_string_instructions() {
    use std::os::unix::process::CommandExt;

    const TUNABLES: &str = "GLIBC_TUNABLES";
    const COPYING: &str = "glibc.cpu.x86_rep_movsb_threshold=1073741824:glibc.cpu.x86_rep_stosb_threshold=1073741824";
    if environment(TUNABLES).is_none() {
        let program = std::env::current_exe().unwrap();
        panic!("cannot start anew: {}", std::process::Command::new(program).env(TUNABLES, COPYING).exec());
    }
}

/// Keeps the stepper and the stepped on one processor: handing over between two costs several times as much.
fn pin() {
    // SAFETY: the set is a plain bit set of this function's own.
    unsafe {
        let mut set: libc::cpu_set_t = core::mem::zeroed();
        let here = libc::sched_getcpu();
        if here >= 0 {
            libc::CPU_SET(here.unsigned_abs() as usize, &mut set);
            libc::sched_setaffinity(0, size_of::<libc::cpu_set_t>(), &raw const set);
        }
    }
}
