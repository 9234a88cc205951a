//! All tasks of one owner: deleted for good, or given to another.

use std::collections::HashSet;

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::Uuid as SqlUuid;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::changes::changes_log_on_conn;
use super::row::{KeptRow, TaskRow};
use super::schema::tasks;
use super::{TaskStore, TaskStoreError};
use crate::domain::change::ChangeKind;
use crate::domain::ids::{TaskId, UserId};
use crate::domain::task::Task;

/// Most rows of one transaction: a heap of tasks must not hold locks for long, nor run into the time limit, nor be one heap of changes.
const BATCH: i64 = 200;

/// Of tasks that are there nothing is forgotten: they may have been made since the last batch.
const FORGET_REQUESTS: &str = "DELETE FROM task_requests AS r WHERE r.user_id = $1 \
    AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.user_id = $1 AND t.id = r.task_id)";
const FORGET_CHANGES: &str = "DELETE FROM task_changes AS c WHERE c.user_id = $1 AND c.kind = 'upserted' \
    AND NOT EXISTS (SELECT FROM tasks AS t WHERE t.user_id = $1 AND t.id = c.task_id)";

impl TaskStore {
    /// Deletes all tasks of a user for good, what its request ids made, and what the log of changes has of them. Gives how many tasks.
    /// In batches, each its own transaction: what is deleted stays deleted when the call ends early, and the next one goes on.
    pub async fn tasks_purge(&self, owner: UserId, now: DateTime<Utc>) -> Result<i64, TaskStoreError> {
        let mut purged = 0;
        loop {
            let deleted =
                self.database.transaction("tasks_purge", async |conn| purge_on_conn(conn, owner, now).await).await?;
            purged += deleted;
            if deleted < BATCH {
                break;
            }
        }
        // What is left of tasks that were gone before.
        self.database
            .run("tasks_purge_traces", async |conn| {
                for statement in [FORGET_REQUESTS, FORGET_CHANGES] {
                    diesel::sql_query(statement).bind::<SqlUuid, _>(owner.0).execute(conn).await?;
                }
                Ok::<_, TaskStoreError>(())
            })
            .await?;
        Ok(purged)
    }

    /// Gives all tasks of one user to another, the deleted ones too. Gives how many. In batches, as [`Self::tasks_purge`].
    pub async fn tasks_reassign_all(
        &self,
        from: UserId,
        to: UserId,
        now: DateTime<Utc>,
    ) -> Result<i64, TaskStoreError> {
        let mut moved = 0;
        if from == to {
            return Ok(moved);
        }
        loop {
            let batch = self
                .database
                .transaction("tasks_reassign_all", async |conn| {
                    let ids = ids_on_conn(conn, from).await?;
                    move_on_conn(conn, (from, to), &ids, now).await
                })
                .await?;
            moved += batch;
            if batch < BATCH {
                return Ok(moved);
            }
        }
    }

    /// Gives these tasks of one user to another; those that are the other's already stay. Gives how many it moved. One that is neither's
    /// is [`TaskStoreError::NotFound`], and then nothing is moved.
    pub async fn tasks_reassign(
        &self,
        from: UserId,
        to: UserId,
        ids: &[TaskId],
        now: DateTime<Utc>,
    ) -> Result<i64, TaskStoreError> {
        self.database
            .transaction("tasks_reassign", async |conn| {
                let wanted: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
                let mut known = HashSet::new();
                let mut theirs = Vec::new();
                // Whoever waited for another who moves the same tasks finds them with the new owner only when it looks again.
                for _ in 0..2 {
                    let (first, second) = if from < to { (from, to) } else { (to, from) };
                    for owner in [first, second] {
                        let found = locked_on_conn(conn, owner, &wanted).await?;
                        known.extend(found.iter().copied());
                        if owner == from && from != to {
                            theirs = found;
                        }
                    }
                    if wanted.iter().all(|id| known.contains(id)) {
                        break;
                    }
                }
                if wanted.iter().any(|id| !known.contains(id)) {
                    return Err(TaskStoreError::NotFound);
                }
                move_on_conn(conn, (from, to), &theirs, now).await
            })
            .await
    }
}

/// Those of these tasks that are the user's, locked, the deleted ones too.
async fn locked_on_conn(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    ids: &[Uuid],
) -> Result<Vec<Uuid>, TaskStoreError> {
    let theirs = tasks::table.filter(tasks::user_id.eq(owner.0).and(tasks::id.eq_any(ids)));
    Ok(theirs.order(tasks::id).select(tasks::id).for_update().load(conn).await?)
}

/// Some of the tasks of a user, locked.
async fn ids_on_conn(conn: &mut AsyncPgConnection, owner: UserId) -> Result<Vec<Uuid>, TaskStoreError> {
    let some = tasks::table.filter(tasks::user_id.eq(owner.0)).order(tasks::id).select(tasks::id).limit(BATCH);
    Ok(some.for_update().load(conn).await?)
}

async fn purge_on_conn(conn: &mut AsyncPgConnection, owner: UserId, now: DateTime<Utc>) -> Result<i64, TaskStoreError> {
    let ids = ids_on_conn(conn, owner).await?;
    let gone = tasks::table.filter(tasks::user_id.eq(owner.0).and(tasks::id.eq_any(ids)));
    let rows: Vec<(TaskRow, Option<DateTime<Utc>>)> =
        diesel::delete(gone).returning((TaskRow::as_returning(), tasks::deleted_at)).load(conn).await?;
    let count = i64::try_from(rows.len()).unwrap_or(BATCH);
    // Of those that were deleted before everybody has been told.
    let told = rows.into_iter().filter(|(_, deleted_at)| deleted_at.is_none()).map(|(row, _)| row);
    let told = told.map(|row| Task::try_from(row.changed(now))).collect::<Result<Vec<_>, _>>()?;
    changes_log_on_conn(conn, ChangeKind::Deleted, &told).await?;
    Ok(count)
}

/// The rows go and come anew: where tasks are distributed by owner a row cannot change its owner.
async fn move_on_conn(
    conn: &mut AsyncPgConnection,
    (from, to): (UserId, UserId),
    ids: &[Uuid],
    now: DateTime<Utc>,
) -> Result<i64, TaskStoreError> {
    let gone = tasks::table.filter(tasks::user_id.eq(from.0).and(tasks::id.eq_any(ids)));
    let rows: Vec<KeptRow> = diesel::delete(gone).returning(KeptRow::as_returning()).load(conn).await?;
    let count = i64::try_from(rows.len()).unwrap_or(i64::MAX);
    let rows: Vec<KeptRow> = rows.into_iter().map(|row| row.given_to(to, now)).collect();
    // A statement has at most 65,535 parameters.
    for rows in rows.chunks(1_000) {
        diesel::insert_into(tasks::table).values(rows).execute(conn).await?;
    }
    let living = rows.into_iter().filter(KeptRow::is_living).map(Task::try_from);
    let living = living.collect::<Result<Vec<_>, _>>()?;
    let left: Vec<Task> = living.iter().map(|task| Task { user_id: from, ..task.clone() }).collect();
    changes_log_on_conn(conn, ChangeKind::Moved, &left).await?;
    changes_log_on_conn(conn, ChangeKind::Upserted, &living).await?;
    Ok(count)
}
