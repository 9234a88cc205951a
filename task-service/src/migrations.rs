//! The migrations of task-service, and what adoption should tell a person about the data.

use migration_engine::{Finding, MigrationSet, SetError};

include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// The embedded set.
///
/// # Errors
/// When an embedded file breaks a rule of the engine; a test finds that before anybody else does.
pub fn set() -> Result<MigrationSet, SetError> {
    Ok(MigrationSet::new("task-service", MIGRATIONS, EXPECTED, SIBLINGS)?.with_findings(FINDINGS))
}

const FINDINGS: &[Finding] = &[
    Finding {
        code: "UNOWNED_TASKS",
        query: "SELECT count(*), (array_agg(id::text ORDER BY id))[1:20] FROM tasks \
                WHERE user_id = '00000000-0000-0000-0000-000000000000' AND deleted_at IS NULL",
        message: "{count} task(s) have no owner; only administrators see them",
        advice: "give them to a user with task.v1.OwnershipService/ReassignTasks",
    },
    Finding {
        code: "LIMITS_WAIVED",
        query: "SELECT count(*), (array_agg(id::text ORDER BY id))[1:20] FROM tasks WHERE limits_waived AND deleted_at IS NULL",
        message: "{count} task(s) have a title or description beyond today's limits; they keep their text",
        advice: "nothing must be done: the limits apply when the text is next changed",
    },
    Finding {
        code: "SEARCH_WITHOUT_INDEX",
        query: "SELECT count(*), NULL::text[] FROM (SELECT) AS always WHERE to_regclass('public.idx_tasks_live_text') IS NULL",
        message: "the extension pg_trgm is not there, or not for the owner of tasks, so texts have no index: a search over everybody's \
                  tasks reads them all",
        advice: "let an administrator of the database run CREATE EXTENSION pg_trgm (or GRANT USAGE ON SCHEMA, where it is in one of its \
                 own), then run task-service migrate up again",
    },
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_embedded_set_keeps_the_rules() {
        let set = super::set().unwrap();
        assert!(!set.migrations.is_empty());
    }
}
