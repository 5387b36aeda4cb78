//! The engine of rsmp, without Python.
//!
//! | module   | what lives there                                                          | may use |
//! |----------|---------------------------------------------------------------------------|---------|
//! | `error`  | the one error type                                                        |         |
//! | `atomic` | the one place that names atomics, so that loom can stand in                |         |
//! | `clock`  | deadlines                                                                 | `sys`   |
//! | `sys`    | the only syscalls: futex, memfd and mmap, descriptors, poll, children      | `error` |
//! | `warm`   | private memory that large buffers use one after the other                  | `sys`   |
//! | `shm`    | layouts, arena, regions, slabs                                            | `sys`   |
//! | `sync`   | one primitive per file, each opening with its state table                  | `shm`   |
//! | `ring`   | the queue: a byte ring and its commit protocol                            | `sync`  |
//! | `frame`  | the connection's wire format                                              | `sync`  |
//! | `spawn`  | what to launch, launching, reaping, the fork server's protocol             | `frame` |
//! | `pool`   | task table, claims, chunking: state machines without I/O                  | `ring`  |

#[cfg(not(target_pointer_width = "64"))]
compile_error!("rsmp needs a 64-bit system: shared memory is mapped into more address space than others have");

pub mod atomic;
pub mod clock;
pub mod error;
pub mod frame;
pub mod pool;
pub mod ring;
pub mod shm;
pub mod spawn;
pub mod sync;
pub mod sys;
pub mod warm;

pub use clock::Deadline;
pub use error::{Error, Result};
