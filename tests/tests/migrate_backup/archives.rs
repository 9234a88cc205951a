//! What the archives hold, when they are made, and which stay.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::Stdio;

use tests::legacy::{all_rows, fixture, whole_schema};
use tests::{Postgres, Service, TestDatabase, client_tools};

use crate::{archive, names, up};

/// `pg_restore` into an empty database, as a person does it.
async fn restore(path: &Path, database: &TestDatabase) {
    restore_by(&database.superuser_url(), path, &[]).await;
}

async fn restore_by(url: &str, path: &Path, arguments: &[&str]) {
    let output = tokio::process::Command::new(client_tools().join("pg_restore"))
        .args(["--exit-on-error", &format!("--dbname={url}")])
        .args(arguments)
        .arg(path)
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
}

/// The archive names the extensions. Whoever owns the new database makes what is trusted; one that an administrator has made there stays
/// the administrator's.
#[tokio::test]
async fn an_archive_with_an_extension_is_restored_by_the_migrator() {
    let database = TestDatabase::migrated_task().await;
    let client = database.client().await;
    client.batch_execute("ALTER TABLE tasks ALTER COLUMN title DROP NOT NULL").await.unwrap();
    let schema = whole_schema(&client).await;
    assert!(schema["tasks"].indexes.contains_key("idx_tasks_live_text"));
    let place = tempfile::tempdir().unwrap();
    let path = archive(&up(Service::Task, &database.migrator_url(), place.path(), &[]).await);
    for (by_administrator, arguments) in [(false, &[][..]), (true, &["--no-comments"])] {
        let restored = TestDatabase::empty().await;
        if by_administrator {
            restored.client().await.batch_execute("CREATE EXTENSION pg_trgm").await.unwrap();
        }
        restore_by(&restored.migrator_url(), &path, arguments).await;
        assert_eq!(whole_schema(&restored.client().await).await, schema);
        assert_eq!(up(Service::Task, &restored.migrator_url(), place.path(), &[]).await.code, 0);
    }
}

#[tokio::test]
async fn the_archive_is_the_database_before_the_migration() {
    // With a table of another application and a large object: the whole database is dumped.
    let sql = format!(
        "{}\nCREATE TABLE elsewhere (id int PRIMARY KEY, note text); INSERT INTO elsewhere VALUES (1, 'kept'), (2, NULL);",
        fixture("legacy/incident")
    );
    let database = TestDatabase::from_sql(&sql).await;
    database.execute("SELECT lo_from_bytea(4711, 'large')").await;
    let client = database.client().await;
    let place = tempfile::tempdir().unwrap();
    for (service, name) in [(Service::Auth, "auth-service"), (Service::Task, "task-service")] {
        let (schema, rows) = (whole_schema(&client).await, all_rows(&client).await);
        let run = up(service, &database.migrator_url(), place.path(), &[]).await;
        let path = archive(&run);

        // What the report says of it is so.
        let file = path.file_name().unwrap().to_str().unwrap();
        let time = file.strip_prefix(&format!("{name}-{}-", database.name())).unwrap().strip_suffix(".dump").unwrap();
        assert!(time.len() == 16 && time.ends_with('Z') && time.contains('T'), "{file}");
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
        let report = &run.json()["backup"];
        let bytes = fs::read(&path).unwrap();
        assert_eq!(report["bytes"].as_u64(), Some(bytes.len() as u64));
        let sum: String = client.query_one("SELECT encode(sha256($1), 'hex')", &[&bytes]).await.unwrap().get(0);
        assert_eq!(report["sha256"].as_str(), Some(sum.as_str()));
        let tables: i64 = rows.len().try_into().unwrap();
        assert!(report["tables"].as_i64().unwrap() >= tables, "{report}: {tables} tables");
        let version: String = client.query_one("SHOW server_version", &[]).await.unwrap().get(0);
        assert_eq!(report["server_version"].as_str(), version.split_whitespace().next());
        assert!(report["tool_version"].as_str().unwrap().contains('.') && report["seconds"].as_f64().unwrap() > 0.0);

        // The migration has changed the database, and the archive is what was before.
        assert_ne!(whole_schema(&client).await, schema, "{name} had nothing to do");
        let restored = TestDatabase::empty().await;
        restore(&path, &restored).await;
        let there = restored.client().await;
        assert_eq!(whole_schema(&there).await, schema, "{name}: another schema");
        assert_eq!(all_rows(&there).await, rows, "{name}: other rows");
        let large: Vec<u8> = there.query_one("SELECT lo_get(4711)", &[]).await.unwrap().get(0);
        assert_eq!(large, b"large");
        // After going back, the same migration runs again.
        let again = up(service, &restored.migrator_url(), place.path(), &[]).await;
        assert_eq!(again.code, 0, "{again:#?}");
    }
    assert!(names(place.path()).iter().all(|name| name.ends_with(".dump")), "{:?}", names(place.path()));
}

