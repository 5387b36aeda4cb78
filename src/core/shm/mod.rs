//! Memory shared between processes: layouts, regions, the arena, slabs.

pub mod region;
