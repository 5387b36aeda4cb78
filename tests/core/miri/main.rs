//! The queue and the locks under Miri, which sees every access: out of bounds, to memory never written, against the rules
//! of references, or by two threads at once without an order between them.
//!
//! What runs is the engine's own source, file by file. The kernel is replaced by as much of it as they need
//! (`kernel.rs`): memory files are ordinary memory, mapped twice where two processes share them; a process is a thread.
//!
//! `make miri`. An argument runs the cases whose names have that word.
#![allow(dead_code, unused_imports, clippy::print_stdout)]

mod cases;
mod kernel;
mod shm;

#[path = "../../../src/core/atomic.rs"]
mod atomic;
#[path = "../../../src/core/clock.rs"]
mod clock;
#[path = "../../../src/core/error.rs"]
mod error;
#[path = "../../../src/core/ring/mod.rs"]
mod ring;
#[path = "../../../src/core/sync/mod.rs"]
mod sync;

mod sys {
    pub(crate) use crate::kernel::{cpu, descriptor, futex, memory, process, robust};
}

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    let mut count = 0;
    for (name, case) in cases::ALL.iter().filter(|(name, _)| name.contains(&only)) {
        case();
        println!("{name}");
        count += 1;
    }
    println!("test result: ok. {count} passed; 0 failed; 0 ignored");
}
