//! One task through its RPCs: created, read, changed, deleted; what is refused, and which field the refusal names.

mod task_support;

use std::collections::BTreeSet;

use proto::task::v1::{
    CreateTaskRequest, DeleteTaskRequest, GetTaskRequest, ListTasksRequest, Task, TaskStatus, UpdateTaskRequest,
};
use task_support::{at, create, titled, update};
use tests::{Pair, assert_refused};
use tonic::Code;

const MISSING: &str = "0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6c01";

#[tokio::test]
async fn a_task_lives_from_creation_to_deletion() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);

    let request = CreateTaskRequest {
        title: "  Write the report 🦀 ".to_owned(),
        description: "1. collect\n\t2. write".to_owned(),
        due_date: at(4_102_444_800, 123_456_789),
        ..Default::default()
    };
    let made = create(&mut tasks, request).await;
    assert_eq!((made.title.as_str(), made.description.as_str()), ("Write the report 🦀", "1. collect\n\t2. write"));
    assert_eq!((made.user_id.as_str(), made.status()), (alice.id(), TaskStatus::Todo));
    // PostgreSQL keeps microseconds: the answer already shows what is stored.
    assert_eq!(made.due_date, at(4_102_444_800, 123_456_000));
    assert_eq!(made.created_at, made.updated_at);
    assert_eq!(made.created_at.unwrap().nanos % 1_000, 0);
    assert!(!made.etag.is_empty());

    let read = tasks.get_task(GetTaskRequest { id: made.id.to_uppercase() }).await.unwrap().into_inner().task.unwrap();
    assert_eq!(read, made);

    let change = Task { id: made.id.clone(), title: "Report".to_owned(), ..Default::default() };
    let changed = update(&mut tasks, change, &["title"]).await.unwrap();
    assert_eq!(
        (changed.title.as_str(), &changed.description, changed.due_date),
        ("Report", &made.description, made.due_date)
    );
    assert_ne!(changed.etag, made.etag);
    let moment = |task: &Task| task.updated_at.map(|time| (time.seconds, time.nanos)).unwrap();
    assert!(moment(&changed) > moment(&made));

    tasks.delete_task(DeleteTaskRequest { id: made.id.clone(), etag: changed.etag }).await.unwrap();
    let gone = || DeleteTaskRequest { id: made.id.clone(), etag: String::new() };
    assert_refused(tasks.delete_task(gone()).await, Code::NotFound, "TASK_NOT_FOUND");
    assert_refused(tasks.get_task(GetTaskRequest { id: made.id.clone() }).await, Code::NotFound, "TASK_NOT_FOUND");
    let change = Task { id: made.id.clone(), title: "again".to_owned(), ..Default::default() };
    assert_refused(update(&mut tasks, change, &["title"]).await, Code::NotFound, "TASK_NOT_FOUND");
    assert!(tasks.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner().tasks.is_empty());
    // The row stays until the purge, with its text.
    let rows = pair.task_database.as_ref().unwrap().client().await;
    let row = rows.query_one("SELECT title, deleted_at IS NOT NULL, version FROM tasks", &[]).await.unwrap();
    assert_eq!((row.get::<_, String>(0), row.get::<_, bool>(1), row.get::<_, i64>(2)), ("Report".to_owned(), true, 3));
}

