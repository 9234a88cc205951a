//! Whose tasks are whose: members see their own, administrators all, nobody is told what they may not see.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod task_support;

use proto::task::v1::ownership_service_client::OwnershipServiceClient;
use proto::task::v1::task_service_client::TaskServiceClient;
use proto::task::v1::{
    BatchCreateTasksRequest, CreateTaskRequest, DeleteTaskRequest, GetTaskRequest, ListTasksRequest,
    PurgeUserTasksRequest, ReassignTasksRequest, Task, TaskStatus,
};
use task_support::{Tasks, at, create, titled, update};
use tests::{Account, Pair, assert_refused};
use tonic::{Code, Request, Status};

/// The owner of tasks that have none.
const NOBODY: &str = "00000000-0000-0000-0000-000000000000";

async fn titles(tasks: &mut Tasks, request: ListTasksRequest) -> Vec<String> {
    let listed = tasks
        .list_tasks(ListTasksRequest { order_by: "title".to_owned(), ..request })
        .await
        .unwrap()
        .into_inner()
        .tasks;
    listed.into_iter().map(|task| task.title).collect()
}

fn of(user_id: &str) -> ListTasksRequest {
    ListTasksRequest { user_id: user_id.to_owned(), ..Default::default() }
}

#[tokio::test]
async fn a_member_does_not_see_anothers_task() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let (mut alices, mut bobs) = (pair.tasks(&alice), pair.tasks(&bob));
    let task = create(&mut alices, titled("alice's")).await;
    create(&mut bobs, titled("bob's")).await;

    assert_refused(bobs.get_task(GetTaskRequest { id: task.id.clone() }).await, Code::NotFound, "TASK_NOT_FOUND");
    // Neither the etag nor its absence tells that the task is there.
    for etag in ["", "stale", &task.etag] {
        let change =
            Task { id: task.id.clone(), title: "mine".to_owned(), etag: etag.to_owned(), ..Default::default() };
        assert_refused(update(&mut bobs, change, &["title"]).await, Code::NotFound, "TASK_NOT_FOUND");
        let deletion = DeleteTaskRequest { id: task.id.clone(), etag: etag.to_owned() };
        assert_refused(bobs.delete_task(deletion).await, Code::NotFound, "TASK_NOT_FOUND");
    }
    // Naming oneself is no trick to own another's task.
    let change =
        Task { id: task.id.clone(), user_id: bob.id().to_owned(), title: "mine".to_owned(), ..Default::default() };
    assert_refused(update(&mut bobs, change, &[]).await, Code::NotFound, "TASK_NOT_FOUND");

    assert_eq!(titles(&mut bobs, ListTasksRequest::default()).await, ["bob's"]);
    assert_eq!(titles(&mut bobs, of(bob.id())).await, ["bob's"]);
    for other in [alice.id(), NOBODY] {
        assert_refused(bobs.list_tasks(of(other)).await, Code::PermissionDenied, "PERMISSION_MISSING");
        let on_behalf = CreateTaskRequest { user_id: alice.id().to_owned(), ..titled("gift") };
        assert_refused(bobs.create_task(on_behalf).await, Code::PermissionDenied, "PERMISSION_MISSING");
    }
    let purge = PurgeUserTasksRequest { user_id: alice.id().to_owned() };
    let mut ownership = OwnershipServiceClient::new(pair.task.channel_with(bob.access_token()));
    assert_refused(ownership.purge_user_tasks(purge).await, Code::PermissionDenied, "PERMISSION_MISSING");

    let untouched = alices.get_task(GetTaskRequest { id: task.id.clone() }).await.unwrap().into_inner().task;
    assert_eq!(untouched, Some(task));
}

