//! How many tasks there are.

use chrono::{DateTime, Utc};

use super::access::Scope;

/// Whose tasks are counted, and in which period the completed ones.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StatsQuery {
    /// Whose.
    pub scope: Scope,
    /// Completed at this time or later.
    pub completed_after: Option<DateTime<Utc>>,
    /// Completed before this time.
    pub completed_before: Option<DateTime<Utc>>,
}

/// The counts; of deleted tasks none.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Stats {
    /// Not begun.
    pub todo: i64,
    /// Begun.
    pub in_progress: i64,
    /// Done.
    pub completed: i64,
    /// Given up.
    pub cancelled: i64,
    /// To do or begun, and past their due date.
    pub overdue: i64,
    /// Done within the period that was asked for.
    pub completed_in_period: i64,
}
