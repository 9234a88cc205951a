//! The task service as a program: its configuration, its start before the migration, a database that goes and comes back, deadlines.

mod task_support;

use std::time::Duration;

use proto::task::v1::{
    BatchDeleteTasksRequest, GetTaskRequest, ListTasksRequest, Task, UpdateTaskRequest, WatchTasksRequest,
};
use task_support::{at, create, titled, update};
use tests::{Pair, Service, TaskServer, TestDatabase, assert_refused, http_get, run_migrate, run_program};
use tonic::{Code, Request};

const DATABASE: (&str, &str) = ("DATABASE_URL", "postgres://me:s3cret@127.0.0.1:1/tasks");
const AUTH: (&str, &str) = ("AUTH_SERVICE_URL", "http://127.0.0.1:1");

#[tokio::test]
async fn a_bad_configuration_is_one_line_that_names_the_variable() {
    let bad = [
        (vec![AUTH], "DATABASE_URL"),
        (vec![DATABASE], "AUTH_SERVICE_URL"),
        (vec![DATABASE, ("AUTH_SERVICE_URL", "auth:50051")], "AUTH_SERVICE_URL"),
        (vec![DATABASE, ("AUTH_SERVICE_URL", "")], "AUTH_SERVICE_URL"),
        (vec![("DATABASE_URL", "mysql://me:s3cret@db/tasks"), AUTH], "DATABASE_URL"),
        (vec![DATABASE, AUTH, ("DATABASE_MAX_CONNECTIONS", "0")], "DATABASE_MAX_CONNECTIONS"),
        (vec![DATABASE, AUTH, ("LISTEN_ADDR", "50052")], "LISTEN_ADDR"),
        (vec![DATABASE, AUTH, ("PAGE_TOKEN_KEY", "s3cret")], "PAGE_TOKEN_KEY"),
        (vec![DATABASE, AUTH, ("AUTH_SERVICE_CA_FILE", "/nowhere.pem")], "AUTH_SERVICE_CA_FILE"),
        (vec![DATABASE, AUTH, ("TLS_CERT_FILE", "/nowhere.pem"), ("TLS_KEY_FILE", "/nowhere.pem")], "TLS_CERT_FILE"),
    ];
    for command in [&["serve"][..], &["config", "check"]] {
        for (environment, variable) in &bad {
            let run = run_program(Service::Task, command, environment, "").await;
            let lines: Vec<_> = run.stderr.lines().filter(|line| !line.starts_with('{')).collect();
            assert_eq!((run.code, lines.len()), (2, 1), "{command:?} {environment:?}: {run:#?}");
            assert!(lines[0].contains(variable) && !run.stderr.contains("s3cret"), "{run:#?}");
        }
    }
    let run = run_program(Service::Task, &["config", "check"], &[DATABASE, AUTH], "").await;
    assert_eq!((run.code, run.stderr.as_str()), (0, ""), "{run:#?}");
    let run = run_program(Service::Task, &["config", "print", "--output", "json"], &[DATABASE, AUTH], "").await;
    let settings: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    assert!(!run.stdout.contains("s3cret"), "{run:#?}");
    let names: Vec<_> = settings.as_array().unwrap().iter().filter_map(|setting| setting["name"].as_str()).collect();
    for name in [
        "DATABASE_URL",
        "LISTEN_ADDR",
        "METRICS_ADDR",
        "AUTH_SERVICE_URL",
        "TLS_CERT_FILE",
        "JWT_ISSUER",
        "PAGE_TOKEN_KEY",
    ] {
        assert!(names.contains(&name), "{name} is not in {names:?}");
    }
}

#[tokio::test]
async fn a_bad_authority_is_blamed_on_its_file() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("ca.pem");
    let ca = ("AUTH_SERVICE_CA_FILE", path.to_str().unwrap());
    let no_certificate = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
    let cut = "-----BEGIN CERTIFICATE-----\nAAAA\n";
    for contents in ["", "no PEM", cut, no_certificate] {
        std::fs::write(&path, contents).unwrap();
        for url in ["https://127.0.0.1:1", "http://127.0.0.1:1"] {
            for command in [&["serve"][..], &["config", "check"]] {
                let run = run_program(Service::Task, command, &[DATABASE, ("AUTH_SERVICE_URL", url), ca], "").await;
                let lines: Vec<_> = run.stderr.lines().filter(|line| !line.starts_with('{')).collect();
                assert_eq!((run.code, lines.len()), (2, 1), "{command:?} {contents:?}: {run:#?}");
                assert!(
                    lines[0].contains("AUTH_SERVICE_CA_FILE") && !lines[0].contains("AUTH_SERVICE_URL"),
                    "{run:#?}"
                );
            }
        }
    }
}

