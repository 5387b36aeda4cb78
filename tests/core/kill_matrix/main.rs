//! The kill matrix: a process is killed after instruction k of an operation, for every k, and those who are left must find
//! everything in one of the states that the tables of the engine's sources promise.
//!
//! A run visits some instructions of every operation, others each time (the seed is printed). `RSMP_MATRIX=full` visits
//! all of them, better with `--release`, where operations have a tenth of the instructions; `RSMP_MATRIX=n` n of each.
//! `RSMP_SLOW=n` has everything take n times as long, beside other work.
//! `RSMP_MATRIX_ONLY=word` runs the operations whose names have that word, `RSMP_SEED` the same instructions again.
//!
//! # Safety
//! The test program has one thread when it forks, but for those that wait in scenarios, which hold no lock of the
//! allocator for long: the C library's locks are consistent in the child.
#![allow(unsafe_code, clippy::print_stdout, clippy::unwrap_used)]

mod approach;
mod arenas;
mod locks;
mod meetings;
mod pools;
mod queues;
mod stepper;
mod survivor;
mod waits;

use core::time::Duration;
use std::sync::OnceLock;
use std::time::Instant;

use approach::Trace;
use rsmp_core::Deadline;
use stepper::{Step, Stepped};

/// What the engine's waits take to notice what a dead process did not tell: half a slice more than that.
pub(crate) fn soon() -> Deadline {
    Deadline::after(patient(Duration::from_millis(700)))
}

/// How long something may take that takes `time` at most where nothing else is going on.
fn patient(time: Duration) -> Duration {
    static SLOW: OnceLock<u32> = OnceLock::new();
    time * *SLOW.get_or_init(|| environment("RSMP_SLOW").and_then(|slow| slow.parse().ok()).unwrap_or(1))
}

/// Instructions of each operation visited by default.
const VISITED: u64 = 16;

/// Instructions of each operation visited at most.
const LONG: u64 = 10_000;

/// What is done to the shared state, and what must hold afterwards.
pub(crate) struct Scenario<'a> {
    pub(crate) name: &'static str,
    /// In the process that will be killed, before it is stepped.
    pub(crate) prepare: Box<dyn Fn() + 'a>,
    /// What is stepped through.
    pub(crate) operation: Box<dyn Fn() + 'a>,
    /// Run by the survivor, if there is anything to be seen of the process while it is stopped where it will be killed.
    pub(crate) look: Option<Box<dyn Fn(u32) + 'a>>,
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

/// What becomes of a visit.
struct Visit {
    /// Instructions executed.
    steps: u64,
    done: bool,
    /// It did not come by the place where the trace had it.
    astray: bool,
}

/// Steps through the whole operation, kills the process after it and checks. `None`: processes may not be traced here.
fn survey(make: Make) -> Option<Trace> {
    let mut trace = None;
    visit_by(make, &mut |process| {
        let mut seen = Trace::default();
        loop {
            let address = process.address();
            let step = process.step();
            // The last step only stops.
            seen.note(address);
            if step == Step::Done {
                break;
            }
        }
        let steps = seen.length();
        trace = Some(seen);
        Visit { steps, done: true, astray: false }
    })?;
    trace
}

/// Kills the process after instruction `at` and checks.
fn visit(make: Make, trace: &Trace, at: u64) -> Option<Visit> {
    visit_by(make, &mut |process| {
        let mut visit = Visit { steps: 0, done: false, astray: false };
        if let Some(anchor) = trace.before(at)
            && let Some(step) = process.run_to(anchor.address)
        {
            visit.done = step == Step::Done;
            visit.astray = visit.done;
            visit.steps = anchor.after;
        }
        while visit.steps < at && !visit.done {
            visit.done = process.step() == Step::Done;
            visit.steps += 1;
        }
        visit
    })
}

/// Kills the process where `approach` leaves it and checks.
fn visit_by(make: Make, approach: &mut dyn FnMut(&Stepped) -> Visit) -> Option<Visit> {
    let mut outcome = None;
    make(&mut |scenario| {
        let Scenario { name, prepare, operation, look, check } = scenario;
        let Some(process) = Stepped::start(prepare, operation) else { return };
        let visit = approach(&process);
        let pid = process.pid();
        let place = Place { name, steps: visit.steps };
        if let Some(look) = look {
            look(pid);
        }
        process.kill();
        let begun = Instant::now();
        check(pid, visit.done);
        assert!(begun.elapsed() < patient(Duration::from_secs(5)), "{name}: the survivor took {:?}", begun.elapsed());
        core::mem::forget(place);
        outcome = Some(visit);
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
    for (name, make) in
        [queues::ALL, locks::ALL, meetings::ALL, arenas::ALL, pools::ALL, waits::ALL].into_iter().flatten()
    {
        if only.as_ref().is_some_and(|only| !name.contains(only.as_str())) {
            continue;
        }
        let begun = Instant::now();
        // The first time some things are set up that stay.
        let Some(trace) = survey(*make).and_then(|_| survey(*make)) else {
            println!("kill matrix: skipped, processes may not be traced here");
            return;
        };
        let length = trace.length();
        // Longer ones go through a table, an entry like the other.
        let wanted = if length > LONG { visited.div_ceil(4) } else { visited };
        let stride = if full { length.div_ceil(LONG) } else { (length / wanted).max(1) };
        let mut at = 0;
        // The survey's own.
        let mut here = 1;
        let mut astray = 0;
        while at < length {
            let point = at + random.below(stride);
            let by_the_way = visit(*make, &trace, point);
            if by_the_way.is_some_and(|visit| visit.astray) {
                // What the operation does depends a little on the time; the long way leads there all the same.
                astray += u64::from(visit(*make, &Trace::default(), point).is_some_and(|visit| visit.done));
            }
            here += 1;
            at += stride;
        }
        let elsewhere = if astray > 0 { format!(", {astray} at the end instead") } else { String::new() };
        println!(
            "{name:44} {length:7} instructions, {here:6} visited{elsewhere} ({:.1} s)",
            begun.elapsed().as_secs_f64()
        );
        points += here - astray;
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
