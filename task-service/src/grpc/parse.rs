//! Requests of task.v1 into domain values. All violations of a request come at once, each with the path of its field.

use std::collections::{BTreeSet, HashSet};

use chrono::{DateTime, TimeDelta, Utc};
use prost_types::Timestamp;
use proto::field_mask;
use proto::task::v1;
use proto::validate::{Validate, Violation};

use super::convert::status_of;
use crate::domain::Invalid;
use crate::domain::access::{Caller, Scope, TASKS_READ, TASKS_WRITE};
use crate::domain::etag::version_of;
use crate::domain::ids::{TaskId, UserId, uuid_parse};
use crate::domain::list::{Filter, ListQuery, Order, page_size};
use crate::domain::page_token::PageTokens;
use crate::domain::resume_token;
use crate::domain::stats::StatsQuery;
use crate::domain::status::TaskStatus;
use crate::domain::task::{NewTask, TaskChange};
use crate::domain::text::{Description, SearchText, Title};
use crate::errors::{Problem, TaskReason, permission_missing};
use crate::watch::Begin;

/// What UpdateTask may change.
const WRITABLE: [&str; 4] = ["title", "description", "status", "due_date"];

const STATUS_EXPECTED: Invalid =
    Invalid("expected one of TASK_STATUS_TODO, TASK_STATUS_IN_PROGRESS, TASK_STATUS_COMPLETED, TASK_STATUS_CANCELLED");
const TIME_EXPECTED: Invalid = Invalid("expected a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z");

const STAY: Invalid = Invalid("must not be the nil UUID: tasks without an owner stay");
const OWNED: Invalid = Invalid("must not be the nil UUID: a task is given to somebody");

/// Collects what is wrong with a request.
struct Violations {
    found: Vec<Violation>,
}

impl Violations {
    /// Those of the proto's own rules.
    fn of(request: &impl Validate) -> Self {
        Self { found: request.validate().err().unwrap_or_default() }
    }

    /// The parsed value; a failure is kept unless the field has one already.
    fn keep<T>(&mut self, field: &str, parsed: Result<T, Invalid>) -> Option<T> {
        match parsed {
            Ok(value) => Some(value),
            Err(Invalid(expected)) => {
                if !self.found.iter().any(|violation| violation.field == field) {
                    self.found.push(Violation { field: field.to_owned(), description: expected.to_owned() });
                }
                None
            }
        }
    }

    /// Ids that are all well-formed. Of too many none is looked at: that there are too many is among the proto's own violations.
    fn ids(&mut self, field: &str, texts: &[String]) -> Option<Vec<TaskId>> {
        if texts.len() > BATCH_MAX {
            return None;
        }
        let each = texts.iter().enumerate();
        let ids: Vec<_> =
            each.map(|(index, text)| self.keep(&format!("{field}[{index}]"), TaskId::parse(text))).collect();
        ids.into_iter().collect()
    }

    /// The parsed value, if it was all of the request that could be wrong and nothing is.
    fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(invalid(self.found)),
        }
    }
}

fn invalid(violations: Vec<Violation>) -> Problem {
    let problem = Problem::new(TaskReason::InvalidArgument);
    violations.into_iter().fold(problem, |problem, violation| problem.field(violation.field, violation.description))
}

/// The id of GetTask and DeleteTask.
pub(super) fn task_id(request: &impl Validate, id: &str) -> Result<TaskId, Problem> {
    let mut violations = Violations::of(request);
    let id = violations.keep("id", TaskId::parse(id));
    violations.finish(id)
}

/// Which tasks go from whom to whom; no task in particular means all.
pub(super) fn reassign(request: &v1::ReassignTasksRequest) -> Result<(UserId, UserId, Vec<TaskId>), Problem> {
    let mut violations = Violations::of(request);
    let from = violations.keep("from_user_id", UserId::parse(&request.from_user_id));
    let to = violations.keep("to_user_id", somebody(&request.to_user_id, OWNED));
    let ids = violations.ids("task_ids", &request.task_ids);
    violations.finish((|| Some((from?, to?, ids?)))())
}

/// The ids of a batch.
pub(super) fn ids(request: &impl Validate, ids: &[String]) -> Result<Vec<TaskId>, Problem> {
    let mut violations = Violations::of(request);
    let ids = violations.ids("ids", ids);
    violations.finish(ids)
}

/// The new tasks of a batch.
pub(super) fn batch_create(
    caller: &Caller,
    requests: &[v1::CreateTaskRequest],
    now: DateTime<Utc>,
) -> Result<Vec<NewTask>, Problem> {
    size(requests.len())?;
    let each = requests.iter().enumerate();
    each.map(|(index, request)| create(caller, request, now).map_err(|problem| of_part(problem, index))).collect()
}

