//! What a list of tasks asks for: filter, order, size of a page, and the place where the next page begins.

use chrono::{DateTime, Utc};

use super::Invalid;
use super::access::Scope;
use super::ids::TaskId;
use super::status::TaskStatus;
use super::task::Task;
use super::text::{SearchText, TITLE_MAX};

/// Tasks on a page when the caller does not say.
const PAGE_SIZE_DEFAULT: usize = 50;
/// Most tasks on a page; who asks for more gets this many.
const PAGE_SIZE_MAX: usize = 1000;

/// What a list is sorted by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OrderField {
    /// When it was made.
    CreatedAt,
    /// When it was last changed.
    UpdatedAt,
    /// When it should be done; tasks without a date come last in both directions.
    DueDate,
    /// The first [`TITLE_MAX`] characters of the title, by code points: the same on every server, whatever its locale. Titles from before
    /// that limit are longer; those that begin alike are a tie, so that a page token stays short and outlives its task.
    Title,
    /// The status, in the order of [`TaskStatus`].
    Status,
}

/// Which way a list runs. Ties are broken by id in the same direction, so that one index serves both.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Direction {
    /// Least first.
    Ascending,
    /// Greatest first.
    Descending,
}

/// The order of a list.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Order {
    /// By what.
    pub field: OrderField,
    /// Which way.
    pub direction: Direction,
}

/// Which tasks a list shows: those that fit every part that is set.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// Whose.
    pub scope: Scope,
    /// With one of these statuses, each once and in order; empty: with any.
    pub statuses: Vec<TaskStatus>,
    /// With this text in the title, in any case of letters.
    pub title_contains: Option<SearchText>,
    /// With this text in the description, in any case of letters.
    pub description_contains: Option<SearchText>,
    /// Due at this time or later.
    pub due_after: Option<DateTime<Utc>>,
    /// Due before this time.
    pub due_before: Option<DateTime<Utc>>,
    /// Made at this time or later.
    pub created_after: Option<DateTime<Utc>>,
    /// Made before this time.
    pub created_before: Option<DateTime<Utc>>,
}

/// A list without its page: what a page token is bound to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListQuery {
    /// Which tasks.
    pub filter: Filter,
    /// In which order.
    pub order: Order,
}

/// The value of the order's field at the end of a page.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum CursorKey {
    /// A time.
    Time(DateTime<Utc>),
    /// No due date.
    NoTime,
    /// The first [`TITLE_MAX`] characters of a title.
    Title(String),
    /// A status.
    Status(TaskStatus),
}

/// The last task of a page: the next one begins right behind it, whether or not the task is still there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cursor {
    /// The order's field.
    pub key: CursorKey,
    /// The id, which breaks ties.
    pub id: TaskId,
}

impl Order {
    /// Reads `FIELD`, `FIELD asc` or `FIELD desc`; empty is `created_at desc`.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        const EXPECTED: Invalid = Invalid(
            "must be one of created_at, updated_at, due_date, title, status, then optionally asc or desc, as in \"due_date desc\"",
        );
        let mut words = text.split_ascii_whitespace();
        let field = match words.next() {
            None => return Ok(Self { field: OrderField::CreatedAt, direction: Direction::Descending }),
            Some("created_at") => OrderField::CreatedAt,
            Some("updated_at") => OrderField::UpdatedAt,
            Some("due_date") => OrderField::DueDate,
            Some("title") => OrderField::Title,
            Some("status") => OrderField::Status,
            Some(_) => return Err(EXPECTED),
        };
        let direction = match words.next() {
            None => Direction::Ascending,
            Some(word) if word.eq_ignore_ascii_case("asc") => Direction::Ascending,
            Some(word) if word.eq_ignore_ascii_case("desc") => Direction::Descending,
            Some(_) => return Err(EXPECTED),
        };
        if words.next().is_some() { Err(EXPECTED) } else { Ok(Self { field, direction }) }
    }

    /// The cursor of a page that ends with this task.
    pub fn cursor_at(&self, task: &Task) -> Cursor {
        let key = match self.field {
            OrderField::CreatedAt => CursorKey::Time(task.created_at),
            OrderField::UpdatedAt => CursorKey::Time(task.updated_at),
            OrderField::DueDate => task.due_date.map_or(CursorKey::NoTime, CursorKey::Time),
            OrderField::Title => CursorKey::Title(task.title.chars().take(TITLE_MAX).collect()),
            OrderField::Status => CursorKey::Status(task.status),
        };
        Cursor { key, id: task.id }
    }
}

/// How many tasks a page has, from what the caller asked for.
pub fn page_size(asked: i32) -> Result<usize, Invalid> {
    match usize::try_from(asked) {
        Ok(0) => Ok(PAGE_SIZE_DEFAULT),
        Ok(size) => Ok(size.min(PAGE_SIZE_MAX)),
        Err(_) => Err(Invalid("must not be negative")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_names_a_known_field() {
        let order = |field, direction| Ok(Order { field, direction });
        assert_eq!(Order::parse(""), order(OrderField::CreatedAt, Direction::Descending));
        assert_eq!(Order::parse("due_date"), order(OrderField::DueDate, Direction::Ascending));
        assert_eq!(Order::parse(" title  DESC "), order(OrderField::Title, Direction::Descending));
        assert_eq!(Order::parse("status asc"), order(OrderField::Status, Direction::Ascending));
        for bad in [
            "id",
            "Title",
            "title up",
            "title asc, id",
            "title,status",
            "title asc desc",
            "desc",
            "title; drop table tasks",
        ] {
            assert!(Order::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_cursor_is_short_however_long_the_title() {
        let now = DateTime::<Utc>::UNIX_EPOCH;
        let task = Task {
            id: TaskId::new(),
            user_id: crate::domain::ids::UserId::NOBODY,
            title: "🦀".repeat(60_000),
            description: None,
            status: TaskStatus::Todo,
            due_date: None,
            created_at: now,
            updated_at: now,
            version: 1,
        };
        let order = Order { field: OrderField::Title, direction: Direction::Ascending };
        assert_eq!(order.cursor_at(&task).key, CursorKey::Title("🦀".repeat(TITLE_MAX)));
    }

    #[test]
    fn a_page_has_a_bounded_size() {
        assert_eq!(page_size(0), Ok(50));
        assert_eq!(page_size(1), Ok(1));
        assert_eq!(page_size(1000), Ok(1000));
        assert_eq!(page_size(1001), Ok(1000));
        assert_eq!(page_size(i32::MAX), Ok(1000));
        assert!(page_size(-1).is_err());
        assert!(page_size(i32::MIN).is_err());
    }
}
