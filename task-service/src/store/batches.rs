//! Several tasks at once: all of them, or none. An error says which of them it is about.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::prelude::*;
use diesel::sql_types::BigInt;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use service_kit::database::{DatabaseError, StoreError};
use uuid::Uuid;

use super::changes::changes_log_on_conn;
use super::row::{NewTaskRow, TaskRow};
use super::schema::tasks;
use super::tasks::{deleted_columns, tasks_created_on_conn, update_on_conn};
use super::{TaskStore, TaskStoreError};
use crate::domain::access::Scope;
use crate::domain::change::ChangeKind;
use crate::domain::ids::{TaskId, UserId};
use crate::domain::task::{NewTask, Task, TaskChange};

/// Why a batch gave no result, and because of which of its parts; `None`: because of none in particular.
#[derive(Debug, thiserror::Error)]
#[error("{error}")]
pub struct BatchError {
    /// The place of the part, from 0.
    pub index: Option<usize>,
    /// What is wrong.
    pub error: TaskStoreError,
}

impl BatchError {
    fn at(index: usize, error: TaskStoreError) -> Self {
        Self { index: Some(index), error }
    }
}

impl<E: Into<TaskStoreError>> From<E> for BatchError {
    fn from(error: E) -> Self {
        Self { index: None, error: error.into() }
    }
}

impl StoreError for BatchError {
    fn as_database(&self) -> Option<&DatabaseError> {
        self.error.as_database()
    }
}

impl TaskStore {
    /// Stores new tasks, in the order of the requests. See [`Self::task_create`] for request ids; one that stands twice makes one task.
    pub async fn tasks_create(&self, new: &[NewTask]) -> Result<Vec<Task>, BatchError> {
        self.database
            .transaction("tasks_create", async |conn| {
                let mut first_of = HashMap::new();
                let mut asked: Vec<&NewTask> = Vec::with_capacity(new.len());
                for task in new {
                    match task.request_id {
                        Some(request) if first_of.contains_key(&(task.user_id, request)) => {}
                        Some(request) => {
                            first_of.insert((task.user_id, request), task.id);
                            asked.push(task);
                        }
                        None => asked.push(task),
                    }
                }
                let made = tasks_created_on_conn(conn, &asked).await?;
                let by_id: HashMap<TaskId, Option<Task>> = asked.iter().map(|task| task.id).zip(made).collect();
                let mut answer = Vec::with_capacity(new.len());
                for (index, task) in new.iter().enumerate() {
                    let first = task.request_id.and_then(|request| first_of.get(&(task.user_id, request)));
                    let found = by_id.get(first.unwrap_or(&task.id)).cloned().flatten();
                    answer.push(found.ok_or_else(|| BatchError::at(index, TaskStoreError::NotFound))?);
                }
                Ok::<_, BatchError>(answer)
            })
            .await
    }

    /// Reads tasks, in the order of the ids. Their texts have at most `most` bytes together, or it is [`TaskStoreError::TooLarge`].
    pub async fn tasks_find(&self, scope: Scope, ids: &[TaskId], most: usize) -> Result<Vec<Task>, BatchError> {
        self.database
            .run("tasks_find", async |conn| {
                let wanted: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
                let live = || tasks::table.filter(tasks::id.eq_any(&wanted)).filter(tasks::deleted_at.is_null());
                let bytes = live().select(text_bytes());
                let bytes: i64 = match scope {
                    Scope::Of(owner) => bytes.filter(tasks::user_id.eq(owner.0)).first(conn).await?,
                    Scope::All => bytes.first(conn).await?,
                };
                if usize::try_from(bytes).is_ok_and(|bytes| bytes > most) {
                    return Err(TaskStoreError::TooLarge.into());
                }
                let rows: Vec<TaskRow> = match scope {
                    Scope::Of(owner) => {
                        live().filter(tasks::user_id.eq(owner.0)).select(TaskRow::as_select()).load(conn).await?
                    }
                    Scope::All => live().select(TaskRow::as_select()).load(conn).await?,
                };
                let mut found = HashMap::with_capacity(rows.len());
                for row in rows {
                    let task = Task::try_from(row)?;
                    found.insert(task.id, task);
                }
                // Before anything is copied: one large task may stand there a thousand times.
                let length = |task: &Task| task.title.len() + task.description.as_ref().map_or(0, String::len);
                if ids.iter().filter_map(|id| found.get(id)).map(length).sum::<usize>() > most {
                    return Err(TaskStoreError::TooLarge.into());
                }
                let each = ids.iter().enumerate().map(|(index, id)| {
                    found.get(id).cloned().ok_or_else(|| BatchError::at(index, TaskStoreError::NotFound))
                });
                each.collect()
            })
            .await
    }

    /// Changes tasks, each another one; the answer is in their order. See [`Self::task_update`].
    pub async fn tasks_update(
        &self,
        scope: Scope,
        updates: &[(TaskId, TaskChange, Option<i64>)],
        now: DateTime<Utc>,
    ) -> Result<Vec<Task>, BatchError> {
        self.database
            .transaction("tasks_update", async |conn| {
                let ids: Vec<TaskId> = updates.iter().map(|(id, ..)| *id).collect();
                let locked = owners_locked_on_conn(conn, scope, &ids).await?;
                let owners = owner_of(&locked);
                let mut updated = Vec::with_capacity(updates.len());
                for (index, (id, change, seen)) in updates.iter().enumerate() {
                    let owner = owners.get(id).ok_or_else(|| BatchError::at(index, TaskStoreError::NotFound))?;
                    let task = update_on_conn(conn, *owner, *id, change, *seen, now).await;
                    updated.push(task.map_err(|error| BatchError::at(index, error))?);
                }
                changes_log_on_conn(conn, ChangeKind::Upserted, &updated).await?;
                Ok::<_, BatchError>(updated)
            })
            .await
    }

