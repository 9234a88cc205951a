//! What `/metrics` says of the metrics that this service has beside those of every service.

use metrics::describe_gauge;

/// Describes them; once, at the start.
pub fn describe() {
    describe_gauge!("task_watchers", "Streams of WatchTasks that this replica serves");
    describe_gauge!("migration_pending", "Migrations that this binary has and the database has not");
    describe_gauge!("schema_drift_objects", "Objects of the schema that differ from the expected ones");
    describe_gauge!("schema_last_verified_timestamp_seconds", "When the schema was last compared");
}
