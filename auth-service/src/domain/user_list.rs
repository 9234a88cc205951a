//! What a list of accounts asks for: filter, order, and the place where the next page begins.

use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::user::User;

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UserOrderField {
    /// When it was made.
    CreatedAt,
    /// When it was last changed.
    UpdatedAt,
    /// When somebody last signed in; accounts that never did come last in both directions.
    LastLoginAt,
    /// The address, by code points: the same on every server, whatever its locale.
    Email,
    /// The name, by code points.
    Username,
}

/// The order of a list. Ties are broken by id in the same direction.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct UserOrder {
    /// By what.
    pub field: UserOrderField,
    /// Greatest first.
    pub is_descending: bool,
}

/// Which accounts a list shows: those that fit every part that is set.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct UserFilter {
    /// With the role of this name.
    pub role: Option<String>,
    /// Active, or inactive.
    pub is_active: Option<bool>,
    /// With a verified address, or without.
    pub email_verified: Option<bool>,
    /// With this text in the address, in any case of letters.
    pub email_contains: Option<String>,
    /// With this text in the name, in any case of letters.
    pub username_contains: Option<String>,
    /// Made at this time or later.
    pub created_after: Option<DateTime<Utc>>,
    /// Made before this time.
    pub created_before: Option<DateTime<Utc>>,
}

/// A list without its page: what a page token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserQuery {
    /// Which accounts.
    pub filter: UserFilter,
    /// In which order.
    pub order: UserOrder,
}

/// The value of the order's field at the end of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UserCursorKey {
    /// A time.
    Time(DateTime<Utc>),
    /// Never signed in.
    Never,
    /// An address or a name.
    Text(String),
}

/// The last account of a page: the next one begins right behind it, whether or not the account is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UserCursor {
    /// The order's field.
    pub key: UserCursorKey,
    /// The id, which breaks ties.
    pub id: Uuid,
}

impl UserOrder {
    /// Reads `FIELD`, `FIELD asc` or `FIELD desc`; empty is `created_at desc`.
    ///
    /// # Errors
    /// What was expected.
    pub fn parse(text: &str) -> Result<Self, &'static str> {
        const EXPECTED: &str =
            "expected created_at, updated_at, last_login_at, email or username, then optionally asc or desc";
        let mut words = text.split_ascii_whitespace();
        let field = match words.next() {
            None => return Ok(Self { field: UserOrderField::CreatedAt, is_descending: true }),
            Some("created_at") => UserOrderField::CreatedAt,
            Some("updated_at") => UserOrderField::UpdatedAt,
            Some("last_login_at") => UserOrderField::LastLoginAt,
            Some("email") => UserOrderField::Email,
            Some("username") => UserOrderField::Username,
            Some(_) => return Err(EXPECTED),
        };
        let is_descending = match words.next() {
            None | Some("asc") => false,
            Some("desc") => true,
            Some(_) => return Err(EXPECTED),
        };
        if words.next().is_some() { Err(EXPECTED) } else { Ok(Self { field, is_descending }) }
    }
}

impl UserCursor {
    /// The place of an account in a list of this order.
    pub fn of(user: &User, field: UserOrderField) -> Self {
        let key = match field {
            UserOrderField::CreatedAt => UserCursorKey::Time(user.created_at),
            UserOrderField::UpdatedAt => UserCursorKey::Time(user.updated_at),
            UserOrderField::LastLoginAt => user.last_login_at.map_or(UserCursorKey::Never, UserCursorKey::Time),
            UserOrderField::Email => UserCursorKey::Text(user.email.clone()),
            UserOrderField::Username => UserCursorKey::Text(user.username.clone()),
        };
        Self { key, id: user.id }
    }

    /// For a page token: the id, the kind of the key, the key.
    pub fn to_bytes(&self) -> Vec<u8> {
        let mut bytes = self.id.as_bytes().to_vec();
        match &self.key {
            UserCursorKey::Never => bytes.push(0),
            UserCursorKey::Time(time) => {
                bytes.push(1);
                bytes.extend_from_slice(&time.timestamp_micros().to_be_bytes());
            }
            UserCursorKey::Text(text) => {
                bytes.push(2);
                bytes.extend_from_slice(text.as_bytes());
            }
        }
        bytes
    }

    /// From a page token of a list of this order; `None`: these are other bytes.
    pub fn from_bytes(bytes: &[u8], field: UserOrderField) -> Option<Self> {
        let (id, rest) = bytes.split_first_chunk::<16>()?;
        let (kind, rest) = rest.split_first()?;
        let is_text = matches!(field, UserOrderField::Email | UserOrderField::Username);
        let key = match kind {
            0 if rest.is_empty() && field == UserOrderField::LastLoginAt => UserCursorKey::Never,
            1 if !is_text => {
                UserCursorKey::Time(DateTime::from_timestamp_micros(i64::from_be_bytes(rest.try_into().ok()?))?)
            }
            2 if is_text => UserCursorKey::Text(String::from_utf8(rest.to_vec()).ok()?),
            _ => return None,
        };
        Some(Self { key, id: Uuid::from_bytes(*id) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn orders() {
        let order = |text: &str| UserOrder::parse(text).map(|order| (order.field, order.is_descending));
        assert_eq!(order(""), Ok((UserOrderField::CreatedAt, true)));
        assert_eq!(order("email"), Ok((UserOrderField::Email, false)));
        assert_eq!(order(" last_login_at  desc "), Ok((UserOrderField::LastLoginAt, true)));
        for bad in ["id", "email up", "email asc asc", "email, username", "EMAIL"] {
            assert!(order(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_comes_back_for_its_order_only() {
        let time = UserCursorKey::Time(DateTime::from_timestamp_micros(-7).unwrap());
        let cases = [
            (UserOrderField::LastLoginAt, UserCursorKey::Never, UserOrderField::CreatedAt),
            (UserOrderField::UpdatedAt, time, UserOrderField::Email),
            (UserOrderField::Username, UserCursorKey::Text("ß 🦀".to_owned()), UserOrderField::LastLoginAt),
        ];
        for (field, key, other) in cases {
            let cursor = UserCursor { key, id: Uuid::from_u128(9) };
            assert_eq!(UserCursor::from_bytes(&cursor.to_bytes(), field), Some(cursor.clone()));
            assert_eq!(UserCursor::from_bytes(&cursor.to_bytes(), other), None);
            assert_eq!(UserCursor::from_bytes(&cursor.to_bytes()[..9], field), None);
        }
    }
}
