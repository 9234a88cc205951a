//! A row of `tasks`, both ways.

use chrono::{DateTime, Utc};
use diesel::prelude::*;
use uuid::Uuid;

use super::TaskStoreError;
use super::schema::tasks;
use crate::domain::ids::{TaskId, UserId};
use crate::domain::status::TaskStatus;
use crate::domain::task::{NewTask, Task};

/// The columns that callers see. Who reads them filters out deleted rows.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = tasks, check_for_backend(diesel::pg::Pg))]
pub(super) struct TaskRow {
    id: Uuid,
    user_id: Uuid,
    title: String,
    description: Option<String>,
    status: String,
    due_date: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    version: i64,
}

impl TaskRow {
    /// The row after a change at this time.
    pub(super) fn changed(self, now: DateTime<Utc>) -> Self {
        Self { version: self.version + 1, updated_at: now, ..self }
    }
}

impl TryFrom<TaskRow> for Task {
    type Error = TaskStoreError;

    fn try_from(row: TaskRow) -> Result<Self, TaskStoreError> {
        let id = TaskId(row.id);
        let Some(status) = TaskStatus::from_db(&row.status) else {
            return Err(TaskStoreError::UnknownStatus { id, status: row.status });
        };
        Ok(Self {
            id,
            user_id: UserId(row.user_id),
            title: row.title,
            description: row.description,
            status,
            due_date: row.due_date,
            created_at: row.created_at,
            updated_at: row.updated_at,
            version: row.version,
        })
    }
}

/// A whole row, to be kept somewhere else.
#[derive(Queryable, Selectable, Insertable)]
#[diesel(table_name = tasks, check_for_backend(diesel::pg::Pg))]
pub(super) struct KeptRow {
    #[diesel(embed)]
    row: TaskRow,
    deleted_at: Option<DateTime<Utc>>,
    limits_waived: bool,
    completed_at: Option<DateTime<Utc>>,
}

impl KeptRow {
    /// The row of another owner: a change like any other.
    pub(super) fn given_to(self, owner: UserId, now: DateTime<Utc>) -> Self {
        Self { row: TaskRow { user_id: owner.0, ..self.row.changed(now) }, ..self }
    }

    /// Whether the task was not deleted.
    pub(super) fn is_living(&self) -> bool {
        self.deleted_at.is_none()
    }
}

impl TryFrom<KeptRow> for Task {
    type Error = TaskStoreError;

    fn try_from(kept: KeptRow) -> Result<Self, TaskStoreError> {
        kept.row.try_into()
    }
}

#[derive(Insertable)]
#[diesel(table_name = tasks)]
pub(super) struct NewTaskRow<'a> {
    id: Uuid,
    user_id: Uuid,
    title: &'a str,
    description: Option<&'a str>,
    status: &'static str,
    due_date: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
    updated_at: DateTime<Utc>,
    completed_at: Option<DateTime<Utc>>,
}

impl<'a> From<&'a NewTask> for NewTaskRow<'a> {
    fn from(task: &'a NewTask) -> Self {
        Self {
            id: task.id.0,
            user_id: task.user_id.0,
            title: task.title.as_str(),
            description: task.description.as_ref().map(|description| description.as_str()),
            status: task.status.as_str(),
            due_date: task.due_date,
            created_at: task.created_at,
            updated_at: task.created_at,
            completed_at: (task.status == TaskStatus::Completed).then_some(task.created_at),
        }
    }
}
