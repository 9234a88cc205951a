//! WatchTasks: nothing that is committed is left out, whoever commits late, breaks off, stalls or moves.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod stalled;
#[path = "../task_support/mod.rs"]
mod task_support;
mod watch;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use proto::task::v1::ownership_service_client::OwnershipServiceClient;
use proto::task::v1::watch_tasks_response::Event;
use proto::task::v1::{
    BatchCreateTasksRequest, BatchDeleteTasksRequest, CreateTaskRequest, DeleteTaskRequest, PurgeUserTasksRequest,
    ReassignTasksRequest, Task, WatchTasksRequest,
};
use task_support::{Tasks, at, create, titled, update};
use tests::{Account, Pair, Random, assert_refused, number_from_environment};
use tonic::Code;
use watch::{Seen, Watch};

fn upserted(task: &Task) -> Seen {
    Seen::Upserted(task.id.clone(), task.etag.clone())
}

async fn delete(tasks: &mut Tasks, task: &Task) {
    tasks.delete_task(DeleteTaskRequest { id: task.id.clone(), etag: String::new() }).await.unwrap();
}

async fn rename(tasks: &mut Tasks, task: &Task, title: &str) -> Task {
    update(tasks, Task { id: task.id.clone(), title: title.to_owned(), ..Default::default() }, &[]).await.unwrap()
}

#[tokio::test]
async fn every_change_is_told_whole_in_order_and_soon() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let (mut tasks, mut bobs) = (pair.tasks(&alice), pair.tasks(&bob));
    let mut watch = Watch::live(&mut tasks).await;
    create(&mut bobs, titled("bob's")).await;
    let description = "1. collect\n2. write".to_owned();
    let made =
        create(&mut tasks, CreateTaskRequest { description, due_date: at(4_102_444_800, 0), ..titled("report") }).await;
    assert_eq!(watch.event().await, Event::Upserted(made.clone()));
    let changed = rename(&mut tasks, &made, "the report").await;
    assert_eq!(watch.event().await, Event::Upserted(changed.clone()));
    delete(&mut tasks, &made).await;
    let Event::Deleted(deleted) = watch.event().await else { panic!("it was deleted") };
    assert_eq!((deleted.id, deleted.user_id), (made.id, alice.id().to_owned()));
    assert!(deleted.deleted_at.unwrap().seconds >= changed.updated_at.unwrap().seconds);
    // A batch is told as a whole; changes that follow each other at once are told one by one.
    let requests = (0..300).map(|n| titled(&format!("task {n}"))).collect();
    let made = tasks.batch_create_tasks(BatchCreateTasksRequest { requests }).await.unwrap().into_inner().tasks;
    let told: BTreeSet<_> = watch.take(300).await.into_iter().collect();
    assert_eq!(told, made.iter().map(upserted).collect());
    let mut expected = Vec::new();
    for n in 0..20 {
        expected.push(upserted(&rename(&mut tasks, &made[0], &format!("name {n}")).await));
    }
    assert_eq!(watch.take(20).await, expected);
    let ids: Vec<_> = made.into_iter().map(|task| task.id).collect();
    tasks.batch_delete_tasks(BatchDeleteTasksRequest { ids: ids.clone() }).await.unwrap();
    let told: BTreeSet<_> = watch.take(300).await.into_iter().collect();
    assert_eq!(told, ids.into_iter().map(Seen::Deleted).collect());

    // Soon: half of the time between two looks, and a read.
    let mut delays = Vec::new();
    for n in 0..20 {
        let made = create(&mut tasks, titled(&format!("timed {n}"))).await;
        let begun = Instant::now();
        assert_eq!(watch.seen().await, upserted(&made));
        delays.push(begun.elapsed());
    }
    delays.sort_unstable();
    assert!(delays[10] < Duration::from_secs(2), "half of the changes took longer than {:?}", delays[10]);
    let begun = Instant::now();
    watch.assert_quiet().await;
    assert!(begun.elapsed() < Duration::from_secs(9), "a sign of life every 5 seconds: {:?}", begun.elapsed());
}

