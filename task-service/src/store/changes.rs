//! The log of changes: written in the transaction of each change, read by watchers from one snapshot of transactions to another.

use std::collections::HashMap;

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Array, BigInt, Text, Uuid as SqlUuid};
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::schema::task_changes;
use super::{TaskStore, TaskStoreError};
use crate::domain::access::Scope;
use crate::domain::change::{Change, ChangeKey, ChangeKind, in_order_of_versions};
use crate::domain::ids::{TaskId, UserId};
use crate::domain::position::Position;
use crate::domain::status::TaskStatus;
use crate::domain::task::Task;
use crate::domain::text::LISTED_MAX;

/// The number of the transaction, which is given out here if nothing was written before.
const XACT: &str = "pg_current_xact_id()::text::bigint";

/// Most changes that are read whole at a time: a client that does not take them keeps so many in memory. Those of one transaction are
/// never parted; of a longer one the keys are read first, and the tasks when the client takes them.
pub const CHANGES_READ: i64 = 50;

#[derive(Queryable, Selectable)]
#[diesel(table_name = task_changes, check_for_backend(diesel::pg::Pg))]
struct KeyRow {
    user_id: Uuid,
    xact: i64,
    task_id: Uuid,
    version: i64,
    kind: String,
}

impl KeyRow {
    /// `None`: a newer program wrote it.
    fn read(&self) -> Option<ChangeKey> {
        Some(ChangeKey {
            kind: ChangeKind::from_db(&self.kind)?,
            user_id: UserId(self.user_id),
            task_id: TaskId(self.task_id),
            version: self.version,
            xact: self.xact,
        })
    }
}

#[derive(Queryable, Selectable, QueryableByName)]
#[diesel(table_name = task_changes, check_for_backend(diesel::pg::Pg))]
struct TaskColumns {
    changed_at: DateTime<Utc>,
    title: String,
    description: Option<String>,
    status: String,
    due_date: Option<DateTime<Utc>>,
    created_at: DateTime<Utc>,
}

impl TaskColumns {
    /// `None`: a newer program wrote it.
    fn read(self, key: &ChangeKey) -> Option<Task> {
        Some(Task {
            id: key.task_id,
            user_id: key.user_id,
            title: self.title,
            description: self.description,
            status: TaskStatus::from_db(&self.status)?,
            due_date: self.due_date,
            created_at: self.created_at,
            updated_at: self.changed_at,
            version: key.version,
        })
    }
}

type WholeRow = (KeyRow, TaskColumns);

#[derive(QueryableByName)]
struct PlacedRow {
    #[diesel(sql_type = BigInt)]
    place: i64,
    #[diesel(embed)]
    columns: TaskColumns,
}