#[tokio::test]
async fn an_administrator_sees_and_changes_all() {
    let pair = Pair::start().await;
    let (alice, root) = tokio::join!(pair.sign_up("alice"), pair.administrator());
    let (mut alices, mut roots) = (pair.tasks(&alice), pair.tasks(&root));
    let task = create(&mut alices, titled("alice's")).await;
    create(&mut roots, titled("root's")).await;

    let read = roots.get_task(GetTaskRequest { id: task.id.clone() }).await.unwrap().into_inner().task;
    assert_eq!(read.as_ref(), Some(&task));
    assert_eq!(titles(&mut roots, ListTasksRequest::default()).await, ["alice's", "root's"]);
    assert_eq!(titles(&mut roots, of(alice.id())).await, ["alice's"]);
    assert_eq!(titles(&mut roots, of(root.id())).await, ["root's"]);

    let change = Task {
        id: task.id.clone(),
        status: TaskStatus::InProgress.into(),
        etag: task.etag.clone(),
        ..Default::default()
    };
    let changed = update(&mut roots, change, &[]).await.unwrap();
    assert_eq!((changed.status(), changed.user_id.as_str()), (TaskStatus::InProgress, alice.id()));
    let change = Task { id: task.id.clone(), title: "x".to_owned(), etag: task.etag.clone(), ..Default::default() };
    assert_refused(update(&mut roots, change, &[]).await, Code::Aborted, "ETAG_MISMATCH");
    let gift = CreateTaskRequest { user_id: alice.id().to_owned(), due_date: at(1, 0), ..titled("from root") };
    let given = create(&mut roots, gift).await;
    assert_eq!((given.user_id.as_str(), given.due_date), (alice.id(), at(1, 0)));
    assert_eq!(titles(&mut alices, ListTasksRequest::default()).await, ["alice's", "from root"]);
    roots.delete_task(DeleteTaskRequest { id: task.id.clone(), etag: String::new() }).await.unwrap();
    assert_refused(alices.get_task(GetTaskRequest { id: task.id.clone() }).await, Code::NotFound, "TASK_NOT_FOUND");
    assert_refused(roots.get_task(GetTaskRequest { id: task.id }).await, Code::NotFound, "TASK_NOT_FOUND");
}

#[tokio::test]
async fn tasks_of_nobody_are_the_administrators() {
    let pair = Pair::start().await;
    let (alice, root) = tokio::join!(pair.sign_up("alice"), pair.administrator());
    let (mut alices, mut roots) = (pair.tasks(&alice), pair.tasks(&root));
    let id = "0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6c01".to_owned();
    let database = pair.task_database.as_ref().unwrap();
    database
        .execute(&format!("INSERT INTO tasks (id, user_id, title) VALUES ('{id}', '{NOBODY}', 'from before')"))
        .await;

    assert_refused(alices.get_task(GetTaskRequest { id: id.clone() }).await, Code::NotFound, "TASK_NOT_FOUND");
    assert!(titles(&mut alices, ListTasksRequest::default()).await.is_empty());
    let task = roots.get_task(GetTaskRequest { id: id.clone() }).await.unwrap().into_inner().task.unwrap();
    assert_eq!((task.user_id.as_str(), task.title.as_str(), task.status()), (NOBODY, "from before", TaskStatus::Todo));
    assert_eq!(titles(&mut roots, of(NOBODY)).await, ["from before"]);
    let change = Task { id, title: "still nobody's".to_owned(), ..Default::default() };
    assert_eq!(update(&mut roots, change, &[]).await.unwrap().user_id, NOBODY);
    // New ones have an owner.
    let nobodys = CreateTaskRequest { user_id: NOBODY.to_owned(), ..titled("t") };
    let refusal = assert_refused(roots.create_task(nobodys).await, Code::InvalidArgument, "VALIDATION_FAILED");
    assert_eq!(refusal.fields, ["user_id"]);
}

#[tokio::test]
async fn only_the_token_says_who_calls() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    create(&mut pair.tasks(&alice), titled("alice's")).await;

    let mut anonymous = TaskServiceClient::new(pair.task.channel());
    assert_refused(anonymous.list_tasks(ListTasksRequest::default()).await, Code::Unauthenticated, "TOKEN_MISSING");
    // Metadata that names a user means nothing.
    let mut request = Request::new(ListTasksRequest::default());
    for name in ["x-user-id", "user-id", "x-forwarded-user"] {
        request.metadata_mut().insert(name, alice.id().parse().unwrap());
    }
    assert_refused(anonymous.list_tasks(request).await, Code::Unauthenticated, "TOKEN_MISSING");
    // Nor does anything come before the token is checked: not even validation.
    assert_refused(anonymous.get_task(GetTaskRequest::default()).await, Code::Unauthenticated, "TOKEN_MISSING");
    assert_refused(
        anonymous.get_task_stats(proto::task::v1::GetTaskStatsRequest::default()).await,
        Code::Unauthenticated,
        "TOKEN_MISSING",
    );

    let token = alice.access_token();
    let (signed, signature) = token.rsplit_once('.').unwrap();
    let cut = &token[..token.len() - 1];
    let none = format!("eyJhbGciOiJub25lIiwidHlwIjoiYXQrand0In0.{}.", signed.split('.').nth(1).unwrap());
    for forged in [cut, &format!("{signed}."), &format!("{signed}x.{signature}"), &none, "x", "a.b.c"] {
        let mut forger = TaskServiceClient::new(pair.task.channel_with(forged));
        assert_refused(forger.list_tasks(ListTasksRequest::default()).await, Code::Unauthenticated, "TOKEN_INVALID");
    }
}

