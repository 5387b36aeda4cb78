//! Memory shared between processes: layouts, regions, the arena, slabs.

pub mod list;
pub mod region;
