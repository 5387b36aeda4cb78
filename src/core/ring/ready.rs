//! The descriptor that is readable while there is something to get, for `poll`, selectors and event loops.
//!
//! It costs system calls, so nothing is done until somebody asks for it (`watch`); that cannot be undone.
//!
//! | step                                              | if the process dies right after it                            |
//! |---------------------------------------------------|----------------------------------------------------------------|
//! | producer, queue empty: raise, then commit         | readable and empty; the next `get` or `poll` makes it unreadable |
//! | consumer of the last record: commit, then clear   | the same                                                        |
//!
//! Raising happens under the put lock and clearing under both, so a queue with records in it is never unreadable.

use crate::atomic::Ordering;
use crate::clock::Deadline;
use crate::error::{Error, Result};
use crate::ring::Ring;
use crate::ring::layout::Mark;
use crate::sys::descriptor;

impl Ring {
    /// Makes the event descriptor follow the queue from now on, for every process that has it.
    pub fn watch(&self) -> Result<()> {
        let header = self.header();
        if header.watched.load(Ordering::Acquire) != 0 {
            return Ok(());
        }
        let busy = || Error::os("watch a queue", rustix::io::Errno::TIMEDOUT);
        let until = Deadline::after(core::time::Duration::from_secs(10));
        let _get = self.lock_get(until)?.ok_or_else(busy)?;
        let _put = self.lock_put(until)?.ok_or_else(busy)?;
        let (head, tail) = self.marks();
        if head.position != tail.position {
            descriptor::raise_event(&self.event)?;
        }
        header.watched.store(1, Ordering::Release);
        Ok(())
    }

    /// Clears the descriptor of a watched queue that is empty but was left readable.
    pub fn settle(&self) -> Result<()> {
        if self.header().watched.load(Ordering::Relaxed) != 0
            && self.is_empty()
            && let Some(_get) = self.try_lock_get()?
        {
            self.quieten(self.header().get.mark.own())?;
        }
        Ok(())
    }

    /// Before the first record of an empty queue is committed. Under the put lock; `tail` is its mark.
    #[cold]
    pub(super) fn announce(&self, tail: Mark) -> Result<()> {
        if self.header().get.mark.read().position == tail.position {
            descriptor::raise_event(&self.event)?;
        }
        Ok(())
    }

    /// Clears the descriptor if the queue is empty. Under the get lock; `head` is its mark.
    #[cold]
    pub(super) fn quieten(&self, head: Mark) -> Result<()> {
        let until = Deadline::after(core::time::Duration::from_millis(100));
        // A stopped producer leaves it readable for now; the next call tries again.
        if let Some(_put) = self.lock_put(until)?
            && self.header().put.mark.own().position == head.position
        {
            descriptor::clear_event(&self.event)?;
        }
        Ok(())
    }
}
