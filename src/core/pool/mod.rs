//! Task table, claims, chunking: state machines without I/O.
