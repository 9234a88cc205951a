//! The tower stack and the server around it, over real connections.

#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "tests may panic")]

mod behaviour;
mod server;
mod server_tls;
mod stack;
