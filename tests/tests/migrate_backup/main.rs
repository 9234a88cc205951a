//! `--backup-dir`: an archive before the first change that can be restored, and no change without a good one.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod archives;
mod refused;
mod running;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};

use tempfile::TempDir;
use tests::{MigrateRun, Service, TestDatabase, client_tools, run_program};

/// `up --output json --backup-dir <directory>` with the real tools.
async fn up(service: Service, url: &str, directory: &Path, more: &[&str]) -> MigrateRun {
    up_with(service, url, directory, more, &[("PG_BIN_DIR", client_tools().to_str().unwrap())]).await
}

/// The same with other variables.
async fn up_with(
    service: Service,
    url: &str,
    directory: &Path,
    more: &[&str],
    environment: &[(&str, &str)],
) -> MigrateRun {
    let arguments =
        [&["migrate", "up", "--output", "json", "--backup-dir", directory.to_str().unwrap()], more].concat();
    let run = run_program(service, &arguments, &[&[("DATABASE_URL", url)], environment].concat(), "").await;
    MigrateRun { code: run.code, stdout: run.stdout, stderr: run.stderr }
}

/// Everything in a directory, sorted.
fn names(directory: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

/// A directory with the real pg_restore and a pg_dump that is this shell script; `$REAL` in it is the real one.
fn tools_with(script: &str) -> TempDir {
    let directory = tempfile::tempdir().unwrap();
    let real = client_tools().join("pg_dump");
    // Its version is asked for first; that is answered by the real one.
    let text = format!(
        "#!/bin/sh\nREAL='{}'\nif [ \"$1\" = --version ]; then exec \"$REAL\" --version; fi\n{script}\n",
        real.display()
    );
    write_script(&directory.path().join("pg_dump"), &text);
    std::os::unix::fs::symlink(client_tools().join("pg_restore"), directory.path().join("pg_restore")).unwrap();
    directory
}

fn write_script(path: &Path, text: &str) {
    fs::write(path, text).unwrap();
    fs::set_permissions(path, fs::Permissions::from_mode(0o755)).unwrap();
}

/// The path in the report of a run that made an archive.
fn archive(run: &MigrateRun) -> PathBuf {
    assert_eq!(run.code, 0, "{run:#?}");
    PathBuf::from(run.json()["backup"]["path"].as_str().unwrap_or_else(|| panic!("no archive: {run:#?}")))
}

/// The migrator's password, which must be nowhere.
fn password(database: &TestDatabase) -> String {
    let url = database.migrator_url();
    let authority = url.split('@').next().unwrap();
    authority.rsplit(':').next().unwrap().to_owned()
}
