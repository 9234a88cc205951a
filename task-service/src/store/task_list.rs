//! Pages of tasks by keyset: each page begins behind the last task of the one before, found through an index, not counted off.
//!
//! A list runs through segments in which the order is a plain column and the id. Most orders have one; by due date the tasks without
//! a date are a second; by status each status is one of its own. A task that moves while somebody pages can be met twice or missed.

use chrono::{DateTime, Utc};
use diesel::dsl::sql;
use diesel::expression::SqlLiteral;
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel::sql_types::{Bool, Integer, Nullable, Record, Text, Timestamptz, Uuid as SqlUuid};
use diesel_async::RunQueryDsl;
use uuid::Uuid;

use super::row::TaskRow;
use super::schema::tasks;
use super::{TaskStore, TaskStoreError};
use crate::domain::access::Scope;
use crate::domain::ids::{TaskId, UserId};
use crate::domain::list::{Cursor, CursorKey, Direction, Filter, ListQuery, OrderField};
use crate::domain::status::TaskStatus;
use crate::domain::task::Task;
use crate::domain::text::LISTED_MAX;

diesel::define_sql_function! {
    /// PostgreSQL's `left`: the first characters.
    fn left(text: Text, count: Integer) -> Text;
}

diesel::define_sql_function! {
    /// The same for a text that may be absent.
    #[sql_name = "left"]
    fn left_of_nullable(text: Nullable<Text>, count: Integer) -> Nullable<Text>;
}

/// What titles are ordered by, written as the index has it: with a parameter in place of the number no plan that is kept for many
/// calls can use the index. The number is [`TITLE_MAX`].
const TITLE_KEY: &str = "left(\"tasks\".\"title\", 200) COLLATE \"C\"";

fn title_key() -> SqlLiteral<Text> {
    sql(TITLE_KEY)
}

/// True. A statement with a literal is planned for each call: whether a text is found through its index or by going through the list
/// depends on the text, and a plan kept from other texts would read the whole table for a rare one.
fn planned_anew() -> SqlLiteral<Bool> {
    sql("TRUE")
}

/// Tasks that a snapshot reads at a time: a client that does not take them keeps so many in memory.
const SNAPSHOT_PAGE: i64 = 50;

type Query<'a> = tasks::BoxedQuery<'a, Pg>;

/// A stretch of a list, in the order in which the list runs through them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Segment {
    CreatedAt,
    UpdatedAt,
    Dated,
    Undated,
    Title,
    Status(TaskStatus),
}

impl TaskStore {
    /// At most `limit` tasks of the list, beginning behind `cursor`. Their texts have at most [`LISTED_MAX`] characters.
    pub async fn task_list(
        &self,
        query: &ListQuery,
        cursor: Option<&Cursor>,
        limit: usize,
    ) -> Result<Vec<Task>, TaskStoreError> {
        self.database
            .run("task_list", async |conn| {
                let mut found: Vec<Task> = Vec::new();
                for (segment, cursor) in segments_from(query, cursor) {
                    let left = i64::try_from(limit.saturating_sub(found.len())).unwrap_or(i64::MAX);
                    if left == 0 {
                        break;
                    }
                    let statement = segment_query(query, segment, cursor).limit(left);
                    let rows: Vec<TaskRow> = statement.select(listed()).load(conn).await?;
                    for row in rows {
                        found.push(row.try_into()?);
                    }
                }
                Ok(found)
            })
            .await
    }
}

impl TaskStore {
    /// The next tasks of a scope behind this one, by owner and id, the texts cut as in lists. Empty: there are no more.
    pub async fn tasks_page(
        &self,
        scope: Scope,
        behind: Option<(UserId, TaskId)>,
    ) -> Result<Vec<Task>, TaskStoreError> {
        self.database
            .run("tasks_page", async |conn| {
                let mut page = tasks::table.filter(tasks::deleted_at.is_null()).into_boxed();
                if let Scope::Of(owner) = scope {
                    page = page.filter(tasks::user_id.eq(owner.0));
                }
                if let Some((owner, id)) = behind {
                    let key = (tasks::user_id, tasks::id).into_sql::<Record<(SqlUuid, SqlUuid)>>();
                    page = page.filter(key.gt((owner.0, id.0)));
                }
                let page = page.order((tasks::user_id, tasks::id)).limit(SNAPSHOT_PAGE).select(listed());
                let rows: Vec<TaskRow> = page.load(conn).await?;
                rows.into_iter().map(Task::try_from).collect()
            })
            .await
    }
}

/// The columns of [`TaskRow`] in its order, the texts cut: one enormous row must neither outgrow a message nor fill the memory.
#[diesel::dsl::auto_type(no_type_alias)]
fn listed() -> _ {
    let most: i32 = LISTED_MAX as i32;
    (
        tasks::id,
        tasks::user_id,
        left(tasks::title, most),
        left_of_nullable(tasks::description, most),
        tasks::status,
        tasks::due_date,
        tasks::created_at,
        tasks::updated_at,
        tasks::version,
    )
}

