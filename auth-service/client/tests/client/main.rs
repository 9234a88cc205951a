//! The verifier and its layer against real keys, real tokens and a real server.
#![expect(clippy::unwrap_used, reason = "tests may panic")]

mod layer;
mod support;
mod verify;
