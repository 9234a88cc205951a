//! The rules of the .proto files, seen from the outside.

use prost_types::{Duration, Timestamp};

use super::{MAX_VIOLATIONS, Validate};
use crate::{auth::v1 as auth, task::v1 as task};

const ID: &str = "0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6c01";

/// "field: description" of each violation.
fn violations(message: &impl Validate) -> Vec<String> {
    let found = message.validate().err().unwrap_or_default();
    found.into_iter().map(|violation| format!("{}: {}", violation.field, violation.description)).collect()
}

/// The fields only.
fn fields(message: &impl Validate) -> Vec<String> {
    message.validate().err().unwrap_or_default().into_iter().map(|violation| violation.field).collect()
}

fn task(id: &str) -> task::Task {
    task::Task { id: id.to_owned(), ..Default::default() }
}

#[test]
fn all_violations_come_at_once_and_none_echoes_the_value() {
    let request = auth::SignUpRequest { email: "x".into(), username: "u".repeat(51), password: "seven77".into() };
    assert_eq!(
        violations(&request),
        [
            "email: expected at least 3 characters",
            "username: expected at most 50 characters",
            "password: expected at least 8 characters",
        ]
    );
}

#[test]
fn passwords_count_characters_below_and_bytes_above() {
    let with = |password: String| auth::SignUpRequest { email: "a@b".into(), username: "ab".into(), password };
    assert!(with("ä".repeat(8)).validate().is_ok());
    assert_eq!(fields(&with("ä".repeat(7))), ["password"]);
    assert!(with("x".repeat(1024)).validate().is_ok());
    assert_eq!(violations(&with("ä".repeat(513))), ["password: expected at most 1024 bytes in UTF-8"]);
}

#[test]
fn credentials_have_no_rules_so_that_every_refusal_looks_alike() {
    for text in ["", "\0", &"x".repeat(60_000)] {
        assert!(auth::SignInRequest { login: text.into(), password: text.into() }.validate().is_ok());
        assert!(auth::RefreshTokenRequest { refresh_token: text.into() }.validate().is_ok());
        assert!(auth::SignOutRequest { refresh_token: text.into() }.validate().is_ok());
        assert!(auth::RequestPasswordResetRequest { email: text.into() }.validate().is_ok());
        assert!(
            auth::IssueServiceTokenRequest { client_id: text.into(), client_secret: text.into() }.validate().is_ok()
        );
    }
}

#[test]
fn ids_are_uuids() {
    for good in [ID, &ID.to_uppercase(), "00000000-0000-0000-0000-000000000000"] {
        assert!(task::GetTaskRequest { id: good.into() }.validate().is_ok(), "{good}");
    }
    for bad in ["", "1", "0b5d0c1e3f574f0a9a550a4f3d8f6c01", &ID[1..], &ID.replace('0', "g"), &format!("{ID} ")] {
        assert_eq!(fields(&task::GetTaskRequest { id: bad.into() }), ["id"], "{bad}");
    }
}

#[test]
fn optional_ids_may_be_empty() {
    assert!(task::CreateTaskRequest::default().validate().is_ok());
    let request = task::CreateTaskRequest { request_id: "x".into(), user_id: "y".into(), ..Default::default() };
    assert_eq!(fields(&request), ["request_id", "user_id"]);
}

#[test]
fn unknown_enum_numbers_are_refused() {
    let request = task::CreateTaskRequest { status: 5, ..Default::default() };
    assert_eq!(
        violations(&request),
        [
            "status: expected one of TASK_STATUS_UNSPECIFIED, TASK_STATUS_TODO, TASK_STATUS_IN_PROGRESS, TASK_STATUS_COMPLETED, \
             TASK_STATUS_CANCELLED"
        ]
    );
    let request = task::ListTasksRequest { statuses: vec![1, 0, 4, -1], ..Default::default() };
    assert_eq!(fields(&request), ["statuses[1]", "statuses[3]"]);
}

#[test]
fn page_sizes_are_not_negative_and_have_no_upper_bound() {
    assert!(task::ListTasksRequest { page_size: i32::MAX, ..Default::default() }.validate().is_ok());
    let request = task::ListTasksRequest { page_size: -1, ..Default::default() };
    assert_eq!(violations(&request), ["page_size: expected 0 or more"]);
}