#[tokio::test]
async fn who_only_reads_all_is_told_what_is_missing() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let carol = pair.reader("carol").await;
    let (mut alices, mut carols) = (pair.tasks(&alice), pair.tasks(&carol));
    let task = create(&mut alices, titled("alice's")).await;
    assert_eq!(titles(&mut carols, of(alice.id())).await, ["alice's"]);

    for etag in ["", "stale", &task.etag] {
        let change =
            |id: &str| Task { id: id.to_owned(), title: "x".to_owned(), etag: etag.to_owned(), ..Default::default() };
        let deletion = |id: &str| DeleteTaskRequest { id: id.to_owned(), etag: etag.to_owned() };
        let refused = update(&mut carols, change(&task.id), &["title"]).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
        let refused = carols.delete_task(deletion(&task.id)).await;
        assert_refused(refused, Code::PermissionDenied, "PERMISSION_MISSING");
        // What is not there at all is not forbidden.
        let missing = "0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6c01";
        assert_refused(update(&mut carols, change(missing), &["title"]).await, Code::NotFound, "TASK_NOT_FOUND");
        assert_refused(carols.delete_task(deletion(missing)).await, Code::NotFound, "TASK_NOT_FOUND");
    }
    let own = create(&mut carols, titled("carol's")).await;
    let change = Task { id: own.id.clone(), title: "y".to_owned(), ..Default::default() };
    assert_eq!(update(&mut carols, change, &["title"]).await.unwrap().title, "y");
    alices.delete_task(DeleteTaskRequest { id: task.id.clone(), etag: String::new() }).await.unwrap();
    let gone = carols.delete_task(DeleteTaskRequest { id: task.id, etag: String::new() }).await;
    assert_refused(gone, Code::NotFound, "TASK_NOT_FOUND");
}

/// Gives tasks of one user to another as `by` may; how many that were.
async fn reassign(pair: &Pair, by: &Account, from: &str, to: &str, ids: &[&str]) -> Result<i64, Status> {
    let task_ids = ids.iter().map(|id| (*id).to_owned()).collect();
    let request = ReassignTasksRequest { from_user_id: from.to_owned(), to_user_id: to.to_owned(), task_ids };
    let mut ownership = OwnershipServiceClient::new(pair.task.channel_with(by.access_token()));
    Ok(ownership.reassign_tasks(request).await?.into_inner().task_count)
}

#[tokio::test]
async fn tasks_are_given_to_another_owner_with_all_that_they_hold() {
    let pair = Pair::start().await;
    let (alice, bob, root) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"), pair.administrator());
    let (mut alices, mut bobs) = (pair.tasks(&alice), pair.tasks(&bob));
    let requests = (0..450).map(|n| CreateTaskRequest { due_date: at(n, 0), ..titled(&format!("task {n:03}")) });
    let requests = BatchCreateTasksRequest { requests: requests.collect() };
    let made = alices.batch_create_tasks(requests).await.unwrap().into_inner().tasks;
    alices.delete_task(DeleteTaskRequest { id: made[449].id.clone(), etag: String::new() }).await.unwrap();
    let own = create(&mut bobs, titled("bob's own")).await;

    // Some by their ids, again for 0; one that is neither's moves nothing.
    let few = [made[0].id.as_str(), made[1].id.as_str()];
    assert_eq!(reassign(&pair, &root, alice.id(), bob.id(), &few).await.unwrap(), 2);
    assert_eq!(reassign(&pair, &root, alice.id(), bob.id(), &few).await.unwrap(), 0);
    let missing = reassign(&pair, &root, alice.id(), bob.id(), &[&made[2].id, NOBODY]).await;
    assert_refused(missing, Code::NotFound, "TASK_NOT_FOUND");
    let given = bobs.get_task(GetTaskRequest { id: made[0].id.clone() }).await.unwrap().into_inner().task.unwrap();
    let expected = Task {
        user_id: bob.id().to_owned(),
        updated_at: given.updated_at,
        etag: given.etag.clone(),
        ..made[0].clone()
    };
    assert_eq!(given, expected);
    assert_ne!(given.etag, made[0].etag, "a change like any other");
    let gone = alices.get_task(GetTaskRequest { id: made[0].id.clone() }).await;
    assert_refused(gone, Code::NotFound, "TASK_NOT_FOUND");

    // The rest, in several batches, the deleted one too; again for 0.
    assert_eq!(reassign(&pair, &root, alice.id(), bob.id(), &[]).await.unwrap(), 448);
    assert_eq!(reassign(&pair, &root, alice.id(), bob.id(), &[]).await.unwrap(), 0);
    assert_eq!(reassign(&pair, &root, bob.id(), bob.id(), &[]).await.unwrap(), 0, "to oneself is nothing to do");
    assert!(titles(&mut alices, ListTasksRequest::default()).await.is_empty());
    let all = titles(&mut bobs, ListTasksRequest { page_size: 1000, ..Default::default() }).await;
    assert_eq!((all.len(), all[0].as_str()), (450, own.title.as_str()));
    let rows = pair.task_database.as_ref().unwrap().client().await;
    let deleted = format!("SELECT count(*) FROM tasks WHERE user_id = '{}' AND deleted_at IS NOT NULL", bob.id());
    assert_eq!(rows.query_one(&deleted, &[]).await.unwrap().get::<_, i64>(0), 1);

    // Tasks without an owner find one, and nobody loses one.
    let id = "0b5d0c1e-3f57-4f0a-9a55-0a4f3d8f6c01";
    let orphan = format!(
        "INSERT INTO tasks (id, user_id, title, limits_waived) VALUES ('{id}', '{NOBODY}', repeat('x', 300), true)"
    );
    pair.task_database.as_ref().unwrap().execute(&orphan).await;
    assert_eq!(reassign(&pair, &root, NOBODY, alice.id(), &[id]).await.unwrap(), 1);
    let adopted = alices.get_task(GetTaskRequest { id: id.to_owned() }).await.unwrap().into_inner().task.unwrap();
    assert_eq!(adopted.title.len(), 300, "what breaks today's limits keeps its text");
    let to_nobody = reassign(&pair, &root, alice.id(), NOBODY, &[]).await;
    assert_eq!(assert_refused(to_nobody, Code::InvalidArgument, "VALIDATION_FAILED").fields, ["to_user_id"]);
    let bad = reassign(&pair, &root, "x", "y", &["z"]).await;
    let fields = assert_refused(bad, Code::InvalidArgument, "VALIDATION_FAILED").fields;
    assert_eq!(fields, ["from_user_id", "to_user_id", "task_ids[0]"]);
    let member = reassign(&pair, &alice, bob.id(), alice.id(), &[]).await;
    assert_refused(member, Code::PermissionDenied, "PERMISSION_MISSING");
}

