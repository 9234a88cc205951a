//! A step of `migrate up`: the keys of e-mail addresses and user names beyond ASCII, which SQL cannot fold.

use tokio_postgres::Client;
use tokio_postgres::error::SqlState;
use uuid::Uuid;

use crate::domain::login_key::fold;

/// Rows read at a time.
const BATCH: i64 = 500;

/// One of the two columns with a key.
struct Column {
    read: &'static str,
    write: &'static str,
}

/// Oldest first: among accounts that differ only by case the oldest gets the key. Pages by (created_at, id), so that rows
/// whose key is taken, which stay null, are passed over.
const COLUMNS: [Column; 2] = [
    Column {
        read: "SELECT id, email, created_at::text FROM users \
               WHERE email_key IS NULL AND octet_length(email) <> char_length(email) AND (created_at, id) > ($1::text::timestamptz, $2) \
               ORDER BY created_at, id LIMIT $3",
        write: "UPDATE users SET email_key = $2 \
                WHERE id = $1 AND email_key IS NULL AND NOT EXISTS (SELECT FROM users AS other WHERE other.email_key = $2)",
    },
    Column {
        read: "SELECT id, username, created_at::text FROM users \
               WHERE username_key IS NULL AND octet_length(username) <> char_length(username) AND (created_at, id) > ($1::text::timestamptz, $2) \
               ORDER BY created_at, id LIMIT $3",
        write: "UPDATE users SET username_key = $2 \
                WHERE id = $1 AND username_key IS NULL AND NOT EXISTS (SELECT FROM users AS other WHERE other.username_key = $2)",
    },
];

/// Fills the missing keys; gives how many. Can be run again and beside a running service: a key that somebody else takes
/// meanwhile stays with them.
///
/// # Errors
/// The database's own; what is filled stays filled.
pub async fn fill_missing_keys(client: &Client) -> Result<u64, tokio_postgres::Error> {
    let mut filled = 0;
    for column in &COLUMNS {
        filled += fill(client, column).await?;
    }
    Ok(filled)
}

async fn fill(client: &Client, column: &Column) -> Result<u64, tokio_postgres::Error> {
    let (read, write) = (client.prepare(column.read).await?, client.prepare(column.write).await?);
    let mut filled = 0;
    // As text: a hand-made row may say infinity, which chrono cannot.
    let mut after = ("-infinity".to_owned(), Uuid::nil());
    loop {
        let rows = client.query(&read, &[&after.0, &after.1, &BATCH]).await?;
        let Some(last) = rows.last() else { return Ok(filled) };
        after = (last.get("created_at"), last.get("id"));
        for row in &rows {
            let (id, text): (Uuid, String) = (row.get(0), row.get(1));
            match client.execute(&write, &[&id, &fold(&text)]).await {
                Ok(count) => filled += count,
                Err(error) if error.code() == Some(&SqlState::UNIQUE_VIOLATION) => {}
                Err(error) => return Err(error),
            }
        }
    }
}
