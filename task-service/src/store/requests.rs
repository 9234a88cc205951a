//! Which task a caller's request id made: a repeated call answers the first result.

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Timestamptz};
use diesel::upsert::excluded;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::TaskStore;
use super::schema::task_requests;
use crate::domain::ids::TaskId;
use crate::domain::task::NewTask;

/// How long a request id answers its first result.
const REQUEST_ID_LIFETIME: TimeDelta = TimeDelta::hours(24);

/// Claims the request id for this task, or gives the task that has it. Of two that race, the second waits here for the first's
/// transaction to end, then sees its row.
pub(super) async fn request_claim_on_conn(
    conn: &mut AsyncPgConnection,
    task: &NewTask,
    request_id: Uuid,
) -> Result<TaskId, diesel::result::Error> {
    let claim = diesel::insert_into(task_requests::table)
        .values((
            task_requests::user_id.eq(task.user_id.0),
            task_requests::request_id.eq(request_id),
            task_requests::task_id.eq(task.id.0),
            task_requests::created_at.eq(task.created_at),
        ))
        .on_conflict((task_requests::user_id, task_requests::request_id))
        .do_update()
        .set((
            task_requests::task_id.eq(excluded(task_requests::task_id)),
            task_requests::created_at.eq(excluded(task_requests::created_at)),
        ));
    // Only a request id whose time is over is given to the new task.
    let claim = diesel::query_dsl::methods::FilterDsl::filter(
        claim,
        task_requests::created_at.le(task.created_at - REQUEST_ID_LIFETIME),
    );
    let claimed: Option<Uuid> = claim.returning(task_requests::task_id).get_result(conn).await.optional()?;
    if let Some(own) = claimed {
        return Ok(TaskId(own));
    }
    task_requests::table
        .filter(task_requests::user_id.eq(task.user_id.0))
        .filter(task_requests::request_id.eq(request_id))
        .select(task_requests::task_id)
        .first(conn)
        .await
        .map(TaskId)
}

/// Most request ids that one statement forgets: a day of many clients must not hold locks for long nor run into the time limit.
pub const EXPIRY_BATCH: usize = 1_000;

/// The outer condition stands there once more: a request id may be claimed anew while the statement waits for its row.
const EXPIRE: &str = "DELETE FROM task_requests WHERE created_at <= $1 AND (user_id, request_id) IN \
    (SELECT user_id, request_id FROM task_requests WHERE created_at <= $1 LIMIT $2)";

impl TaskStore {
    /// Forgets request ids that answer nothing any more, at most [`EXPIRY_BATCH`] of them. Gives how many; fewer than that: all.
    pub async fn requests_expire(&self, now: DateTime<Utc>) -> Result<usize, DatabaseError> {
        self.database
            .run("requests_expire", async |conn| {
                let expire = diesel::sql_query(EXPIRE)
                    .bind::<Timestamptz, _>(now - REQUEST_ID_LIFETIME)
                    .bind::<BigInt, _>(i64::try_from(EXPIRY_BATCH).unwrap_or(i64::MAX));
                Ok(expire.execute(conn).await?)
            })
            .await
    }
}
