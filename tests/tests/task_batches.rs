//! Several tasks at once, and how many there are: all or none, in order, an error says which of them it is about.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod task_support;

use std::collections::BTreeSet;

use proto::task::v1::{
    BatchCreateTasksRequest, BatchDeleteTasksRequest, BatchGetTasksRequest, BatchUpdateTasksRequest, CreateTaskRequest,
    DeleteTaskRequest, GetTaskRequest, GetTaskStatsRequest, ListTasksRequest, Task, TaskStats, TaskStatus,
    UpdateTaskRequest,
};
use task_support::{Tasks, at, create, titled, update};
use tests::{Pair, Refusal, assert_refused};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

const MISSING: &str = "0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6c01";

async fn batch_create(tasks: &mut Tasks, requests: Vec<CreateTaskRequest>) -> Result<Vec<Task>, Status> {
    Ok(tasks.batch_create_tasks(BatchCreateTasksRequest { requests }).await?.into_inner().tasks)
}

async fn batch_get(tasks: &mut Tasks, ids: Vec<String>) -> Result<Vec<Task>, Status> {
    Ok(tasks.batch_get_tasks(BatchGetTasksRequest { ids }).await?.into_inner().tasks)
}

async fn batch_update(tasks: &mut Tasks, changed: Vec<Task>) -> Result<Vec<Task>, Status> {
    let requests = changed.into_iter().map(|task| UpdateTaskRequest { task: Some(task), update_mask: None }).collect();
    Ok(tasks.batch_update_tasks(BatchUpdateTasksRequest { requests }).await?.into_inner().tasks)
}

async fn batch_delete(tasks: &mut Tasks, ids: Vec<String>) -> Result<(), Status> {
    tasks.batch_delete_tasks(BatchDeleteTasksRequest { ids }).await.map(|_| ())
}

async fn count(tasks: &mut Tasks) -> i64 {
    stats(tasks, GetTaskStatsRequest::default()).await.total
}

async fn stats(tasks: &mut Tasks, request: GetTaskStatsRequest) -> TaskStats {
    tasks.get_task_stats(request).await.unwrap().into_inner().stats.unwrap()
}

/// A refusal that names the part: its place, and its fields.
#[track_caller]
fn assert_part_refused<T: std::fmt::Debug>(
    answer: Result<T, Status>,
    (code, reason): (Code, &str),
    index: &str,
    fields: &[&str],
) {
    let status = answer.unwrap_err();
    let details = status.get_error_details();
    let named = details.error_info().and_then(|info| info.metadata.get("index").cloned());
    assert_eq!(named.as_deref(), Some(index), "{status:?}");
    let refusal = Refusal::of(&status);
    assert_eq!((refusal.code, refusal.reason.as_str()), (code, reason));
    assert_eq!(refusal.fields, fields);
}

const INVALID: (Code, &str) = (Code::InvalidArgument, "VALIDATION_FAILED");
const NOT_FOUND: (Code, &str) = (Code::NotFound, "TASK_NOT_FOUND");

#[tokio::test]
async fn a_thousand_tasks_are_made_read_changed_and_deleted_in_order() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let requests = (0..1000).map(|n| titled(&format!("task {n}"))).collect();
    let made = batch_create(&mut tasks, requests).await.unwrap();
    let titles = |tasks: &[Task]| tasks.iter().map(|task| task.title.clone()).collect::<Vec<_>>();
    assert_eq!(titles(&made), (0..1000).map(|n| format!("task {n}")).collect::<Vec<_>>());
    let ids: Vec<_> = made.iter().rev().map(|task| task.id.clone()).collect();
    let mut read = batch_get(&mut tasks, ids.clone()).await.unwrap();
    read.reverse();
    assert_eq!(read, made);
    let changes = made.iter().rev().map(|task| Task {
        id: task.id.clone(),
        title: format!("{} again", task.title),
        etag: task.etag.clone(),
        ..Default::default()
    });
    let changed = batch_update(&mut tasks, changes.collect()).await.unwrap();
    assert_eq!(titles(&changed), (0..1000).rev().map(|n| format!("task {n} again")).collect::<Vec<_>>());
    assert!(
        changed.iter().zip(made.iter().rev()).all(|(after, before)| after.id == before.id && after.etag != before.etag)
    );
    assert_eq!(count(&mut tasks).await, 1000);
    batch_delete(&mut tasks, ids).await.unwrap();
    assert_eq!(count(&mut tasks).await, 0);
    assert!(tasks.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner().tasks.is_empty());
}