#[tokio::test]
async fn a_snapshot_has_what_there_is_and_the_news_follow_it() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let begin = WatchTasksRequest { snapshot: true, ..Default::default() };
    let mut empty = Watch::begin(&mut tasks, begin.clone()).await;
    assert_eq!(empty.take(2).await, [Seen::SnapshotStarted, Seen::SnapshotCompleted(0)]);

    let requests = (0..450).map(|n| titled(&format!("task {n}"))).collect();
    let made = tasks.batch_create_tasks(BatchCreateTasksRequest { requests }).await.unwrap().into_inner().tasks;
    delete(&mut tasks, &made[0]).await;
    let mut watch = Watch::begin(&mut tasks, begin.clone()).await;
    let first = watch.message().await.unwrap();
    assert!(matches!(first.event, Some(Event::SnapshotStarted(_))) && first.resume_token.is_empty());
    for _ in 0..449 {
        let message = watch.message().await.unwrap();
        assert!(matches!(message.event, Some(Event::Upserted(_))) && message.resume_token.is_empty());
    }
    assert_eq!(watch.seen().await, Seen::SnapshotCompleted(449));
    let token = watch.token.clone();
    assert!(!token.is_empty());
    let changed = rename(&mut tasks, &made[1], "changed").await;
    assert_eq!(watch.seen().await, upserted(&changed));
    assert_eq!(Watch::resumed(&mut tasks, &token).await.seen().await, upserted(&changed));
    assert_eq!(empty.take(450 + 2).await.last(), Some(&upserted(&changed)));

    // A token that can be resumed from makes a snapshot needless.
    let request = WatchTasksRequest { resume_token: token, ..begin.clone() };
    assert_eq!(Watch::begin(&mut tasks, request).await.seen().await, upserted(&changed));

    // Tasks that change while a snapshot is read: whoever follows ends with what there is, and no task goes back in time.
    let writers = (0..4).map(|writer| {
        let (mut tasks, made) = (tasks.clone(), made.clone());
        async move {
            for n in 0..60 {
                rename(&mut tasks, &made[1 + (n * 4 + writer) % 449], &format!("{writer} {n}")).await;
            }
        }
    });
    let follower = async {
        let mut tasks = tasks.clone();
        let mut watch = Watch::begin(&mut tasks, begin.clone()).await;
        let mut known: BTreeMap<String, i64> = BTreeMap::new();
        loop {
            match watch.event().await {
                Event::Upserted(task) => {
                    let version = version(&task);
                    let before = known.insert(task.id.clone(), version);
                    assert!(before.is_none_or(|before| before < version), "{} goes back to {version}", task.id);
                }
                Event::Heartbeat(_) => return known,
                _ => {}
            }
        }
    };
    let (_, known) = tokio::join!(futures_util::future::join_all(writers), follower);
    let rows = pair.task_database.as_ref().unwrap().client().await;
    let rows = rows.query("SELECT id::text, version FROM tasks WHERE deleted_at IS NULL", &[]).await.unwrap();
    assert_eq!(known, rows.iter().map(|row| (row.get(0), row.get(1))).collect());
}

/// The etag is opaque to callers; a test may look inside.
fn version(task: &Task) -> i64 {
    use base64::Engine as _;
    let bytes = base64::engine::general_purpose::URL_SAFE_NO_PAD.decode(&task.etag).unwrap();
    i64::from_be_bytes(bytes.try_into().unwrap())
}