/// The segments of a list from the cursor's on. Only the first has a cursor: the others begin at their beginning.
fn segments_from<'a>(query: &ListQuery, cursor: Option<&'a Cursor>) -> Vec<(Segment, Option<&'a Cursor>)> {
    let segments = segments(query);
    let first = cursor.map_or(Some(0), |cursor| segments.iter().position(|segment| holds(*segment, &cursor.key)));
    let rest = segments.into_iter().skip(first.unwrap_or(usize::MAX)).enumerate();
    rest.map(|(place, segment)| (segment, cursor.filter(|_| place == 0))).collect()
}

fn segments(query: &ListQuery) -> Vec<Segment> {
    match query.order.field {
        OrderField::CreatedAt => vec![Segment::CreatedAt],
        OrderField::UpdatedAt => vec![Segment::UpdatedAt],
        OrderField::Title => vec![Segment::Title],
        // No task without a date lies in a range of dates.
        OrderField::DueDate if query.filter.due_after.or(query.filter.due_before).is_some() => vec![Segment::Dated],
        OrderField::DueDate => vec![Segment::Dated, Segment::Undated],
        OrderField::Status => {
            let asked =
                |status: &TaskStatus| query.filter.statuses.is_empty() || query.filter.statuses.contains(status);
            let mut statuses: Vec<_> = TaskStatus::ALL.into_iter().filter(asked).collect();
            if query.order.direction == Direction::Descending {
                statuses.reverse();
            }
            statuses.into_iter().map(Segment::Status).collect()
        }
    }
}

fn holds(segment: Segment, key: &CursorKey) -> bool {
    match (segment, key) {
        (Segment::CreatedAt | Segment::UpdatedAt | Segment::Dated, CursorKey::Time(_)) => true,
        (Segment::Undated, CursorKey::NoTime) | (Segment::Title, CursorKey::Title(_)) => true,
        (Segment::Status(status), CursorKey::Status(last)) => status == *last,
        _ => false,
    }
}

/// Orders `$query` by `$column` and the id, and begins behind `$behind`: column and id are compared as a row, which an index does in
/// one step however many tasks have the same value.
macro_rules! keyset {
    ($query:expr, $column:expr, $kind:ty, $direction:expr, $behind:expr) => {
        match ($direction, $behind) {
            (Direction::Ascending, None) => $query.order(($column.asc(), tasks::id.asc())),
            (Direction::Descending, None) => $query.order(($column.desc(), tasks::id.desc())),
            (Direction::Ascending, Some(behind)) => $query
                .filter(($column, tasks::id).into_sql::<Record<($kind, SqlUuid)>>().gt(behind))
                .order(($column.asc(), tasks::id.asc())),
            (Direction::Descending, Some(behind)) => $query
                .filter(($column, tasks::id).into_sql::<Record<($kind, SqlUuid)>>().lt(behind))
                .order(($column.desc(), tasks::id.desc())),
        }
    };
}

fn segment_query<'a>(query: &'a ListQuery, segment: Segment, cursor: Option<&Cursor>) -> Query<'a> {
    let direction = query.order.direction;
    let fitting = filtered(&query.filter);
    match segment {
        Segment::CreatedAt => keyset!(fitting, tasks::created_at, Timestamptz, direction, time_of(cursor)),
        Segment::UpdatedAt => keyset!(fitting, tasks::updated_at, Timestamptz, direction, time_of(cursor)),
        Segment::Dated => {
            keyset!(
                fitting.filter(tasks::due_date.is_not_null()),
                tasks::due_date,
                Nullable<Timestamptz>,
                direction,
                time_of(cursor)
            )
        }
        Segment::Title => {
            keyset!(fitting, title_key(), Text, direction, title_of(cursor))
        }
        Segment::Undated => by_id(fitting.filter(tasks::due_date.is_null()), direction, cursor),
        Segment::Status(status) => by_id(fitting.filter(tasks::status.eq(status.as_str())), direction, cursor),
    }
}

fn by_id<'a>(query: Query<'a>, direction: Direction, cursor: Option<&Cursor>) -> Query<'a> {
    match (direction, cursor.map(|cursor| cursor.id.0)) {
        (Direction::Ascending, None) => query.order(tasks::id.asc()),
        (Direction::Descending, None) => query.order(tasks::id.desc()),
        (Direction::Ascending, Some(id)) => query.filter(tasks::id.gt(id)).order(tasks::id.asc()),
        (Direction::Descending, Some(id)) => query.filter(tasks::id.lt(id)).order(tasks::id.desc()),
    }
}

fn time_of(cursor: Option<&Cursor>) -> Option<(DateTime<Utc>, Uuid)> {
    match cursor {
        Some(Cursor { key: CursorKey::Time(time), id }) => Some((*time, id.0)),
        _ => None,
    }
}

