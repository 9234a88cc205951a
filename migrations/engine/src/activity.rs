//! Who is in the way at this moment: sessions that hold locks on our tables, and the one that an index build waits for.

use tokio_postgres::types::Type;

use crate::scope::Scope;
use crate::words::without_literals;

/// One other session, for people.
const SESSION: &str = "'pid ' || a.pid || ' (' || concat_ws(', ', 'user ' || a.usename, nullif(a.application_name, ''), a.state, \
    'for ' || date_trunc('second', clock_timestamp() - a.xact_start)) || ')', coalesce(a.query, '')";

/// The sessions that hold a lock on one of `tables`, longest first; empty when that cannot be read.
pub(crate) async fn holders(scope: Scope<'_>, tables: &[String]) -> Vec<String> {
    let sql = format!(
        "SELECT DISTINCT ON (a.xact_start, a.pid) {SESSION} FROM pg_catalog.pg_locks l \
         JOIN pg_catalog.pg_class c ON c.oid = l.relation JOIN pg_catalog.pg_stat_activity a ON a.pid = l.pid \
         WHERE l.granted AND l.locktype = 'relation' AND l.pid <> pg_catalog.pg_backend_pid() \
            AND l.database = (SELECT oid FROM pg_catalog.pg_database WHERE datname = pg_catalog.current_database()) \
            AND c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1) \
         ORDER BY a.xact_start, a.pid LIMIT 3"
    );
    match scope.query(&sql, &[(&tables, Type::TEXT_ARRAY)]).await {
        Ok(rows) => rows.iter().map(|row| session(row.try_get(0), row.try_get(1))).collect(),
        Err(error) => {
            tracing::debug!(%error, "the holders of locks cannot be read");
            Vec::new()
        }
    }
}

/// How far the index build of a session is.
#[derive(Debug, Default)]
pub(crate) struct Build {
    /// PostgreSQL's word for the phase.
    pub(crate) phase: String,
    pub(crate) done: u64,
    pub(crate) whole: u64,
    /// The session it waits for.
    pub(crate) blocker: Option<String>,
}

/// The index build that the session `pid` runs, if it runs one.
pub(crate) async fn index_build(scope: Scope<'_>, pid: &str) -> Result<Option<Build>, tokio_postgres::Error> {
    // Blocks while the table is read, tuples while the index is loaded, sessions while others are waited for.
    let sql = format!(
        "SELECT p.phase, \
            CASE WHEN p.blocks_total > 0 THEN p.blocks_done WHEN p.tuples_total > 0 THEN p.tuples_done ELSE p.lockers_done END, \
            CASE WHEN p.blocks_total > 0 THEN p.blocks_total WHEN p.tuples_total > 0 THEN p.tuples_total ELSE p.lockers_total END, {SESSION} \
         FROM pg_catalog.pg_stat_progress_create_index p LEFT JOIN pg_catalog.pg_stat_activity a \
            ON a.pid = nullif(p.current_locker_pid, 0) OR a.pid = (pg_catalog.pg_blocking_pids(p.pid))[1] WHERE p.pid = {pid} LIMIT 1"
    );
    let row = scope.first_row(&sql).await?;
    let [phase, done, whole, who, query] = row.as_slice() else { return Ok(None) };
    Ok(Some(Build {
        phase: phase.clone(),
        done: done.parse().unwrap_or_default(),
        whole: whole.parse().unwrap_or_default(),
        blocker: (!who.is_empty()).then(|| format!("{who}: {}", shortened(query))),
    }))
}

fn session(who: Result<String, tokio_postgres::Error>, query: Result<String, tokio_postgres::Error>) -> String {
    format!("{}: {}", who.unwrap_or_default(), shortened(&query.unwrap_or_default()))
}

/// Values may be addresses or tokens: they are left out.
fn shortened(query: &str) -> String {
    crate::split::summary(&without_literals(query))
}