#[tokio::test]
async fn who_comes_back_is_told_what_happened_meanwhile() {
    let mut pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let mut watch = Watch::live(&mut tasks).await;
    let one = create(&mut tasks, titled("one")).await;
    assert_eq!(watch.seen().await, upserted(&one));
    let token = watch.token.clone();
    drop(watch);
    let other = create(&mut tasks, titled("other")).await;
    let changed = rename(&mut tasks, &one, "one, changed").await;
    delete(&mut tasks, &other).await;
    let expected = [upserted(&other), upserted(&changed), Seen::Deleted(other.id.clone())];
    let mut resumed = Watch::resumed(&mut tasks, &token).await;
    assert_eq!(resumed.take(3).await, expected);
    // From each place in between, and from another replica: the rest and nothing else.
    pair.restart_task(&[]).await;
    let mut tasks = pair.tasks(&alice);
    let mut resumed = Watch::resumed(&mut tasks, &token).await;
    for place in 1..3 {
        resumed.seen().await;
        let mut rest = Watch::resumed(&mut tasks, &resumed.token).await;
        assert_eq!(rest.take(3 - place).await, expected[place..]);
        rest.assert_quiet().await;
    }
    // After a second break, too.
    assert_eq!(resumed.seen().await, expected[2]);
    let last = create(&mut tasks, titled("last")).await;
    assert_eq!(Watch::resumed(&mut tasks, &resumed.token).await.seen().await, upserted(&last));
}

/// Holds a transaction open in which a task was made as the service makes it.
async fn held(pair: &Pair, alice: &Account, id: uuid::Uuid) -> tokio_postgres::Client {
    let client = pair.task_database.as_ref().unwrap().client().await;
    let owner = alice.id();
    let statements = format!(
        "BEGIN; INSERT INTO tasks (id, user_id, title) VALUES ('{id}', '{owner}', 'late');
         INSERT INTO task_changes (user_id, xact, task_id, version, kind, changed_at, title, status, created_at)
         VALUES ('{owner}', pg_current_xact_id()::text::bigint, '{id}', 1, 'upserted', now(), 'late', 'todo', now())"
    );
    client.batch_execute(&statements).await.unwrap();
    client
}

/// Attack on the order: transactions that begin early and commit late. Nobody waits for them, and they are not passed over.
#[tokio::test]
async fn a_transaction_that_commits_late_is_told_and_holds_nobody_up() {
    let pair = Pair::start().await;
    let (alice, root) = tokio::join!(pair.sign_up("alice"), pair.administrator());
    let (mut tasks, mut roots) = (pair.tasks(&alice), pair.tasks(&root));
    let (mut watch, mut all) = (Watch::live(&mut tasks).await, Watch::live(&mut roots).await);
    let (early, earlier) = (uuid::Uuid::now_v7(), uuid::Uuid::now_v7());
    let first = held(&pair, &alice, early).await;
    let begun = Instant::now();
    let one = create(&mut tasks, titled("one")).await;
    let second = held(&pair, &alice, earlier).await;
    let other = create(&mut tasks, titled("other")).await;
    assert!(begun.elapsed() < Duration::from_secs(5), "a writer waited for another: {:?}", begun.elapsed());
    for watch in [&mut watch, &mut all] {
        assert_eq!(watch.take(2).await, [upserted(&one), upserted(&other)], "without waiting for who is under way");
    }
    let token = watch.token.clone();
    second.batch_execute("COMMIT").await.unwrap();
    let late = |seen: Seen, id: uuid::Uuid| matches!(seen, Seen::Upserted(seen, _) if seen == id.to_string());
    for watch in [&mut watch, &mut all] {
        assert!(late(watch.seen().await, earlier));
    }
    let third = create(&mut tasks, titled("third")).await;
    assert_eq!(watch.seen().await, upserted(&third));
    let between = watch.token.clone();
    first.batch_execute("COMMIT").await.unwrap();
    assert!(late(watch.seen().await, early));
    assert_eq!(all.seen().await, upserted(&third));
    assert!(late(all.seen().await, early));
    // Who resumes from before is told all of them once, those under way then first.
    let mut resumed = Watch::resumed(&mut tasks, &token).await;
    assert!(late(resumed.seen().await, early) && late(resumed.seen().await, earlier));
    assert_eq!(resumed.seen().await, upserted(&third));
    let mut resumed = Watch::resumed(&mut tasks, &between).await;
    assert!(late(resumed.seen().await, early));
    resumed.assert_quiet().await;
    // What was rolled back did not happen.
    let never = held(&pair, &alice, uuid::Uuid::now_v7()).await;
    let last = create(&mut tasks, titled("last")).await;
    never.batch_execute("ROLLBACK").await.unwrap();
    assert_eq!(watch.seen().await, upserted(&last));
}

