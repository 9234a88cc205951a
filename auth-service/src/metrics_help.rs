//! Help texts of the service's own metrics.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Describes them to the recorder that stands.
pub fn describe() {
    describe_counter!("sign_ins_total", "Sign-ins by outcome: ok, refused or throttled");
    describe_counter!(
        "unusable_password_hashes_total",
        "Sign-ins against accounts whose stored hash no password fits, by reason: above_ceiling or malformed"
    );
    describe_counter!("refreshes_total", "Refresh tokens presented, by outcome: rotated, repeated, refused or reused");
    describe_counter!(
        "password_hashes_total",
        "Argon2 hashes computed, by purpose: hash, verify, or stand_in where there is nothing to verify"
    );
    describe_counter!("password_hashing_shed_total", "Passwords not hashed because the queue was full");
    describe_gauge!("password_hashing_queue", "Passwords that wait for a thread");
    describe_gauge!("password_hashing_threads", "Threads that hash");
    describe_histogram!("password_hashing_seconds", Unit::Seconds, "Time of one hash");
    describe_histogram!("password_hashing_wait_seconds", Unit::Seconds, "Wait for a hashing thread");
    describe_counter!("mails_sent_total", "Mails sent, by kind: password_reset, email_verification or email_changed");
    describe_counter!(
        "mails_failed_total",
        "Attempts to send a mail that failed, by kind and outcome: postponed or given_up"
    );
    describe_counter!(
        "mails_suppressed_total",
        "Mails not sent because the account had enough of them within the hour, by kind"
    );
    describe_counter!("user_purges_total", "Calls that purge the tasks of deleted accounts, by outcome: ok or failed");
    describe_gauge!("user_purges_waiting", "Deleted accounts whose tasks are to be purged");
    describe_gauge!("mails_waiting", "Mails in the outbox");
    describe_gauge!("migration_pending", "Migrations that this binary has and the database has not");
    describe_gauge!("schema_drift_objects", "Objects of the schema that differ from the expected ones");
    describe_gauge!("schema_last_verified_timestamp_seconds", "When the schema was last compared");
}
