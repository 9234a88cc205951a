//! One task: create, find, update, delete.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::dsl::case_when;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Nullable, Text, Timestamptz};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::batches::tasks_insert_on_conn;
use super::changes::changes_log_on_conn;
use super::requests::requests_claim_on_conn;
use super::row::TaskRow;
use super::schema::tasks;
use super::{TaskStore, TaskStoreError};
use crate::domain::access::Scope;
use crate::domain::change::ChangeKind;
use crate::domain::ids::{TaskId, UserId};
use crate::domain::status::TaskStatus;
use crate::domain::task::{NewTask, Task, TaskChange};
use crate::domain::text::{DESCRIPTION_MAX, TITLE_MAX};

diesel::define_sql_function! {
    /// PostgreSQL's `char_length`: characters, not bytes.
    fn char_length(text: Text) -> Integer;
}

impl TaskStore {
    /// Stores a new task. With a request id that already made a task within 24 hours it stores nothing and answers that task as it is
    /// now, also when it was deleted since: the caller asks for a lost answer.
    pub async fn task_create(&self, task: &NewTask) -> Result<Task, TaskStoreError> {
        self.database
            .transaction("task_create", async |conn| {
                let made = tasks_created_on_conn(conn, &[task]).await?;
                made.into_iter().next().flatten().ok_or(TaskStoreError::NotFound)
            })
            .await
    }

    /// Reads a task.
    pub async fn task_find(&self, scope: Scope, id: TaskId) -> Result<Task, TaskStoreError> {
        self.database.run("task_find", async |conn| task_find_on_conn(conn, scope, id).await).await
    }

    /// Changes a task; `seen` is the version the caller has seen, if that matters to it. A change of nothing still counts as a change.
    pub async fn task_update(
        &self,
        scope: Scope,
        id: TaskId,
        change: &TaskChange,
        seen: Option<i64>,
        now: DateTime<Utc>,
    ) -> Result<Task, TaskStoreError> {
        self.database
            .transaction("task_update", async |conn| {
                let mut task = update_once_on_conn(conn, scope, (id, change, seen), now).await;
                if is_moved(scope, &task) {
                    task = update_once_on_conn(conn, scope, (id, change, seen), now).await;
                }
                let task = task?;
                changes_log_on_conn(conn, ChangeKind::Upserted, std::slice::from_ref(&task)).await?;
                Ok(task)
            })
            .await
    }

    /// Deletes a task: no read finds it any more, the row goes later.
    pub async fn task_delete(
        &self,
        scope: Scope,
        id: TaskId,
        seen: Option<i64>,
        now: DateTime<Utc>,
    ) -> Result<(), TaskStoreError> {
        self.database
            .transaction("task_delete", async |conn| {
                let mut task = delete_once_on_conn(conn, scope, (id, seen), now).await;
                if is_moved(scope, &task) {
                    task = delete_once_on_conn(conn, scope, (id, seen), now).await;
                }
                changes_log_on_conn(conn, ChangeKind::Deleted, &[task?]).await
            })
            .await
    }
}

/// Whether a task that was not found may have been given to another owner while this waited for it: looked for again it is there.
fn is_moved(scope: Scope, task: &Result<Task, TaskStoreError>) -> bool {
    scope == Scope::All && matches!(task, Err(TaskStoreError::NotFound))
}

async fn delete_once_on_conn(
    conn: &mut AsyncPgConnection,
    scope: Scope,
    (id, seen): (TaskId, Option<i64>),
    now: DateTime<Utc>,
) -> Result<Task, TaskStoreError> {
    let owner = task_owner_on_conn(conn, scope, id).await?;
    let deleted: Option<TaskRow> = diesel::update(live(owner, id).filter(unchanged_since(seen)))
        .set(deleted_columns(now))
        .returning(TaskRow::as_returning())
        .get_result(conn)
        .await
        .optional()?;
    match deleted {
        Some(row) => row.try_into(),
        None => Err(why_unchanged(conn, owner, id, seen).await?),
    }
}

