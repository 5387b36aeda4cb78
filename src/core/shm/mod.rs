//! Memory shared between processes: layouts, regions, the arena, slabs.

pub mod arena;
pub mod growing;
pub mod list;
pub mod objects;
pub mod participants;
pub mod region;
pub mod slab;
pub mod waits;
