//! Where statements are looked up: the schema `public`, or the one that stands for it in a rehearsal.

use std::borrow::Cow;
use std::collections::BTreeSet;

use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{Client, Error, Row, SimpleQueryMessage};

use crate::words::words;

/// A parameter with its type: such a query needs one round trip and no prepared statement, which a pooler may not keep.
pub(crate) type Typed<'p> = (&'p (dyn ToSql + Sync), Type);

/// The schema that stands for `public`, and the relations that are in it: types and functions of others stay where they are.
#[derive(Clone, Debug)]
pub(crate) struct Shadow {
    pub(crate) schema: String,
    pub(crate) names: BTreeSet<String>,
}

impl Shadow {
    /// The statement as it is sent. Migrations do not qualify names (a rule of theirs), so `public` comes from the engine.
    fn text(&self, sql: &str) -> String {
        // Nothing runs beside a transaction, and nobody else sees these tables.
        let sql = sql.replace(" CONCURRENTLY", "").replace("'public'", &format!("'{}'", self.schema));
        let mut text = String::with_capacity(sql.len());
        let mut rest = sql.as_str();
        while let Some(at) = rest.find("public.") {
            let (before, from) = rest.split_at(at);
            let named = &from["public.".len()..];
            text.push_str(before);
            let is_ours = self.names.contains(&words(named).next_word());
            text.push_str(if is_ours { &self.schema } else { "public" });
            text.push('.');
            rest = named;
        }
        text.push_str(rest);
        // Behind the search path stands `public`: what is gone here already must not be found there.
        if let Some(place) = unqualified_target(&text, &self.names) {
            text.insert_str(place, &format!("{}.", self.schema));
        }
        text
    }
}

/// Where the name of the relation or function begins that a statement changes, if it is one of `names` and has no schema.
fn unqualified_target(sql: &str, names: &BTreeSet<String>) -> Option<usize> {
    let mut at = words(sql);
    match at.next_word().as_str() {
        "alter" | "drop" => {
            let kind = at.next_word();
            if !["table", "index", "sequence", "view", "function", "trigger"].contains(&kind.as_str()) {
                return None;
            }
            at.skip_if_exists();
            at.skip("only");
            if kind == "trigger" {
                at.skip_to("on");
            }
        }
        "create" => {
            let kind = loop {
                let word = at.next_word();
                if !["unique", "or", "replace"].contains(&word.as_str()) {
                    break word;
                }
            };
            if !["index", "trigger"].contains(&kind.as_str()) || !at.skip_to("on") {
                return None;
            }
            at.skip("only");
        }
        "update" => {
            at.skip("only");
        }
        "insert" => {
            at.skip("into");
        }
        "delete" => {
            at.skip("from");
            at.skip("only");
        }
        "truncate" => {
            at.skip("table");
        }
        _ => return None,
    }
    let place = at.place()?;
    let name = at.next_word();
    (names.contains(&name) && at.peek() != ".").then_some(place)
}

/// A client and the schema that its statements mean.
#[derive(Clone, Copy)]
pub(crate) struct Scope<'c> {
    pub(crate) client: &'c Client,
    /// What stands for `public`; everything then happens in one transaction.
    shadow: Option<&'c Shadow>,
}

impl<'c> Scope<'c> {
    pub(crate) fn public(client: &'c Client) -> Self {
        Self { client, shadow: None }
    }

    pub(crate) fn shadow(client: &'c Client, shadow: &'c Shadow) -> Self {
        Self { client, shadow: Some(shadow) }
    }

    pub(crate) fn is_shadow(self) -> bool {
        self.shadow.is_some()
    }

