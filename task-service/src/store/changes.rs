//! The log of changes: written in the transaction of each change, read by watchers from one snapshot of transactions to another.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::prelude::*;
use diesel::sql_types::{BigInt, Text};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::schema::task_changes;
use super::{TaskStore, TaskStoreError};
use crate::domain::access::Scope;
use crate::domain::change::{Change, ChangeKind, in_order_of_versions};
use crate::domain::ids::{TaskId, UserId};
use crate::domain::position::Position;
use crate::domain::status::TaskStatus;
use crate::domain::task::Task;
use crate::domain::text::LISTED_MAX;

/// The number of the transaction, which is given out here if nothing was written before.
const XACT: &str = "pg_current_xact_id()::text::bigint";

/// Most changes that are read at a time; those of one transaction are never parted. A client that does not take them keeps so many
/// in memory.
const CHANGES_READ: i64 = 50;

#[derive(Queryable, Selectable)]
#[diesel(table_name = task_changes, check_for_backend(diesel::pg::Pg))]
struct ChangeRow {
    user_id: Uuid,
    xact: i64,
    task_id: Uuid,
    version: i64,
    kind: String,
    changed_at: DateTime<Utc>,
    title: String,
    description: Option<String>,
    status: String,
    due_date: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl ChangeRow {
    /// `None`: a newer program wrote it.
    fn read(self) -> Option<Change> {
        let task = Task {
            id: TaskId(self.task_id),
            user_id: UserId(self.user_id),
            title: self.title,
            description: self.description,
            status: TaskStatus::from_db(&self.status)?,
            due_date: self.due_date,
            created_at: self.created_at,
            updated_at: self.changed_at,
            version: self.version,
        };
        Some(Change { kind: ChangeKind::from_db(&self.kind)?, task, xact: self.xact })
    }
}

/// What a read of changes has found.
#[derive(Debug)]
pub struct ChangesRead {
    /// Those of one task in their order.
    pub changes: Vec<Change>,
    /// Where the reader is with them.
    pub reached: Position,
}

impl TaskStore {
    /// Where a reader is who has seen everything that is committed now.
    pub async fn position_now(&self) -> Result<Position, TaskStoreError> {
        self.database
            .run("position_now", async |conn| {
                let snapshot: String = diesel::select(sql::<Text>("pg_current_snapshot()::text")).first(conn).await?;
                Position::from_snapshot(&snapshot).ok_or(TaskStoreError::SnapshotUnreadable)
            })
            .await
    }

    /// Who has tasks that changed between two positions; once for each transaction.
    pub async fn users_changed(&self, from: &Position, to: &Position) -> Result<Vec<UserId>, TaskStoreError> {
        self.database
            .run("users_changed", async |conn| {
                let of = task_changes::xact.ge(from.xmax()).or(task_changes::xact.eq_any(from.under_way()));
                let found: Vec<(Uuid, i64)> = task_changes::table
                    .filter(of.and(task_changes::xact.lt(to.xmax())))
                    .select((task_changes::user_id, task_changes::xact))
                    .distinct()
                    .load(conn)
                    .await?;
                let seen = found.into_iter().filter(|(_, xact)| to.sees(*xact));
                Ok::<_, TaskStoreError>(seen.map(|(user, _)| UserId(user)).collect())
            })
            .await
    }

