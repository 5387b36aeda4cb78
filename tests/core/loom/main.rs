//! loom models of the wake protocols: every interleaving, and every value a relaxed load may see, within a bound on
//! preemptions.
//!
//! What is modelled is the engine's own source, file by file, over loom's atomics. The kernel is replaced by a model of
//! it (`kernel.rs`), in which nobody wakes without being woken: there are no slices and no deadlines. A wake that may be
//! lost is therefore a deadlock, which loom reports, where the engine itself would only be half a second late.
//!
//! `make loom`; `LOOM_MAX_PREEMPTIONS=n` for another bound than 2. An argument runs the models whose names have that word.
#![allow(dead_code, unused_imports, clippy::print_stdout)]

mod kernel;
mod models;
mod pool;
mod ring;
mod sync;

#[path = "../../../src/core/atomic.rs"]
mod atomic;
#[path = "../../../src/core/clock.rs"]
mod clock;
#[path = "../../../src/core/error.rs"]
mod error;

mod shm {
    pub(crate) mod arena {
        pub(crate) use crate::kernel::{Arena, Cell};
    }
    pub(crate) mod region {
        pub(crate) use crate::kernel::Region;
    }
    pub(crate) mod slab {
        /// Not modelled.
        #[derive(Debug, Default)]
        pub(crate) struct Header;
    }
}

mod sys {
    pub(crate) use crate::kernel::{descriptor, futex, memory};
    pub(crate) mod cpu {
        pub(crate) fn fence() {
            crate::atomic::fence(crate::atomic::Ordering::SeqCst);
        }
        pub(crate) use fence as fence_after_update;
    }
    pub(crate) mod process {
        pub(crate) use crate::kernel::{Identity, is_alive, pid};
    }
}

use std::time::Instant;

fn main() {
    let only = std::env::args().nth(1).unwrap_or_default();
    let mut count = 0;
    for (name, model) in models::ALL.iter().filter(|(name, _)| name.contains(&only)) {
        let begun = Instant::now();
        let mut builder = loom::model::Builder::new();
        builder.preemption_bound = builder.preemption_bound.or(Some(2));
        builder.max_branches = 100_000;
        let executions = std::sync::Arc::new(std::sync::atomic::AtomicU64::new(0));
        let counted = std::sync::Arc::clone(&executions);
        builder.check(move || {
            counted.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            model();
        });
        let executions = executions.load(std::sync::atomic::Ordering::Relaxed);
        println!("{name:52} {executions:8} executions ({:.1} s)", begun.elapsed().as_secs_f64());
        count += 1;
    }
    println!("test result: ok. {count} passed; 0 failed; 0 ignored");
}
