//! What a statement does to the traffic beside it: which lock it takes on which table, whether it scans and whether it
//! rewrites. Read from the statement's own words and the live schema; `migrate_plan` compares it with `pg_locks`.
//!
//! Source: PostgreSQL documentation, "Explicit Locking" and the notes of ALTER TABLE, CREATE INDEX and REINDEX.

use serde::Serialize;

use crate::schema::{ConstraintKind, Schema};
use crate::words::{Words, words};

/// A lock mode of a table, weakest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
pub enum LockMode {
    /// Reads.
    #[serde(rename = "ACCESS SHARE")]
    AccessShare,
    /// `SELECT … FOR UPDATE`, and the table that a foreign key refers to while it is validated.
    #[serde(rename = "ROW SHARE")]
    RowShare,
    /// Writes of rows.
    #[serde(rename = "ROW EXCLUSIVE")]
    RowExclusive,
    /// Reads and writes go on beside it.
    #[serde(rename = "SHARE UPDATE EXCLUSIVE")]
    ShareUpdateExclusive,
    /// Writes wait.
    #[serde(rename = "SHARE")]
    Share,
    /// Writes wait.
    #[serde(rename = "SHARE ROW EXCLUSIVE")]
    ShareRowExclusive,
    /// Reads and writes wait.
    #[serde(rename = "ACCESS EXCLUSIVE")]
    AccessExclusive,
}

impl LockMode {
    /// As PostgreSQL's documentation writes it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::AccessShare => "ACCESS SHARE",
            Self::RowShare => "ROW SHARE",
            Self::RowExclusive => "ROW EXCLUSIVE",
            Self::ShareUpdateExclusive => "SHARE UPDATE EXCLUSIVE",
            Self::Share => "SHARE",
            Self::ShareRowExclusive => "SHARE ROW EXCLUSIVE",
            Self::AccessExclusive => "ACCESS EXCLUSIVE",
        }
    }

    /// Who waits while it is held.
    #[must_use]
    pub fn blocks(self) -> &'static str {
        match self {
            Self::AccessExclusive => "reads and writes",
            Self::Share | Self::ShareRowExclusive => "writes",
            _ => "nothing",
        }
    }
}

/// A lock on one table.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct TableLock {
    /// The table, in `public`.
    pub table: String,
    /// The mode.
    pub mode: LockMode,
}

/// What a statement does to the tables.
#[derive(Clone, Debug, PartialEq, Eq, Default, Serialize)]
pub struct Effect {
    /// The tables that exist and are locked; the first is the one that the statement is about.
    pub locks: Vec<TableLock>,
    /// Whether it reads a whole table, or all of its rows once more.
    pub scans: bool,
    /// Whether it writes the whole table anew.
    pub rewrites: bool,
    /// False when the words do not tell, as of a DO block: then the worst is assumed.
    pub certain: bool,
}

impl Effect {
    fn on(table: &str, mode: LockMode) -> Self {
        Self { locks: vec![TableLock { table: table.to_owned(), mode }], certain: true, ..Self::default() }
    }

    fn none() -> Self {
        Self { certain: true, ..Self::default() }
    }

    fn scanning(mut self, scans: bool) -> Self {
        self.scans |= scans;
        self
    }

    fn rewriting(mut self, rewrites: bool) -> Self {
        self.rewrites |= rewrites;
        // A rewrite reads every row too.
        self.scans |= rewrites;
        self
    }

    fn and(mut self, table: Option<&str>, mode: LockMode) -> Self {
        let table = table.filter(|table| self.locks.iter().all(|lock| lock.table != *table));
        self.locks.extend(table.map(|table| TableLock { table: table.to_owned(), mode }));
        self
    }

    /// The strongest of its locks.
    #[must_use]
    pub fn strongest(&self) -> Option<LockMode> {
        self.locks.iter().map(|lock| lock.mode).max()
    }
}

/// What `sql`, one statement, does to the tables of `live`.
#[must_use]
pub fn effect(sql: &str, live: &Schema) -> Effect {
    let mut at = words(sql);
    match at.next_word().as_str() {
        "create" => create(&mut at, live),
        "drop" => drop(&mut at, live),
        "alter" => alter(&mut at, live),
        "reindex" => reindex(&mut at, live),
        "insert" => {
            at.skip("into");
            Effect::on(&at.name(), LockMode::RowExclusive)
        }
        "update" => {
            at.skip("only");
            Effect::on(&at.name(), LockMode::RowExclusive).scanning(true)
        }
        "delete" => {
            at.skip("from");
            at.skip("only");
            Effect::on(&at.name(), LockMode::RowExclusive).scanning(true)
        }
        "select" | "set" | "savepoint" | "release" | "commit" | "begin" => Effect::none(),
        "truncate" => {
            at.skip("table");
            Effect::on(&at.name(), LockMode::AccessExclusive).rewriting(true)
        }
        _ => unknown(live),
    }
}