    /// The next changes behind a position, as far as another one sees them.
    pub async fn changes_behind(
        &self,
        scope: Scope,
        from: &Position,
        to: &Position,
    ) -> Result<ChangesRead, TaskStoreError> {
        self.database
            .run("changes_behind", async |conn| {
                let mut rows: Vec<ChangeRow> = Vec::new();
                if !from.under_way().is_empty() {
                    let late = task_changes::xact.eq_any(from.under_way()).and(task_changes::xact.lt(to.xmax()));
                    rows = changes_of(scope).filter(late).limit(CHANGES_READ).load(conn).await?;
                }
                let left = CHANGES_READ - i64::try_from(rows.len()).unwrap_or(CHANGES_READ);
                if left > 0 {
                    let new = task_changes::xact.ge(from.xmax()).and(task_changes::xact.lt(to.xmax()));
                    rows.extend(changes_of(scope).filter(new).limit(left).load::<ChangeRow>(conn).await?);
                }
                let is_cut = i64::try_from(rows.len()).is_ok_and(|count| count >= CHANGES_READ);
                let mut reached = rows.last().map(|row| row.xact).filter(|_| is_cut);
                if let Some(last) = reached {
                    // There may be more of the last transaction.
                    rows.retain(|row| row.xact != last);
                    match rows.last() {
                        Some(row) => reached = Some(row.xact),
                        None => rows = changes_of(scope).filter(task_changes::xact.eq(last)).load(conn).await?,
                    }
                }
                while let Some(last) = reached {
                    let Some(further) = overtaken_on_conn(conn, scope, &rows, last, (from, to)).await? else { break };
                    let between = task_changes::xact.gt(last).and(task_changes::xact.le(further));
                    rows.extend(changes_of(scope).filter(between).load::<ChangeRow>(conn).await?);
                    reached = Some(further);
                }
                let is_news = |row: &ChangeRow| to.sees(row.xact) && !from.sees(row.xact);
                let mut changes: Vec<Change> = rows.into_iter().filter(is_news).filter_map(ChangeRow::read).collect();
                in_order_of_versions(&mut changes);
                let reached = reached.map_or_else(|| to.clone(), |xact| from.advanced(to, xact));
                Ok::<_, TaskStoreError>(ChangesRead { changes, reached })
            })
            .await
    }
}

/// The last transaction behind `last` that holds an older version of a task than `rows` do: it began later and changed the task
/// first. It must be told before, so it belongs to the same read.
async fn overtaken_on_conn(
    conn: &mut AsyncPgConnection,
    scope: Scope,
    rows: &[ChangeRow],
    last: i64,
    (from, to): (&Position, &Position),
) -> Result<Option<i64>, TaskStoreError> {
    let mut newest: HashMap<Uuid, i64> = HashMap::new();
    for row in rows {
        let version = newest.entry(row.task_id).or_insert(row.version);
        *version = row.version.max(*version);
    }
    let ids: Vec<Uuid> = newest.keys().copied().collect();
    let mut behind = task_changes::table
        .filter(task_changes::task_id.eq_any(ids))
        .filter(task_changes::xact.gt(last).and(task_changes::xact.lt(to.xmax())))
        .select((task_changes::task_id, task_changes::version, task_changes::xact))
        .into_boxed();
    if let Scope::Of(owner) = scope {
        behind = behind.filter(task_changes::user_id.eq(owner.0));
    }
    let behind: Vec<(Uuid, i64, i64)> = behind.load(conn).await?;
    let overtaken = behind.into_iter().filter(|(task, version, xact)| {
        to.sees(*xact) && !from.sees(*xact) && newest.get(task).is_some_and(|newest| version < newest)
    });
    Ok(overtaken.map(|(.., xact)| xact).max())
}

/// The changes of a scope, by their transactions.
fn changes_of<'a>(scope: Scope) -> diesel::helper_types::IntoBoxed<'a, ByTransaction, diesel::pg::Pg> {
    let query = task_changes::table
        .select(ChangeRow::as_select())
        .order((task_changes::xact, task_changes::task_id, task_changes::version))
        .into_boxed();
    match scope {
        Scope::Of(owner) => query.filter(task_changes::user_id.eq(owner.0)),
        Scope::All => query,
    }
}

type ByTransaction = diesel::dsl::Order<
    diesel::dsl::Select<task_changes::table, diesel::dsl::AsSelect<ChangeRow, diesel::pg::Pg>>,
    (task_changes::xact, task_changes::task_id, task_changes::version),
>;

/// Writes down what happened to tasks, in the transaction in which it happens.
pub(super) async fn changes_log_on_conn(
    conn: &mut AsyncPgConnection,
    kind: ChangeKind,
    tasks: &[Task],
) -> Result<(), TaskStoreError> {
    // A statement has at most 65,535 parameters.
    for tasks in tasks.chunks(1_000) {
        let rows = tasks.iter().map(|task| {
            // What is gone needs no words, and may have to be forgotten.
            let has_texts = kind == ChangeKind::Upserted;
            let title = if has_texts { cut(&task.title) } else { "" };
            let description = task.description.as_deref().filter(|_| has_texts).map(cut);
            (
                task_changes::user_id.eq(task.user_id.0),
                task_changes::xact.eq(sql::<BigInt>(XACT)),
                task_changes::task_id.eq(task.id.0),
                task_changes::version.eq(task.version),
                task_changes::kind.eq(kind.as_str()),
                task_changes::changed_at.eq(task.updated_at),
                task_changes::title.eq(title),
                task_changes::description.eq(description),
                task_changes::status.eq(task.status.as_str()),
                task_changes::due_date.eq(task.due_date),
                task_changes::created_at.eq(task.created_at),
            )
        });
        let rows: Vec<_> = rows.collect();
        diesel::insert_into(task_changes::table).values(rows).execute(conn).await?;
    }
    Ok(())
}

/// As lists cut it: only tasks from before today's limits have more.
fn cut(text: &str) -> &str {
    text.char_indices().nth(LISTED_MAX).map_or(text, |(end, _)| &text[..end])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_texts_are_cut_between_characters() {
        assert_eq!(cut("é"), "é");
        assert_eq!(cut(&"é".repeat(LISTED_MAX)).chars().count(), LISTED_MAX);
        assert_eq!(cut(&"é".repeat(LISTED_MAX + 1)).chars().count(), LISTED_MAX);
    }
}