#[tokio::test]
async fn one_bad_part_fails_the_whole_batch_and_is_named() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let (mut tasks, mut bobs) = (pair.tasks(&alice), pair.tasks(&bob));
    let (one, other) = (create(&mut tasks, titled("one")).await, create(&mut tasks, titled("other")).await);
    let foreign = create(&mut bobs, titled("bob's")).await;

    let bad = vec![titled("good"), titled(""), titled("good")];
    assert_part_refused(batch_create(&mut tasks, bad).await, INVALID, "1", &["requests[1].title"]);
    let bad = vec![titled("good"), CreateTaskRequest { status: 9, ..titled("\u{7}") }];
    assert_part_refused(
        batch_create(&mut tasks, bad).await,
        INVALID,
        "1",
        &["requests[1].status", "requests[1].title"],
    );
    let gift = vec![titled("good"), CreateTaskRequest { user_id: bob.id().to_owned(), ..titled("gift") }];
    let denied = (Code::PermissionDenied, "PERMISSION_MISSING");
    assert_part_refused(batch_create(&mut tasks, gift).await, denied, "1", &[]);
    assert_eq!(count(&mut tasks).await, 2, "none of a batch that failed is made");

    for missing in [MISSING, &foreign.id] {
        let ids = vec![one.id.clone(), other.id.clone(), missing.to_owned()];
        assert_part_refused(batch_get(&mut tasks, ids.clone()).await, NOT_FOUND, "2", &[]);
        assert_part_refused(batch_delete(&mut tasks, ids).await, NOT_FOUND, "2", &[]);
        let change = |id: &str| Task { id: id.to_owned(), title: "changed".to_owned(), ..Default::default() };
        let changes = vec![change(&one.id), change(missing), change(&other.id)];
        assert_part_refused(batch_update(&mut tasks, changes).await, NOT_FOUND, "1", &[]);
    }
    let stale = vec![
        Task { title: "changed".to_owned(), ..one.clone() },
        Task { title: "changed".to_owned(), etag: "stale".to_owned(), ..other.clone() },
    ];
    assert_part_refused(batch_update(&mut tasks, stale).await, (Code::Aborted, "ETAG_MISMATCH"), "1", &[]);
    let twice = vec![one.clone(), one.clone()];
    assert_part_refused(batch_update(&mut tasks, twice).await, INVALID, "1", &["requests[1].task.id"]);
    let bad = vec![one.clone(), Task { title: "x".repeat(201), ..other.clone() }];
    assert_part_refused(batch_update(&mut tasks, bad).await, INVALID, "1", &["requests[1].task.title"]);
    let untouched = batch_get(&mut tasks, vec![one.id.clone(), other.id.clone()]).await.unwrap();
    assert_eq!(untouched, [one.clone(), other.clone()]);

    // What is wrong with the whole has no place.
    let refusal = assert_refused(batch_create(&mut tasks, vec![]).await, INVALID.0, INVALID.1);
    assert_eq!(refusal.fields, ["requests"]);
    let many = (0..1001).map(|_| titled("t")).collect();
    assert_eq!(assert_refused(batch_create(&mut tasks, many).await, INVALID.0, INVALID.1).fields, ["requests"]);
    assert_eq!(assert_refused(batch_update(&mut tasks, vec![]).await, INVALID.0, INVALID.1).fields, ["requests"]);
    assert_eq!(assert_refused(batch_get(&mut tasks, vec![]).await, INVALID.0, INVALID.1).fields, ["ids"]);
    let many = vec![one.id.clone(); 1001];
    assert_eq!(assert_refused(batch_delete(&mut tasks, many).await, INVALID.0, INVALID.1).fields, ["ids"]);
    let bad = vec![one.id.clone(), "x".to_owned()];
    assert_eq!(assert_refused(batch_get(&mut tasks, bad).await, INVALID.0, INVALID.1).fields, ["ids[1]"]);

    // Attack: more ids than anybody looks at, none of which is one.
    let begun = std::time::Instant::now();
    let refusal = assert_refused(batch_get(&mut tasks, vec![String::new(); 500_000]).await, INVALID.0, INVALID.1);
    assert!(refusal.fields.contains(&"ids".to_owned()), "{:?}", refusal.fields);
    assert!(begun.elapsed() < std::time::Duration::from_secs(10), "{:?}", begun.elapsed());

    // Twice is answered twice, and deleted once.
    let twice = vec![one.id.clone(), one.id.clone()];
    assert_eq!(batch_get(&mut tasks, twice.clone()).await.unwrap(), [one.clone(), one.clone()]);
    batch_delete(&mut tasks, twice).await.unwrap();
    assert_refused(tasks.get_task(GetTaskRequest { id: one.id }).await, Code::NotFound, "TASK_NOT_FOUND");
}

