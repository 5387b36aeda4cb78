//! A pool's shared state: tasks handed out, claims, results coming back.
//!
//! One process, the *owner*, publishes tasks; *workers* take them one at a time. Nothing here is locked between processes:
//! a claim is one compare-and-swap on the task's slot that carries the worker's number, so the owner can tell from the
//! slots alone what a dead worker had in hand. All memory is handed out by the owner, whose books are its own: a worker
//! that dies leaves nothing to be repaired.
//!
//! | file         | what lives there                                                               |
//! |--------------|--------------------------------------------------------------------------------|
//! | `layout`     | offsets, state words and their tables                                          |
//! | `board`      | the shared words: the queue of published tasks, the stack of finished ones, bells |
//! | `dispatcher` | the owner's side: slots, memory, publishing, collecting, burying               |
//! | `worker`     | the worker's side: claiming, reading, finishing                                |
//! | `blocks`     | the owner's allocator for payloads                                             |
//! | `chunks`     | how a map is cut                                                               |

pub mod blocks;
pub mod board;
pub mod chunks;
pub mod dispatcher;
pub mod layout;
pub mod worker;

pub use board::Board;
pub use dispatcher::{Collected, Dispatcher, Place, Reserved, Task};
pub use layout::{Closing, INLINE, Kind, Stage};
pub use worker::Worker;