/// The changes of a batch, each of another task.
pub(super) fn batch_update(
    requests: Vec<v1::UpdateTaskRequest>,
) -> Result<Vec<(TaskId, TaskChange, Option<i64>)>, Problem> {
    size(requests.len())?;
    let mut seen = HashSet::with_capacity(requests.len());
    let mut changes = Vec::with_capacity(requests.len());
    for (index, request) in requests.into_iter().enumerate() {
        let (id, change, etag) = update(request).map_err(|problem| of_part(problem, index))?;
        if !seen.insert(id) {
            let twice = Problem::new(TaskReason::InvalidArgument).field("task.id", "must not stand twice in one batch");
            return Err(of_part(twice, index));
        }
        changes.push((id, change, version_of(&etag)));
    }
    Ok(changes)
}

/// Most parts of a batch.
const BATCH_MAX: usize = 1_000;

/// Checked here and not with the parts, whose own rules name their fields.
fn size(count: usize) -> Result<(), Problem> {
    let expected = "expected 1 to 1000 items";
    let fits = (1..=BATCH_MAX).contains(&count);
    if fits { Ok(()) } else { Err(Problem::new(TaskReason::InvalidArgument).field("requests", expected)) }
}

/// What is wrong with one part of a batch, told of the batch.
pub(super) fn of_part(problem: Problem, index: usize) -> Problem {
    problem.metadata("index", index.to_string()).within(&format!("requests[{index}]"))
}

/// Whose tasks are counted, and the period.
pub(super) fn stats(caller: &Caller, request: &v1::GetTaskStatsRequest) -> Result<StatsQuery, Problem> {
    let mut violations = Violations::of(request);
    let completed_after = violations.keep("completed_after", bound(request.completed_after.as_ref()));
    let completed_before = violations.keep("completed_before", bound(request.completed_before.as_ref()));
    let named = violations.keep("user_id", optional(&request.user_id, UserId::parse));
    let parts = (|| Some((completed_after?, completed_before?, named?)))();
    let (completed_after, completed_before, named) = violations.finish(parts)?;
    let scope = caller.list_scope(named).map_err(|_| permission_missing(TASKS_READ))?;
    Ok(StatsQuery { scope, completed_after, completed_before })
}

/// Whose tasks are watched, and from where on; `None`: from now on.
pub(super) fn watch(
    caller: &Caller,
    tokens: &PageTokens,
    request: &v1::WatchTasksRequest,
    now: DateTime<Utc>,
) -> Result<(Scope, Option<Begin>), Problem> {
    let mut violations = Violations::of(request);
    let named = violations.keep("user_id", optional(&request.user_id, UserId::parse));
    let named = violations.finish(named)?;
    let scope = caller.list_scope(named).map_err(|_| permission_missing(TASKS_READ))?;
    if request.resume_token.is_empty() {
        return Ok((scope, request.snapshot.then_some(Begin::Snapshot)));
    }
    let opened = resume_token::open(tokens, caller.user_id, scope, &request.resume_token, now).map_err(|_| {
        let expected = "expected the resume_token of an event of the same watch: same caller and user_id";
        Problem::new(TaskReason::InvalidArgument).field("resume_token", expected)
    })?;
    match opened {
        Some((position, current_at)) => {
            Ok((scope, Some(Begin::Behind { position, current_at, or_snapshot: request.snapshot })))
        }
        None if request.snapshot => Ok((scope, Some(Begin::Snapshot))),
        None => Err(TaskReason::ResumeTokenExpired.into()),
    }
}

/// Whose tasks to purge: anybody's but nobody's, so that tasks without an owner do not go as a heap.
pub(super) fn purge(request: &v1::PurgeUserTasksRequest) -> Result<UserId, Problem> {
    let mut violations = Violations::of(request);
    let user_id = violations.keep("user_id", somebody(&request.user_id, STAY));
    violations.finish(user_id)
}

pub(super) fn create(caller: &Caller, request: &v1::CreateTaskRequest, now: DateTime<Utc>) -> Result<NewTask, Problem> {
    let mut violations = Violations::of(request);
    let title = violations.keep("title", Title::parse(&request.title));
    let description = violations.keep("description", Description::parse(&request.description));
    let status = match request.status {
        0 => Some(TaskStatus::Todo),
        number => violations.keep("status", status_of(number).ok_or(STATUS_EXPECTED)),
    };
    let due_date = violations.keep("due_date", time(request.due_date.as_ref()));
    let request_id = violations.keep("request_id", optional(&request.request_id, uuid_parse));
    let named = violations.keep("user_id", optional(&request.user_id, |text| somebody(text, OWNED)));
    let parts = (|| Some((title?, description?, status?, due_date?, request_id?, named?)))();
    let (title, description, status, due_date, request_id, named) = violations.finish(parts)?;
    let user_id = caller.owner_of_new(named).map_err(|_| permission_missing(TASKS_WRITE))?;
    Ok(NewTask { id: TaskId::new(), user_id, title, description, status, due_date, created_at: now, request_id })
}