#[tokio::test]
async fn administrators_batch_over_owners_and_readers_are_told_what_is_missing() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let root = pair.administrator().await;
    let mut roots = pair.tasks(&root);
    let gifts = [&alice, &bob].map(|user| CreateTaskRequest { user_id: user.id().to_owned(), ..titled("gift") });
    let made = batch_create(&mut roots, gifts.to_vec()).await.unwrap();
    assert_eq!(made.iter().map(|task| task.user_id.as_str()).collect::<Vec<_>>(), [alice.id(), bob.id()]);
    let ids: Vec<_> = made.iter().map(|task| task.id.clone()).collect();
    let carol = pair.reader("carol").await;
    let mut carols = pair.tasks(&carol);
    assert_eq!(batch_get(&mut carols, ids.clone()).await.unwrap(), made);
    let denied = (Code::PermissionDenied, "PERMISSION_MISSING");
    assert_part_refused(batch_delete(&mut carols, ids.clone()).await, denied, "0", &[]);
    assert_part_refused(batch_update(&mut carols, made.clone()).await, denied, "0", &[]);
    assert_part_refused(batch_delete(&mut carols, vec![MISSING.to_owned()]).await, NOT_FOUND, "0", &[]);

    let changed = made.iter().map(|task| Task { title: "changed".to_owned(), ..task.clone() }).collect();
    let changed = batch_update(&mut roots, changed).await.unwrap();
    assert_eq!(changed.iter().map(|task| task.user_id.as_str()).collect::<Vec<_>>(), [alice.id(), bob.id()]);
    batch_delete(&mut roots, ids).await.unwrap();
    assert_eq!((count(&mut pair.tasks(&alice)).await, count(&mut pair.tasks(&bob)).await), (0, 0));
}

/// An administrator names a task by its id alone. Who waits for another who just gives it to another owner finds it there.
#[tokio::test]
async fn a_task_that_moves_meanwhile_is_found_with_its_new_owner() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let root = pair.administrator().await;
    let (mut alices, roots) = (pair.tasks(&alice), pair.tasks(&root));
    let rows = pair.task_database.as_ref().unwrap().client().await;
    for call in ["UpdateTask", "DeleteTask", "BatchUpdateTasks", "BatchDeleteTasks"] {
        let (moves, stays) = (create(&mut alices, titled("moves")).await, create(&mut alices, titled("stays")).await);
        let give = format!(
            "BEGIN; CREATE TEMP TABLE given ON COMMIT DROP AS SELECT * FROM tasks WHERE id = '{0}';
             DELETE FROM tasks WHERE id = '{0}'; UPDATE given SET user_id = '{1}'; INSERT INTO tasks SELECT * FROM given",
            moves.id,
            bob.id()
        );
        rows.batch_execute(&give).await.unwrap();
        let (id, mut roots) = (moves.id.clone(), roots.clone());
        let both = [moves.clone(), stays.clone()];
        let waiting = tokio::spawn(async move {
            let changed = both.map(|task| Task { id: task.id, title: "changed".to_owned(), ..Task::default() });
            let ids = changed.iter().map(|task| task.id.clone()).collect();
            match call {
                "UpdateTask" => update(&mut roots, changed[0].clone(), &["title"]).await.map(|task| task.user_id),
                "DeleteTask" => {
                    let request = DeleteTaskRequest { id, etag: String::new() };
                    roots.delete_task(request).await.map(|_| String::new())
                }
                "BatchUpdateTasks" => {
                    batch_update(&mut roots, changed.to_vec()).await.map(|tasks| tasks[0].user_id.clone())
                }
                _ => batch_delete(&mut roots, ids).await.map(|()| String::new()),
            }
        });
        let locks =
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
        while rows.query_one(locks, &[]).await.unwrap().get::<_, i64>(0) == 0 {
            assert!(!waiting.is_finished(), "{call} does not wait for whoever moves the task");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
        rows.batch_execute("COMMIT").await.unwrap();
        let owner = waiting.await.unwrap().unwrap_or_else(|status| panic!("{call}: {status:?}"));
        let state = format!("SELECT title, deleted_at IS NOT NULL, user_id::text FROM tasks WHERE id = '{}'", moves.id);
        let row = rows.query_one(&state, &[]).await.unwrap();
        let state: (String, bool, String) = (row.get(0), row.get(1), row.get(2));
        if call.contains("Delete") {
            assert_eq!(state, ("moves".to_owned(), true, bob.id().to_owned()), "{call}");
        } else {
            assert_eq!(state, ("changed".to_owned(), false, bob.id().to_owned()), "{call}");
            assert_eq!(owner, bob.id(), "{call}");
        }
    }
}

