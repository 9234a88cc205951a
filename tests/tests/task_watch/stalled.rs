//! Watches whose clients take all places, stay too long or read nothing.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use proto::task::v1::watch_tasks_response::Event;
use proto::task::v1::{BatchCreateTasksRequest, CreateTaskRequest, TaskStatus, WatchTasksRequest};
use tests::{Pair, assert_refused};
use tonic::Code;

use crate::task_support::{create, titled};
use crate::upserted;
use crate::watch::{PATIENCE, Watch};

/// Memory of the task service, in MiB.
fn resident(pair: &Pair) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", pair.task.pid())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:")).unwrap().to_owned();
    line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
}

/// Attack: one caller takes all places.
#[tokio::test]
async fn a_caller_has_sixteen_watches_at_a_time() {
    let pair = Pair::start().await;
    let (alice, bob) = tokio::join!(pair.sign_up("alice"), pair.sign_up("bob"));
    let mut tasks = pair.tasks(&alice);
    let mut watches = Vec::new();
    for _ in 0..16 {
        watches.push(Watch::live(&mut tasks).await);
    }
    let refused = tasks.watch_tasks(WatchTasksRequest::default()).await;
    let refused = assert_refused(refused, Code::ResourceExhausted, "RATE_LIMITED");
    assert!(refused.retry_after.is_some());
    Watch::live(&mut pair.tasks(&bob)).await;
    watches.pop();
    let until = Instant::now() + PATIENCE;
    while let Err(status) = tasks.watch_tasks(WatchTasksRequest::default()).await {
        assert!(Instant::now() < until, "a place that is free is not given again: {status:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Streams whose time is over end with the reason, and the caller resumes with a new token. Attack: read nothing, to stay longer.
#[tokio::test]
async fn a_watch_ends_with_the_access_token() {
    let pair = Pair::start_with(&[("ACCESS_TOKEN_TTL", "60s")], &[]).await;
    let alice = pair.sign_up("alice").await;
    let begun = Instant::now();
    // All places of hers, most of them on connections of their own from which nothing is read.
    let mut stalled = Vec::new();
    for _ in 0..15 {
        stalled.push(Watch::live(&mut pair.tasks(&alice)).await);
    }
    let mut watch = Watch::live(&mut pair.tasks(&alice)).await;
    // More than the windows of a connection hold.
    let long = (0..90).map(|n| CreateTaskRequest { description: "🦀".repeat(10_000), ..titled(&format!("{n}")) });
    let request = BatchCreateTasksRequest { requests: long.collect() };
    for _ in 0..3 {
        pair.tasks(&alice).batch_create_tasks(request.clone()).await.unwrap();
    }
    let status = loop {
        if let Err(status) = watch.message().await {
            break status;
        }
    };
    assert_refused::<()>(Err(status), Code::Unauthenticated, "TOKEN_EXPIRED");
    assert!(begun.elapsed() >= Duration::from_secs(50), "{:?}", begun.elapsed());
    let again = pair.sign_in("alice", tests::PASSWORD).await;
    let mut tasks = pair.tasks(&again);
    // The places are free, although the streams stand where they stood and nobody has heard why they end.
    let made = create(&mut tasks, titled("meanwhile")).await;
    let mut watches = Vec::new();
    let until = Instant::now() + Duration::from_secs(10);
    while watches.len() < 16 {
        let request = WatchTasksRequest { resume_token: watch.token.clone(), ..Default::default() };
        match tasks.watch_tasks(request).await {
            Ok(stream) => watches.push(Watch { stream: stream.into_inner(), token: String::new() }),
            Err(status) => assert!(Instant::now() < until, "{} of 16 places: {status:?}", watches.len()),
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    assert_eq!(watches[0].seen().await, upserted(&made));
    for mut watch in stalled {
        let status = loop {
            if let Err(status) = watch.message().await {
                break status;
            }
        };
        assert_refused::<()>(Err(status), Code::Unauthenticated, "TOKEN_EXPIRED");
    }
}

/// Attack: open a stream and read nothing. The service keeps a read of it, not all that happens.
#[tokio::test]
async fn a_watcher_that_reads_nothing_costs_no_memory_and_misses_nothing() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let mut stalled = Vec::new();
    for _ in 0..8 {
        // Each on a connection of its own: what is not read fills the window of the connection.
        stalled.push(Watch::live(&mut pair.tasks(&alice)).await);
    }
    let requests: Vec<_> =
        (0..90).map(|n| CreateTaskRequest { description: "🦀".repeat(10_000), ..titled(&format!("{n}")) }).collect();
    let before = resident(&pair);
    let mut made = Vec::new();
    // 36 MB of changes for each of 8 watchers.
    for _ in 0..10 {
        let request = BatchCreateTasksRequest { requests: requests.clone() };
        made.extend(tasks.batch_create_tasks(request).await.unwrap().into_inner().tasks);
    }
    tokio::time::sleep(Duration::from_secs(2)).await;
    let grown = resident(&pair).saturating_sub(before);
    assert!(grown < 160, "8 watchers that read nothing cost {grown} MiB; they were not told 288 MB");
    let expected: BTreeSet<_> = made.iter().map(upserted).collect();
    for mut watch in stalled.drain(..2) {
        assert_eq!(watch.take(900).await.into_iter().collect::<BTreeSet<_>>(), expected);
    }
    // Others are not held up by those that stand still.
    let mut live = Watch::live(&mut pair.tasks(&alice)).await;
    let one = create(&mut tasks, CreateTaskRequest { status: TaskStatus::Completed.into(), ..titled("one") }).await;
    assert_eq!(live.seen().await, upserted(&one));
}

/// Attack: a transaction of a thousand long tasks, 40 MB of changes, and watchers that read nothing. Of it they keep the keys. What is
/// forgotten before it is read, as a purge does, is left out.
#[tokio::test]
async fn a_large_transaction_is_read_in_parts() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut stalled = Vec::new();
    for _ in 0..8 {
        stalled.push(Watch::live(&mut pair.tasks(&alice)).await);
    }
    let before = resident(&pair);
    let rows = pair.task_database.as_ref().unwrap().client().await;
    let many = format!(
        "INSERT INTO task_changes (user_id, xact, task_id, version, kind, changed_at, title, description, status, created_at)
         SELECT '{}', pg_current_xact_id()::text::bigint, ('00000000-0000-0000-0000-' || lpad(n::text, 12, '0'))::uuid, 1, 'upserted',
             now(), 'task ' || n, repeat('🦀', 10000), 'todo', now()
         FROM generate_series(1, 1000) AS n",
        alice.id()
    );
    rows.batch_execute(&many).await.unwrap();
    tokio::time::sleep(Duration::from_secs(3)).await;
    let grown = resident(&pair).saturating_sub(before);
    assert!(grown < 100, "8 watchers that read nothing cost {grown} MiB; they were not told 320 MB");
    rows.batch_execute("DELETE FROM task_changes WHERE title IN ('task 777', 'task 1000')").await.unwrap();
    for mut watch in stalled.drain(..2) {
        for n in (1..1_000).filter(|n| *n != 777) {
            let Event::Upserted(task) = watch.event().await else { panic!("task {n} is not told") };
            assert_eq!((task.title, task.description.chars().count()), (format!("task {n}"), 10_000));
        }
        watch.assert_quiet().await;
        // Whoever comes back with the token of that has them behind it.
        let mut resumed = Watch::resumed(&mut pair.tasks(&alice), &watch.token).await;
        let one = create(&mut pair.tasks(&alice), titled("one")).await;
        assert_eq!(watch.seen().await, upserted(&one));
        assert_eq!(resumed.seen().await, upserted(&one));
        rows.batch_execute("DELETE FROM task_changes WHERE title = 'one'").await.unwrap();
    }
}
