//! A storm of sign-ins: memory, and what other RPCs feel: `cargo bench --profile dev -p tests --bench sign_in_storm`. Prints a table.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the terminal")]

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::{GetMeRequest, SignInRequest};
use tests::{AuthServer, PASSWORD, Refusal, TestDatabase, sign_up};
use tonic::transport::Endpoint;

const SIGN_INS: usize = 500;

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let database = TestDatabase::migrated_auth().await;
    // The default hashes: 64 MiB, 3 passes, 4 lanes.
    let server = AuthServer::start(&database, &[("DATABASE_MAX_CONNECTIONS", "16")]).await;
    let account = sign_up(&server, "alice").await;
    // Callers of a storm come over many connections.
    let channels: Vec<_> = (0..50)
        .map(|_| Endpoint::from_shared(format!("http://{}", server.address())).unwrap().connect_lazy())
        .collect();

    let (idle_before, peak_before) = memory(server.pid());
    let quiet = latencies(&server, account.access_token(), None).await;

    let over = AtomicBool::new(false);
    let storm = async {
        let begun = Instant::now();
        let calls = (0..SIGN_INS).map(|n| {
            let channel = channels[n % channels.len()].clone();
            async move {
                let request = SignInRequest { login: "alice".into(), password: PASSWORD.into() };
                let answer = AuthServiceClient::new(channel).sign_in(request).await;
                answer.map_or_else(|status| Refusal::of(&status).reason, |_| "OK".to_owned())
            }
        });
        let answers = futures_util::future::join_all(calls).await;
        over.store(true, Ordering::Relaxed);
        (begun.elapsed(), answers)
    };
    let ((took, answers), stormy) = tokio::join!(storm, latencies(&server, account.access_token(), Some(&over)));
    let (idle_after, peak_after) = memory(server.pid());

    let mut outcomes: BTreeMap<String, usize> = BTreeMap::new();
    for answer in answers {
        *outcomes.entry(answer).or_default() += 1;
    }
    println!(
        "{SIGN_INS} sign-ins at once, over {} connections, in {:.1} s: {outcomes:?}",
        channels.len(),
        took.as_secs_f64()
    );
    println!("| | before | after |\n|---|---|---|");
    println!("| resident memory, MiB | {idle_before} | {idle_after} |");
    println!("| its peak, MiB | {peak_before} | {peak_after} |");
    println!("| GetMe | calls | p50 ms | p99 ms | max ms |\n|---|---|---|---|---|");
    for (when, mut sample) in [("quiet", quiet), ("in the storm", stormy)] {
        sample.sort_unstable();
        let at = |part: f64| sample[((sample.len() - 1) as f64 * part) as usize].as_secs_f64() * 1000.0;
        println!("| {when} | {} | {:.1} | {:.1} | {:.1} |", sample.len(), at(0.5), at(0.99), at(1.0));
    }
}

/// One call every 10 ms: until `over`, or else three hundred times.
async fn latencies(server: &AuthServer, token: &str, over: Option<&AtomicBool>) -> Vec<Duration> {
    let mut client = AuthServiceClient::new(server.channel_with(token));
    let mut sample = Vec::new();
    while over.map_or(sample.len() < 300, |over| !over.load(Ordering::Relaxed)) {
        let begun = Instant::now();
        client.get_me(GetMeRequest {}).await.unwrap();
        sample.push(begun.elapsed());
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    sample
}

/// Resident memory of a process and its peak, in MiB.
fn memory(pid: u32) -> (u64, u64) {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let of = |name: &str| {
        let line = status.lines().find(|line| line.starts_with(name)).unwrap();
        line.split_whitespace().nth(1).unwrap().parse::<u64>().unwrap() / 1024
    };
    (of("VmRSS:"), of("VmHWM:"))
}
