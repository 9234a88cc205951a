//! Readiness follows the schema: a running service compares it in the background, read-only, and says so in `/readyz`, in
//! gRPC health and in its gauges.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use local_pair::health::is_serving;
use tests::{AuthServer, Service, TestDatabase, http_get, run_migrate};

/// The comparison is repeated every 30 s while the schema fits, and every second while it does not.
const PATIENCE: Duration = Duration::from_secs(60);

/// The value of a gauge on `/metrics`.
async fn gauge(address: SocketAddr, name: &str) -> Option<f64> {
    let (_, text) = http_get(address, "/metrics").await;
    text.lines().find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
}

async fn eventually(what: &str, server: &AuthServer, is: impl AsyncFn() -> bool) {
    let until = Instant::now() + PATIENCE;
    while !is().await {
        assert!(
            Instant::now() < until,
            "{what}: not within {PATIENCE:?}: {:?}",
            http_get(server.metrics_address(), "/readyz").await
        );
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
}

#[tokio::test]
async fn drift_takes_a_service_out_and_a_repair_brings_it_back() {
    let database = TestDatabase::migrated_auth().await;
    let server = AuthServer::start(&database, &[]).await;
    let metrics = server.metrics_address();
    assert_eq!(gauge(metrics, "schema_drift_objects").await, Some(0.0));
    assert_eq!(gauge(metrics, "migration_pending").await, Some(0.0));
    let verified = gauge(metrics, "schema_last_verified_timestamp_seconds").await;

    database.execute("DROP INDEX idx_users_role_id; ALTER TABLE users ALTER COLUMN username DROP NOT NULL").await;
    eventually("not ready after drift", &server, async || http_get(metrics, "/readyz").await.0 == 503).await;
    assert!(!is_serving(server.address()).await, "gRPC health follows");
    assert_eq!(gauge(metrics, "schema_drift_objects").await, Some(2.0));
    assert!(http_get(metrics, "/readyz").await.1.contains("migrate verify"), "the reason names the next command");
    assert_eq!(http_get(metrics, "/livez").await.0, 200, "a restart would mend nothing");

    let repair = run_migrate(Service::Auth, &database.migrator_url(), &["repair", "--apply", "--output", "json"]).await;
    assert_eq!(repair.code, 0, "{repair:#?}");
    eventually("ready after the repair", &server, async || http_get(metrics, "/readyz").await.0 == 200).await;
    assert!(is_serving(server.address()).await);
    assert_eq!(gauge(metrics, "schema_drift_objects").await, Some(0.0));
    assert!(
        gauge(metrics, "schema_last_verified_timestamp_seconds").await > verified,
        "it is verified again and again"
    );
}

/// A newer release has migrated by adding: the previous one goes on until it is replaced, also when it is started again.
#[tokio::test]
async fn a_newer_database_that_only_has_more_is_served() {
    let database = TestDatabase::migrated_auth().await;
    database
        .execute(
            "ALTER TABLE users ADD COLUMN nickname text; CREATE INDEX idx_users_nickname ON users (nickname);
             INSERT INTO __diesel_schema_migrations (version) VALUES ('20990101000000')",
        )
        .await;
    let verify = run_migrate(Service::Auth, &database.runtime_url(), &["verify", "--output", "json"]).await;
    assert_eq!(verify.code, 7, "{verify:#?}");
    let server = AuthServer::start(&database, &[]).await;
    assert_eq!(http_get(server.metrics_address(), "/readyz").await.0, 200);
}

/// A run of a newer release builds an index for minutes, INVALID until it is done: pods that serve meanwhile go on.
#[tokio::test]
async fn an_index_that_is_being_built_takes_nobody_out() {
    let database = TestDatabase::migrated_auth().await;
    let server = AuthServer::start(&database, &[]).await;
    let metrics = server.metrics_address();
    let (old, builder) = (database.client().await, database.client().await);
    // A build waits for snapshots from before.
    old.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM users").await.unwrap();
    let build = tokio::spawn(async move {
        builder.batch_execute("CREATE INDEX CONCURRENTLY idx_users_of_the_next_release ON users (username)").await
    });
    eventually("the build is seen", &server, async || gauge(metrics, "schema_drift_objects").await == Some(1.0)).await;
    // The gauge is set a moment before the latch would be.
    for _ in 0..10 {
        assert_eq!(http_get(metrics, "/readyz").await.0, 200);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    assert!(is_serving(server.address()).await);
    assert!(!build.is_finished());
    old.batch_execute("COMMIT").await.unwrap();
    build.await.unwrap().unwrap();
}
