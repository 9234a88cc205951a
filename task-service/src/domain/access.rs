//! Who may see and change which tasks.

use super::ids::UserId;

/// The permission to read others' tasks.
pub const TASKS_READ: &str = "tasks.read";
/// The permission to change others' tasks.
pub const TASKS_WRITE: &str = "tasks.write";

/// Who calls, as far as tasks are concerned. Only the verified token makes one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Caller {
    /// The caller's own id.
    pub user_id: UserId,
    /// May read others' tasks ([`TASKS_READ`]).
    pub reads_all: bool,
    /// May change others' tasks ([`TASKS_WRITE`]).
    pub writes_all: bool,
}

/// Whose tasks a statement reaches.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// One user's. Every statement of such a request names the user.
    Of(UserId),
    /// Everybody's, also those of nobody.
    All,
}

/// The caller named a user whose tasks are not theirs to reach.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("tasks of another user")]
pub struct NotYours;

impl Caller {
    /// Which tasks the caller reads by id.
    pub fn read_scope(&self) -> Scope {
        if self.reads_all { Scope::All } else { Scope::Of(self.user_id) }
    }

    /// Which tasks the caller changes by id.
    pub fn write_scope(&self) -> Scope {
        if self.writes_all { Scope::All } else { Scope::Of(self.user_id) }
    }

    /// Reads others' tasks but does not change them: who gets such a refusal knows of the task anyway.
    pub fn only_reads_all(&self) -> bool {
        self.reads_all && !self.writes_all
    }

    /// Which tasks a list reaches, given the user that the request names.
    ///
    /// # Errors
    /// [`NotYours`] when that is somebody else and the caller may not read others' tasks.
    pub fn list_scope(&self, named: Option<UserId>) -> Result<Scope, NotYours> {
        match named {
            None => Ok(self.read_scope()),
            Some(user) if user == self.user_id || self.reads_all => Ok(Scope::Of(user)),
            Some(_) => Err(NotYours),
        }
    }

    /// Who owns a new task, given the user that the request names.
    ///
    /// # Errors
    /// [`NotYours`] when that is somebody else and the caller may not change others' tasks.
    pub fn owner_of_new(&self, named: Option<UserId>) -> Result<UserId, NotYours> {
        match named {
            None => Ok(self.user_id),
            Some(user) if user == self.user_id || self.writes_all => Ok(user),
            Some(_) => Err(NotYours),
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    fn caller(reads_all: bool, writes_all: bool) -> Caller {
        Caller { user_id: UserId(Uuid::from_u128(1)), reads_all, writes_all }
    }

    #[test]
    fn a_member_reaches_only_their_own() {
        let member = caller(false, false);
        let (own, other) = (member.user_id, UserId(Uuid::from_u128(2)));
        assert_eq!(member.read_scope(), Scope::Of(own));
        assert_eq!(member.write_scope(), Scope::Of(own));
        assert_eq!(member.list_scope(None), Ok(Scope::Of(own)));
        assert_eq!(member.list_scope(Some(own)), Ok(Scope::Of(own)));
        for named in [other, UserId::NOBODY] {
            assert_eq!(member.list_scope(Some(named)), Err(NotYours));
            assert_eq!(member.owner_of_new(Some(named)), Err(NotYours));
        }
        assert_eq!(member.owner_of_new(None), Ok(own));
    }

    #[test]
    fn reading_all_does_not_mean_writing_all() {
        let other = UserId(Uuid::from_u128(2));
        let reader = caller(true, false);
        assert_eq!(reader.read_scope(), Scope::All);
        assert_eq!(reader.write_scope(), Scope::Of(reader.user_id));
        assert_eq!(reader.list_scope(None), Ok(Scope::All));
        assert_eq!(reader.list_scope(Some(other)), Ok(Scope::Of(other)));
        assert_eq!(reader.owner_of_new(Some(other)), Err(NotYours));
        assert_eq!(caller(false, true).owner_of_new(Some(other)), Ok(other));
    }
}
