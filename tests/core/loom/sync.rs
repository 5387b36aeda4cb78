//! The engine's primitives.

#[path = "../../../src/core/sync/barrier.rs"]
pub(crate) mod barrier;
#[path = "../../../src/core/sync/condition.rs"]
pub(crate) mod condition;
#[path = "../../../src/core/sync/event.rs"]
pub(crate) mod event;
#[path = "../../../src/core/sync/lock.rs"]
pub(crate) mod lock;
#[path = "../../../src/core/sync/rlock.rs"]
pub(crate) mod rlock;
#[path = "../../../src/core/sync/semaphore.rs"]
pub(crate) mod semaphore;

pub(crate) mod spin {
    pub(crate) use crate::kernel::Spin;
}
