//! Ids as types of their own: the tasks' key is `(user_id, id)`, and two bare UUIDs side by side get swapped.

use uuid::Uuid;

use super::Invalid;

/// A task's id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TaskId(pub Uuid);

/// A user's id: whose task it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct UserId(pub Uuid);

impl TaskId {
    /// A new id. Version 7: ids made later sort later, which keeps the indexes dense.
    pub fn new() -> Self {
        Self(Uuid::now_v7())
    }

    /// Reads a task id from its text form.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        uuid_parse(text).map(Self)
    }
}

impl UserId {
    /// The owner of tasks that have none: rows from before sign-in existed. Only administrators see them.
    pub const NOBODY: Self = Self(Uuid::nil());

    /// Reads a user id from its text form.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        uuid_parse(text).map(Self)
    }
}

impl std::fmt::Display for TaskId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

impl std::fmt::Display for UserId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        self.0.fmt(f)
    }
}

/// Reads the hyphenated form of 36 characters and no other: one id has one spelling (but for the case of its digits).
pub fn uuid_parse(text: &str) -> Result<Uuid, Invalid> {
    const EXPECTED: Invalid = Invalid("must be a UUID like 123e4567-e89b-12d3-a456-426614174000");
    if text.len() != 36 {
        return Err(EXPECTED);
    }
    Uuid::try_parse(text).map_err(|_| EXPECTED)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_hyphenated_form_is_read() {
        let id = TaskId::new();
        assert_eq!(TaskId::parse(&id.to_string()), Ok(id));
        assert_eq!(TaskId::parse(&id.to_string().to_uppercase()), Ok(id));
        for bad in ["", "1", &id.0.simple().to_string(), &id.0.urn().to_string(), &id.0.braced().to_string()] {
            assert!(TaskId::parse(bad).is_err(), "{bad}");
        }
        assert!(TaskId::parse("zzzzzzzz-zzzz-zzzz-zzzz-zzzzzzzzzzzz").is_err());
    }
}
