//! The connection's wire format.
