//! Changes that somebody makes to a database, made up from what is there at that moment.

mod columns;
mod history;
mod indexes;
mod keys;
mod rows;
mod tables;

use std::collections::BTreeMap;

use migration_engine::{Expected, Schema, Table};
use tests::{Random, Service, TestDatabase};

/// How the statements of a change are run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    /// In one transaction of the owner; all or nothing.
    Together,
    /// One by one outside a transaction; what fails leaves what it leaves, as a concurrent build does.
    Alone,
    /// As [`How::Alone`], while somebody writes to the table in an open transaction and patience is short.
    Interrupted,
    /// In one transaction of the superuser.
    Superuser,
}

/// One change.
#[derive(Debug, Clone)]
pub(crate) struct Mutation {
    /// What it is, for the table at the end.
    pub(crate) kind: &'static str,
    /// Its statements.
    pub(crate) sql: String,
    /// How they are run.
    pub(crate) how: How,
    /// Whether `up` may refuse because of it: it takes a name, or what cannot be made up again, or puts rows in the way.
    pub(crate) may_refuse: bool,
    /// The table that somebody writes to, for [`How::Interrupted`].
    pub(crate) table: String,
}

impl Mutation {
    fn new(sql: impl Into<String>) -> Self {
        Self { kind: "", sql: sql.into(), how: How::Together, may_refuse: false, table: String::new() }
    }

    fn how(mut self, how: How) -> Self {
        self.how = how;
        self
    }

    fn may_refuse(mut self, may_refuse: bool) -> Self {
        self.may_refuse = may_refuse;
        self
    }

    /// Makes the change; false when it cannot be made here, and then nothing was.
    pub(crate) async fn apply(&self, database: &TestDatabase, migrator: &str) -> bool {
        let client = database.client().await;
        if self.how != How::Superuser {
            client.batch_execute(&format!("SET ROLE {migrator}")).await.unwrap();
        }
        match self.how {
            How::Together | How::Superuser => {
                client.batch_execute(&format!("BEGIN; {}; COMMIT", self.sql)).await.is_ok()
            }
            How::Alone => {
                for statement in self.sql.split(";\n") {
                    // A failed concurrent build is what is wanted here.
                    let _failed = client.batch_execute(statement).await;
                }
                true
            }
            How::Interrupted => {
                let writer = database.client().await;
                let lock = format!("BEGIN; LOCK TABLE public.{} IN ROW EXCLUSIVE MODE", self.table);
                if writer.batch_execute(&lock).await.is_err() {
                    return false;
                }
                client.batch_execute("SET statement_timeout = '150ms'").await.unwrap();
                for statement in self.sql.split(";\n") {
                    let _timeout = client.batch_execute(statement).await;
                }
                true
            }
        }
    }
}

/// What a change is made up from.
pub(crate) struct View {
    /// The owned tables that are there.
    pub(crate) live: Schema,
    /// What they should be.
    pub(crate) expected: BTreeMap<String, Table>,
    /// The history table, where it is.
    pub(crate) history: Option<Table>,
    /// The versions of both services.
    pub(crate) versions: Vec<String>,
}

impl View {
    /// Reads the live schema.
    pub(crate) async fn read(
        database: &TestDatabase,
        expected: &[(Service, Expected); 2],
        versions: &[String],
    ) -> Self {
        let expected: BTreeMap<String, Table> =
            expected.iter().flat_map(|(_, expected)| expected.tables.clone()).collect();
        let mut names: Vec<String> = expected.keys().cloned().collect();
        names.push(HISTORY.to_owned());
        let mut live = migration_engine::read_schema(&database.client().await, &names).await.unwrap();
        let history = live.remove(HISTORY);
        Self { live, expected, history, versions: versions.to_vec() }
    }

    /// A live owned table that is a table.
    fn table<'a>(&'a self, random: &mut Random) -> Option<(&'a str, &'a Table)> {
        let tables: Vec<_> = self.live.iter().filter(|(_, table)| table.kind == "table").collect();
        random.pick(&tables).map(|(name, table)| (name.as_str(), *table))
    }

    /// Whether the migrations fill this column by themselves, so that it may be absent or null.
    fn is_filled(table: &str, column: &str) -> bool {
        matches!(
            (table, column),
            ("tasks", "user_id")
                | ("users", "role_id")
                | ("refresh_tokens", "session_id")
                | ("password_reset_tokens", "hash_algorithm")
                | ("roles", "display_name")
        )
    }
}

/// The name that Diesel fixes.
const HISTORY: &str = "__diesel_schema_migrations";

type Propose = fn(&mut Random, &View) -> Option<Mutation>;

/// Every kind of change.
const KINDS: &[&[(&str, Propose)]] =
    &[tables::KINDS, columns::KINDS, keys::KINDS, indexes::KINDS, rows::KINDS, history::KINDS];

/// `KINDS=history,index` leaves only kinds with one of these words in their name, `KINDS=-trigger` leaves those out.
fn is_wanted(kind: &str) -> bool {
    let Ok(words) = std::env::var("KINDS") else { return true };
    let (without, with): (Vec<&str>, Vec<&str>) = words.split(',').partition(|word| word.starts_with('-'));
    (with.is_empty() || with.iter().any(|word| kind.contains(word)))
        && !without.iter().any(|word| kind.contains(&word[1..]))
}

/// Makes up a change that fits what is there; `None` when the drawn kind finds nothing to change.
pub(crate) fn propose(random: &mut Random, view: &View) -> Option<Mutation> {
    let all = KINDS.iter().flat_map(|kinds| kinds.iter());
    let kinds: Vec<&(&'static str, Propose)> = all.filter(|(kind, _)| is_wanted(kind)).collect();
    let (kind, propose) = random.pick(&kinds)?;
    propose(random, view).map(|mutation| Mutation { kind, ..mutation })
}

/// A name as SQL.
fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A name that is not there yet, most likely.
fn new_name(random: &mut Random, stem: &str) -> String {
    format!("{}_{}", stem.chars().take(50).collect::<String>(), random.below(10_000))
}