/// Which task, and what changes. Fields outside the mask are not looked at: a task may be sent back whole, with a text that is
/// longer than today's limits, to change its status.
pub(super) fn update(request: v1::UpdateTaskRequest) -> Result<(TaskId, TaskChange, String), Problem> {
    let Some(task) = request.task else {
        return Err(Problem::new(TaskReason::InvalidArgument).field("task", "expected a value; it is missing"));
    };
    let named =
        field_mask::effective("task.v1.Task", &task, request.update_mask.as_ref(), &WRITABLE).map_err(invalid)?;
    if named.is_empty() {
        let expected = "expected at least one field to change, in the mask or set in the task";
        return Err(Problem::new(TaskReason::InvalidArgument).field("update_mask", expected));
    }
    let task = masked(task, &named);
    let request = v1::UpdateTaskRequest { task: Some(task.clone()), update_mask: None };
    let mut violations = Violations::of(&request);
    let id = violations.keep("task.id", TaskId::parse(&task.id));
    let is_named = |field: &str| named.contains(field);
    let title = is_named("title").then(|| violations.keep("task.title", Title::parse(&task.title))).flatten();
    let description = is_named("description")
        .then(|| violations.keep("task.description", Description::parse(&task.description)))
        .flatten();
    let status = is_named("status")
        .then(|| violations.keep("task.status", status_of(task.status).ok_or(STATUS_EXPECTED)))
        .flatten();
    let due_date =
        is_named("due_date").then(|| violations.keep("task.due_date", time(task.due_date.as_ref()))).flatten();
    let id = violations.finish(id)?;
    Ok((id, TaskChange { title, description, status, due_date }, task.etag))
}

/// The task without the fields that do not change.
fn masked(task: v1::Task, named: &BTreeSet<String>) -> v1::Task {
    let mut masked = v1::Task { id: task.id, etag: task.etag, ..Default::default() };
    if named.contains("title") {
        masked.title = task.title;
    }
    if named.contains("description") {
        masked.description = task.description;
    }
    if named.contains("status") {
        masked.status = task.status;
    }
    if named.contains("due_date") {
        masked.due_date = task.due_date;
    }
    masked
}

/// A list, the size of its page and where the page begins.
pub(super) struct ListPage {
    pub(super) query: ListQuery,
    pub(super) size: usize,
    pub(super) cursor: Option<crate::domain::list::Cursor>,
}

pub(super) fn list(caller: &Caller, tokens: &PageTokens, request: &v1::ListTasksRequest) -> Result<ListPage, Problem> {
    let mut violations = Violations::of(request);
    let size = violations.keep("page_size", page_size(request.page_size));
    let order = violations.keep("order_by", Order::parse(&request.order_by));
    // A number that means nothing is among the proto's own violations already.
    let statuses: BTreeSet<_> = request.statuses.iter().filter_map(|number| status_of(*number)).collect();
    let title_contains = violations.keep("title_contains", SearchText::parse(&request.title_contains));
    let description_contains =
        violations.keep("description_contains", SearchText::parse(&request.description_contains));
    let due_after = violations.keep("due_after", bound(request.due_after.as_ref()));
    let due_before = violations.keep("due_before", bound(request.due_before.as_ref()));
    let created_after = violations.keep("created_after", bound(request.created_after.as_ref()));
    let created_before = violations.keep("created_before", bound(request.created_before.as_ref()));
    let named = violations.keep("user_id", optional(&request.user_id, UserId::parse));
    let parts = (|| {
        let filter = Filter {
            // Replaced below, once the request is known to be well-formed.
            scope: caller.read_scope(),
            statuses: statuses.into_iter().collect(),
            title_contains: title_contains?,
            description_contains: description_contains?,
            due_after: due_after?,
            due_before: due_before?,
            created_after: created_after?,
            created_before: created_before?,
        };
        Some((ListQuery { filter, order: order? }, size?, named?))
    })();
    let (mut query, size, named) = violations.finish(parts)?;
    query.filter.scope = caller.list_scope(named).map_err(|_| permission_missing(TASKS_READ))?;
    let cursor = match request.page_token.as_str() {
        "" => None,
        token => Some(tokens.open(caller.user_id, &query, token).map_err(|_| {
            let expected = "expected the next_page_token of the same list: same caller, filters and order";
            Problem::new(TaskReason::PageTokenInvalid).field("page_token", expected)
        })?),
    };
    Ok(ListPage { query, size, cursor })
}

/// An empty text is none.
fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, Invalid>) -> Result<Option<T>, Invalid> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// Anybody but nobody; `expected` says why.
fn somebody(text: &str, expected: Invalid) -> Result<UserId, Invalid> {
    UserId::parse(text).and_then(|user| if user == UserId::NOBODY { Err(expected) } else { Ok(user) })
}

/// A time to the microsecond, cut off.
fn time(time: Option<&Timestamp>) -> Result<Option<DateTime<Utc>>, Invalid> {
    time.map(|time| proto::time::to_utc(time).ok_or(TIME_EXPECTED)).transpose()
}

/// The bound of a range, rounded up: of times in whole microseconds the same ones lie at or after it, and before it.
fn bound(bound: Option<&Timestamp>) -> Result<Option<DateTime<Utc>>, Invalid> {
    let cut = time(bound)?;
    let finer = bound.is_some_and(|bound| bound.nanos % 1_000 != 0);
    Ok(cut.map(|time| if finer { time + TimeDelta::microseconds(1) } else { time }))
}

#[cfg(test)]
mod tests;