#[tokio::test]
async fn expired_request_ids_go_in_batches() {
    let auth_database = TestDatabase::migrated_auth().await;
    let auth = tests::AuthServer::start(&auth_database, &[]).await;
    let database = TestDatabase::migrated_task().await;
    let filled = "INSERT INTO task_requests (user_id, request_id, task_id, created_at)
         SELECT gen_random_uuid(), gen_random_uuid(), gen_random_uuid(), now() - interval '1 day 1 minute' * sign(n)
         FROM generate_series(0, 2500) AS n;
         CREATE TABLE batches (size bigint);
         CREATE FUNCTION batch_note() RETURNS trigger LANGUAGE plpgsql SECURITY DEFINER AS
             'BEGIN INSERT INTO public.batches SELECT count(*) FROM gone; RETURN NULL; END';
         CREATE TRIGGER batch_note AFTER DELETE ON task_requests REFERENCING OLD TABLE AS gone
             FOR EACH STATEMENT EXECUTE FUNCTION batch_note()";
    database.execute(filled).await;
    let _server = TaskServer::start(&database, auth.address(), &[]).await;
    let client = database.client().await;
    let mut patience = 300;
    while client.query_one("SELECT count(*) FROM task_requests", &[]).await.unwrap().get::<_, i64>(0) > 1 {
        patience -= 1;
        assert!(patience > 0, "expired request ids stay");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let sizes = client.query("SELECT size FROM batches ORDER BY size DESC", &[]).await.unwrap();
    let sizes: Vec<i64> = sizes.iter().map(|row| row.get(0)).collect();
    assert_eq!(sizes, [1_000, 1_000, 500]);
}

/// Deleted tasks go after 30 days, changes after two hours, and changes that were restored from a server with higher transaction
/// numbers too: they must not become news here one day.
#[tokio::test]
async fn what_is_over_goes_and_what_is_not_stays() {
    let auth_database = TestDatabase::migrated_auth().await;
    let auth = tests::AuthServer::start(&auth_database, &[]).await;
    let database = TestDatabase::migrated_task().await;
    let filled = "INSERT INTO tasks (id, user_id, title, deleted_at) SELECT gen_random_uuid(), gen_random_uuid(), age,
             CASE WHEN age <> 'living' THEN now() - age::interval END
         FROM unnest(ARRAY['living', '29 days 23 hours', '30 days 1 minute', '90 days']) AS age;
         INSERT INTO task_changes (user_id, xact, task_id, version, kind, changed_at, title, status, created_at)
         SELECT gen_random_uuid(), xact, gen_random_uuid(), 1, 'upserted', now() - age::interval, age, 'todo', now()
         FROM unnest(ARRAY['1 hour', '2 hours 1 minute']) AS age, unnest(ARRAY[3, 1099511627776]) AS xact";
    database.execute(filled).await;
    let _server = TaskServer::start(&database, auth.address(), &[]).await;
    let client = database.client().await;
    let left = async |sql: &str| {
        let rows = client.query(sql, &[]).await.unwrap();
        rows.iter().map(|row| row.get::<_, String>(0)).collect::<Vec<_>>()
    };
    let mut patience = 300;
    while left("SELECT title FROM tasks").await.len() > 2 || left("SELECT title FROM task_changes").await.len() > 2 {
        patience -= 1;
        assert!(patience > 0, "what is over stays");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(left("SELECT title FROM tasks ORDER BY title").await, ["29 days 23 hours", "living"]);
    assert_eq!(left("SELECT title FROM task_changes").await, ["1 hour", "1 hour"]);
}

#[tokio::test]
async fn a_start_waits_for_the_migration() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let database = TestDatabase::empty().await;
    let url = database.migrator_url();
    let migrating = async {
        tokio::time::sleep(Duration::from_secs(2)).await;
        let run = run_migrate(Service::Task, &url, &["up"]).await;
        assert_eq!(run.code, 0, "{run:#?}");
    };
    let (server, ()) = tokio::join!(TaskServer::start(&database, pair.auth.address(), &[]), migrating);
    let waited =
        server.logs().into_iter().any(|line| line.contains("\"latch\":\"schema\"") && line.contains("migrate up"));
    assert!(waited, "{:#?}", server.logs());
    let mut tasks = task_support::Tasks::new(server.channel_with(alice.access_token()));
    assert_eq!(create(&mut tasks, titled("t")).await.title, "t");
}

#[tokio::test]
async fn a_lost_database_is_unavailable_until_it_is_back() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let task = create(&mut tasks, titled("t")).await;
    let database = pair.task_database.as_ref().unwrap();
    let server = tests::Postgres::shared().await.address().superuser_url("postgres");
    let server = local_pair::postgres::connect(&server).await.unwrap();
    let allow = async |allowed: bool| {
        server.batch_execute(&format!("ALTER DATABASE {} ALLOW_CONNECTIONS {allowed}", database.name())).await.unwrap();
    };

    allow(false).await;
    let others = "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = $1";
    server.query(others, &[&database.name()]).await.unwrap();
    let get = || GetTaskRequest { id: task.id.clone() };
    for _ in 0..10 {
        assert_refused(tasks.get_task(get()).await, Code::Unavailable, "DATABASE_UNAVAILABLE");
    }
    pair.task.wait_for_log(|line| line.contains("not ready") && line.contains("\"latch\":\"database\"")).await;
    assert!(!local_pair::health::is_serving(pair.task.address()).await);

    allow(true).await;
    let mut patience = 100;
    while !local_pair::health::is_serving(pair.task.address()).await {
        patience -= 1;
        assert!(patience > 0, "the service does not come back:\n{}", pair.task.logs().join("\n"));
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert_eq!(tasks.get_task(get()).await.unwrap().into_inner().task, Some(task));
}

#[tokio::test]
async fn a_spent_deadline_stops_the_statement() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut tasks = pair.tasks(&alice);
    let task = create(&mut tasks, titled("t")).await;
    let database = pair.task_database.as_ref().unwrap();
    let mut locker = database.client().await;
    let lock = locker.transaction().await.unwrap();
    lock.execute("SELECT FROM tasks FOR UPDATE", &[]).await.unwrap();

    // More callers than the pool has connections: none of them may stay behind.
    let waiting = (0..12).map(|_| {
        let (mut tasks, change) =
            (tasks.clone(), Task { id: task.id.clone(), due_date: at(1, 0), ..Default::default() });
        async move {
            let mut request = Request::new(UpdateTaskRequest { task: Some(change), update_mask: None });
            request.set_timeout(Duration::from_millis(400));
            tasks.update_task(request).await
        }
    });
    for answer in futures_util::future::join_all(waiting).await {
        // Whoever is first to notice, the client's own clock or the service, the code is the same.
        let code = answer.map(|_| ()).unwrap_err().code();
        assert!(matches!(code, Code::DeadlineExceeded | Code::Cancelled), "{code:?}");
    }
    let watcher = database.client().await;
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let mut patience = 100;
    while watcher.query_one(running, &[]).await.unwrap().get::<_, i64>(0) > 0 {
        patience -= 1;
        assert!(patience > 0, "statements of callers that are gone still wait for the lock");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    lock.rollback().await.unwrap();
    // Nobody's change came through, and the pool is whole.
    let callers = (0..16).map(|_| {
        let mut tasks = tasks.clone();
        async move { tasks.list_tasks(ListTasksRequest::default()).await.unwrap().into_inner().tasks }
    });
    for listed in futures_util::future::join_all(callers).await {
        assert_eq!(listed, std::slice::from_ref(&task));
    }
    update(&mut tasks, Task { id: task.id, due_date: at(1, 0), ..Default::default() }, &[]).await.unwrap();
}

/// Clients that vanish in the middle of calls and streams, by the hundred: no statement goes on for them, no connection and no
/// watcher's place stays behind.
#[tokio::test]
async fn clients_that_are_killed_by_the_hundred_leave_nothing_behind() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let task = create(&mut pair.tasks(&alice), titled("t")).await;
    let database = pair.task_database.as_ref().unwrap();
    let mut locker = database.client().await;
    let lock = locker.transaction().await.unwrap();
    lock.execute("SELECT FROM tasks FOR UPDATE", &[]).await.unwrap();
    for round in 0..3 {
        let clients = (0..100).map(|n| {
            // Each on a connection of its own, which ends with it.
            let (mut tasks, id) = (pair.tasks(&alice), task.id.clone());
            tokio::spawn(async move {
                match n % 4 {
                    0 => drop(update(&mut tasks, Task { id, due_date: at(1, 0), ..Default::default() }, &[]).await),
                    1 => {
                        let ids = vec![id];
                        drop(tasks.batch_delete_tasks(BatchDeleteTasksRequest { ids }).await);
                    }
                    2 => {
                        let watch = WatchTasksRequest { snapshot: true, ..Default::default() };
                        let mut stream = tasks.watch_tasks(watch).await.unwrap().into_inner();
                        while stream.message().await.is_ok() {}
                    }
                    _ => loop {
                        drop(tasks.list_tasks(ListTasksRequest::default()).await);
                    },
                }
            })
        });
        let clients: Vec<_> = clients.collect();
        tokio::time::sleep(Duration::from_millis(700 + round * 300)).await;
        clients.iter().for_each(tokio::task::JoinHandle::abort);
    }
    let watcher = database.client().await;
    let running =
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'";
    let metric = async |name: &str| {
        let (_, page) = http_get(pair.task.metrics_address(), "/metrics").await;
        let value = page.lines().find_map(|line| line.strip_prefix(name)?.trim().parse::<f64>().ok());
        value.unwrap_or_else(|| panic!("{name} is not in {page}"))
    };
    let mut patience = 300;
    loop {
        let waiting = watcher.query_one(running, &[]).await.unwrap().get::<_, i64>(0);
        let used = metric("database_pool_connections{state=\"used\"}").await;
        let watchers = metric("task_watchers").await;
        // The look-out for changes and the readiness probe may hold one at this very moment.
        if waiting == 0 && used <= 1.0 && watchers == 0.0 {
            break;
        }
        patience -= 1;
        assert!(patience > 0, "{waiting} statements, {used} connections, {watchers} watchers are left behind");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    lock.rollback().await.unwrap();
    let untouched =
        pair.tasks(&alice).get_task(GetTaskRequest { id: task.id.clone() }).await.unwrap().into_inner().task;
    assert_eq!(untouched, Some(task), "nobody's change came through");
}
