//! The only folder that makes system calls: one file per kind of kernel object.

pub mod anonymous;
pub mod child;
pub mod cpu;
pub mod descriptor;
pub mod epoll;
pub mod foreign;
pub mod futex;
pub mod lifeline;
pub mod memory;
pub mod poll;
pub mod proc;
pub mod process;
pub mod robust;
pub mod segment;
pub mod seqpacket;
pub mod socket;