/// The words do not tell: every table of ours may be locked against everybody.
fn unknown(live: &Schema) -> Effect {
    let locks = live.keys().map(|table| TableLock { table: table.clone(), mode: LockMode::AccessExclusive }).collect();
    Effect { locks, scans: true, rewrites: false, certain: false }
}

fn create(at: &mut Words, live: &Schema) -> Effect {
    let unique = at.skip("unique");
    match at.next_word().as_str() {
        "index" => {
            let mode = if at.skip("concurrently") { LockMode::ShareUpdateExclusive } else { LockMode::Share };
            let asks = at.skip_if_not_exists();
            let index = at.name();
            at.skip("on");
            at.skip("only");
            let table = at.name();
            let there = live.get(&table).is_some_and(|shape| shape.indexes.contains_key(&index));
            Effect::on(&table, mode).scanning(!(asks && there))
        }
        "table" if !unique => {
            let asks = at.skip_if_not_exists();
            let table = at.name();
            if asks && live.contains_key(&table) {
                return Effect::none();
            }
            // Nobody sees the new table before the commit; those that it refers to get a trigger.
            let mut effect = Effect::none();
            while at.skip_to("references") {
                let parent = at.name();
                effect = effect.and(Some(&parent), LockMode::ShareRowExclusive);
            }
            effect
        }
        "trigger" => {
            at.skip_to("on");
            Effect::on(&at.name(), LockMode::ShareRowExclusive)
        }
        "or" if at.skip("replace") && at.skip("trigger") => {
            at.skip_to("on");
            Effect::on(&at.name(), LockMode::ShareRowExclusive)
        }
        "extension" | "type" | "function" | "schema" | "sequence" | "temporary" | "temp" | "or" => Effect::none(),
        _ => unknown(live),
    }
}

fn drop(at: &mut Words, live: &Schema) -> Effect {
    match at.next_word().as_str() {
        "index" => {
            let concurrently = at.skip("concurrently");
            at.skip_if_exists();
            let index = at.name();
            let holder = live.iter().find(|(_, shape)| shape.indexes.contains_key(&index));
            let mode = if concurrently { LockMode::ShareUpdateExclusive } else { LockMode::AccessExclusive };
            holder.map_or_else(Effect::none, |(table, _)| Effect::on(table, mode))
        }
        "table" => {
            at.skip_if_exists();
            let table = at.name();
            match live.get(&table) {
                None => Effect::none(),
                Some(shape) => shape
                    .constraints
                    .values()
                    .filter_map(|constraint| constraint.references.as_deref())
                    .fold(Effect::on(&table, LockMode::AccessExclusive), |effect, parent| {
                        effect.and(Some(parent), LockMode::AccessExclusive)
                    }),
            }
        }
        "trigger" => {
            at.skip_if_exists();
            let _trigger = at.name();
            at.skip("on");
            Effect::on(&at.name(), LockMode::AccessExclusive)
        }
        "type" | "function" | "schema" | "sequence" | "extension" => Effect::none(),
        _ => unknown(live),
    }
}

fn reindex(at: &mut Words, live: &Schema) -> Effect {
    at.skip("index");
    let mode = if at.skip("concurrently") { LockMode::ShareUpdateExclusive } else { LockMode::Share };
    let index = at.name();
    let holder = live
        .iter()
        .find(|(_, shape)| shape.indexes.contains_key(&index) || shape.constraints.contains_key(&index))
        .map(|(table, _)| table);
    holder.map_or_else(Effect::none, |table| Effect::on(table, mode).scanning(true))
}

fn alter(at: &mut Words, live: &Schema) -> Effect {
    match at.next_word().as_str() {
        // Only the index itself is locked: queries that are planned wait for the moment of the rename.
        "index" => Effect::none(),
        "table" => {
            at.skip_if_exists();
            at.skip("only");
            let table = at.name();
            alter_table(at, &table, live)
        }
        "trigger" => {
            at.skip_to("on");
            Effect::on(&at.name(), LockMode::AccessExclusive)
        }
        "sequence" | "type" | "role" | "function" => Effect::none(),
        _ => unknown(live),
    }
}