    /// The statement as it is sent.
    pub(crate) fn text(self, sql: &str) -> Cow<'_, str> {
        match self.shadow {
            None => Cow::Borrowed(sql),
            Some(shadow) => Cow::Owned(shadow.text(sql)),
        }
    }

    /// A text of the catalog as it would read in `public`.
    pub(crate) fn as_public(self, text: String) -> String {
        match self.shadow {
            None => text,
            Some(shadow) => text.replace(&format!("{}.", shadow.schema), "public."),
        }
    }

    /// A query in one round trip.
    pub(crate) async fn query(self, sql: &str, params: &[Typed<'_>]) -> Result<Vec<Row>, Error> {
        self.client.query_typed(&self.text(sql), params).await
    }

    /// A query that answers one row.
    pub(crate) async fn query_one(self, sql: &str, params: &[Typed<'_>]) -> Result<Row, Error> {
        self.client.query_typed_one(&self.text(sql), params).await
    }

    /// A query that answers at most one row.
    pub(crate) async fn query_opt(self, sql: &str, params: &[Typed<'_>]) -> Result<Option<Row>, Error> {
        self.client.query_typed_opt(&self.text(sql), params).await
    }

    /// Statements whose answer does not matter.
    pub(crate) async fn batch(self, sql: &str) -> Result<(), Error> {
        self.client.batch_execute(&self.text(sql)).await
    }

    /// The first row of a simple query, which leaves no snapshot behind.
    pub(crate) async fn first_row(self, sql: &str) -> Result<Vec<String>, Error> {
        Ok(first(self.client.simple_query(&self.text(sql)).await?))
    }
}

/// The values of the first row, NULL as an empty text.
pub(crate) fn first(messages: Vec<SimpleQueryMessage>) -> Vec<String> {
    for message in messages {
        if let SimpleQueryMessage::Row(row) = message {
            return (0..row.len()).map(|at| row.get(at).unwrap_or_default().to_owned()).collect();
        }
    }
    Vec::new()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_relations_move_into_the_shadow() {
        let shadow = Shadow { schema: "s".to_owned(), names: BTreeSet::from(["t".to_owned(), "T x".to_owned()]) };
        let cases = [
            ("ALTER TABLE public.t ADD a public.mood", "ALTER TABLE s.t ADD a public.mood"),
            ("DROP INDEX CONCURRENTLY IF EXISTS public.\"T x\"", "DROP INDEX IF EXISTS s.\"T x\""),
            ("SELECT to_regnamespace('public'), 'public.' || $1", "SELECT to_regnamespace('s'), 'public.' || $1"),
            ("SELECT 1", "SELECT 1"),
            // Behind the shadow stands the real table, which must not be met when the shadow has none of the name.
            ("DROP TABLE IF EXISTS t", "DROP TABLE IF EXISTS s.t"),
            ("DROP SEQUENCE IF EXISTS \"T x\"", "DROP SEQUENCE IF EXISTS s.\"T x\""),
            ("DROP TRIGGER a ON t", "DROP TRIGGER a ON s.t"),
            ("ALTER TABLE ONLY t ADD b int", "ALTER TABLE ONLY s.t ADD b int"),
            ("CREATE UNIQUE INDEX IF NOT EXISTS a ON t (b)", "CREATE UNIQUE INDEX IF NOT EXISTS a ON s.t (b)"),
            ("CREATE OR REPLACE TRIGGER a AFTER UPDATE ON t", "CREATE OR REPLACE TRIGGER a AFTER UPDATE ON s.t"),
            ("/* a */ UPDATE t SET b = 1", "/* a */ UPDATE s.t SET b = 1"),
            ("INSERT INTO t VALUES (1)", "INSERT INTO s.t VALUES (1)"),
            ("DELETE FROM t", "DELETE FROM s.t"),
            ("DELETE FROM others", "DELETE FROM others"),
            ("CREATE TABLE t (a int)", "CREATE TABLE t (a int)"),
            ("DROP TYPE t", "DROP TYPE t"),
        ];
        for (sql, expected) in cases {
            assert_eq!(shadow.text(sql), expected);
        }
    }
}