#[tokio::test]
async fn nothing_to_do_needs_no_archive() {
    let database = TestDatabase::migrated_task().await;
    let place = tempfile::tempdir().unwrap();
    // Not even a directory.
    for directory in [place.path(), &place.path().join("none")] {
        let run = up(Service::Task, &database.migrator_url(), directory, &[]).await;
        assert_eq!((run.code, run.json().get("backup")), (0, None), "{run:#?}");
    }
    assert!(names(place.path()).is_empty());
}

#[tokio::test]
async fn the_newest_archives_stay_and_other_files_are_not_touched() {
    let database = TestDatabase::migrated_task().await;
    let place = tempfile::tempdir().unwrap();
    let others = ["another-file".to_owned(), format!("auth-service-{}-20200101T000000Z.dump", database.name())];
    others.iter().for_each(|name| fs::write(place.path().join(name), "not ours").unwrap());
    let mut made = Vec::new();
    for _ in 0..4 {
        database.execute("DROP INDEX idx_tasks_id").await;
        let run = up(Service::Task, &database.migrator_url(), place.path(), &["--backup-keep", "2"]).await;
        made.push(archive(&run).file_name().unwrap().to_str().unwrap().to_owned());
    }
    let mut expected = [&others[..], &made[2..]].concat();
    expected.sort();
    assert_eq!(names(place.path()), expected, "of {made:?}");

    for (keep, with_directory) in [("0", true), ("many", true), ("2", false)] {
        let directory = place.path().to_str().unwrap();
        let flags = if with_directory { &["--backup-dir", directory][..] } else { &[] };
        let arguments = [&["up", "--backup-keep", keep], flags].concat();
        let usage = tests::run_migrate(Service::Task, &database.migrator_url(), &arguments).await;
        assert_eq!(usage.code, 2, "{usage:#?}");
        assert!(usage.stderr.contains("--backup-"), "{usage:#?}");
    }
}

/// The way in is that of `DATABASE_URL`, whatever is in it.
#[tokio::test]
async fn any_password_and_several_hosts_work() {
    let database = TestDatabase::from_sql(&fixture("legacy/incident")).await;
    let client = database.client().await;
    let role = format!("odd_{}", uuid::Uuid::new_v4().simple());
    let sql = format!("CREATE ROLE {role} LOGIN SUPERUSER PASSWORD 'p@ss:/w\u{f6}rd %\\?#\"&=''x'");
    client.batch_execute(&sql).await.unwrap();
    let encoded = "p%40ss%3A%2Fw%C3%B6rd%20%25%5C%3F%23%22%26%3D%27x";
    let port = Postgres::shared().await.address().port;
    let url = format!("postgres://{role}:{encoded}@127.0.0.1:1,127.0.0.1:{port}/{}?sslmode=prefer", database.name());
    let place = tempfile::tempdir().unwrap();
    let run = up(Service::Task, &url, place.path(), &[]).await;
    assert!(archive(&run).is_file());
    for secret in ["p@ss", "p%40ss"] {
        assert!(!run.stdout.contains(secret) && !run.stderr.contains(secret), "{run:#?}");
    }
    client
        .batch_execute(&format!("REASSIGN OWNED BY {role} TO CURRENT_USER; DROP OWNED BY {role}; DROP ROLE {role}"))
        .await
        .unwrap();
}
