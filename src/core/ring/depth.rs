//! How much is in a queue, read from its file by whoever may open it. Nothing is written, no lock is taken.
//!
//! | what the reader meets              | what it says                                                          |
//! |------------------------------------|-----------------------------------------------------------------------|
//! | a commit between its two readings  | the queue before or after it: each side's mark is read until it holds |
//! | a process that died in a commit    | the queue without that change, as `layout::Commit` says               |

use core::mem::offset_of;
use std::os::fd::AsFd;

use crate::error::Result;
use crate::ring::layout::{Commit, HEADER, Header, MAGIC, Mark, Side, VERSION};
use crate::sys::memory;

/// A queue, at one moment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Depth {
    pub items: u64,
    /// Bytes of payload.
    pub bytes: u64,
    /// How many items there may be; zero is no limit.
    pub max_items: u64,
    /// Items put and not yet done with, for a `JoinableQueue`.
    pub unfinished: u64,
}

impl Depth {
    /// Reads a queue's file; `None` when it is none, or of another version.
    pub fn read(file: impl AsFd) -> Result<Option<Self>> {
        let (mut once, mut again) = (vec![0_u8; HEADER], vec![0_u8; HEADER]);
        for _ in 0..8 {
            if !memory::peek(&file, &mut once)? || !memory::peek(&file, &mut again)? {
                return Ok(None);
            }
            if mark(&once, GET) == mark(&again, GET) && mark(&once, PUT) == mark(&again, PUT) {
                break;
            }
        }
        if word(&once, offset_of!(Header, magic)) != MAGIC || word(&once, offset_of!(Header, version)) as u32 != VERSION
        {
            return Ok(None);
        }
        let (put, taken) = (mark(&once, PUT), mark(&once, GET));
        Ok(Some(Self {
            items: put.items.saturating_sub(taken.items),
            bytes: put.bytes.saturating_sub(taken.bytes),
            max_items: word(&once, offset_of!(Header, max_items)),
            unfinished: put.items.saturating_sub(word(&once, offset_of!(Header, done))),
        }))
    }
}

const PUT: usize = offset_of!(Header, put) + offset_of!(Side, mark);
const GET: usize = offset_of!(Header, get) + offset_of!(Side, mark);

fn word(bytes: &[u8], at: usize) -> u64 {
    bytes.get(at..at + 8).and_then(|bytes| bytes.try_into().ok()).map_or(0, u64::from_ne_bytes)
}

fn mark(bytes: &[u8], at: usize) -> Mark {
    let turn = word(bytes, at + Commit::TURN_AT);
    let slot = at + Commit::SLOTS_AT + 24 * (turn & 1) as usize;
    Mark { position: word(bytes, slot), items: word(bytes, slot + 8), bytes: word(bytes, slot + 16) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Deadline;
    use crate::ring::{Limits, Ring};

    #[test]
    fn the_depth_is_what_the_queue_says() {
        let ring = Ring::create(Limits { items: 9, bytes: 0 }).expect("a queue");
        let depth = || Depth::read(ring.file()).expect("a readable file").expect("a queue");
        assert_eq!(depth(), Depth { items: 0, bytes: 0, max_items: 9, unfinished: 0 });
        for _ in 0..3 {
            let parcel = ring.parcel(0, &[b"four"]).expect("a parcel");
            assert_eq!(ring.put(core::slice::from_ref(&parcel), Deadline::PASSED), Ok(1));
        }
        assert!(ring.task_done());
        assert_eq!(depth(), Depth { items: 3, bytes: 12, max_items: 9, unfinished: 2 });
    }

    #[test]
    fn what_is_no_queue_is_none() {
        let file = memory::create("rsmp-test").expect("a file");
        assert_eq!(Depth::read(&file), Ok(None));
        memory::allocate(&file, 0, HEADER as u64).expect("memory");
        assert_eq!(Depth::read(&file), Ok(None));
    }
}
