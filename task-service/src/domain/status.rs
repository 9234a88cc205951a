//! The four states of a task.

/// Where a task stands. The order of the variants is the order of `order_by = "status"`: the way of the work, not the alphabet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum TaskStatus {
    /// Not begun.
    Todo,
    /// Begun.
    InProgress,
    /// Done.
    Completed,
    /// Will not be done.
    Cancelled,
}

impl TaskStatus {
    /// Every status, in order.
    pub const ALL: [Self; 4] = [Self::Todo, Self::InProgress, Self::Completed, Self::Cancelled];

    /// As the database spells it (`tasks_status_check`).
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Todo => "todo",
            Self::InProgress => "in_progress",
            Self::Completed => "completed",
            Self::Cancelled => "cancelled",
        }
    }

    /// Reads the database's spelling.
    pub fn from_db(text: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|status| status.as_str() == text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_spelling_of_the_database_is_read_back() {
        for status in TaskStatus::ALL {
            assert_eq!(TaskStatus::from_db(status.as_str()), Some(status));
        }
        assert_eq!(TaskStatus::from_db("pending"), None);
        assert!(TaskStatus::ALL.is_sorted());
    }
}
