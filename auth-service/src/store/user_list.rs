//! Pages of accounts by keyset: each page begins behind the last account of the one before.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::Text;
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::callers::{Acting, caller_may_on_conn};
use super::schema::{roles, users};
use super::users::{USER_COLUMNS, UserRow};
use super::{AuthStore, ChangeError};
use crate::domain::user::User;
use crate::domain::user_list::{UserCursor, UserCursorKey, UserFilter, UserOrderField, UserQuery};

diesel::postfix_operator!(ByCodePoint, " COLLATE \"C\"", Text, backend: Pg);

type Query<'a> = diesel::dsl::IntoBoxed<'a, diesel::dsl::InnerJoin<users::table, roles::table>, Pg>;

/// Orders `$query` by `$column` and the id, and begins behind `$behind`.
macro_rules! keyset {
    ($query:expr, $column:expr, $is_descending:expr, $behind:expr) => {
        match ($is_descending, $behind) {
            (false, None) => $query.order(($column.asc(), users::id.asc())),
            (true, None) => $query.order(($column.desc(), users::id.desc())),
            (false, Some((value, id))) => $query
                .filter($column.ge(value.clone()).and($column.gt(value).or(users::id.gt(id))))
                .order(($column.asc(), users::id.asc())),
            (true, Some((value, id))) => $query
                .filter($column.le(value.clone()).and($column.lt(value).or(users::id.lt(id))))
                .order(($column.desc(), users::id.desc())),
        }
    };
}

impl AuthStore {
    /// At most `limit` accounts of the list, beginning behind `cursor`.
    pub async fn users_list(
        &self,
        caller: Acting,
        query: &UserQuery,
        cursor: Option<&UserCursor>,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Vec<User>, ChangeError> {
        self.database
            .run("users_list", async |conn| {
                caller_may_on_conn(conn, caller, "users.read", now).await?;
                let mut found: Vec<User> = Vec::new();
                for statement in statements(query, cursor) {
                    let left = limit - i64::try_from(found.len()).unwrap_or(i64::MAX);
                    if left > 0 {
                        let rows: Vec<UserRow> = statement.limit(left).select(USER_COLUMNS).load(conn).await?;
                        found.extend(rows.into_iter().map(User::from));
                    }
                }
                Ok::<_, ChangeError>(found)
            })
            .await
    }
}

/// The stretches of a list in their order, from the cursor's on: by last sign-in those who never did are a second one.
fn statements<'a>(query: &'a UserQuery, cursor: Option<&UserCursor>) -> Vec<Query<'a>> {
    let down = query.order.is_descending;
    let fitting = || filtered(&query.filter);
    match query.order.field {
        UserOrderField::CreatedAt => vec![keyset!(fitting(), users::created_at, down, time_of(cursor))],
        UserOrderField::UpdatedAt => vec![keyset!(fitting(), users::updated_at, down, time_of(cursor))],
        UserOrderField::Email => {
            vec![keyset!(fitting(), ByCodePoint::new(users::email), down, text_of(cursor))]
        }
        UserOrderField::Username => {
            vec![keyset!(fitting(), ByCodePoint::new(users::username), down, text_of(cursor))]
        }
        UserOrderField::LastLoginAt => {
            let seen = fitting().filter(users::last_login_at.is_not_null());
            let never = fitting().filter(users::last_login_at.is_null());
            match cursor {
                Some(UserCursor { key: UserCursorKey::Never, id }) => vec![by_id(never, down, Some(*id))],
                _ => vec![keyset!(seen, users::last_login_at, down, time_of(cursor)), by_id(never, down, None)],
            }
        }
    }
}

fn by_id(query: Query<'_>, is_descending: bool, behind: Option<Uuid>) -> Query<'_> {
    match (is_descending, behind) {
        (false, None) => query.order(users::id.asc()),
        (true, None) => query.order(users::id.desc()),
        (false, Some(id)) => query.filter(users::id.gt(id)).order(users::id.asc()),
        (true, Some(id)) => query.filter(users::id.lt(id)).order(users::id.desc()),
    }
}

fn time_of(cursor: Option<&UserCursor>) -> Option<(DateTime<Utc>, Uuid)> {
    match cursor {
        Some(UserCursor { key: UserCursorKey::Time(time), id }) => Some((*time, *id)),
        _ => None,
    }
}

fn text_of(cursor: Option<&UserCursor>) -> Option<(String, Uuid)> {
    match cursor {
        Some(UserCursor { key: UserCursorKey::Text(text), id }) => Some((text.clone(), *id)),
        _ => None,
    }
}

/// The pattern that finds a text as it is: `%`, `_` and `\` mean themselves.
fn containing(text: &str) -> String {
    let escaped = text.replace('\\', "\\\\").replace('%', "\\%").replace('_', "\\_");
    format!("%{escaped}%")
}

fn filtered(filter: &UserFilter) -> Query<'_> {
    let mut query = users::table.inner_join(roles::table).into_boxed();
    if let Some(role) = &filter.role {
        query = query.filter(roles::name.eq(role));
    }
    if let Some(is_active) = filter.is_active {
        query = query.filter(users::is_active.eq(is_active));
    }
    if let Some(verified) = filter.email_verified {
        query = query.filter(users::email_verified.eq(verified));
    }
    if let Some(text) = &filter.email_contains {
        query = query.filter(users::email.ilike(containing(text)));
    }
    if let Some(text) = &filter.username_contains {
        query = query.filter(users::username.ilike(containing(text)));
    }
    if let Some(time) = filter.created_after {
        query = query.filter(users::created_at.ge(time));
    }
    if let Some(time) = filter.created_before {
        query = query.filter(users::created_at.lt(time));
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_text_is_found_as_it_is() {
        assert_eq!(containing(r"50%_\"), r"%50\%\_\\%");
    }
}
