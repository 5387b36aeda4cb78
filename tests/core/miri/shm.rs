//! The engine's shared memory.

#[path = "../../../src/core/shm/growing.rs"]
pub(crate) mod growing;
#[path = "../../../src/core/shm/region.rs"]
pub(crate) mod region;
#[path = "../../../src/core/shm/slab.rs"]
pub(crate) mod slab;

pub(crate) mod arena {
    pub(crate) use crate::kernel::{Arena, Cell};
}