/// The tasks of changes, by their whole keys.
const TASKS_OF: &str = "SELECT k.place, c.changed_at, c.title, c.description, c.status, c.due_date, c.created_at
    FROM unnest($1, $2, $3, $4) WITH ORDINALITY AS k (user_id, xact, task_id, version, place)
    JOIN task_changes AS c ON (c.user_id, c.xact, c.task_id, c.version) = (k.user_id, k.xact, k.task_id, k.version)";

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
                let mut rows: Vec<(KeyRow, Option<TaskColumns>)> = Vec::new();
                if !from.under_way().is_empty() {
                    let late = task_changes::xact.eq_any(from.under_way()).and(task_changes::xact.lt(to.xmax()));
                    rows = whole(
                        changes_of(scope)
                            .filter(late)
                            .limit(CHANGES_READ)
                            .select(WholeRow::as_select())
                            .load(conn)
                            .await?,
                    );
                }
                let left = CHANGES_READ - i64::try_from(rows.len()).unwrap_or(CHANGES_READ);
                if left > 0 {
                    let new = task_changes::xact.ge(from.xmax()).and(task_changes::xact.lt(to.xmax()));
                    rows.extend(whole(
                        changes_of(scope).filter(new).limit(left).select(WholeRow::as_select()).load(conn).await?,
                    ));
                }
                let is_cut = i64::try_from(rows.len()).is_ok_and(|count| count >= CHANGES_READ);
                let mut reached = rows.last().map(|(key, _)| key.xact).filter(|_| is_cut);
                if let Some(last) = reached {
                    // There may be more of the last transaction.
                    rows.retain(|(key, _)| key.xact != last);
                    match rows.last() {
                        Some((key, _)) => reached = Some(key.xact),
                        None => {
                            rows = keys(
                                changes_of(scope)
                                    .filter(task_changes::xact.eq(last))
                                    .select(KeyRow::as_select())
                                    .load(conn)
                                    .await?,
                            )
                        }
                    }
                }
                while let Some(last) = reached {
                    let Some(further) = overtaken_on_conn(conn, scope, &rows, last, (from, to)).await? else { break };
                    let between = task_changes::xact.gt(last).and(task_changes::xact.le(further));
                    rows.extend(keys(changes_of(scope).filter(between).select(KeyRow::as_select()).load(conn).await?));
                    reached = Some(further);
                }
                let is_news = |(key, _): &(KeyRow, _)| to.sees(key.xact) && !from.sees(key.xact);
                let mut changes: Vec<Change> = rows.into_iter().filter(is_news).filter_map(change).collect();
                in_order_of_versions(&mut changes);
                let reached = reached.map_or_else(|| to.clone(), |xact| from.advanced(to, xact));
                Ok::<_, TaskStoreError>(ChangesRead { changes, reached })
            })
            .await
    }

    /// The tasks of these changes, at most [`CHANGES_READ`], in their order. `None`: the change is not kept any more.
    pub async fn changes_tasks(&self, wanted: &[ChangeKey]) -> Result<Vec<Option<Task>>, TaskStoreError> {
        self.database
            .run("changes_tasks", async |conn| {
                let users: Vec<Uuid> = wanted.iter().map(|key| key.user_id.0).collect();
                let tasks: Vec<Uuid> = wanted.iter().map(|key| key.task_id.0).collect();
                let xacts: Vec<i64> = wanted.iter().map(|key| key.xact).collect();
                let versions: Vec<i64> = wanted.iter().map(|key| key.version).collect();
                let rows = diesel::sql_query(TASKS_OF)
                    .bind::<Array<SqlUuid>, _>(users)
                    .bind::<Array<BigInt>, _>(xacts)
                    .bind::<Array<SqlUuid>, _>(tasks)
                    .bind::<Array<BigInt>, _>(versions);
                let mut found: Vec<Option<Task>> = wanted.iter().map(|_| None).collect();
                for PlacedRow { place, columns } in rows.load::<PlacedRow>(conn).await? {
                    let place = usize::try_from(place - 1).unwrap_or(usize::MAX);
                    if let (Some(slot), Some(key)) = (found.get_mut(place), wanted.get(place)) {
                        *slot = columns.read(key);
                    }
                }
                Ok::<_, TaskStoreError>(found)
            })
            .await
    }
}

/// The last transaction behind `last` that holds an older version of a task than `rows` do: it began later and changed the task
/// first. It must be told before, so it belongs to the same read.
async fn overtaken_on_conn(
    conn: &mut AsyncPgConnection,
    scope: Scope,
    rows: &[(KeyRow, Option<TaskColumns>)],
    last: i64,
    (from, to): (&Position, &Position),
) -> Result<Option<i64>, TaskStoreError> {
    let mut newest: HashMap<Uuid, i64> = HashMap::new();
    for (key, _) in rows {
        let version = newest.entry(key.task_id).or_insert(key.version);
        *version = key.version.max(*version);
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

fn whole(rows: Vec<WholeRow>) -> Vec<(KeyRow, Option<TaskColumns>)> {
    rows.into_iter().map(|(key, columns)| (key, Some(columns))).collect()
}

fn keys(rows: Vec<KeyRow>) -> Vec<(KeyRow, Option<TaskColumns>)> {
    rows.into_iter().map(|key| (key, None)).collect()
}

/// `None`: a newer program wrote it.
fn change((key, columns): (KeyRow, Option<TaskColumns>)) -> Option<Change> {
    let key = key.read()?;
    let task = match columns {
        Some(columns) => Some(columns.read(&key)?),
        None => None,
    };
    Some(Change { key, task })
}

/// The changes of a scope, by their transactions.
fn changes_of<'a>(scope: Scope) -> task_changes::BoxedQuery<'a, Pg> {
    let query =
        task_changes::table.order((task_changes::xact, task_changes::task_id, task_changes::version)).into_boxed();
    match scope {
        Scope::Of(owner) => query.filter(task_changes::user_id.eq(owner.0)),
        Scope::All => query,
    }
}

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
