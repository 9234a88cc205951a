//! One task: create, find, update, delete.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use diesel::sql_types::{Bool, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::requests::request_claim_on_conn;
use super::row::{NewTaskRow, TaskRow};
use super::schema::tasks;
use super::{TaskStore, TaskStoreError};
use crate::domain::access::Scope;
use crate::domain::ids::{TaskId, UserId};
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
        let Some(request_id) = task.request_id else {
            return self.database.run("task_create", async |conn| task_insert_on_conn(conn, task).await).await;
        };
        self.database
            .transaction("task_create_once", async |conn| {
                let id = request_claim_on_conn(conn, task, request_id).await?;
                if id == task.id {
                    return task_insert_on_conn(conn, task).await;
                }
                let first = tasks::table.filter(tasks::user_id.eq(task.user_id.0)).filter(tasks::id.eq(id.0));
                let row: Option<TaskRow> = first.select(TaskRow::as_select()).first(conn).await.optional()?;
                row.ok_or(TaskStoreError::NotFound)?.try_into()
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
            .run("task_update", async |conn| {
                let owner = task_owner_on_conn(conn, scope, id).await?;
                let changed: Option<TaskRow> = diesel::update(live(owner, id).filter(unchanged_since(seen)))
                    .set((
                        change.title.as_ref().map(|title| tasks::title.eq(title.as_str())),
                        change
                            .description
                            .as_ref()
                            .map(|text| tasks::description.eq(text.as_ref().map(|text| text.as_str()))),
                        change.status.map(|status| tasks::status.eq(status.as_str())),
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
            .run("task_delete", async |conn| {
                let owner = task_owner_on_conn(conn, scope, id).await?;
                let deleted = diesel::update(live(owner, id).filter(unchanged_since(seen)))
                    .set((tasks::deleted_at.eq(now), tasks::version.eq(tasks::version + 1), tasks::updated_at.eq(now)))
                    .execute(conn)
                    .await?;
                if deleted == 0 { Err(why_unchanged(conn, owner, id, seen).await?) } else { Ok(()) }
            })
            .await
    }
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

async fn task_insert_on_conn(conn: &mut AsyncPgConnection, task: &NewTask) -> Result<Task, TaskStoreError> {
    let row: TaskRow = diesel::insert_into(tasks::table)
        .values(NewTaskRow::from(task))
        .returning(TaskRow::as_returning())
        .get_result(conn)
        .await?;
    row.try_into()
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
