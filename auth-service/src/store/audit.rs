//! The audit trail: appended to in the transaction of the change, read page by page.

use chrono::{DateTime, Utc};
use diesel::pg::Pg;
use diesel::prelude::*;
use diesel_async::{AsyncPgConnection, RunQueryDsl};
use proto::auth::v1::{AuditAction, AuditTargetType, PrincipalType};
use service_kit::database::DatabaseError;
use uuid::Uuid;

use super::callers::{Acting, caller_may_on_conn};
use super::schema::audit_events;
use super::{AuthStore, ChangeError};
use crate::domain::audit::{AuditFilter, Event, Origin, Recorded};

/// The permission to read it.
const READ: &str = "audit.read";
/// What stands before the names of the proto's enums; the rest is stored.
const ACTION: &str = "AUDIT_ACTION_";
const TARGET: &str = "AUDIT_TARGET_TYPE_";
const ACTOR: &str = "PRINCIPAL_TYPE_";

fn word(name: &'static str, prefix: &str) -> &'static str {
    name.strip_prefix(prefix).unwrap_or(name)
}

/// Appends an event.
pub(super) async fn audit_insert_on_conn(
    conn: &mut AsyncPgConnection,
    event: &Event,
    origin: &Origin,
    now: DateTime<Utc>,
) -> Result<(), DatabaseError> {
    let (actor_type, actor_id) = event.actor.stored();
    let target = event.target.as_ref().map(crate::domain::audit::Target::stored);
    let target_type = target.as_ref().map(|(kind, _)| word(kind.as_str_name(), TARGET));
    diesel::insert_into(audit_events::table)
        .values((
            audit_events::id.eq(Uuid::now_v7()),
            audit_events::occurred_at.eq(now),
            audit_events::actor_type.eq(word(actor_type.as_str_name(), ACTOR)),
            audit_events::actor_id.eq(actor_id),
            audit_events::action.eq(word(event.action.as_str_name(), ACTION)),
            audit_events::target_type.eq(target_type),
            audit_events::target_id.eq(target.as_ref().map(|(_, id)| id)),
            audit_events::reason.eq(event.reason),
            audit_events::source.eq(&origin.source),
            audit_events::user_agent.eq(&origin.user_agent),
            audit_events::request_id.eq(&origin.request_id),
            audit_events::changed_fields.eq(&event.changed_fields),
        ))
        .execute(conn)
        .await?;
    Ok(())
}

#[derive(Queryable)]
struct EventRow {
    id: Uuid,
    occurred_at: DateTime<Utc>,
    actor_type: String,
    actor_id: Option<Uuid>,
    action: String,
    target_type: Option<String>,
    target_id: Option<String>,
    reason: Option<String>,
    source: Option<String>,
    user_agent: Option<String>,
    request_id: Option<String>,
    changed_fields: Vec<Option<String>>,
}

impl From<EventRow> for Recorded {
    fn from(row: EventRow) -> Self {
        // A word that a newer program wrote reads as unspecified.
        let kind = row.target_type.map(|word| AuditTargetType::from_str_name(&format!("{TARGET}{word}")));
        Self {
            id: row.id,
            occurred_at: row.occurred_at,
            actor_type: PrincipalType::from_str_name(&format!("{ACTOR}{}", row.actor_type)).unwrap_or_default(),
            actor_id: row.actor_id,
            action: AuditAction::from_str_name(&format!("{ACTION}{}", row.action)).unwrap_or_default(),
            target: kind.map(|kind| (kind.unwrap_or_default(), row.target_id.unwrap_or_default())),
            reason: row.reason,
            origin: Origin { user_agent: row.user_agent, source: row.source, request_id: row.request_id },
            changed_fields: row.changed_fields.into_iter().flatten().collect(),
        }
    }
}

impl AuthStore {
    /// Appends an event that tells of no change, such as a refusal.
    pub async fn audit_append(&self, event: &Event, origin: &Origin, now: DateTime<Utc>) -> Result<(), DatabaseError> {
        self.database.run("audit_append", async |conn| audit_insert_on_conn(conn, event, origin, now).await).await
    }

    /// At most `limit` events, the newest first, beginning behind the one with this time and id.
    pub async fn audit_list(
        &self,
        caller: Acting,
        filter: &AuditFilter,
        behind: Option<(DateTime<Utc>, Uuid)>,
        limit: i64,
        now: DateTime<Utc>,
    ) -> Result<Vec<Recorded>, ChangeError> {
        self.database
            .run("audit_list", async |conn| {
                caller_may_on_conn(conn, caller, READ, now).await?;
                let mut query = filtered(filter);
                if let Some((time, id)) = behind {
                    let tie = audit_events::occurred_at.lt(time).or(audit_events::id.lt(id));
                    query = query.filter(audit_events::occurred_at.le(time).and(tie));
                }
                let rows: Vec<EventRow> = query
                    .order((audit_events::occurred_at.desc(), audit_events::id.desc()))
                    .limit(limit)
                    .load(conn)
                    .await?;
                Ok::<_, ChangeError>(rows.into_iter().map(Recorded::from).collect())
            })
            .await
    }
}

fn filtered(filter: &AuditFilter) -> audit_events::BoxedQuery<'_, Pg> {
    let mut query = audit_events::table.into_boxed();
    if let Some(id) = filter.actor_id {
        query = query.filter(audit_events::actor_id.eq(id));
    }
    if let Some(id) = &filter.target_id {
        query = query.filter(audit_events::target_id.eq(id));
    }
    if let Some(kind) = filter.target_type {
        query = query.filter(audit_events::target_type.eq(word(kind.as_str_name(), TARGET)));
    }
    if !filter.actions.is_empty() {
        let words: Vec<_> = filter.actions.iter().map(|action| word(action.as_str_name(), ACTION)).collect();
        query = query.filter(audit_events::action.eq_any(words));
    }
    match filter.refused {
        Some(true) => query = query.filter(audit_events::reason.is_not_null()),
        Some(false) => query = query.filter(audit_events::reason.is_null()),
        None => {}
    }
    if let Some(source) = &filter.source {
        query = query.filter(audit_events::source.eq(source));
    }
    if let Some(id) = &filter.request_id {
        query = query.filter(audit_events::request_id.eq(id));
    }
    if let Some(time) = filter.after {
        query = query.filter(audit_events::occurred_at.ge(time));
    }
    if let Some(time) = filter.before {
        query = query.filter(audit_events::occurred_at.lt(time));
    }
    query
}
