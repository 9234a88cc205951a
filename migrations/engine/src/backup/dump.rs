//! Runs `pg_dump` into the unfinished archive and `pg_restore` over it, and says what to do when one of them fails.

use std::collections::BTreeSet;

use super::archive::Partial;
use super::failed;
use super::process::{self, Failure};
use super::settings::{ToolSettings, bare};
use super::tools::Tools;
use crate::error::EngineError;

/// How long pg_dump waits for somebody who holds a table exclusively; without it, for ever.
const LOCK_WAIT: &str = "60s";

/// What a part of pg_dump's complaint means, and what to do about it.
const ADVICE: &[(&str, &str)] = &[
    (
        "permission denied for large object",
        "the archive holds the whole database: `GRANT SELECT ON LARGE OBJECT <id> TO <role>` for the role of DATABASE_URL",
    ),
    (
        "permission denied",
        "the archive holds the whole database, so the role of DATABASE_URL must read all of it: `GRANT pg_read_all_data TO <role>`, or give the tables to it",
    ),
    (
        "row-level security",
        "some rows are hidden from the role of DATABASE_URL: `ALTER ROLE <role> BYPASSRLS`, or dump as the owner of the table",
    ),
    (
        "statement timeout",
        "another session holds a table exclusively: find it in pg_locks, end it, and run the command again",
    ),
    ("No space left on device", "free space there, lower --backup-keep, or give another --backup-dir"),
    ("File too large", "raise the limit of the file size (`ulimit -f`), or give another --backup-dir"),
    ("Disk quota exceeded", "free space there, or give another --backup-dir"),
    ("server version mismatch", "set PG_BIN_DIR to the directory of a newer pg_dump"),
    (
        "connection to server",
        "pg_dump connects with libpq and the settings of DATABASE_URL: check its host, password and sslmode there",
    ),
];

/// Dumps the whole database into `partial` and sees to it that it is on the disk.
pub(super) async fn write(
    tools: &Tools,
    settings: &ToolSettings,
    service: &str,
    partial: &Partial,
) -> Result<(), EngineError> {
    let mut command = bare(&tools.program("pg_dump"));
    // Into stdout, which is our file: a regular one, so that the archive has its offsets and can be restored in parallel.
    command.args(["--format=custom", "--no-password", &format!("--lock-wait-timeout={LOCK_WAIT}")]);
    settings.apply(&mut command, &format!("{service} backup"));
    let tick = || tracing::info!(bytes = partial.bytes(), "backup: dumping");
    process::run(command, Some(partial.stdout()?), |_| {}, tick).await.map_err(|failure| {
        let text = failure.to_string();
        let advice = ADVICE
            .iter()
            .find(|(part, _)| text.contains(part))
            .map_or("mend what it names and run the command again", |(_, advice)| advice);
        failed(format!("pg_dump {}: {text}; {advice}", tools.version))
    })?;
    partial.sync().await
}

/// Reads the archive to its end. Answers how many tables' rows are in it; those of `tables` must be among them.
pub(super) async fn verify(tools: &Tools, partial: &Partial, tables: &[String]) -> Result<usize, EngineError> {
    let unreadable = |failure: Failure| {
        failed(format!(
            "the archive cannot be read back, so it is worth nothing: pg_restore {}: {failure}; check the disk of {} and run the command again",
            tools.version,
            partial.directory().display()
        ))
    };
    let mut command = bare(&tools.program("pg_restore"));
    command.arg("--list").arg(partial.path());
    let mut rows_of = 0;
    let mut missing: BTreeSet<&str> = tables.iter().map(String::as_str).collect();
    let line = |line: &str| {
        if let Some(table) = data_entry(line) {
            rows_of += 1;
            missing.retain(|name| !table.starts_with(&format!("public {name} ")));
        }
    };
    process::run(command, None, line, || {}).await.map_err(unreadable)?;
    if !missing.is_empty() {
        let missing: Vec<&str> = missing.into_iter().collect();
        return Err(failed(format!(
            "the archive lacks the rows of {}: pg_dump {} left them out; run the command again with another one (PG_BIN_DIR)",
            missing.join(", "),
            tools.version
        )));
    }
    let mut command = bare(&tools.program("pg_restore"));
    // The whole script goes nowhere, but every block of every table is read and unpacked for it.
    command.args(["--file=/dev/null"]).arg(partial.path());
    let tick = || tracing::info!("backup: reading the archive back");
    process::run(command, None, |_| {}, tick).await.map_err(unreadable)?;
    Ok(rows_of)
}

/// `<schema> <table> <owner>` of a line about rows: "3345; 0 16386 TABLE DATA public users owner".
fn data_entry(line: &str) -> Option<&str> {
    let (id, rest) = line.split_once("; ")?;
    id.parse::<u32>().ok()?;
    rest.splitn(3, ' ').nth(2)?.strip_prefix("TABLE DATA ")
}

#[cfg(test)]
mod tests {
    use super::data_entry;

    #[test]
    fn lines_about_rows() {
        assert_eq!(data_entry("3345; 0 16386 TABLE DATA public users me"), Some("public users me"));
        assert_eq!(data_entry("3345; 0 16386 TABLE DATA public two words me"), Some("public two words me"));
        for other in [
            "215; 1259 16386 TABLE public users me",
            ";     Archive created at 2026-11-24 12:00:00 UTC",
            "; 1 2 TABLE DATA public users me",
            "3200; 2606 16400 CONSTRAINT public users TABLE DATA public x me",
            "",
        ] {
            assert_eq!(data_entry(other), None, "{other}");
        }
    }
}