/// A lost answer is asked for again: the batch as a whole, with parts that were made before, or a part alone.
#[tokio::test]
async fn request_ids_hold_in_batches_in_races_and_across_restarts() {
    let mut pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let with = |n: u128| CreateTaskRequest {
        request_id: uuid::Uuid::from_u128(n + 1).to_string(),
        ..titled(&format!("task {n}"))
    };
    let mut tasks = pair.tasks(&alice);
    let first = batch_create(&mut tasks, (0..20).map(with).collect()).await.unwrap();
    assert_eq!(batch_create(&mut tasks, (0..20).map(with).collect()).await.unwrap(), first);
    assert_eq!(create(&mut tasks, with(7)).await, first[7]);
    let more = batch_create(&mut tasks, vec![with(3), with(20), with(20)]).await.unwrap();
    assert_eq!((&more[0], &more[1]), (&first[3], &more[2]));
    assert_eq!(count(&mut tasks).await, 21);

    // Overlapping batches at once, in different orders: nobody deadlocks, every id makes one task.
    let batches = (0..8_u128).map(|shift| {
        let mut tasks = tasks.clone();
        let ids: Vec<u128> = (0..50).map(|n| 100 + (n * 7 + shift * 13) % 50).collect();
        async move { batch_create(&mut tasks, ids.into_iter().map(with).collect()).await.unwrap() }
    });
    let made = futures_util::future::join_all(batches).await;
    let distinct: BTreeSet<_> = made.iter().flatten().map(|task| (task.title.clone(), task.id.clone())).collect();
    assert_eq!(distinct.len(), 50, "one task for each request id");
    assert_eq!(count(&mut tasks).await, 71);

    pair.restart_task(&[]).await;
    let mut tasks = pair.tasks(&alice);
    assert_eq!(batch_create(&mut tasks, (0..20).map(with).collect()).await.unwrap(), first);
    // Changed and deleted ones are answered as they are now.
    let changed =
        update(&mut tasks, Task { title: "changed".to_owned(), ..first[0].clone() }, &["title"]).await.unwrap();
    tasks.delete_task(DeleteTaskRequest { id: first[1].id.clone(), etag: String::new() }).await.unwrap();
    let again = batch_create(&mut tasks, vec![with(0), with(1)]).await.unwrap();
    assert_eq!((&again[0], &again[1].id), (&changed, &first[1].id));
    assert_eq!(count(&mut tasks).await, 70);
}

/// Batches that lock the same tasks in opposite orders wait in a row: none is lost, and no deadlock is left to the retry.
#[tokio::test]
async fn batches_that_cross_each_other_do_not_deadlock() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let made = batch_create(&mut tasks, (0..50).map(|n| titled(&format!("task {n}"))).collect()).await.unwrap();
    let ids: Vec<String> = made.iter().map(|task| task.id.clone()).collect();
    let rounds = (0..16).map(|round| {
        let mut tasks = tasks.clone();
        let mut ids = ids.clone();
        if round % 2 == 0 {
            ids.reverse();
        }
        async move {
            let change = |id: String| Task { id, status: TaskStatus::InProgress.into(), ..Default::default() };
            batch_update(&mut tasks, ids.into_iter().map(change).collect()).await.unwrap()
        }
    });
    futures_util::future::join_all(rounds).await;
    let database = pair.task_database.as_ref().unwrap().client().await;
    let versions = database.query("SELECT DISTINCT version FROM tasks", &[]).await.unwrap();
    assert_eq!(versions.iter().map(|row| row.get::<_, i64>(0)).collect::<Vec<_>>(), [17]);
    // The counters of a database are written when a session is idle.
    tokio::time::sleep(std::time::Duration::from_secs(2)).await;
    let deadlocks = "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()";
    assert_eq!(database.query_one(deadlocks, &[]).await.unwrap().get::<_, i64>(0), 0);
}

