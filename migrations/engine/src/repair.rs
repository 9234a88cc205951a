//! The SQL that mends a difference: online forms, each re-runnable after a kill at any point.

use crate::diff::Difference;
use crate::report::{Kind, Problem};
use crate::schema::{Constraint, ConstraintKind, Expected, Sequence, Table};

/// When a fix runs in an `up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Phase {
    /// Before the migrations, which rely on it.
    Prepare,
    /// Before the migrations when its guard holds already, else after them.
    PrepareIfPossible,
    /// After the migrations.
    Converge,
}

/// One step of a fix.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Statements in one transaction, under a short lock.
    Transaction(Vec<String>),
    /// One statement that PostgreSQL refuses inside a transaction; waits for nobody's lock for long.
    Alone(String),
}

impl Step {
    /// Its statements.
    #[must_use]
    pub fn statements(&self) -> &[String] {
        match self {
            Self::Transaction(statements) => statements,
            Self::Alone(statement) => std::slice::from_ref(statement),
        }
    }
}

/// What mends a difference.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Fix {
    /// When.
    pub phase: Phase,
    /// Order within a phase.
    pub rank: u8,
    /// How.
    pub steps: Vec<Step>,
}

/// An identifier, quoted where it must be.
pub(crate) fn name(identifier: &str) -> String {
    let plain = identifier.starts_with(|c: char| c.is_ascii_lowercase() || c == '_')
        && identifier.chars().all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
    let plain = plain && !crate::keywords::is_reserved(identifier);
    if plain { identifier.to_owned() } else { format!("\"{}\"", identifier.replace('"', "\"\"")) }
}

/// A table of ours, qualified.
pub(crate) fn table(identifier: &str) -> String {
    format!("public.{}", name(identifier))
}

/// The steps as one text for people.
pub(crate) fn text(steps: &[Step]) -> String {
    let statements: Vec<&str> = steps.iter().flat_map(Step::statements).map(|sql| sql.trim_end()).collect();
    format!("{};", statements.join(";\n"))
}

/// A temporary name beside `object`; PostgreSQL cuts names at 63 bytes.
pub(crate) fn beside(object: &str) -> String {
    const ROOM: usize = 63 - "__new".len();
    let end = object.char_indices().map(|(at, c)| at + c.len_utf8()).take_while(|end| *end <= ROOM).last();
    format!("{}__new", &object[..end.unwrap_or(0)])
}

/// `CREATE INDEX …` as `CREATE INDEX CONCURRENTLY …`.
pub(crate) fn concurrently(definition: &str) -> String {
    definition.replacen(" INDEX ", " INDEX CONCURRENTLY ", 1)
}

/// Builds the wanted index beside the old one and swaps: queries and uniqueness never go without.
pub(crate) fn replace_index(index: &str, definition: &str) -> Vec<Step> {
    let new = beside(index);
    let create = definition.replacen(&format!(" INDEX {} ON", name(index)), &format!(" INDEX {} ON", name(&new)), 1);
    vec![
        Step::Alone(format!("DROP INDEX CONCURRENTLY IF EXISTS public.{}", name(&new))),
        Step::Alone(concurrently(&create)),
        Step::Transaction(vec![
            format!("DROP INDEX public.{}", name(index)),
            format!("ALTER INDEX public.{} RENAME TO {}", name(&new), name(index)),
        ]),
    ]
}

/// ADD CONSTRAINT … USING INDEX, which also gives the index the constraint's name.
pub(crate) fn using_index(of: &str, constraint: &str, kind: ConstraintKind, index: &str) -> String {
    let kind = if kind == ConstraintKind::PrimaryKey { "PRIMARY KEY" } else { "UNIQUE" };
    format!("ALTER TABLE {} ADD CONSTRAINT {} {kind} USING INDEX {}", table(of), name(constraint), name(index))
}

/// A key: its index is built concurrently, then swapped in under a short lock.
pub(crate) fn key(of: &str, constraint: &str, wanted: &Constraint, drop: Vec<String>) -> Vec<Step> {
    let new = beside(constraint);
    let columns: Vec<String> = wanted.columns.iter().map(|column| name(column)).collect();
    let create = format!("CREATE UNIQUE INDEX CONCURRENTLY {} ON {} ({})", name(&new), table(of), columns.join(", "));
    let add = using_index(of, constraint, wanted.kind, &new);
    vec![
        Step::Alone(format!("DROP INDEX CONCURRENTLY IF EXISTS public.{}", name(&new))),
        Step::Alone(create),
        Step::Transaction(drop.into_iter().chain([add]).collect()),
    ]
}