/// A transaction that began first changes a task last, and is too large for one read: the older version of the task, which was written by
/// a transaction that began later, is told before the newer one all the same.
#[tokio::test]
async fn versions_are_told_in_order_also_where_a_read_ends_between_them() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let task = create(&mut tasks, titled("first")).await;
    let mut watch = Watch::live(&mut tasks).await;
    let token = watch.token.clone();
    let early = pair.task_database.as_ref().unwrap().client().await;
    let log = |id: &str, version: i32, kind: &str| {
        format!(
            "INSERT INTO task_changes (user_id, xact, task_id, version, kind, changed_at, title, status, created_at)
             VALUES ('{}', pg_current_xact_id()::text::bigint, {id}, {version}, '{kind}', now(), '', 'todo', now());",
            alice.id()
        )
    };
    early.batch_execute(&format!("BEGIN; {}", log("gen_random_uuid()", 1, "upserted").repeat(120))).await.unwrap();
    let second = rename(&mut tasks, &task, "second").await;
    let id = format!("'{}'", task.id);
    let change =
        format!("UPDATE tasks SET version = 3, deleted_at = now() WHERE id = {id}; {}", log(&id, 3, "deleted"));
    early.batch_execute(&change).await.unwrap();
    assert_eq!(watch.seen().await, upserted(&second));
    early.batch_execute("COMMIT").await.unwrap();
    assert!(watch.take(121).await.contains(&Seen::Deleted(task.id.clone())));
    let mut resumed = Watch::resumed(&mut tasks, &token).await;
    let of_task = |seen: &Seen| matches!(seen, Seen::Upserted(id, _) | Seen::Deleted(id) if *id == task.id);
    let told: Vec<Seen> = resumed.take(122).await.into_iter().filter(of_task).collect();
    assert_eq!(told, [upserted(&second), Seen::Deleted(task.id.clone())]);
}