    /// Deletes tasks; an id that stands twice counts once. See [`Self::task_delete`].
    pub async fn tasks_delete(&self, scope: Scope, ids: &[TaskId], now: DateTime<Utc>) -> Result<(), BatchError> {
        self.database
            .transaction("tasks_delete", async |conn| {
                let locked = owners_locked_on_conn(conn, scope, ids).await?;
                let owners = owner_of(&locked);
                if let Some(index) = ids.iter().position(|id| !owners.contains_key(id)) {
                    return Err(BatchError::at(index, TaskStoreError::NotFound));
                }
                let mut deleted = Vec::with_capacity(owners.len());
                for (owner, ids) in &locked {
                    let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
                    let rows: Vec<TaskRow> = diesel::update(tasks::table)
                        .filter(tasks::user_id.eq(owner.0).and(tasks::id.eq_any(ids)))
                        .set(deleted_columns(now))
                        .returning(TaskRow::as_returning())
                        .load(conn)
                        .await?;
                    for row in rows {
                        deleted.push(Task::try_from(row)?);
                    }
                }
                changes_log_on_conn(conn, ChangeKind::Deleted, &deleted).await?;
                Ok(())
            })
            .await
    }
}

fn owner_of(locked: &BTreeMap<UserId, BTreeSet<TaskId>>) -> HashMap<TaskId, UserId> {
    locked.iter().flat_map(|(owner, ids)| ids.iter().map(|id| (*id, *owner))).collect()
}

/// Whose the tasks are that are there, each locked: owner by owner and in the order of their ids, so that two batches wait in a row.
/// Each statement that locks names one owner.
async fn owners_locked_on_conn(
    conn: &mut AsyncPgConnection,
    scope: Scope,
    ids: &[TaskId],
) -> Result<BTreeMap<UserId, BTreeSet<TaskId>>, TaskStoreError> {
    let mut wanted: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
    let mut locked: BTreeMap<UserId, BTreeSet<TaskId>> = BTreeMap::new();
    if let Scope::Of(owner) = scope {
        locked.insert(owner, lock_on_conn(conn, owner, &wanted).await?);
        return Ok(locked);
    }
    // Whoever waited for another who gives a task away finds it with its new owner only when it looks again.
    for _ in 0..2 {
        for (owner, ids) in owners_on_conn(conn, &wanted).await? {
            let found = lock_on_conn(conn, owner, &ids).await?;
            wanted.retain(|id| !found.contains(&TaskId(*id)));
            locked.entry(owner).or_default().extend(found);
        }
        if wanted.is_empty() {
            break;
        }
    }
    Ok(locked)
}

/// Whose the tasks are, whoever else changes them.
async fn owners_on_conn(
    conn: &mut AsyncPgConnection,
    ids: &[Uuid],
) -> Result<BTreeMap<UserId, Vec<Uuid>>, TaskStoreError> {
    let mut owners: BTreeMap<UserId, Vec<Uuid>> = BTreeMap::new();
    let rows = tasks::table.filter(tasks::id.eq_any(ids)).select((tasks::user_id, tasks::id));
    for (owner, id) in rows.load::<(Uuid, Uuid)>(conn).await? {
        owners.entry(UserId(owner)).or_default().push(id);
    }
    Ok(owners)
}

/// Those of the owner's tasks that are there, locked.
async fn lock_on_conn(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    ids: &[Uuid],
) -> Result<BTreeSet<TaskId>, TaskStoreError> {
    let live = tasks::user_id.eq(owner.0).and(tasks::id.eq_any(ids)).and(tasks::deleted_at.is_null());
    let ids: Vec<Uuid> = tasks::table.filter(live).order(tasks::id).select(tasks::id).for_update().load(conn).await?;
    Ok(ids.into_iter().map(TaskId).collect())
}

/// The bytes of the tasks' texts together.
fn text_bytes() -> SqlLiteral<BigInt> {
    sql("coalesce(sum(octet_length(title) + coalesce(octet_length(description), 0)), 0)::bigint")
}

/// Inserts rows of new tasks, in their order.
pub(super) async fn tasks_insert_on_conn(
    conn: &mut AsyncPgConnection,
    new: &[&NewTask],
) -> Result<Vec<Task>, TaskStoreError> {
    let mut made = Vec::with_capacity(new.len());
    // A statement has at most 65,535 parameters.
    for new in new.chunks(1_000) {
        let values: Vec<_> = new.iter().map(|task| NewTaskRow::from(*task)).collect();
        let insert = diesel::insert_into(tasks::table).values(values).returning(TaskRow::as_returning());
        let rows: Vec<TaskRow> = insert.load(conn).await?;
        made.extend(rows.into_iter().map(Task::try_from).collect::<Result<Vec<_>, _>>()?);
    }
    Ok(made)
}