/// A check or foreign key: added NOT VALID under a short lock, then validated while others read and write.
pub(crate) fn not_valid_first(of: &str, constraint: &str, wanted: &Constraint, drop: Vec<String>) -> Vec<Step> {
    let add = format!("ALTER TABLE {} ADD CONSTRAINT {} {} NOT VALID", table(of), name(constraint), wanted.definition);
    vec![
        Step::Transaction(drop.into_iter().chain([add]).collect()),
        Step::Transaction(vec![format!("ALTER TABLE {} VALIDATE CONSTRAINT {}", table(of), name(constraint))]),
    ]
}

/// NOT NULL through a validated check: SET NOT NULL then need not scan the table under its lock.
pub(crate) fn set_not_null(of: &str, column: &str) -> Vec<Step> {
    let check = beside(&format!("{of}_{column}_not_null"));
    let (of, check) = (table(of), name(&check));
    vec![
        Step::Transaction(vec![
            format!("ALTER TABLE {of} DROP CONSTRAINT IF EXISTS {check}"),
            format!("ALTER TABLE {of} ADD CONSTRAINT {check} CHECK ({} IS NOT NULL) NOT VALID", name(column)),
        ]),
        Step::Transaction(vec![format!("ALTER TABLE {of} VALIDATE CONSTRAINT {check}")]),
        Step::Transaction(vec![
            format!("ALTER TABLE {of} ALTER COLUMN {} SET NOT NULL", name(column)),
            format!("ALTER TABLE {of} DROP CONSTRAINT {check}"),
        ]),
    ]
}

/// `CREATE SEQUENCE`, where there is none of that name.
pub(crate) fn create_sequence(sequence: &str, wanted: &Sequence) -> String {
    format!("CREATE SEQUENCE IF NOT EXISTS {} {}", table(sequence), wanted.options)
}

/// Ties a sequence to a column, with which it is dropped then; or to none.
pub(crate) fn own_sequence(sequence: &str, of: &str, column: Option<&str>) -> String {
    let owner = column.map_or_else(|| "NONE".to_owned(), |column| format!("{}.{}", table(of), name(column)));
    format!("ALTER SEQUENCE {} OWNED BY {owner}", table(sequence))
}

/// Lets a new sequence go on after the values that are there, so that the next one is not taken. It never counts back.
pub(crate) fn count_on(sequence: &str, wanted: &Sequence, of: &str, column: &str) -> String {
    let (last, beyond) = if wanted.option("BY").is_some_and(|step| step < 0) { ("min", "<") } else { ("max", ">") };
    format!(
        "SELECT pg_catalog.setval('{}', used.last) FROM (SELECT {last}({}) AS last FROM {}) AS used, {} AS sequence \
         WHERE used.last {beyond}= sequence.last_value",
        table(sequence).replace('\'', "''"),
        name(column),
        table(of),
        table(sequence)
    )
}

/// How a trigger's definition calls a function of ours.
pub(crate) fn call(function: &str) -> String {
    format!("EXECUTE FUNCTION {}(", table(function))
}

/// The statements that make a missing table; nobody else sees it before they are committed.
pub(crate) fn missing_table(difference: &Difference, expected: &Expected) -> Option<Vec<Step>> {
    let drift = &difference.drift;
    if drift.kind != Kind::Table || drift.problem != Problem::Missing {
        return None;
    }
    Some(vec![Step::Transaction(create_table(&drift.table, expected.tables.get(&drift.table)?))])
}

/// The whole table; `up` lets the migration make it.
pub(crate) fn create_table(of: &str, wanted: &Table) -> Vec<String> {
    let columns = wanted
        .columns
        .iter()
        .map(|(column, shape)| format!("{} {}", name(column), crate::diff::describe_column(shape)));
    let constraints = wanted
        .constraints
        .iter()
        .map(|(constraint, shape)| format!("CONSTRAINT {} {}", name(constraint), shape.definition));
    let parts: Vec<String> = columns.chain(constraints).collect();
    let mut statements: Vec<String> =
        wanted.sequences.iter().map(|(sequence, shape)| create_sequence(sequence, shape)).collect();
    statements.push(format!("CREATE TABLE {} (\n    {}\n)", table(of), parts.join(",\n    ")));
    let owned = wanted.sequences.iter().filter(|(_, shape)| shape.owned_by.is_some());
    statements.extend(owned.map(|(sequence, shape)| own_sequence(sequence, of, shape.owned_by.as_deref())));
    statements.extend(wanted.indexes.values().map(|index| index.definition.clone()));
    statements.extend(wanted.functions.values().chain(wanted.triggers.values()).cloned());
    statements
}

/// The fixes of a phase, in order.
pub(crate) fn of_phase<'a>(differences: &'a [Difference], phases: &[Phase]) -> Vec<(&'a Difference, &'a Fix)> {
    let mut fixes: Vec<_> = differences
        .iter()
        .filter_map(|difference| difference.fix.as_ref().map(|fix| (difference, fix)))
        .filter(|(_, fix)| phases.contains(&fix.phase))
        .collect();
    fixes.sort_by_key(|(_, fix)| fix.rank);
    fixes
}
