//! Page tokens of lists of tasks: the cursor, and what it is bound to. The sealing is [`service_kit::page_token`].
//!
//! Layout of the cursor: version (1 byte), id (16), kind of the key (1), key.

use chrono::{DateTime, Utc};
use service_kit::page_token::{Bound, KeyDerivationFailed, PageTokenInvalid};
use uuid::Uuid;

use super::access::Scope;
use super::ids::{TaskId, UserId};
use super::list::{Cursor, CursorKey, Direction, ListQuery, OrderField};
use super::status::TaskStatus;

/// First byte of every token; another layout gets another number.
const VERSION: u8 = 1;
/// Separates this use of a secret from every other one.
const PURPOSE: &str = "task.v1 page token 1";

/// Makes and checks page tokens. All replicas have the same key.
#[derive(Debug)]
pub struct PageTokens(service_kit::page_token::PageTokens);

impl PageTokens {
    /// From a random secret that all replicas share.
    pub fn from_secret(secret: &[u8; 32]) -> Result<Self, KeyDerivationFailed> {
        service_kit::page_token::PageTokens::from_secret(secret, PURPOSE).map(Self)
    }

    /// From a password that all replicas share; `context` keeps apart what shares a password.
    pub fn from_password(password: &[u8], context: &[u8]) -> Result<Self, KeyDerivationFailed> {
        service_kit::page_token::PageTokens::from_password(password, context, PURPOSE).map(Self)
    }

    /// The token of the page behind `cursor`, for this caller and this list.
    pub fn seal(&self, caller: UserId, query: &ListQuery, cursor: &Cursor) -> String {
        let mut content = vec![VERSION];
        content.extend_from_slice(cursor.id.0.as_bytes());
        match &cursor.key {
            CursorKey::NoTime => content.push(0),
            CursorKey::Time(time) => {
                content.push(1);
                content.extend_from_slice(&time.timestamp_micros().to_be_bytes());
            }
            CursorKey::Title(title) => {
                content.push(2);
                content.extend_from_slice(title.as_bytes());
            }
            CursorKey::Status(status) => {
                content.push(3);
                content.extend_from_slice(status.as_str().as_bytes());
            }
        }
        self.0.seal(&bound(caller, query), &content)
    }

    /// The token of something else that is bound and sealed in the same way.
    pub(super) fn seal_bytes(&self, bound: &Bound, content: &[u8]) -> String {
        self.0.seal(bound, content)
    }

    /// What [`Self::seal_bytes`] sealed.
    pub(super) fn open_bytes(&self, bound: &Bound, token: &str) -> Result<Vec<u8>, PageTokenInvalid> {
        self.0.open(bound, token)
    }

    /// The cursor in a token.
    ///
    /// # Errors
    /// [`PageTokenInvalid`] for every token that [`Self::seal`] did not make for this caller and this list.
    pub fn open(&self, caller: UserId, query: &ListQuery, token: &str) -> Result<Cursor, PageTokenInvalid> {
        let content = self.0.open(&bound(caller, query), token)?;
        let cursor = content_read(&content).ok_or(PageTokenInvalid)?;
        if fits(&cursor.key, query.order.field) { Ok(cursor) } else { Err(PageTokenInvalid) }
    }
}

fn content_read(content: &[u8]) -> Option<Cursor> {
    let (&version, rest) = content.split_first()?;
    let (id, rest) = rest.split_first_chunk::<16>()?;
    let (&kind, rest) = rest.split_first()?;
    let key = match (version, kind) {
        (VERSION, 0) if rest.is_empty() => CursorKey::NoTime,
        (VERSION, 1) => CursorKey::Time(DateTime::from_timestamp_micros(i64::from_be_bytes(rest.try_into().ok()?))?),
        (VERSION, 2) => CursorKey::Title(String::from_utf8(rest.to_vec()).ok()?),
        (VERSION, 3) => CursorKey::Status(TaskStatus::from_db(std::str::from_utf8(rest).ok()?)?),
        _ => return None,
    };
    Some(Cursor { key, id: TaskId(Uuid::from_bytes(*id)) })
}

fn fits(key: &CursorKey, field: OrderField) -> bool {
    match field {
        OrderField::CreatedAt | OrderField::UpdatedAt => matches!(key, CursorKey::Time(_)),
        OrderField::DueDate => matches!(key, CursorKey::Time(_) | CursorKey::NoTime),
        OrderField::Title => matches!(key, CursorKey::Title(_)),
        OrderField::Status => matches!(key, CursorKey::Status(_)),
    }
}

/// The list that a token belongs to.
fn bound(caller: UserId, query: &ListQuery) -> Bound {
    let filter = &query.filter;
    let statuses: Vec<_> = filter.statuses.iter().map(|status| status.as_str()).collect();
    let time = |time: Option<DateTime<Utc>>| {
        time.map(|time| time.timestamp_micros().to_be_bytes().to_vec()).unwrap_or_default()
    };
    Bound::new("tasks", caller.0.as_bytes())
        .part(match &filter.scope {
            Scope::Of(user) => user.0.as_bytes(),
            Scope::All => b"all",
        })
        .part(match query.order.field {
            OrderField::CreatedAt => b"created_at",
            OrderField::UpdatedAt => b"updated_at",
            OrderField::DueDate => b"due_date",
            OrderField::Title => b"title",
            OrderField::Status => b"status",
        })
        .part(match query.order.direction {
            Direction::Ascending => b"asc",
            Direction::Descending => b"desc",
        })
        .part(statuses.join(",").as_bytes())
        // An empty search text is none, so the empty part is free to mean that.
        .part(filter.title_contains.as_ref().map_or("", |text| text.as_str()).as_bytes())
        .part(filter.description_contains.as_ref().map_or("", |text| text.as_str()).as_bytes())
        .part(&time(filter.due_after))
        .part(&time(filter.due_before))
        .part(&time(filter.created_after))
        .part(&time(filter.created_before))
}

#[cfg(test)]
mod tests;
