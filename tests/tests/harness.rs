//! The harness itself: databases of one's own, the two roles, errors read whole.

use local_pair::postgres::connect;
use tests::{AuthServer, Pair, Postgres, Refusal, TestDatabase, assert_refused};
use tonic::Code;
use tonic_types::{ErrorDetails, StatusExt};

#[tokio::test]
async fn each_test_has_databases_of_its_own_that_go_with_the_value() {
    let first = TestDatabase::from_sql("CREATE TABLE t (n int); INSERT INTO t VALUES (7);").await;
    let second = first.copy().await;
    assert_ne!(first.name(), second.name());
    let runtime = connect(&second.runtime_url()).await.unwrap();
    runtime.batch_execute("INSERT INTO t VALUES (8)").await.unwrap();
    assert!(runtime.batch_execute("ALTER TABLE t ADD m int").await.is_err());
    second.execute("ALTER TABLE t ADD m int").await;
    let rows: i64 = first.client().await.query_one("SELECT count(*) FROM t", &[]).await.unwrap().get(0);
    assert_eq!(rows, 1);

    let name = first.name().to_owned();
    drop(first);
    let server = connect(&Postgres::shared().await.address().superuser_url("postgres")).await.unwrap();
    assert!(server.query_opt("SELECT FROM pg_database WHERE datname = $1", &[&name]).await.unwrap().is_none());
}

#[tokio::test]
async fn many_databases_at_once() {
    let made = futures_util::future::join_all((0..8).map(|_| TestDatabase::empty())).await;
    let names: std::collections::BTreeSet<&str> = made.iter().map(TestDatabase::name).collect();
    assert_eq!(names.len(), 8);
}

#[test]
fn a_refusal_is_read_whole() {
    let mut details = ErrorDetails::with_error_info("VALIDATION_FAILED", "task.v1", []);
    details.add_bad_request_violation("title", "too long");
    let refusal = Refusal::of(&tonic::Status::with_error_details(Code::InvalidArgument, "bad", details));
    assert_eq!(
        (refusal.code, refusal.reason.as_str(), refusal.domain.as_str()),
        (Code::InvalidArgument, "VALIDATION_FAILED", "task.v1")
    );
    assert_eq!(refusal.fields, ["title"]);
}

#[tokio::test]
async fn a_pair_serves_its_accounts_and_ends_in_order() {
    let mut pair = Pair::start().await;
    let (alice, root) = (pair.sign_up("alice").await, pair.administrator().await);
    assert_eq!((alice.user.role.as_str(), root.user.role.as_str()), ("member", "admin"));
    let request = proto::task::v1::CreateTaskRequest { title: "one".to_owned(), ..Default::default() };
    pair.tasks(&alice).create_task(request).await.unwrap();
    let unknown = proto::task::v1::GetTaskRequest { id: uuid::Uuid::new_v4().to_string() };
    assert_refused(pair.tasks(&alice).get_task(unknown).await, Code::NotFound, "TASK_NOT_FOUND");
    assert!(pair.auth.terminate().await.success(), "{:#?}", pair.auth.logs());
    assert!(pair.task.terminate().await.success(), "{:#?}", pair.task.logs());
}

#[tokio::test]
async fn a_failed_start_is_answered_with_what_the_service_said() {
    let database = TestDatabase::migrated_auth().await;
    let failure = AuthServer::try_start(&database, &[("KEY_ENCRYPTION_KEY", "short")]).await.unwrap_err();
    assert!(failure.code == 2 && failure.stderr.contains("KEY_ENCRYPTION_KEY"), "{failure:#?}");
}