#[tokio::test]
async fn bad_input_names_its_field() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);

    let bad = [
        (titled(""), "title"),
        (titled(" \u{3000}\t "), "title"),
        (titled(&"x".repeat(201)), "title"),
        (titled("a\nb"), "title"),
        (titled("a\0b"), "title"),
        (CreateTaskRequest { description: "ä".repeat(10_001), ..titled("t") }, "description"),
        (CreateTaskRequest { description: "a\0b".to_owned(), ..titled("t") }, "description"),
        (CreateTaskRequest { status: 5, ..titled("t") }, "status"),
        (CreateTaskRequest { status: -1, ..titled("t") }, "status"),
        (CreateTaskRequest { due_date: at(253_402_300_800, 0), ..titled("t") }, "due_date"),
        (CreateTaskRequest { due_date: at(i64::MIN, 0), ..titled("t") }, "due_date"),
        (CreateTaskRequest { due_date: at(0, -1), ..titled("t") }, "due_date"),
        (CreateTaskRequest { request_id: "again".to_owned(), ..titled("t") }, "request_id"),
        (CreateTaskRequest { user_id: "me".to_owned(), ..titled("t") }, "user_id"),
    ];
    for (request, field) in bad {
        let refusal = assert_refused(tasks.create_task(request).await, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!((refusal.fields, refusal.domain.as_str()), (vec![field.to_owned()], "task.v1"));
    }
    for id in ["", "1", &MISSING[1..], "'; DROP TABLE tasks; --"] {
        let refusal = assert_refused(
            tasks.get_task(GetTaskRequest { id: id.to_owned() }).await,
            Code::InvalidArgument,
            "VALIDATION_FAILED",
        );
        assert_eq!(refusal.fields, ["id"]);
        let deletion = DeleteTaskRequest { id: id.to_owned(), ..Default::default() };
        let refusal = assert_refused(tasks.delete_task(deletion).await, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(refusal.fields, ["id"]);
    }
    assert_refused(tasks.get_task(GetTaskRequest { id: MISSING.to_owned() }).await, Code::NotFound, "TASK_NOT_FOUND");

    let widest = CreateTaskRequest {
        title: "ß".repeat(200),
        description: "🦀".repeat(10_000),
        due_date: at(-62_135_596_800, 0),
        ..Default::default()
    };
    let made = create(&mut tasks, widest.clone()).await;
    assert_eq!((made.title, made.description, made.due_date), (widest.title, widest.description, widest.due_date));
    let last =
        create(&mut tasks, CreateTaskRequest { due_date: at(253_402_300_799, 999_999_999), ..titled("t") }).await;
    assert_eq!(last.due_date, at(253_402_300_799, 999_999_000));
    assert_eq!(tasks.get_task(GetTaskRequest { id: last.id.clone() }).await.unwrap().into_inner().task, Some(last));
}

#[tokio::test]
async fn a_mask_decides_what_changes() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let full = CreateTaskRequest { description: "d".to_owned(), due_date: at(1_000, 0), ..titled("t") };
    let made = create(&mut tasks, full).await;
    let with = |task: Task| Task { id: made.id.clone(), ..task };

    // No mask: what is set changes, the rest stays.
    let changed = update(&mut tasks, with(Task { status: TaskStatus::Completed.into(), ..Default::default() }), &[])
        .await
        .unwrap();
    assert_eq!(
        (changed.status(), changed.title.as_str(), changed.description.as_str()),
        (TaskStatus::Completed, "t", "d")
    );
    assert_eq!(changed.due_date, at(1_000, 0));
    // A field outside the mask is not even looked at.
    let unmasked = Task {
        title: "\0".repeat(300),
        status: 99,
        due_date: at(-1, 5_000),
        user_id: "?".to_owned(),
        ..Default::default()
    };
    let changed = update(&mut tasks, with(unmasked), &["due_date"]).await.unwrap();
    assert_eq!(
        (changed.title.as_str(), changed.status(), changed.due_date),
        ("t", TaskStatus::Completed, at(-1, 5_000))
    );
    // Named and empty: cleared.
    let changed = update(&mut tasks, with(Task::default()), &["due_date", "description"]).await.unwrap();
    assert_eq!((changed.due_date, changed.description.as_str(), changed.title.as_str()), (None, "", "t"));
    let all = Task {
        title: "new".to_owned(),
        status: TaskStatus::Cancelled.into(),
        due_date: at(7, 0),
        ..Default::default()
    };
    let changed = update(&mut tasks, with(all), &["*"]).await.unwrap();
    assert_eq!((changed.title.as_str(), changed.status(), changed.due_date), ("new", TaskStatus::Cancelled, at(7, 0)));

    for path in ["id", "user_id", "created_at", "updated_at", "etag", "colour", "task.title", "title.x", ""] {
        let answer =
            update(&mut tasks, with(Task { title: "x".to_owned(), ..Default::default() }), &["title", path]).await;
        let refusal = assert_refused(answer, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(refusal.fields, ["update_mask.paths[1]"], "{path}");
    }
    for (task, mask, field) in [
        (Task::default(), vec!["title"], "task.title"),
        (Task::default(), vec!["status"], "task.status"),
        (Task { status: 9, ..Default::default() }, vec!["status"], "task.status"),
        (Task { description: "x".repeat(10_001), ..Default::default() }, vec![], "task.description"),
        (Task { due_date: at(0, i32::MAX), ..Default::default() }, vec!["due_date"], "task.due_date"),
        (Task::default(), vec![], "update_mask"),
    ] {
        let refusal =
            assert_refused(update(&mut tasks, with(task), &mask).await, Code::InvalidArgument, "VALIDATION_FAILED");
        assert_eq!(refusal.fields, [field]);
    }
    let nothing = tasks.update_task(UpdateTaskRequest::default()).await;
    assert_eq!(assert_refused(nothing, Code::InvalidArgument, "VALIDATION_FAILED").fields, ["task"]);
    let unchanged = tasks.get_task(GetTaskRequest { id: made.id.clone() }).await.unwrap().into_inner().task.unwrap();
    assert_eq!(unchanged, changed);
}

#[tokio::test]
async fn a_stale_etag_changes_nothing() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let made = create(&mut tasks, titled("t")).await;
    let with = |title: &str, etag: &str| Task {
        id: made.id.clone(),
        title: title.to_owned(),
        etag: etag.to_owned(),
        ..Default::default()
    };

    let changed = update(&mut tasks, with("1", &made.etag), &["title"]).await.unwrap();
    for stale in [made.etag.as_str(), "never handed out", "AAAA"] {
        assert_refused(update(&mut tasks, with("2", stale), &["title"]).await, Code::Aborted, "ETAG_MISMATCH");
        let deletion = DeleteTaskRequest { id: made.id.clone(), etag: stale.to_owned() };
        assert_refused(tasks.delete_task(deletion).await, Code::Aborted, "ETAG_MISMATCH");
    }
    let missing = Task { id: MISSING.to_owned(), ..with("2", "never handed out") };
    assert_refused(update(&mut tasks, missing, &["title"]).await, Code::NotFound, "TASK_NOT_FOUND");

    // Of many who saw the same version one wins.
    let racing = (0..16).map(|index| {
        let (mut tasks, task) = (tasks.clone(), with(&format!("racer {index}"), &changed.etag));
        async move { update(&mut tasks, task, &["title"]).await }
    });
    let answers = futures_util::future::join_all(racing).await;
    assert_eq!(answers.iter().filter(|answer| answer.is_ok()).count(), 1);
    for answer in answers.into_iter().filter(Result::is_err) {
        assert_refused(answer, Code::Aborted, "ETAG_MISMATCH");
    }
    // Without an etag the last one wins, and each counts.
    let racing = (0..16).map(|index| {
        let (mut tasks, task) = (tasks.clone(), with(&format!("racer {index}"), ""));
        async move { update(&mut tasks, task, &["title"]).await.unwrap().etag }
    });
    let etags: BTreeSet<_> = futures_util::future::join_all(racing).await.into_iter().collect();
    assert_eq!(etags.len(), 16);
}