/// A purge beside somebody who just makes a task for the user: the task that comes is not half forgotten, and the next purge takes it.
#[tokio::test]
async fn a_purge_beside_a_task_that_comes_leaves_nothing_half_forgotten() {
    let pair = Pair::start().await;
    let (alice, root) = tokio::join!(pair.sign_up("alice"), pair.administrator());
    let mut alices = pair.tasks(&alice);
    let request_id = uuid::Uuid::now_v7().to_string();
    create(&mut alices, titled("there before")).await;
    let rows = pair.task_database.as_ref().unwrap().client().await;
    // What CreateTask writes, held before its end.
    let (owner, id) = (alice.id(), uuid::Uuid::now_v7());
    let coming = format!(
        "BEGIN; INSERT INTO task_requests (user_id, request_id, task_id) VALUES ('{owner}', '{request_id}', '{id}');
         INSERT INTO tasks (id, user_id, title) VALUES ('{id}', '{owner}', 'coming');
         INSERT INTO task_changes (user_id, xact, task_id, version, kind, changed_at, title, status, created_at)
         VALUES ('{owner}', pg_current_xact_id()::text::bigint, '{id}', 1, 'upserted', now(), 'coming', 'todo', now())"
    );
    rows.batch_execute(&coming).await.unwrap();
    let mut ownership = OwnershipServiceClient::new(pair.task.channel_with(root.access_token()));
    let request = PurgeUserTasksRequest { user_id: owner.to_owned() };
    assert_eq!(ownership.purge_user_tasks(request.clone()).await.unwrap().into_inner().task_count, 1);
    rows.batch_execute("COMMIT").await.unwrap();
    let again = CreateTaskRequest { request_id: request_id.clone(), ..titled("coming") };
    assert_eq!(create(&mut alices, again).await.id, id.to_string(), "its request id is still known");
    let texts = format!("SELECT count(*) FROM task_changes WHERE user_id = '{owner}' AND title <> ''");
    assert_eq!(rows.query_one(&texts, &[]).await.unwrap().get::<_, i64>(0), 1, "its change is still told");
    assert_eq!(ownership.purge_user_tasks(request).await.unwrap().into_inner().task_count, 1);
    for table in ["tasks", "task_requests", "task_changes WHERE title <> ''"] {
        let left = format!("SELECT count(*) FROM {table}");
        assert_eq!(rows.query_one(&left, &[]).await.unwrap().get::<_, i64>(0), 0, "{table}");
    }
}