/// Writers at once, transactions that are held for a random time, a follower that breaks off at random and resumes: what it was told
/// is what was committed, each change once. `SEED`, `WRITERS` and `WRITES` choose the run.
#[tokio::test]
async fn under_concurrent_writers_every_committed_change_is_told_once() {
    let seed = number_from_environment("SEED", 1);
    let writers = usize::try_from(number_from_environment("WRITERS", 8)).unwrap();
    let writes = usize::try_from(number_from_environment("WRITES", 40)).unwrap();
    let pair = Pair::start().await;
    let (alice, root) = tokio::join!(pair.sign_up("alice"), pair.administrator());
    let (tasks, mut roots) = (pair.tasks(&alice), pair.tasks(&root));
    let mut follower = Watch::live(&mut tasks.clone()).await;
    let mut steady = Watch::live(&mut roots).await;

    let work = (0..writers).map(|writer| {
        let (mut tasks, pair, alice) = (tasks.clone(), &pair, &alice);
        let mut random = Random::new(seed * 1_000 + writer as u64);
        async move {
            let (mut made, mut told): (Vec<Task>, Vec<Seen>) = (Vec::new(), Vec::new());
            for n in 0..writes {
                match random.below(10) {
                    0 => {
                        let id = uuid::Uuid::now_v7();
                        let transaction = held(pair, alice, id).await;
                        tokio::time::sleep(Duration::from_millis(random.below(400) as u64)).await;
                        let end = if random.chance(80) { "COMMIT" } else { "ROLLBACK" };
                        transaction.batch_execute(end).await.unwrap();
                        if end == "COMMIT" {
                            told.push(Seen::Upserted(id.to_string(), "AAAAAAAAAAE".to_owned()));
                        }
                    }
                    1 if !made.is_empty() => {
                        let task = made.swap_remove(random.below(made.len()));
                        delete(&mut tasks, &task).await;
                        told.push(Seen::Deleted(task.id));
                    }
                    2..=5 if !made.is_empty() => {
                        let task = made[random.below(made.len())].clone();
                        told.push(upserted(&rename(&mut tasks, &task, &format!("{writer} {n}")).await));
                    }
                    _ => {
                        let task = create(&mut tasks, titled(&format!("{writer} {n}"))).await;
                        told.push(upserted(&task));
                        made.push(task);
                    }
                }
            }
            told
        }
    });
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let following = async {
        let mut random = Random::new(seed);
        let (mut seen, mut breaks) = (Vec::new(), 0);
        loop {
            match follower.event().await {
                Event::Heartbeat(_) if *stopped.borrow() => return (seen, breaks),
                Event::Heartbeat(_) => {}
                Event::Upserted(task) => seen.push(upserted(&task)),
                Event::Deleted(deleted) => seen.push(Seen::Deleted(deleted.id)),
                other => panic!("{other:?}"),
            }
            if random.chance(5) {
                breaks += 1;
                // What was told behind the last place from which one can resume comes once more.
                follower = Watch::resumed(&mut tasks.clone(), &follower.token).await;
            }
        }
    };
    let writing = async {
        let told = futures_util::future::join_all(work).await;
        stop.send_replace(true);
        told
    };
    let (told, (seen, breaks)) = tokio::join!(writing, following);
    let mut told: Vec<Seen> = told.into_iter().flatten().collect();
    told.sort();
    let count = seen.len();
    let mut once = seen;
    once.sort();
    once.dedup();
    assert_eq!(once, told, "seed {seed}");
    println!("seed {seed}: {} changes committed, {count} told over {breaks} breaks, none left out", told.len());
    assert!(breaks > 0 || writes < 10, "seed {seed}: the follower never broke off");

    // Without a break each comes exactly once.
    let mut seen = steady.take(told.len()).await;
    seen.sort();
    assert_eq!(seen, told, "seed {seed}");
    steady.assert_quiet().await;
}

#[tokio::test]
async fn a_task_that_changes_its_owner_leaves_one_watch_and_enters_another() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let root = pair.administrator().await;
    let (mut alices, mut bobs, mut roots) = (pair.tasks(&alice), pair.tasks(&bob), pair.tasks(&root));
    let (one, gone) = (create(&mut alices, titled("one")).await, create(&mut alices, titled("gone")).await);
    delete(&mut alices, &gone).await;
    let (mut alices, mut bobs) = (Watch::live(&mut alices).await, Watch::live(&mut bobs).await);
    let of_alice = WatchTasksRequest { user_id: alice.id().to_owned(), ..Default::default() };
    let mut only_alices = Watch::begin(&mut roots, of_alice).await;
    let mut all = Watch::live(&mut roots).await;
    let mut ownership = OwnershipServiceClient::new(pair.task.channel_with(root.access_token()));
    let request =
        ReassignTasksRequest { from_user_id: alice.id().to_owned(), to_user_id: bob.id().to_owned(), task_ids: vec![] };
    let moved = ownership.reassign_tasks(request).await.unwrap().into_inner();
    assert_eq!(moved.task_count, 2, "the deleted one goes along");
    assert_eq!(alices.seen().await, Seen::Deleted(one.id.clone()));
    assert_eq!(only_alices.seen().await, Seen::Deleted(one.id.clone()));
    let Event::Upserted(now_bobs) = bobs.event().await else { panic!("Bob has it") };
    assert_eq!((now_bobs.id.as_str(), now_bobs.user_id.as_str()), (one.id.as_str(), bob.id()));
    assert_ne!(now_bobs.etag, one.etag);
    assert_eq!(all.seen().await, upserted(&now_bobs), "who sees everybody's sees it stay");

    // Purged is deleted; what was deleted before is not told again, and no text of it is left.
    ownership.purge_user_tasks(PurgeUserTasksRequest { user_id: bob.id().to_owned() }).await.unwrap();
    assert_eq!(bobs.seen().await, Seen::Deleted(one.id.clone()));
    assert_eq!(all.seen().await, Seen::Deleted(one.id.clone()));
    for watch in [&mut alices, &mut bobs, &mut all] {
        watch.assert_quiet().await;
    }
    let rows = pair.task_database.as_ref().unwrap().client().await;
    let texts = format!("SELECT count(*) FROM task_changes WHERE user_id = '{}' AND title <> ''", bob.id());
    assert_eq!(rows.query_one(&texts, &[]).await.unwrap().get::<_, i64>(0), 0);
}