async fn update_once_on_conn(
    conn: &mut AsyncPgConnection,
    scope: Scope,
    (id, change, seen): (TaskId, &TaskChange, Option<i64>),
    now: DateTime<Utc>,
) -> Result<Task, TaskStoreError> {
    let owner = task_owner_on_conn(conn, scope, id).await?;
    update_on_conn(conn, owner, id, change, seen, now).await
}

/// Changes a task of this owner; who calls writes it down for those who watch.
pub(super) async fn update_on_conn(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    id: TaskId,
    change: &TaskChange,
    seen: Option<i64>,
    now: DateTime<Utc>,
) -> Result<Task, TaskStoreError> {
    let changed: Option<TaskRow> = diesel::update(live(owner, id).filter(unchanged_since(seen)))
        .set((
            change.title.as_ref().map(|title| tasks::title.eq(title.as_str())),
            change.description.as_ref().map(|text| tasks::description.eq(text.as_ref().map(|text| text.as_str()))),
            change.status.map(|status| tasks::status.eq(status.as_str())),
            change.status.map(|status| tasks::completed_at.eq(completed_since(status, now))),
            change.due_date.map(|due| tasks::due_date.eq(due)),
            tasks::limits_waived.eq(limits_still_waived(change)),
            tasks::version.eq(tasks::version + 1),
            tasks::updated_at.eq(now),
        ))
        .returning(TaskRow::as_returning())
        .get_result(conn)
        .await
        .optional()?;
    match changed {
        Some(row) => row.try_into(),
        None => Err(why_unchanged(conn, owner, id, seen).await?),
    }
}

