//! How long a revoked token is still good at the task service: `cargo bench --profile dev -p tests --bench revocation`. Prints a table.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the terminal")]

use std::time::{Duration, Instant};

use proto::auth::v1::SignOutAllRequest;
use proto::task::v1::ListTasksRequest;
use proto::task::v1::task_service_client::TaskServiceClient;
use tests::{Pair, Service, TestDatabase, run_program};

const SECRET: &str = "q1hT0pZ8mK3vB5nX7cL9wR2yU4iO6aS8dF0gH1jK3lM=";
const ROUNDS: usize = 200;
const HASHES: tests::Environment<'static> =
    &[("PASSWORD_HASH_MEMORY_KIB", "19456"), ("PASSWORD_HASH_ITERATIONS", "2"), ("PASSWORD_HASH_PARALLELISM", "1")];

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let database = TestDatabase::migrated_auth().await;
    let url = database.runtime_url();
    let arguments = ["admin", "service-account", "--client-id", "bench", "--permission", "tokens.introspect"];
    let arguments = [&arguments[..], &["--secret-stdin"]].concat();
    let made = run_program(Service::Auth, &arguments, &[("DATABASE_URL", &url)], SECRET).await;
    assert_eq!(made.code, 0, "{made:#?}");
    let watcher = [("AUTH_CLIENT_ID", "bench"), ("AUTH_CLIENT_SECRET", SECRET)];
    let pair = Pair::start_on(database, Some(TestDatabase::migrated_task().await), HASHES, &watcher).await;

    let mut delays = Vec::with_capacity(ROUNDS);
    let mut verified = Vec::new();
    for round in 0..ROUNDS {
        let account = pair.sign_up(&format!("user{round}")).await;
        let mut tasks = TaskServiceClient::new(pair.task.channel_with(account.access_token()));
        let begun = Instant::now();
        tasks.list_tasks(ListTasksRequest::default()).await.unwrap();
        verified.push(begun.elapsed());
        pair.auth_as(&account).sign_out_all(SignOutAllRequest {}).await.unwrap();
        // From the answer of the revocation to the first refusal.
        let revoked = Instant::now();
        while tasks.list_tasks(ListTasksRequest::default()).await.is_ok() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
        delays.push(revoked.elapsed());
    }
    delays.sort_unstable();
    let at = |part: f64| delays[((ROUNDS - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
    println!("| revocations | p50 ms | p90 ms | p99 ms | max ms |");
    println!("|---|---|---|---|---|");
    println!("| {ROUNDS} | {:.0} | {:.0} | {:.0} | {:.0} |", at(0.5), at(0.9), at(0.99), at(1.0));
}
