//! Page tokens: where the next page begins, sealed so that only this service can have made it and only for this list.
//!
//! Layout, in URL-safe base64: version (1 byte), id (16), kind of the key (1), key, HMAC-SHA-256 (32). The HMAC also covers
//! who asks, the filter and the order, none of which stand in the token. The page size may change from page to page.

use std::num::NonZeroU32;

use aws_lc_rs::{hkdf, hmac, pbkdf2};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use chrono::{DateTime, Utc};
use uuid::Uuid;

use super::access::Scope;
use super::ids::{TaskId, UserId};
use super::list::{Cursor, CursorKey, Direction, ListQuery, OrderField};
use super::status::TaskStatus;

/// First byte of every token; another layout gets another number.
const VERSION: u8 = 1;
const MAC_LENGTH: usize = 32;
/// OWASP's figure for PBKDF2 with HMAC-SHA-256; a fraction of a second, once per start.
const PASSWORD_ROUNDS: NonZeroU32 = NonZeroU32::MIN.saturating_add(599_999);
/// Separates this use of a secret from every other one.
const PURPOSE: &[u8] = b"task.v1 page token 1";

/// Makes and checks page tokens. All replicas have the same key.
pub struct PageTokens {
    key: hmac::Key,
}

/// The token was not made by this service, or for another list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the page token does not belong to this list")]
pub struct PageTokenInvalid;

/// The key could not be derived; only a broken cryptographic library does that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the key of the page tokens cannot be derived")]
pub struct KeyDerivationFailed;

impl PageTokens {
    /// Derives the key (HKDF, RFC 5869) from a random secret that all replicas share.
    pub fn from_secret(secret: &[u8; 32]) -> Result<Self, KeyDerivationFailed> {
        let pseudo_random = hkdf::Salt::new(hkdf::HKDF_SHA256, &[]).extract(secret);
        let key = pseudo_random.expand(&[PURPOSE], hmac::HMAC_SHA256).map_err(|_| KeyDerivationFailed)?;
        Ok(Self { key: key.into() })
    }

    /// Derives the key from a password that all replicas share; `context` keeps apart what shares a password. Takes a moment on
    /// purpose: whoever holds a token could otherwise try passwords against it quickly.
    pub fn from_password(password: &[u8], context: &[u8]) -> Result<Self, KeyDerivationFailed> {
        let mut secret = [0; 32];
        pbkdf2::derive(
            pbkdf2::PBKDF2_HMAC_SHA256,
            PASSWORD_ROUNDS,
            &[PURPOSE, context].concat(),
            password,
            &mut secret,
        );
        Self::from_secret(&secret)
    }

    /// The token of the page behind `cursor`, for this caller and this list.
    pub fn seal(&self, caller: UserId, query: &ListQuery, cursor: &Cursor) -> String {
        let mut token = vec![VERSION];
        token.extend_from_slice(cursor.id.0.as_bytes());
        match &cursor.key {
            CursorKey::NoTime => token.push(0),
            CursorKey::Time(time) => {
                token.push(1);
                token.extend_from_slice(&time.timestamp_micros().to_be_bytes());
            }
            CursorKey::Title(title) => {
                token.push(2);
                token.extend_from_slice(title.as_bytes());
            }
            CursorKey::Status(status) => {
                token.push(3);
                token.extend_from_slice(status.as_str().as_bytes());
            }
        }
        let mac = hmac::sign(&self.key, &signed(caller, query, &token));
        token.extend_from_slice(mac.as_ref());
        URL_SAFE_NO_PAD.encode(token)
    }

    /// The cursor in a token.
    ///
    /// # Errors
    /// [`PageTokenInvalid`] for every token that [`Self::seal`] did not make for this caller and this list.
    pub fn open(&self, caller: UserId, query: &ListQuery, token: &str) -> Result<Cursor, PageTokenInvalid> {
        let bytes = URL_SAFE_NO_PAD.decode(token).map_err(|_| PageTokenInvalid)?;
        let content_length = bytes.len().checked_sub(MAC_LENGTH).ok_or(PageTokenInvalid)?;
        let (content, mac) = bytes.split_at(content_length);
        hmac::verify(&self.key, &signed(caller, query, content), mac).map_err(|_| PageTokenInvalid)?;
        let cursor = content_read(content).ok_or(PageTokenInvalid)?;
        if fits(&cursor.key, query.order.field) { Ok(cursor) } else { Err(PageTokenInvalid) }
    }
}

impl std::fmt::Debug for PageTokens {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("PageTokens")
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

/// Everything the HMAC covers. Each part has its length in front, so that no two lists give the same bytes.
fn signed(caller: UserId, query: &ListQuery, content: &[u8]) -> Vec<u8> {
    let mut signed = Vec::with_capacity(256);
    let mut part = |bytes: &[u8]| {
        signed.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        signed.extend_from_slice(bytes);
    };
    let filter = &query.filter;
    part(caller.0.as_bytes());
    match filter.scope {
        Scope::Of(user) => part(user.0.as_bytes()),
        Scope::All => part(b"all"),
    }
    part(match query.order.field {
        OrderField::CreatedAt => b"created_at",
        OrderField::UpdatedAt => b"updated_at",
        OrderField::DueDate => b"due_date",
        OrderField::Title => b"title",
        OrderField::Status => b"status",
    });
    part(match query.order.direction {
        Direction::Ascending => b"asc",
        Direction::Descending => b"desc",
    });
    let statuses: Vec<_> = filter.statuses.iter().map(|status| status.as_str()).collect();
    part(statuses.join(",").as_bytes());
    // An empty search text is none, so the empty part is free to mean that.
    part(filter.title_contains.as_ref().map_or("", |text| text.as_str()).as_bytes());
    part(filter.description_contains.as_ref().map_or("", |text| text.as_str()).as_bytes());
    let time = |time: Option<DateTime<Utc>>| {
        time.map(|time| time.timestamp_micros().to_be_bytes().to_vec()).unwrap_or_default()
    };
    part(&time(filter.due_after));
    part(&time(filter.due_before));
    part(&time(filter.created_after));
    part(&time(filter.created_before));
    part(content);
    signed
}

#[cfg(test)]
mod tests;
