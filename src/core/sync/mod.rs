//! One primitive per file over words in shared memory; each opens with its state table.
//!
//! None of them knows where its words come from, blocks beyond the deadline it is given, or keeps a count of sleepers:
//! a killed sleeper would stay counted. What a waiter leaves is a flag, at worst one wake for nobody.

pub mod barrier;
pub mod condition;
pub mod event;
pub mod lock;
pub mod rlock;
pub mod semaphore;
pub mod spin;