#[test]
fn descriptions_count_characters_and_hold_no_nul() {
    let with = |description: String| task::CreateTaskRequest { description, ..Default::default() };
    assert!(with("ä".repeat(10_000)).validate().is_ok());
    assert_eq!(fields(&with("ä".repeat(10_001))), ["description"]);
    assert_eq!(violations(&with("a\0b".into())), ["description: expected no \\0 in it"]);
}

#[test]
fn times_are_in_the_range_of_their_type() {
    let with =
        |seconds, nanos| task::CreateTaskRequest { due_date: Some(Timestamp { seconds, nanos }), ..Default::default() };
    assert!(with(-62_135_596_800, 0).validate().is_ok());
    assert!(with(253_402_300_799, 999_999_999).validate().is_ok());
    for (seconds, nanos) in [(-62_135_596_801, 0), (253_402_300_800, 0), (0, -1), (0, 1_000_000_000), (i64::MAX, 0)] {
        assert_eq!(fields(&with(seconds, nanos)), ["due_date"], "{seconds} {nanos}");
    }
}

#[test]
fn durations_have_bounds() {
    let with = |seconds, nanos| auth::RotateSecretRequest { id: ID.into(), overlap: Some(Duration { seconds, nanos }) };
    assert!(auth::RotateSecretRequest { id: ID.into(), overlap: None }.validate().is_ok());
    assert!(with(0, 0).validate().is_ok());
    assert!(with(2_592_000, 0).validate().is_ok());
    for (seconds, nanos) in [(-1, 0), (0, -1), (2_592_000, 1), (1, -1), (0, i32::MIN)] {
        assert_eq!(
            violations(&with(seconds, nanos)),
            ["overlap: expected a duration of 0 to 2592000 seconds"],
            "{seconds} {nanos}"
        );
    }
}

#[test]
fn nested_messages_are_checked_with_their_path() {
    assert_eq!(violations(&task::UpdateTaskRequest::default()), ["task: expected a value; it is missing"]);
    let request = task::UpdateTaskRequest { task: Some(task("x")), update_mask: None };
    assert_eq!(fields(&request), ["task.id"]);

    let good = task::UpdateTaskRequest { task: Some(task(ID)), update_mask: None };
    let batch = task::BatchUpdateTasksRequest { requests: vec![good.clone(), good, request] };
    assert_eq!(fields(&batch), ["requests[2].task.id"]);

    let event = task::watch_tasks_response::Event::Upserted(task("x"));
    assert_eq!(fields(&task::WatchTasksResponse { event: Some(event), ..Default::default() }), ["upserted.id"]);
}

#[test]
fn batches_hold_one_to_a_thousand() {
    let with = |count: usize| task::BatchCreateTasksRequest { requests: vec![Default::default(); count] };
    assert_eq!(violations(&with(0)), ["requests: expected at least 1 item"]);
    assert!(with(1000).validate().is_ok());
    assert_eq!(violations(&with(1001)), ["requests: expected at most 1000 items"]);
    let ids = task::BatchGetTasksRequest { ids: vec![ID.into(), "x".into()] };
    assert_eq!(fields(&ids), ["ids[1]"]);
}

#[test]
fn violations_fit_into_a_header() {
    let ids = task::BatchGetTasksRequest { ids: vec![String::new(); 1000] };
    let found = ids.validate().unwrap_err();
    assert_eq!(found.len(), MAX_VIOLATIONS);
    let bytes: usize = found.iter().map(|violation| violation.field.len() + violation.description.len() + 8).sum();
    assert!(bytes * 4 / 3 < 12 * 1024, "{bytes} bytes in base64 do not fit next to the other details");
}

#[test]
fn debug_output_shows_no_secret() {
    let request =
        auth::SignUpRequest { email: "bob@example.com".into(), username: "bobby".into(), password: "hunter22".into() };
    assert_eq!(
        format!("{request:?}"),
        r#"SignUpRequest { email: "[redacted]", username: "[redacted]", password: "[redacted]" }"#
    );
    let tokens = auth::Tokens { access_token: "eyJ".into(), token_type: "Bearer".into(), ..Default::default() };
    let shown = format!("{tokens:?}");
    assert!(!shown.contains("eyJ") && shown.contains("Bearer"), "{shown}");
}