#[tokio::test]
async fn nobody_watches_what_they_may_not_read() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let (mut tasks, mut bobs) = (pair.tasks(&alice), pair.tasks(&bob));
    let of_bob = WatchTasksRequest { user_id: bob.id().to_owned(), snapshot: true, ..Default::default() };
    assert_refused(tasks.watch_tasks(of_bob.clone()).await, Code::PermissionDenied, "PERMISSION_MISSING");
    let refusal = tasks.watch_tasks(WatchTasksRequest { user_id: "bob".to_owned(), ..Default::default() }).await;
    assert_eq!(assert_refused(refusal, Code::InvalidArgument, "VALIDATION_FAILED").fields, ["user_id"]);
    // A token is of one caller and one watch.
    let bobs_token = Watch::live(&mut bobs).await.token;
    let root = pair.administrator().await;
    let mut roots = pair.tasks(&root);
    let of_bobs = Watch::begin(&mut roots, of_bob).await;
    for token in [bobs_token.as_str(), "x", &bobs_token[2..]] {
        for request in [
            WatchTasksRequest { resume_token: token.to_owned(), ..Default::default() },
            WatchTasksRequest { resume_token: token.to_owned(), snapshot: true, ..Default::default() },
        ] {
            let refusal = assert_refused(tasks.watch_tasks(request).await, Code::InvalidArgument, "VALIDATION_FAILED");
            assert_eq!(refusal.fields, ["resume_token"]);
        }
    }
    drop(of_bobs);
}

/// The database cuts all connections: streams go on or end with UNAVAILABLE, and who resumes has missed nothing.
#[tokio::test]
async fn a_database_that_cuts_its_connections_costs_a_watcher_nothing() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let mut watch = Watch::live(&mut tasks).await;
    let database = pair.task_database.as_ref().unwrap().client().await;
    let (mut told, mut made) = (Vec::new(), Vec::new());
    for n in 0..6 {
        let cut = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = current_database() \
            AND pid <> pg_backend_pid()";
        database.query(cut, &[]).await.unwrap();
        let task = loop {
            match tasks.create_task(titled(&format!("task {n}"))).await {
                Ok(task) => break task.into_inner().task.unwrap(),
                Err(status) => assert_eq!(status.code(), Code::Unavailable, "{status:?}"),
            }
        };
        made.push(upserted(&task));
        while told.len() < made.len() {
            match watch.message().await.map(|message| message.event.unwrap()) {
                Ok(Event::Upserted(task)) => told.push(upserted(&task)),
                Ok(_) => {}
                Err(status) => {
                    assert_eq!(status.code(), Code::Unavailable, "{status:?}");
                    watch = Watch::resumed(&mut tasks, &watch.token).await;
                }
            }
        }
    }
    assert_eq!(told, made);
}
