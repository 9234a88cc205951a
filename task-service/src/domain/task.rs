//! A task, what makes a new one and what changes one.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::ids::{TaskId, UserId};
use super::status::TaskStatus;
use super::text::{Description, Title};

/// A task as it is stored. Title and description are plain text here: rows from before today's limits may break them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// Its id.
    pub id: TaskId,
    /// Whose it is; [`UserId::NOBODY`] for tasks from before sign-in existed.
    pub user_id: UserId,
    /// What is to be done.
    pub title: String,
    /// More about it.
    pub description: Option<String>,
    /// Where it stands.
    pub status: TaskStatus,
    /// When it should be done.
    pub due_date: Option<DateTime<Utc>>,
    /// When it was made.
    pub created_at: DateTime<Utc>,
    /// When it was last changed.
    pub updated_at: DateTime<Utc>,
    /// Counts the changes; what the etag is made of.
    pub version: i64,
}

/// What a new task is made of.
#[derive(Debug, Clone)]
pub struct NewTask {
    /// Its id.
    pub id: TaskId,
    /// Whose it is.
    pub user_id: UserId,
    /// What is to be done.
    pub title: Title,
    /// More about it.
    pub description: Option<Description>,
    /// Where it stands.
    pub status: TaskStatus,
    /// When it should be done.
    pub due_date: Option<DateTime<Utc>>,
    /// When it is made, in whole microseconds.
    pub created_at: DateTime<Utc>,
    /// The caller's id of this request: the same one again answers the first task.
    pub request_id: Option<Uuid>,
}

/// What changes. The outer `None` leaves a field as it is; an inner one clears it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskChange {
    /// A new title.
    pub title: Option<Title>,
    /// A new description, or none any more.
    pub description: Option<Option<Description>>,
    /// A new status.
    pub status: Option<TaskStatus>,
    /// A new due date, or none any more.
    pub due_date: Option<Option<DateTime<Utc>>>,
}
