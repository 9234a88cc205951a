//! Rows whose time is over: request ids, changes, and tasks that were deleted long ago.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::sql_types::{BigInt, Timestamptz};
use diesel_async::RunQueryDsl;
use service_kit::database::DatabaseError;

use super::TaskStore;
use super::requests::REQUEST_ID_LIFETIME;
use crate::domain::resume_token::CHANGES_KEPT;

/// Most rows that one statement deletes: a day of many clients must not hold locks for long nor run into the time limit.
const EXPIRY_BATCH: usize = 1_000;

/// How long a deleted task is kept.
const DELETED_KEPT: TimeDelta = TimeDelta::days(30);

/// What expires: each statement deletes at most $2 rows that are older than $1. The outer conditions stand there once more: a row may
/// be made anew while the statement waits for it. A task goes in silence: whoever watches was told when it was deleted.
const EXPIRE: [(&str, TimeDelta, &str); 4] = [
    (
        "task_requests",
        REQUEST_ID_LIFETIME,
        "DELETE FROM task_requests WHERE created_at <= $1 AND (user_id, request_id) IN \
         (SELECT user_id, request_id FROM task_requests WHERE created_at <= $1 LIMIT $2)",
    ),
    (
        "tasks",
        DELETED_KEPT,
        "DELETE FROM tasks WHERE deleted_at <= $1 AND (user_id, id) IN \
         (SELECT user_id, id FROM tasks WHERE deleted_at <= $1 ORDER BY deleted_at LIMIT $2)",
    ),
    // The oldest stand first in the index: what is not old there ends the search.
    (
        "task_changes",
        CHANGES_KEPT,
        "DELETE FROM task_changes WHERE (user_id, xact, task_id, version) IN (SELECT user_id, xact, task_id, version FROM \
         (SELECT user_id, xact, task_id, version, changed_at FROM task_changes ORDER BY xact LIMIT $2) AS oldest \
         WHERE changed_at <= $1)",
    ),
    // Of transactions that are still to come: the rows were restored from another server, and must not become news here.
    (
        "task_changes of another server",
        CHANGES_KEPT,
        "DELETE FROM task_changes WHERE (user_id, xact, task_id, version) IN (SELECT user_id, xact, task_id, version FROM \
         task_changes WHERE xact >= pg_snapshot_xmax(pg_current_snapshot())::text::bigint AND changed_at <= $1 LIMIT $2)",
    ),
];

impl TaskStore {
    /// Deletes one batch of each kind. Gives whether there may be more. What fails for one kind keeps none of the others.
    pub async fn rows_expire(&self, now: DateTime<Utc>) -> Result<bool, DatabaseError> {
        let (mut is_more, mut failure) = (false, None);
        for (what, kept, statement) in EXPIRE {
            let deleted = self
                .database
                .run("rows_expire", async |conn| {
                    let expire = diesel::sql_query(statement).bind::<Timestamptz, _>(now - kept);
                    let batch = i64::try_from(EXPIRY_BATCH).unwrap_or(i64::MAX);
                    Ok::<_, DatabaseError>(expire.bind::<BigInt, _>(batch).execute(conn).await?)
                })
                .await;
            match deleted {
                Ok(deleted) => {
                    tracing::debug!(what, deleted, "expired rows are deleted");
                    is_more |= deleted >= EXPIRY_BATCH;
                }
                Err(error) => failure = Some(error),
            }
        }
        failure.map_or(Ok(is_more), Err)
    }
}
