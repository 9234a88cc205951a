//! All tasks of one owner.

use diesel::sql_types::{BigInt, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;

use super::{TaskStore, TaskStoreError};
use crate::domain::ids::UserId;

/// Most rows that one statement deletes: a heap of tasks must not hold locks for long nor run into the time limit.
const PURGE_BATCH: i64 = 1_000;

/// The rows to delete are chosen by the whole key, so that the statement names the owner wherever rows are distributed.
const PURGE_TASKS: &str = "DELETE FROM tasks WHERE user_id = $1 AND id IN \
    (SELECT id FROM tasks WHERE user_id = $1 LIMIT $2)";
const PURGE_REQUESTS: &str = "DELETE FROM task_requests WHERE user_id = $1 AND request_id IN \
    (SELECT request_id FROM task_requests WHERE user_id = $1 LIMIT $2)";

impl TaskStore {
    /// Deletes all tasks of a user for good, and what its request ids made. Gives how many tasks. In batches, each its own
    /// transaction: what is deleted stays deleted when the call ends early, and the next call goes on from there.
    pub async fn tasks_purge(&self, owner: UserId) -> Result<i64, TaskStoreError> {
        let purged = self.purge(PURGE_TASKS, owner).await?;
        self.purge(PURGE_REQUESTS, owner).await?;
        Ok(purged)
    }

    async fn purge(&self, statement: &'static str, owner: UserId) -> Result<i64, TaskStoreError> {
        let mut purged = 0;
        loop {
            let deleted = self
                .database
                .run("tasks_purge", async |conn| {
                    let batch = diesel::sql_query(statement);
                    let batch = batch.bind::<SqlUuid, _>(owner.0).bind::<BigInt, _>(PURGE_BATCH);
                    Ok::<_, TaskStoreError>(batch.execute(conn).await?)
                })
                .await?;
            let deleted = i64::try_from(deleted).unwrap_or(PURGE_BATCH);
            purged += deleted;
            if deleted < PURGE_BATCH {
                return Ok(purged);
            }
        }
    }
}
