//! What happened to a task.

use super::ids::{TaskId, UserId};
use super::task::Task;

/// What happened.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ChangeKind {
    /// It was made, changed, or given to this owner.
    Upserted,
    /// It was deleted, for the first time or for good.
    Deleted,
    /// It was given to another owner.
    Moved,
}

/// Which change it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ChangeKey {
    /// What happened.
    pub kind: ChangeKind,
    /// Whose task it was.
    pub user_id: UserId,
    /// Which task.
    pub task_id: TaskId,
    /// The version that the task had then.
    pub version: i64,
    /// The number of the transaction.
    pub xact: i64,
}

/// A change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: ChangeKey,
    /// The task as the transaction left it, with the owner it had, and `updated_at` the time of the change; of a deleted or moved one as it
    /// was. `None`: not read yet, because there are many.
    pub task: Option<Task>,
}

impl ChangeKind {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Upserted, Self::Deleted, Self::Moved];

    /// As stored in `task_changes.kind`.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Upserted => "upserted",
            Self::Deleted => "deleted",
            Self::Moved => "moved",
        }
    }

    /// Reads what is stored.
    pub fn from_db(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|kind| kind.as_str() == text)
    }
}

/// Puts the changes of each task into the order of their versions, and leaves each task's places where they are: the numbers of
/// transactions follow their beginnings, and one that began earlier may have changed a task later.
pub fn in_order_of_versions(changes: &mut [Change]) {
    let mut places: std::collections::HashMap<_, Vec<usize>> = std::collections::HashMap::new();
    for (place, change) in changes.iter().enumerate() {
        places.entry(change.key.task_id).or_default().push(place);
    }
    for places in places.into_values().filter(|places| places.len() > 1) {
        let mut of_task: Vec<Change> = places.iter().map(|place| changes[*place].clone()).collect();
        // A task that is given on leaves its owner and comes to another in one version: first it leaves.
        of_task.sort_by_key(|change| (change.key.version, change.key.kind == ChangeKind::Upserted));
        for (place, change) in places.into_iter().zip(of_task) {
            changes[place] = change;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_the_database_is_read_back() {
        for kind in ChangeKind::ALL {
            assert_eq!(ChangeKind::from_db(kind.as_str()), Some(kind));
        }
        assert_eq!(ChangeKind::from_db("renamed"), None);
    }

    #[test]
    fn a_task_changes_in_the_order_of_its_versions() {
        let (one, other) = (TaskId::new(), TaskId::new());
        let change = |task_id, version, kind, xact| Change {
            key: ChangeKey { kind, user_id: UserId::NOBODY, task_id, version, xact },
            task: None,
        };
        let mut changes = vec![
            change(one, 3, ChangeKind::Upserted, 10),
            change(other, 1, ChangeKind::Upserted, 11),
            change(one, 2, ChangeKind::Upserted, 12),
            change(one, 3, ChangeKind::Moved, 13),
        ];
        in_order_of_versions(&mut changes);
        let order: Vec<_> =
            changes.iter().map(|change| (change.key.task_id, change.key.version, change.key.kind)).collect();
        assert_eq!(
            order,
            [
                (one, 2, ChangeKind::Upserted),
                (other, 1, ChangeKind::Upserted),
                (one, 3, ChangeKind::Moved),
                (one, 3, ChangeKind::Upserted)
            ]
        );
    }
}