/// An answer that no client takes by default is refused, not sent.
#[tokio::test]
async fn tasks_that_fill_more_than_a_message_are_read_in_smaller_batches() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let long = CreateTaskRequest { description: "🦀".repeat(10_000), ..titled("long") };
    let made = create(&mut tasks, long.clone()).await;
    assert_eq!(batch_get(&mut tasks, vec![made.id.clone(); 100]).await.unwrap().len(), 100);
    let refusal = batch_get(&mut tasks, vec![made.id.clone(); 110]).await;
    assert_refused(refusal, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
    // The same bound holds for what comes in.
    let refusal = batch_create(&mut tasks, vec![long; 110]).await;
    assert_refused(refusal, Code::InvalidArgument, "MESSAGE_TOO_LARGE");
}

#[tokio::test]
async fn tasks_are_counted_by_status_past_due_and_completed_in_a_period() {
    let pair = Pair::start().await;
    let (alice, bob, root) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"), pair.administrator());
    let mut tasks = pair.tasks(&alice);
    assert_eq!(stats(&mut tasks, GetTaskStatsRequest::default()).await, TaskStats::default());
    let (past, future) = (at(1, 0), at(4_102_444_800, 0));
    let new = |status: TaskStatus, due_date| CreateTaskRequest { status: status.into(), due_date, ..titled("t") };
    let requests = vec![
        new(TaskStatus::Todo, None),
        new(TaskStatus::Todo, past),
        new(TaskStatus::Todo, future),
        new(TaskStatus::InProgress, past),
        new(TaskStatus::Completed, past),
        new(TaskStatus::Completed, None),
        new(TaskStatus::Cancelled, past),
    ];
    let made = batch_create(&mut tasks, requests).await.unwrap();
    create(&mut pair.tasks(&bob), new(TaskStatus::Todo, past)).await;
    let counted = stats(&mut tasks, GetTaskStatsRequest::default()).await;
    let expected =
        TaskStats { total: 7, todo: 3, in_progress: 1, completed: 2, cancelled: 1, overdue: 2, completed_in_period: 2 };
    assert_eq!(counted, expected);
    // Deleted ones are not counted; a status that changes moves the count, and the time of completion with it.
    batch_delete(&mut tasks, vec![made[1].id.clone()]).await.unwrap();
    pair.task_database
        .as_ref()
        .unwrap()
        .execute("UPDATE tasks SET completed_at = '2020-01-01T00:00:00Z' WHERE status = 'completed'")
        .await;
    let again = |status: TaskStatus| Task { id: made[4].id.clone(), status: status.into(), ..Default::default() };
    // Still completed, since then.
    update(&mut tasks, again(TaskStatus::Completed), &["status"]).await.unwrap();
    let in_2020 = GetTaskStatsRequest {
        completed_after: at(1_577_836_800, 0),
        completed_before: at(1_577_836_800, 1),
        ..Default::default()
    };
    assert_eq!(stats(&mut tasks, in_2020.clone()).await.completed_in_period, 2);
    update(&mut tasks, again(TaskStatus::Todo), &["status"]).await.unwrap();
    let counted = stats(&mut tasks, in_2020.clone()).await;
    assert_eq!((counted.todo, counted.completed, counted.completed_in_period, counted.overdue), (3, 1, 1, 2));
    update(&mut tasks, again(TaskStatus::Completed), &["status"]).await.unwrap();
    assert_eq!(stats(&mut tasks, in_2020).await.completed_in_period, 1, "completed anew, today");
    let since = GetTaskStatsRequest { completed_after: at(1_577_836_801, 0), ..Default::default() };
    assert_eq!(stats(&mut tasks, since).await.completed_in_period, 1);

    let of = |user_id: &str| GetTaskStatsRequest { user_id: user_id.to_owned(), ..Default::default() };
    let mut roots = pair.tasks(&root);
    assert_eq!(stats(&mut roots, of(bob.id())).await.total, 1);
    assert_eq!(stats(&mut roots, of("")).await.total, 7);
    assert_refused(tasks.get_task_stats(of(bob.id())).await, Code::PermissionDenied, "PERMISSION_MISSING");
    let bad = GetTaskStatsRequest { completed_after: at(i64::MAX, 0), ..of("x") };
    let refusal = assert_refused(tasks.get_task_stats(bad).await, INVALID.0, INVALID.1);
    assert_eq!(refusal.fields.iter().collect::<BTreeSet<_>>().len(), 2, "{:?}", refusal.fields);
}
