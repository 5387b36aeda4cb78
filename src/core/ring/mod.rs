//! The queue: a byte ring in shared memory, its commit and recovery protocol.
