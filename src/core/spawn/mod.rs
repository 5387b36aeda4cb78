//! What to launch, launching, reaping, the fork server's protocol.

pub mod client;
pub mod protocol;
pub mod request;
pub mod server;
pub mod watch;
