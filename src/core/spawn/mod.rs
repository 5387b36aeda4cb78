//! What to launch, launching, reaping, the fork server's protocol.