fn alter_table(at: &mut Words, table: &str, live: &Schema) -> Effect {
    let exclusive = Effect::on(table, LockMode::AccessExclusive);
    let shape = live.get(table);
    match at.next_word().as_str() {
        "add" => match at.peek().as_str() {
            "constraint" => {
                at.next_word();
                let _name = at.name();
                add_constraint(at, table, live)
            }
            "check" | "primary" | "unique" | "foreign" | "exclude" => add_constraint(at, table, live),
            _ => {
                at.skip("column");
                let asks = at.skip_if_not_exists();
                let column = at.name();
                let there = shape.is_some_and(|shape| shape.columns.contains_key(&column));
                exclusive.rewriting(!(asks && there) && adds_with_rewrite(at))
            }
        },
        "validate" => {
            at.skip("constraint");
            let constraint = at.name();
            let there = shape.and_then(|shape| shape.constraints.get(&constraint));
            let parent = there.and_then(|constraint| constraint.references.as_deref());
            // Of a constraint that is valid already nothing is read again.
            Effect::on(table, LockMode::ShareUpdateExclusive)
                .scanning(there.is_none_or(|constraint| !constraint.valid))
                .and(parent.filter(|_| there.is_none_or(|constraint| !constraint.valid)), LockMode::RowShare)
        }
        "drop" => match at.peek().as_str() {
            "constraint" => {
                at.next_word();
                at.skip_if_exists();
                let constraint = at.name();
                let there = shape.and_then(|shape| shape.constraints.get(&constraint));
                exclusive.and(there.and_then(|constraint| constraint.references.as_deref()), LockMode::AccessExclusive)
            }
            _ => exclusive,
        },
        "alter" => {
            at.skip("column");
            let column = at.name();
            alter_column(at, table, &column, live)
        }
        "set" => {
            let logged = ["logged", "unlogged"].contains(&at.peek().as_str());
            exclusive.rewriting(logged)
        }
        "rename" | "disable" | "enable" | "replica" | "owner" => exclusive,
        _ => exclusive.scanning(true).rewriting(true),
    }
}

fn add_constraint(at: &mut Words, table: &str, live: &Schema) -> Effect {
    match at.next_word().as_str() {
        "foreign" => {
            let valid = !at.ends_with_not_valid();
            at.skip_to("references");
            let parent = at.name();
            Effect::on(table, LockMode::ShareRowExclusive)
                .scanning(valid)
                .and(Some(&parent), LockMode::ShareRowExclusive)
        }
        "check" => Effect::on(table, LockMode::AccessExclusive).scanning(!at.ends_with_not_valid()),
        kind => {
            let using = at.skip_to("using") && at.peek() == "index";
            let primary = kind == "primary";
            let nullable = live.get(table).is_some_and(|shape| {
                at.skip("index");
                let index = at.name();
                let columns = shape.indexes.get(&index).map(|index| index.columns.clone()).unwrap_or_default();
                columns.iter().any(|column| shape.columns.get(column).is_some_and(|column| column.nullable))
            });
            Effect::on(table, LockMode::AccessExclusive).scanning(!using || (primary && nullable))
        }
    }
}

/// A constant default is kept in the catalog; one that differs from row to row must be written.
fn adds_with_rewrite(at: &Words) -> bool {
    const EACH_ROW: [&str; 9] = [
        "gen_random_uuid",
        "random",
        "clock_timestamp",
        "nextval",
        "uuid_generate_v4",
        "uuidv7",
        "timeofday",
        "generated",
        "serial",
    ];
    at.rest().any(|word| EACH_ROW.contains(&word) || word.ends_with("serial"))
}

fn alter_column(at: &mut Words, table: &str, column: &str, live: &Schema) -> Effect {
    let exclusive = Effect::on(table, LockMode::AccessExclusive);
    let shape = live.get(table);
    let there = shape.and_then(|shape| shape.columns.get(column));
    at.skip("set");
    match at.next_word().as_str() {
        "not" => {
            let proven = shape.is_some_and(|shape| {
                shape.constraints.values().any(|check| {
                    check.kind == ConstraintKind::Check
                        && check.valid
                        && check.definition == format!("CHECK (({} IS NOT NULL))", crate::repair::name(column))
                })
            });
            let is_set = there.is_some_and(|column| !column.nullable);
            exclusive.scanning(!proven && !is_set)
        }
        "type" | "data" => {
            let sql = at.rest_of_text();
            let rewrites = there.is_none_or(|there| crate::diff::rewrites(there, sql));
            // Without a rewrite the indexes over a column of another collation are still built anew.
            exclusive.rewriting(rewrites)
        }
        _ => exclusive,
    }
}
