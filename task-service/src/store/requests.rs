//! Which tasks callers' request ids made: a repeated call answers the first result.

use std::collections::HashMap;

use chrono::{DateTime, TimeDelta, Utc};
use diesel::prelude::*;
use diesel::upsert::excluded;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use uuid::Uuid;

use super::TaskStoreError;
use super::schema::task_requests;
use crate::domain::ids::{TaskId, UserId};
use crate::domain::task::NewTask;

/// How long a request id answers its first result.
pub(super) const REQUEST_ID_LIFETIME: TimeDelta = TimeDelta::hours(24);

/// Claims the request ids of new tasks, each for its task, or gives the tasks that have them. Of two that race, the second waits here
/// for the first's transaction to end, then sees its rows. No request id may stand twice.
pub(super) async fn requests_claim_on_conn(
    conn: &mut AsyncPgConnection,
    tasks: &[&NewTask],
) -> Result<HashMap<(UserId, Uuid), TaskId>, TaskStoreError> {
    let mut wanted: Vec<(UserId, Uuid, TaskId, DateTime<Utc>)> =
        tasks.iter().filter_map(|task| Some((task.user_id, task.request_id?, task.id, task.created_at))).collect();
    let [(.., now), ..] = wanted[..] else { return Ok(HashMap::new()) };
    // In one order, so that two who claim the same ones wait for each other in a row.
    wanted.sort_unstable();
    let rows = wanted.iter().map(|(user, request, task, created_at)| {
        (
            task_requests::user_id.eq(user.0),
            task_requests::request_id.eq(*request),
            task_requests::task_id.eq(task.0),
            task_requests::created_at.eq(*created_at),
        )
    });
    let claim = diesel::insert_into(task_requests::table)
        .values(rows.collect::<Vec<_>>())
        .on_conflict((task_requests::user_id, task_requests::request_id))
        .do_update()
        .set((
            task_requests::task_id.eq(excluded(task_requests::task_id)),
            task_requests::created_at.eq(excluded(task_requests::created_at)),
        ));
    // Only a request id whose time is over is given to the new task.
    let claim =
        diesel::query_dsl::methods::FilterDsl::filter(claim, task_requests::created_at.le(now - REQUEST_ID_LIFETIME));
    let columns = (task_requests::user_id, task_requests::request_id, task_requests::task_id);
    let claimed: Vec<(Uuid, Uuid, Uuid)> = claim.returning(columns).load(conn).await?;
    let mut found: HashMap<_, _> =
        claimed.into_iter().map(|(user, request, task)| ((UserId(user), request), TaskId(task))).collect();
    if found.len() < wanted.len() {
        let missing = wanted.iter().filter(|(user, request, ..)| !found.contains_key(&(*user, *request)));
        let (users, requests): (Vec<Uuid>, Vec<Uuid>) = missing.map(|(user, request, ..)| (user.0, *request)).unzip();
        let theirs: Vec<(Uuid, Uuid, Uuid)> = task_requests::table
            .filter(task_requests::user_id.eq_any(users))
            .filter(task_requests::request_id.eq_any(requests))
            .select(columns)
            .load(conn)
            .await?;
        let theirs = theirs.into_iter().map(|(user, request, task)| ((UserId(user), request), TaskId(task)));
        for (key, task) in theirs {
            found.entry(key).or_insert(task);
        }
    }
    Ok(found)
}
