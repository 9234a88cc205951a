//! Domain values as messages of task.v1, and single values the other way.

use proto::task::v1;
use proto::time::from_utc;

use crate::domain::etag::etag_of;
use crate::domain::stats::Stats;
use crate::domain::status::TaskStatus;
use crate::domain::task::Task;

/// A task as callers see it.
pub(super) fn task_message(task: Task) -> v1::Task {
    v1::Task {
        id: task.id.to_string(),
        user_id: task.user_id.to_string(),
        title: task.title,
        description: task.description.unwrap_or_default(),
        status: status_message(task.status).into(),
        due_date: task.due_date.map(from_utc),
        created_at: Some(from_utc(task.created_at)),
        updated_at: Some(from_utc(task.updated_at)),
        etag: etag_of(task.version),
    }
}

/// The counts as callers see them.
pub(super) fn stats_message(stats: Stats) -> v1::TaskStats {
    let Stats { todo, in_progress, completed, cancelled, overdue, completed_in_period } = stats;
    let total = todo + in_progress + completed + cancelled;
    v1::TaskStats { total, todo, in_progress, completed, cancelled, overdue, completed_in_period }
}

fn status_message(status: TaskStatus) -> v1::TaskStatus {
    match status {
        TaskStatus::Todo => v1::TaskStatus::Todo,
        TaskStatus::InProgress => v1::TaskStatus::InProgress,
        TaskStatus::Completed => v1::TaskStatus::Completed,
        TaskStatus::Cancelled => v1::TaskStatus::Cancelled,
    }
}

/// The status behind a number; `None` for "unspecified" and for numbers that mean nothing.
pub(super) fn status_of(number: i32) -> Option<TaskStatus> {
    match v1::TaskStatus::try_from(number).ok()? {
        v1::TaskStatus::Unspecified => None,
        v1::TaskStatus::Todo => Some(TaskStatus::Todo),
        v1::TaskStatus::InProgress => Some(TaskStatus::InProgress),
        v1::TaskStatus::Completed => Some(TaskStatus::Completed),
        v1::TaskStatus::Cancelled => Some(TaskStatus::Cancelled),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_status_goes_there_and_back() {
        for status in TaskStatus::ALL {
            assert_eq!(status_of(status_message(status).into()), Some(status));
        }
        for number in [0, 5, -1, i32::MAX] {
            assert_eq!(status_of(number), None);
        }
    }
}
