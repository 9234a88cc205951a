//! Which fields a bad request names, and what a good one means.

use prost_types::FieldMask;
use tonic_types::StatusExt as _;
use uuid::Uuid;

use super::*;
use crate::domain::access::Scope;

const ID: &str = "0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6c01";

fn member() -> Caller {
    Caller { user_id: UserId(Uuid::from_u128(1)), reads_all: false, writes_all: false }
}

fn administrator() -> Caller {
    Caller { reads_all: true, writes_all: true, ..member() }
}

fn tokens() -> PageTokens {
    PageTokens::from_secret(&[7; 32]).unwrap()
}

/// The code and the fields that the client is told.
fn told<T>(result: Result<T, Problem>) -> (tonic::Code, Vec<String>) {
    let status = tonic::Status::from(result.err().expect("the request is refused"));
    let violations =
        status.get_error_details().bad_request().map(|bad| bad.field_violations.clone()).unwrap_or_default();
    (status.code(), violations.into_iter().map(|violation| violation.field).collect())
}

fn fields<T>(result: Result<T, Problem>) -> Vec<String> {
    let (code, fields) = told(result);
    assert_eq!(code, tonic::Code::InvalidArgument);
    fields
}

fn new(title: &str) -> v1::CreateTaskRequest {
    v1::CreateTaskRequest { title: title.to_owned(), ..Default::default() }
}

fn change(task: v1::Task, mask: &[&str]) -> v1::UpdateTaskRequest {
    let paths: Vec<_> = mask.iter().map(|path| (*path).to_owned()).collect();
    let update_mask = (!paths.is_empty()).then_some(FieldMask { paths });
    v1::UpdateTaskRequest { task: Some(v1::Task { id: ID.to_owned(), ..task }), update_mask }
}

#[test]
fn a_new_task_has_defaults() {
    let task = create(&member(), &new(" a "), DateTime::UNIX_EPOCH).unwrap();
    assert_eq!((task.title.as_str(), task.status, task.user_id), ("a", TaskStatus::Todo, member().user_id));
    assert_eq!((task.description, task.due_date, task.request_id), (None, None, None));
}

#[test]
fn every_bad_field_of_a_new_task_is_named_once() {
    let request = v1::CreateTaskRequest {
        title: "  ".to_owned(),
        description: "\0".to_owned(),
        status: 9,
        due_date: Some(Timestamp { seconds: i64::MAX, nanos: 0 }),
        request_id: "x".to_owned(),
        user_id: "y".to_owned(),
    };
    let mut named = fields(create(&member(), &request, DateTime::UNIX_EPOCH));
    named.sort();
    assert_eq!(named, ["description", "due_date", "request_id", "status", "title", "user_id"]);
}

#[test]
fn on_behalf_needs_the_permission_and_a_real_owner() {
    let request = v1::CreateTaskRequest { user_id: ID.to_owned(), ..new("a") };
    assert_eq!(told(create(&member(), &request, DateTime::UNIX_EPOCH)), (tonic::Code::PermissionDenied, vec![]));
    let task = create(&administrator(), &request, DateTime::UNIX_EPOCH).unwrap();
    assert_eq!(task.user_id.to_string(), ID);
    let nobodys = v1::CreateTaskRequest { user_id: UserId::NOBODY.to_string(), ..new("a") };
    assert_eq!(fields(create(&administrator(), &nobodys, DateTime::UNIX_EPOCH)), ["user_id"]);
}

#[test]
fn a_mask_names_what_changes() {
    let task = || v1::Task { title: "t".to_owned(), status: 3, ..Default::default() };
    let (_, only_title, _) = update(change(task(), &["title"])).unwrap();
    assert_eq!(only_title, TaskChange { title: Title::parse("t").ok(), ..Default::default() });
    let (_, set_fields, _) = update(change(task(), &[])).unwrap();
    assert_eq!(
        (set_fields.status, set_fields.title.is_some(), set_fields.due_date),
        (Some(TaskStatus::Completed), true, None)
    );
    let (_, cleared, _) = update(change(v1::Task::default(), &["due_date", "description"])).unwrap();
    assert_eq!(cleared, TaskChange { due_date: Some(None), description: Some(None), ..Default::default() });
    let (_, all, _) = update(change(task(), &["*"])).unwrap();
    assert_eq!((all.description, all.due_date), (Some(None), Some(None)));
}

#[test]
fn a_bad_update_names_the_mask_or_the_field() {
    for path in ["id", "user_id", "created_at", "updated_at", "etag", "colour", "task.title", "due_date.seconds", ""] {
        assert_eq!(fields(update(change(v1::Task::default(), &[path]))), ["update_mask.paths[0]"], "{path}");
    }
    assert_eq!(fields(update(change(v1::Task::default(), &[]))), ["update_mask"]);
    assert_eq!(fields(update(v1::UpdateTaskRequest::default())), ["task"]);
    assert_eq!(fields(update(change(v1::Task::default(), &["title", "status"]))), ["task.title", "task.status"]);
    let nameless = v1::UpdateTaskRequest {
        task: Some(v1::Task { title: "t".to_owned(), ..Default::default() }),
        update_mask: None,
    };
    assert_eq!(fields(update(nameless)), ["task.id"]);
}

#[test]
fn fields_outside_the_mask_are_not_looked_at() {
    let legacy = v1::Task {
        title: "x".repeat(500),
        description: "y".repeat(20_000),
        user_id: "?".to_owned(),
        status: 3,
        ..Default::default()
    };
    let (_, status, _) = update(change(legacy.clone(), &["status"])).unwrap();
    assert_eq!(status, TaskChange { status: Some(TaskStatus::Completed), ..Default::default() });
    assert_eq!(fields(update(change(legacy, &[]))), ["task.description", "task.title"]);
}