#[tokio::test]
async fn a_request_id_makes_one_task_also_in_a_race() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let mut tasks = pair.tasks(&alice);
    let request = |title: &str| CreateTaskRequest { request_id: MISSING.to_owned(), ..titled(title) };

    let racing = (0..32).map(|index| {
        let (mut tasks, request) = (tasks.clone(), request(&format!("racer {index}")));
        async move { create(&mut tasks, request).await }
    });
    let made: BTreeSet<_> =
        futures_util::future::join_all(racing).await.into_iter().map(|task| (task.id, task.title)).collect();
    assert_eq!(made.len(), 1, "{made:?}");
    let listed = tasks.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner().tasks;
    assert_eq!(listed.len(), 1);

    // Later, in another spelling of the id, and after the task was changed: the first task, as it is now.
    let change = Task { id: listed[0].id.clone(), title: "changed".to_owned(), ..Default::default() };
    let changed = update(&mut tasks, change, &["title"]).await.unwrap();
    let again = CreateTaskRequest { request_id: MISSING.to_uppercase(), ..titled("once more") };
    assert_eq!(create(&mut tasks, again).await, changed);
    // A request id is its caller's own.
    let bobs = create(&mut pair.tasks(&bob), request("bob's")).await;
    assert_eq!((bobs.title.as_str(), bobs.user_id.as_str()), ("bob's", bob.id()));
    // A refused request takes no request id.
    let other = CreateTaskRequest { request_id: bobs.id.clone(), ..titled("") };
    assert_refused(tasks.create_task(other.clone()).await, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_ne!(create(&mut tasks, CreateTaskRequest { title: "t".to_owned(), ..other }).await.id, changed.id);

    // After a day the id is free again.
    let database = pair.task_database.as_ref().unwrap().client().await;
    database
        .execute("UPDATE task_requests SET created_at = created_at - interval '23 hours 59 minutes'", &[])
        .await
        .unwrap();
    assert_eq!(create(&mut tasks, request("too early")).await.id, changed.id);
    database.execute("UPDATE task_requests SET created_at = created_at - interval '2 minutes'", &[]).await.unwrap();
    let next_day = create(&mut tasks, request("next day")).await;
    assert_eq!(next_day.title, "next day");
    assert_eq!(create(&mut tasks, request("again")).await, next_day);
}

#[tokio::test]
async fn a_row_from_before_the_limits_can_change_what_does_not_break_them() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let made = create(&mut tasks, titled("t")).await;
    let database = pair.task_database.as_ref().unwrap().client().await;
    let long = "UPDATE tasks SET limits_waived = true, title = repeat('T', 500), description = repeat('D', 20000)";
    database.execute(long, &[]).await.unwrap();
    let waived = async || database.query_one("SELECT limits_waived FROM tasks", &[]).await.unwrap().get::<_, bool>(0);

    let legacy = tasks.get_task(GetTaskRequest { id: made.id.clone() }).await.unwrap().into_inner().task.unwrap();
    assert_eq!((legacy.title.len(), legacy.description.len()), (500, 20_000));
    // Sent back whole, as a client does that read it; only the mask counts.
    let done = Task { status: TaskStatus::Completed.into(), ..legacy };
    let changed = update(&mut tasks, done, &["status"]).await.unwrap();
    assert_eq!((changed.status(), changed.title.len()), (TaskStatus::Completed, 500));
    assert!(waived().await);
    let shorter = Task { id: made.id.clone(), title: "short".to_owned(), ..Default::default() };
    update(&mut tasks, shorter, &["title"]).await.unwrap();
    assert!(waived().await, "the description is still too long");
    update(&mut tasks, Task { id: made.id.clone(), ..Default::default() }, &["description"]).await.unwrap();
    assert!(!waived().await);
    assert!(
        database.execute("UPDATE tasks SET title = repeat('T', 201)", &[]).await.is_err(),
        "the database holds the limits again"
    );
}
