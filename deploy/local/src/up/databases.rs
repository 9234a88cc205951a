//! The databases of a run: made once, from nothing or from a dump, and told what was found in it.

use std::path::Path;

use super::UpError;
use super::directory::{Directory, Secrets, State};
use super::progress::Progress;
use crate::postgres::{Dump, PostgresError, ServerAddress, connect, database_create, database_drop, roles_ensure};

/// Makes the databases unless they are complete; sets the passwords of their roles.
pub(super) async fn prepare(
    directory: &Directory,
    known: Option<State>,
    dump: Option<(&Path, &Dump)>,
    secrets: &Secrets,
    server: &ServerAddress,
    progress: &Progress,
) -> Result<State, UpError> {
    let mut state = match (known, dump) {
        (Some(state), None) if state.complete => {
            for database in state.databases() {
                roles_ensure(server, &secrets.roles(database)).await?;
            }
            return Ok(state);
        }
        (_, Some((path, _))) => State::restored(path),
        _ => State::fresh(),
    };
    directory.write_state(&state)?;
    for database in state.databases() {
        // Half made by a run that was killed here: nothing of value was in it yet.
        database_drop(server, database).await?;
        roles_ensure(server, &secrets.roles(database)).await?;
    }
    match dump {
        Some((path, dump)) => restore(path, dump, &state.auth_database, secrets, server, progress).await?,
        None => {
            for database in state.databases() {
                database_create(server, database, &secrets.roles(database)).await?;
            }
        }
    }
    state.complete = true;
    directory.write_state(&state)?;
    Ok(state)
}

async fn restore(
    path: &Path,
    dump: &Dump,
    database: &str,
    secrets: &Secrets,
    server: &ServerAddress,
    progress: &Progress,
) -> Result<(), UpError> {
    progress.begin(&format!("loading {}", path.display()));
    let report = dump.restore(server, database, &secrets.roles(database)).await?;
    progress.done(&format!(
        "loaded {}: {} statements, {} rows in COPY blocks",
        path.display(),
        report.statements,
        report.copied_rows
    ));
    progress.detail(&format!("found: {}", found(server, database).await?));
    if !report.roles_created.is_empty() {
        progress.detail(&format!(
            "roles that the dump names, created without the right to sign in: {}",
            report.roles_created.join(", ")
        ));
    }
    if !report.left_out.is_empty() {
        progress
            .detail(&format!("left out, as they act on a server or another database: {}", report.left_out.join("; ")));
    }
    Ok(())
}

/// The tables of schema public that are neither in `owned` nor the migration engine's.
pub(super) async fn other_tables(
    server: &ServerAddress,
    database: &str,
    owned: &[String],
) -> Result<Vec<String>, UpError> {
    let client = connect(&server.superuser_url(database)).await?;
    let sql = "SELECT relname::text FROM pg_class WHERE relnamespace = 'public'::regnamespace
               AND relkind IN ('r', 'p', 'v', 'm') AND relname <> ALL ($1) AND NOT starts_with(relname, '__') ORDER BY relname";
    let rows = client.query(sql, &[&owned]).await.map_err(|e| PostgresError::sql("listing the other tables", &e))?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

/// "tasks 4 rows, users 3 rows, …" of schema public.
async fn found(server: &ServerAddress, database: &str) -> Result<String, UpError> {
    let client = connect(&server.superuser_url(database)).await?;
    let sql = "SELECT relname::text, (xpath('/row/n/text()', query_to_xml(format('SELECT count(*) AS n FROM public.%I', relname), false, true, '')))[1]::text::bigint
               FROM pg_class WHERE relnamespace = 'public'::regnamespace AND relkind IN ('r', 'p') ORDER BY relname";
    let rows = client.query(sql, &[]).await.map_err(|e| PostgresError::sql("counting what the dump brought", &e))?;
    let tables: Vec<String> =
        rows.iter().map(|row| format!("{} {}", row.get::<_, String>(0), row.get::<_, i64>(1))).collect();
    Ok(if tables.is_empty() {
        "no tables in schema public".to_owned()
    } else {
        format!("rows by table: {}", tables.join(", "))
    })
}
