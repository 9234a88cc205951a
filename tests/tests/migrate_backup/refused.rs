//! Every way in which an archive can fail: exit code 8, a message that says what to do, nothing changed, nothing left.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::Stdio;

use migration_engine::Schema;
use tests::legacy::{all_rows, fixture, whole_schema};
use tests::{MigrateRun, Service, TestDatabase, client_tools};

use crate::{names, password, tools_with, up, up_with, write_script};

/// A database that has a migration before it, and what is in it.
struct Case {
    database: TestDatabase,
    client: tokio_postgres::Client,
    schema: Schema,
    rows: BTreeMap<String, Vec<serde_json::Value>>,
}

impl Case {
    async fn new(by_superuser: &str) -> Self {
        let database = TestDatabase::from_sql(&fixture("legacy/incident")).await;
        let client = database.client().await;
        client.batch_execute(by_superuser).await.unwrap();
        let (schema, rows) = (whole_schema(&client).await, all_rows(&client).await);
        Self { database, client, schema, rows }
    }

    fn url(&self) -> String {
        self.database.migrator_url()
    }

    /// Exit code 8, the words in the message, no change, no password.
    async fn assert_refused(&self, about: &str, run: &MigrateRun, words: &[&str]) {
        assert_eq!(run.code, 8, "{about}: {run:#?}");
        let error = run.json()["error"].as_str().unwrap().to_owned();
        for word in [&["nothing was changed"], words].concat() {
            assert!(error.contains(word), "{about}: {word:?} is not in {error:?}");
        }
        let secret = password(&self.database);
        assert!(!run.stdout.contains(&secret) && !run.stderr.contains(&secret), "{about}: {run:#?}");
        assert_eq!(run.json()["actions"], serde_json::json!([]), "{about}");
        assert_eq!(whole_schema(&self.client).await, self.schema, "{about}: the schema was changed");
        assert_eq!(all_rows(&self.client).await, self.rows, "{about}: rows were changed");
    }
}

/// A directory that nobody here can write to; root can write to every ordinary one.
fn unwritable(place: &Path) -> PathBuf {
    if rustix::process::geteuid().is_root() {
        return PathBuf::from("/sys/kernel");
    }
    let directory = place.join("closed");
    fs::create_dir(&directory).unwrap();
    fs::set_permissions(&directory, fs::Permissions::from_mode(0o500)).unwrap();
    directory
}

#[tokio::test]
async fn a_directory_that_cannot_be_used() {
    let case = Case::new("").await;
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("file");
    fs::write(&file, "").unwrap();
    let cases = [
        (place.path().join("missing"), "mkdir -p"),
        (file, "give a directory"),
        (unwritable(place.path()), "is not writable"),
    ];
    for (directory, word) in cases {
        let run = up(Service::Auth, &case.url(), &directory, &[]).await;
        case.assert_refused(word, &run, &[word, directory.to_str().unwrap()]).await;
    }
}

#[tokio::test]
async fn tools_that_are_missing_or_too_old() {
    let case = Case::new("").await;
    let (place, empty, old) =
        (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    for name in ["pg_dump", "pg_restore"] {
        write_script(&old.path().join(name), &format!("#!/bin/sh\necho '{name} (PostgreSQL) 13.4'\n"));
    }
    let version: String = case.client.query_one("SHOW server_version", &[]).await.unwrap().get(0);
    let server = version.split_whitespace().next().unwrap();
    for (tools, words) in
        [(&empty, ["are not in", "PG_BIN_DIR="]), (&old, ["pg_dump 13.4", "is older than the server"])]
    {
        let directory = tools.path().to_str().unwrap();
        let environment = [("PG_BIN_DIR", directory), ("PATH", "")];
        let run = up_with(Service::Auth, &case.url(), place.path(), &[], &environment).await;
        case.assert_refused(directory, &run, &[words[0], words[1], directory, server, "install them with `"]).await;
        // As a flag it is the same.
        let run = up_with(Service::Auth, &case.url(), place.path(), &["--pg-bin-dir", directory], &[]).await;
        case.assert_refused(directory, &run, &words).await;
        assert_eq!(names(place.path()), [""; 0]);
    }
}

#[tokio::test]
async fn rows_that_the_role_cannot_read() {
    let cases = [
        ("SELECT lo_from_bytea(4711, 'large')", "permission denied for large object 4711", "ON LARGE OBJECT"),
        ("CREATE TABLE elsewhere (a int)", "permission denied for table elsewhere", "pg_read_all_data"),
        (
            "CREATE TABLE elsewhere (a int); GRANT SELECT ON elsewhere TO PUBLIC; ALTER TABLE elsewhere ENABLE ROW LEVEL SECURITY",
            "row-level security",
            "BYPASSRLS",
        ),
    ];
    for (sql, why, advice) in cases {
        let case = Case::new(sql).await;
        let place = tempfile::tempdir().unwrap();
        let run = up(Service::Auth, &case.url(), place.path(), &[]).await;
        case.assert_refused(sql, &run, &[why, advice]).await;
        assert_eq!(names(place.path()), [""; 0]);
    }
}

#[tokio::test]
async fn archives_that_are_not_good() {
    let case = Case::new("").await;
    let place = tempfile::tempdir().unwrap();
    let cut = |part: &str| {
        format!("f=$(mktemp); \"$REAL\" \"$@\" >\"$f\"; head -c $(($(wc -c <\"$f\") {part})) \"$f\"; rm \"$f\"")
    };
    let cases = [
        ("cut by one byte", cut("- 1"), "cannot be read back"),
        ("cut in the middle", cut("/ 2"), "cannot be read back"),
        ("empty", "exit 0".to_owned(), "cannot be read back"),
        (
            "without the rows of a table",
            "exec \"$REAL\" \"$@\" --exclude-table-data=users".to_owned(),
            "lacks the rows of users",
        ),
        ("no connection", "PGPORT=1 exec \"$REAL\" \"$@\"".to_owned(), "check its host"),
        (
            "a failure after the whole archive",
            "\"$REAL\" \"$@\"; echo 'disk on fire' >&2; exit 1".to_owned(),
            "disk on fire",
        ),
        ("ended by a signal", "kill -9 $$".to_owned(), "signal: 9"),
    ];
    for (about, script, word) in cases {
        let tools = tools_with(&script);
        let environment = [("PG_BIN_DIR", tools.path().to_str().unwrap())];
        let run = up_with(Service::Auth, &case.url(), place.path(), &[], &environment).await;
        case.assert_refused(about, &run, &[word]).await;
        assert_eq!(names(place.path()), [""; 0], "{about}");
    }
}

/// A limit of the file size stands for the full disk: the same write fails, without a file system of our own.
#[tokio::test]
async fn a_disk_that_is_full() {
    let case = Case::new("").await;
    let place = tempfile::tempdir().unwrap();
    let output = tokio::process::Command::new("/bin/sh")
        .args(["-c", "trap '' XFSZ; ulimit -f 8; exec \"$@\"", "sh"])
        .arg(Service::Auth.program())
        .args(["migrate", "up", "--output", "json", "--backup-dir"])
        .arg(place.path())
        .env("DATABASE_URL", case.url())
        .env("PG_BIN_DIR", client_tools())
        .stdin(Stdio::null())
        .output()
        .await
        .unwrap();
    let run = MigrateRun {
        code: output.status.code().unwrap_or(-1),
        stdout: String::from_utf8(output.stdout).unwrap(),
        stderr: String::from_utf8(output.stderr).unwrap(),
    };
    case.assert_refused("full", &run, &["File too large", "--backup-dir"]).await;
    assert_eq!(names(place.path()), [""; 0]);
}