fn title_of(cursor: Option<&Cursor>) -> Option<(String, Uuid)> {
    match cursor {
        Some(Cursor { key: CursorKey::Title(title), id }) => Some((title.clone(), id.0)),
        _ => None,
    }
}

fn filtered(filter: &Filter) -> Query<'_> {
    let mut query = tasks::table.filter(tasks::deleted_at.is_null()).into_boxed();
    if let Scope::Of(owner) = filter.scope {
        query = query.filter(tasks::user_id.eq(owner.0));
    }
    if !filter.statuses.is_empty() {
        let statuses: Vec<_> = filter.statuses.iter().map(|status| status.as_str()).collect();
        query = query.filter(tasks::status.eq_any(statuses));
    }
    if filter.title_contains.is_some() || filter.description_contains.is_some() {
        query = query.filter(planned_anew());
    }
    if let Some(text) = &filter.title_contains {
        query = query.filter(tasks::title.ilike(text.like_pattern()));
    }
    if let Some(text) = &filter.description_contains {
        query = query.filter(tasks::description.ilike(text.like_pattern()));
    }
    if let Some(time) = filter.due_after {
        query = query.filter(tasks::due_date.ge(time));
    }
    if let Some(time) = filter.due_before {
        query = query.filter(tasks::due_date.lt(time));
    }
    if let Some(time) = filter.created_after {
        query = query.filter(tasks::created_at.ge(time));
    }
    if let Some(time) = filter.created_before {
        query = query.filter(tasks::created_at.lt(time));
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::domain::list::Order;
    use crate::domain::text::TITLE_MAX;

    fn query(field: OrderField, direction: Direction) -> ListQuery {
        ListQuery {
            filter: Filter {
                scope: Scope::Of(UserId(Uuid::from_u128(1))),
                statuses: vec![],
                title_contains: None,
                description_contains: None,
                due_after: None,
                due_before: None,
                created_after: None,
                created_before: None,
            },
            order: Order { field, direction },
        }
    }

    fn sql(query: &ListQuery, cursor: Option<&Cursor>) -> Vec<String> {
        let statements = segments_from(query, cursor).into_iter();
        statements
            .map(|(segment, cursor)| diesel::debug_query::<Pg, _>(&segment_query(query, segment, cursor)).to_string())
            .collect()
    }

    const FIELDS: [OrderField; 5] =
        [OrderField::CreatedAt, OrderField::UpdatedAt, OrderField::DueDate, OrderField::Title, OrderField::Status];

    #[test]
    fn every_statement_of_one_users_list_names_the_user() {
        for field in FIELDS {
            for direction in [Direction::Ascending, Direction::Descending] {
                for statement in sql(&query(field, direction), None) {
                    assert!(statement.contains("\"user_id\" = $"), "{statement}");
                    assert!(statement.contains("\"deleted_at\" IS NULL"), "{statement}");
                }
            }
        }
    }

    #[test]
    fn a_list_goes_on_in_the_segment_of_its_cursor() {
        let cursor = |key| Cursor { key, id: TaskId(Uuid::from_u128(7)) };
        let undated = cursor(CursorKey::NoTime);
        assert_eq!(
            segments_from(&query(OrderField::DueDate, Direction::Descending), Some(&undated)),
            [(Segment::Undated, Some(&undated))]
        );
        let completed = cursor(CursorKey::Status(TaskStatus::Completed));
        assert_eq!(
            segments_from(&query(OrderField::Status, Direction::Ascending), Some(&completed)),
            [
                (Segment::Status(TaskStatus::Completed), Some(&completed)),
                (Segment::Status(TaskStatus::Cancelled), None)
            ]
        );
        let mut few = query(OrderField::Status, Direction::Descending);
        few.filter.statuses = vec![TaskStatus::Todo, TaskStatus::Completed];
        assert_eq!(
            segments_from(&few, Some(&completed)),
            [(Segment::Status(TaskStatus::Completed), Some(&completed)), (Segment::Status(TaskStatus::Todo), None)]
        );
        let mut dated = query(OrderField::DueDate, Direction::Ascending);
        dated.filter.due_before = DateTime::from_timestamp(0, 0);
        assert_eq!(segments_from(&dated, None), [(Segment::Dated, None)]);
    }

    #[test]
    fn titles_are_compared_as_they_are_sorted() {
        let cursor = Cursor { key: CursorKey::Title("a".to_owned()), id: TaskId(Uuid::from_u128(7)) };
        let statement = sql(&query(OrderField::Title, Direction::Ascending), Some(&cursor)).remove(0);
        assert_eq!(statement.matches("COLLATE \"C\"").count(), 2, "{statement}");
        assert!(TITLE_KEY.contains(&format!(", {TITLE_MAX})")), "{TITLE_KEY}");
    }
}
