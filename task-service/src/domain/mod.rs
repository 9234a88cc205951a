//! What a task is and which rules it obeys. Knows neither gRPC nor the database.

pub mod access;
pub mod change;
pub mod etag;
pub mod ids;
pub mod list;
pub mod page_token;
pub mod position;
pub mod resume_token;
pub mod stats;
pub mod status;
pub mod task;
pub mod text;
pub mod time;

/// A value that a caller sent and that breaks a rule. The text says what is expected; it never repeats the value.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Invalid(pub &'static str);