#[test]
fn every_bad_field_of_a_list_is_named() {
    let request = v1::ListTasksRequest {
        page_size: -1,
        order_by: "colour".to_owned(),
        statuses: vec![1, 9, 0],
        title_contains: "\0".to_owned(),
        due_before: Some(Timestamp { seconds: 0, nanos: -1 }),
        user_id: "me".to_owned(),
        ..Default::default()
    };
    let mut named = fields(list(&member(), &tokens(), &request));
    named.sort();
    assert_eq!(
        named,
        ["due_before", "order_by", "page_size", "statuses[1]", "statuses[2]", "title_contains", "user_id"]
    );
}

#[test]
fn a_list_reaches_what_the_caller_may_see() {
    let of = |caller: Caller, user_id: &str| {
        let request = v1::ListTasksRequest { user_id: user_id.to_owned(), ..Default::default() };
        list(&caller, &tokens(), &request).map(|page| page.query.filter.scope)
    };
    let own = member().user_id;
    assert_eq!(of(member(), "").unwrap(), Scope::Of(own));
    assert_eq!(of(member(), &own.to_string()).unwrap(), Scope::Of(own));
    assert_eq!(told(of(member(), ID)), (tonic::Code::PermissionDenied, vec![]));
    assert_eq!(of(administrator(), "").unwrap(), Scope::All);
    assert_eq!(of(administrator(), &UserId::NOBODY.to_string()).unwrap(), Scope::Of(UserId::NOBODY));
}

#[test]
fn a_page_token_of_another_list_is_named() {
    let first = list(&member(), &tokens(), &v1::ListTasksRequest::default()).unwrap();
    let cursor = crate::domain::list::Cursor {
        key: crate::domain::list::CursorKey::Time(DateTime::UNIX_EPOCH),
        id: TaskId::new(),
    };
    let page_token = tokens().seal(member().user_id, &first.query, &cursor);
    let same = v1::ListTasksRequest { page_token: page_token.clone(), page_size: 7, ..Default::default() };
    assert_eq!(list(&member(), &tokens(), &same).unwrap().cursor, Some(cursor));
    let other = v1::ListTasksRequest { order_by: "title".to_owned(), ..same.clone() };
    assert_eq!(fields(list(&member(), &tokens(), &other)), ["page_token"]);
    assert_eq!(fields(list(&administrator(), &tokens(), &same)), ["page_token"]);
}

#[test]
fn bounds_between_microseconds_are_rounded_up() {
    let at = |nanos| bound(Some(&Timestamp { seconds: 1, nanos })).unwrap().unwrap().timestamp_subsec_nanos();
    assert_eq!((at(1_000), at(1_001), at(1_999)), (1_000, 2_000, 2_000));
    assert_eq!(bound(None), Ok(None));
}

#[test]
fn a_watch_begins_where_it_is_asked_to() {
    let (tokens, member) = (tokens(), member());
    let (now, scope) = (crate::domain::time::now(), member.read_scope());
    let position = crate::domain::position::Position::from_snapshot("10:20:10,14").unwrap();
    let token = |age: TimeDelta| resume_token::seal(&tokens, member.user_id, scope, &position, now - age);
    let request = |snapshot, resume_token: &str| v1::WatchTasksRequest {
        snapshot,
        resume_token: resume_token.to_owned(),
        ..Default::default()
    };
    let begin = |snapshot, token: &str| watch(&member, &tokens, &request(snapshot, token), now).map(|(_, begin)| begin);
    assert_eq!(begin(false, "").ok().flatten(), None, "from now on");
    assert_eq!(begin(true, "").ok().flatten(), Some(Begin::Snapshot));
    let young = token(TimeDelta::minutes(59));
    let current_at = now - TimeDelta::minutes(59);
    let behind = |or_snapshot| Some(Begin::Behind { position: position.clone(), current_at, or_snapshot });
    assert_eq!(begin(false, &young).ok().flatten(), behind(false));
    assert_eq!(begin(true, &young).ok().flatten(), behind(true), "no snapshot where none is needed");
    // Too old: a snapshot if that is wanted, otherwise an error that says so.
    let old = token(TimeDelta::minutes(61));
    assert_eq!(begin(true, &old).ok().flatten(), Some(Begin::Snapshot));
    let refused = begin(false, &old).expect_err("the token is too old");
    assert_eq!(refused.reason(), TaskReason::ResumeTokenExpired);
    assert_eq!(fields(begin(true, "x")), ["resume_token"]);
    let all = v1::WatchTasksRequest { user_id: Uuid::from_u128(2).to_string(), ..Default::default() };
    assert_eq!(told(watch(&member, &tokens, &all, now)).0, tonic::Code::PermissionDenied);
}

#[test]
fn a_batch_has_between_one_part_and_a_thousand() {
    let now = crate::domain::time::now();
    for count in [0, 1001] {
        assert_eq!(fields(batch_create(&member(), &vec![new("t"); count], now)), ["requests"]);
        assert_eq!(fields(batch_update(vec![v1::UpdateTaskRequest::default(); count])), ["requests"]);
    }
    assert_eq!(batch_create(&member(), &vec![new("t"); 1000], now).ok().map(|tasks| tasks.len()), Some(1000));
    let bad = [new("t"), v1::CreateTaskRequest { request_id: "x".to_owned(), ..new("") }];
    assert_eq!(fields(batch_create(&member(), &bad, now)), ["requests[1].request_id", "requests[1].title"]);
    assert_eq!(fields(batch_update(vec![v1::UpdateTaskRequest::default()])), ["requests[0].task"]);
}
