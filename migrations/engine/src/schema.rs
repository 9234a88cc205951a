//! What a schema is to the engine: the shape that is compared, as it stands in the committed `expected.json`.
//!
//! All text forms are PostgreSQL's own (`format_type`, `pg_get_expr`, `pg_get_constraintdef`, `pg_get_indexdef`)
//! read with an empty `search_path`. Column order is not part of it: `attnum` has gaps on adopted tables.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// The expected schema of one service, and the rows that must be there.
#[derive(Clone, Debug, Default, Serialize, Deserialize, PartialEq, Eq)]
pub struct Expected {
    /// Tables that the service owns, by name.
    pub tables: BTreeMap<String, Table>,
    /// Rows that migrations seed, by table.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub seeds: BTreeMap<String, Seed>,
}

impl Expected {
    /// The names of the owned tables.
    #[must_use]
    pub fn table_names(&self) -> Vec<String> {
        self.tables.keys().cloned().collect()
    }
}

/// A live schema: the owned tables that exist.
pub type Schema = BTreeMap<String, Table>;

/// One table.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Table {
    /// `table`, or what else has the name: `view`, `partitioned table`, …
    pub kind: String,
    /// False for an UNLOGGED table, which is empty after a crash.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub logged: bool,
    /// True when row level security hides rows.
    #[serde(default, skip_serializing_if = "is_no")]
    pub row_security: bool,
    /// Columns by name.
    pub columns: BTreeMap<String, Column>,
    /// Primary key, unique, foreign key, check and exclusion constraints by name.
    pub constraints: BTreeMap<String, Constraint>,
    /// Indexes that back no constraint, by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub indexes: BTreeMap<String, Index>,
    /// Definitions of triggers by name.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub triggers: BTreeMap<String, String>,
    /// Definitions of the functions in `public` that its triggers call, by name; those of extensions are not ours.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub functions: BTreeMap<String, String>,
    /// Sequences that belong to one of its columns or give one its default, by name; those of identity columns are part
    /// of the column.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub sequences: BTreeMap<String, Sequence>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            kind: "table".to_owned(),
            logged: true,
            row_security: false,
            columns: BTreeMap::new(),
            constraints: BTreeMap::new(),
            indexes: BTreeMap::new(),
            triggers: BTreeMap::new(),
            functions: BTreeMap::new(),
            sequences: BTreeMap::new(),
        }
    }
}

/// One column.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Column {
    /// `format_type` text.
    #[serde(rename = "type")]
    pub type_name: String,
    /// Whether NULL is allowed.
    #[serde(default, skip_serializing_if = "is_no")]
    pub nullable: bool,
    /// Default expression.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub default: Option<String>,
    /// `identity always`, `identity by default`, `stored`, `virtual`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub generated: Option<String>,
    /// Collation, where it is not the type's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub collation: Option<String>,
    /// Whether the type is an enum; read from a live schema only.
    #[serde(skip)]
    pub is_enum: bool,
}

/// What a constraint does.
#[derive(Clone, Copy, Debug, Serialize, Deserialize, PartialEq, Eq, PartialOrd, Ord)]
#[serde(rename_all = "snake_case")]
pub enum ConstraintKind {
    /// PRIMARY KEY
    PrimaryKey,
    /// UNIQUE
    Unique,
    /// CHECK
    Check,
    /// EXCLUDE
    Exclusion,
    /// FOREIGN KEY
    ForeignKey,
}

/// One constraint.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Constraint {
    /// What it does.
    pub kind: ConstraintKind,
    /// `pg_get_constraintdef` text without `NOT VALID`.
    pub definition: String,
    /// Its columns, in the constraint's order.
    pub columns: Vec<String>,
    /// For a foreign key: the table it refers to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub references: Option<String>,
    /// For a foreign key: the columns it refers to.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub referenced_columns: Vec<String>,
    /// False for NOT VALID, NOT ENFORCED, one whose index is invalid or whose triggers are switched off.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub valid: bool,
    /// False for a foreign key whose triggers are switched off; read from a live schema only.
    #[serde(skip, default = "yes")]
    pub enforced: bool,
}

/// One index that backs no constraint.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Index {
    /// `pg_get_indexdef` text.
    pub definition: String,
    /// Whether it is unique.
    #[serde(default, skip_serializing_if = "is_no")]
    pub unique: bool,
    /// Its columns; empty when it has expressions.
    pub columns: Vec<String>,
    /// Whether it is a plain whole-table btree index with default operator classes and order.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub plain: bool,
    /// False when a concurrent build died: the planner ignores such an index.
    #[serde(default = "yes", skip_serializing_if = "is_yes")]
    pub valid: bool,
    /// The extension that it is made with: it belongs to the schema only where that is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub requires: Option<String>,
}

impl Index {
    /// The definition without the index's own name, to recognise the same index under another name.
    #[must_use]
    pub fn shape(&self) -> &str {
        self.definition.find(" ON ").map_or(self.definition.as_str(), |at| &self.definition[at..])
    }
}

/// One sequence. How far it has counted is not part of it.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Sequence {
    /// Its options as `CREATE SEQUENCE` and `ALTER SEQUENCE` take them, each one named.
    pub options: String,
    /// The column with which it is dropped; none for a sequence that stands alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub owned_by: Option<String>,
}

impl Sequence {
    /// The value of an option, such as `MAXVALUE`.
    #[must_use]
    pub(crate) fn option(&self, name: &str) -> Option<i64> {
        let mut words = self.options.split(' ').skip_while(|word| *word != name).skip(1);
        words.next()?.parse().ok()
    }
}

/// Rows that must be there.
#[derive(Clone, Debug, Serialize, Deserialize, PartialEq, Eq)]
pub struct Seed {
    /// Columns that identify a row.
    pub key: Vec<String>,
    /// The rows, each with its key and the columns that are compared, all as text.
    pub rows: Vec<BTreeMap<String, String>>,
    /// What a row that must be made holds besides, by the values of its key joined with ", ". Not compared: it may be edited.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub besides: BTreeMap<String, BTreeMap<String, String>>,
}

const fn yes() -> bool {
    true
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
const fn is_yes(value: &bool) -> bool {
    *value
}

#[expect(clippy::trivially_copy_pass_by_ref, reason = "serde's skip_serializing_if passes a reference")]
const fn is_no(value: &bool) -> bool {
    !*value
}
