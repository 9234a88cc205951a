//! Counts of tasks: one index has all that is counted of one user.

use chrono::{DateTime, TimeZone as _, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::{TaskStore, TaskStoreError};
use crate::domain::access::Scope;
use crate::domain::stats::{Stats, StatsQuery};
use crate::domain::status::TaskStatus;

/// One row for each status that there is.
const COUNTS: &str = "SELECT status, count(*) AS count, count(*) FILTER (WHERE due_date < $1) AS past_due, \
    count(*) FILTER (WHERE completed_at >= $2 AND completed_at < $3) AS in_period FROM tasks WHERE deleted_at IS NULL";

#[derive(QueryableByName)]
struct CountRow {
    #[diesel(sql_type = Text)]
    status: String,
    #[diesel(sql_type = BigInt)]
    count: i64,
    #[diesel(sql_type = BigInt)]
    past_due: i64,
    #[diesel(sql_type = BigInt)]
    in_period: i64,
}

impl TaskStore {
    /// Counts the tasks of a scope: what one user costs grows with that user's own tasks alone.
    pub async fn task_stats(&self, query: &StatsQuery, now: DateTime<Utc>) -> Result<Stats, TaskStoreError> {
        self.database
            .run("task_stats", async |conn| {
                let of = match query.scope {
                    Scope::Of(_) => " AND user_id = $4",
                    Scope::All => "",
                };
                let counted = diesel::sql_query(format!("{COUNTS}{of} GROUP BY status"));
                let counted = counted
                    .bind::<Timestamptz, _>(now)
                    .bind::<Timestamptz, _>(query.completed_after.unwrap_or_else(earliest))
                    .bind::<Timestamptz, _>(query.completed_before.unwrap_or_else(latest));
                let rows: Vec<CountRow> = match query.scope {
                    Scope::Of(owner) => counted.bind::<SqlUuid, _>(owner.0).load(conn).await?,
                    Scope::All => counted.load(conn).await?,
                };
                let mut stats = Stats::default();
                for CountRow { status, count, past_due, in_period } in rows {
                    match TaskStatus::from_db(&status) {
                        Some(TaskStatus::Todo) => {
                            stats.todo = count;
                            stats.overdue += past_due;
                        }
                        Some(TaskStatus::InProgress) => {
                            stats.in_progress = count;
                            stats.overdue += past_due;
                        }
                        Some(TaskStatus::Completed) => {
                            stats.completed = count;
                            stats.completed_in_period = in_period;
                        }
                        Some(TaskStatus::Cancelled) => stats.cancelled = count,
                        None => {}
                    }
                }
                Ok::<_, TaskStoreError>(stats)
            })
            .await
    }
}

/// The bounds of what is stored: see the migration bound_task_times.
fn earliest() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(1, 1, 1, 0, 0, 0).single().unwrap_or_default()
}

fn latest() -> DateTime<Utc> {
    Utc.with_ymd_and_hms(10_000, 1, 1, 0, 0, 0).single().unwrap_or_default()
}