/// When a task with this new status was completed: one that was before stays so.
#[diesel::dsl::auto_type(no_type_alias)]
fn completed_since(status: TaskStatus, now: DateTime<Utc>) -> _ {
    let completed: Option<DateTime<Utc>> = (status == TaskStatus::Completed).then_some(now);
    let (stays, spelled): (bool, &'static str) = (status == TaskStatus::Completed, TaskStatus::Completed.as_str());
    let was_completed = stays.into_sql::<Bool>().and(tasks::status.eq(spelled)).and(tasks::completed_at.is_not_null());
    case_when(was_completed, tasks::completed_at).otherwise(completed.into_sql::<Nullable<Timestamptz>>())
}

/// What becomes of a deleted task: no read finds it any more, the row goes later.
#[diesel::dsl::auto_type(no_type_alias)]
pub(super) fn deleted_columns(now: DateTime<Utc>) -> _ {
    (tasks::deleted_at.eq(now), tasks::version.eq(tasks::version + 1_i64), tasks::updated_at.eq(now))
}

/// The row of a task that is not deleted, by its whole key.
#[diesel::dsl::auto_type(no_type_alias)]
fn live(owner: UserId, id: TaskId) -> _ {
    let (owner, id): (Uuid, Uuid) = (owner.0, id.0);
    tasks::table.filter(tasks::user_id.eq(owner)).filter(tasks::id.eq(id)).filter(tasks::deleted_at.is_null())
}

/// Holds when the caller has seen no version in particular, or the current one.
#[diesel::dsl::auto_type(no_type_alias)]
fn unchanged_since(seen: Option<i64>) -> _ {
    let (any, version): (bool, i64) = (seen.is_none(), seen.unwrap_or_default());
    any.into_sql::<Bool>().or(tasks::version.eq(version))
}

/// A row that was adopted over the limits keeps its waiver until what breaks them is replaced: `SET` sees the values from before.
#[diesel::dsl::auto_type(no_type_alias)]
fn limits_still_waived(change: &TaskChange) -> _ {
    let (title_stays, description_stays): (bool, bool) = (change.title.is_none(), change.description.is_none());
    let (title_max, description_max): (i32, i32) = (TITLE_MAX as i32, DESCRIPTION_MAX as i32);
    let title_breaks = title_stays.into_sql::<Bool>().and(char_length(tasks::title).not_between(1_i32, title_max));
    let description_length = char_length(tasks::description.assume_not_null());
    let description_breaks = description_stays
        .into_sql::<Bool>()
        .and(tasks::description.is_not_null())
        .and(description_length.gt(description_max));
    tasks::limits_waived.and(title_breaks.or(description_breaks))
}

/// Stores new tasks, or finds those that their request ids have made before: as they are now, also deleted ones; `None` is gone.
pub(super) async fn tasks_created_on_conn(
    conn: &mut AsyncPgConnection,
    new: &[&NewTask],
) -> Result<Vec<Option<Task>>, TaskStoreError> {
    let claimed = requests_claim_on_conn(conn, new).await?;
    let made_by = |task: &NewTask| {
        task.request_id.and_then(|request| claimed.get(&(task.user_id, request))).copied().unwrap_or(task.id)
    };
    let (fresh, repeated): (Vec<&NewTask>, Vec<&NewTask>) = new.iter().partition(|task| made_by(task) == task.id);
    let inserted = tasks_insert_on_conn(conn, &fresh).await?;
    changes_log_on_conn(conn, ChangeKind::Upserted, &inserted).await?;
    let mut found: HashMap<TaskId, Task> = inserted.into_iter().map(|task| (task.id, task)).collect();
    if !repeated.is_empty() {
        let owners: Vec<Uuid> = repeated.iter().map(|task| task.user_id.0).collect();
        let firsts: Vec<Uuid> = repeated.iter().map(|task| made_by(task).0).collect();
        let rows = tasks::table.filter(tasks::user_id.eq_any(owners).and(tasks::id.eq_any(firsts)));
        for row in rows.select(TaskRow::as_select()).load(conn).await? {
            let task = Task::try_from(row)?;
            found.insert(task.id, task);
        }
    }
    Ok(new.iter().map(|task| found.get(&made_by(task)).cloned()).collect())
}

async fn task_find_on_conn(conn: &mut AsyncPgConnection, scope: Scope, id: TaskId) -> Result<Task, TaskStoreError> {
    let row: Option<TaskRow> = match scope {
        Scope::Of(owner) => live(owner, id).select(TaskRow::as_select()).first(conn).await.optional()?,
        Scope::All => {
            let anybodys = tasks::table.filter(tasks::id.eq(id.0)).filter(tasks::deleted_at.is_null());
            anybodys.select(TaskRow::as_select()).first(conn).await.optional()?
        }
    };
    row.ok_or(TaskStoreError::NotFound)?.try_into()
}

/// Whose the task is: in the scope of one user that user, unasked.
async fn task_owner_on_conn(conn: &mut AsyncPgConnection, scope: Scope, id: TaskId) -> Result<UserId, TaskStoreError> {
    match scope {
        Scope::Of(owner) => Ok(owner),
        Scope::All => {
            let anybodys = tasks::table.filter(tasks::id.eq(id.0)).filter(tasks::deleted_at.is_null());
            let owner = anybodys.select(tasks::user_id).first(conn).await.optional()?;
            owner.map(UserId).ok_or(TaskStoreError::NotFound)
        }
    }
}

/// Tells "gone" from "changed" after a change has found no row.
async fn why_unchanged(
    conn: &mut AsyncPgConnection,
    owner: UserId,
    id: TaskId,
    seen: Option<i64>,
) -> Result<TaskStoreError, TaskStoreError> {
    if seen.is_none() {
        return Ok(TaskStoreError::NotFound);
    }
    let there: Option<Uuid> = live(owner, id).select(tasks::id).first(conn).await.optional()?;
    Ok(if there.is_some() { TaskStoreError::EtagMismatch } else { TaskStoreError::NotFound })
}

#[cfg(test)]
mod tests {
    use diesel::pg::Pg;

    use super::*;

    #[test]
    fn a_statement_about_one_task_names_its_whole_key() {
        let statement = diesel::debug_query::<Pg, _>(&live(UserId::NOBODY, TaskId::new())).to_string();
        for part in ["\"user_id\" = $", "\"id\" = $", "\"deleted_at\" IS NULL"] {
            assert!(statement.contains(part), "{part}: {statement}");
        }
    }

    #[test]
    fn a_waiver_ends_with_what_it_waived() {
        let change = TaskChange::default();
        let expression = diesel::debug_query::<Pg, _>(&tasks::table.select(limits_still_waived(&change))).to_string();
        assert_eq!(expression.matches("char_length").count(), 2, "{expression}");
        assert!(expression.contains("NOT BETWEEN"), "{expression}");
    }
}
