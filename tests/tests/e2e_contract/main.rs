//! The contract as a whole, against a running pair: every RPC of the descriptor set without a token, with the wrong role and
//! with an empty message; errors, health, reflection, the HTTP side, and who a caller is.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod around;
mod call;
mod identity;
mod reasons;
mod rpcs;
