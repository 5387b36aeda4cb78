//! The only folder that makes system calls: one file per kind of kernel object.

pub mod descriptor;
pub mod futex;
pub mod memory;
pub mod robust;
pub mod segment;
