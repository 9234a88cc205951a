//! What a write of a task costs, and what its indexes add: `ROWS=1000000 cargo bench --profile dev -p tests --bench task_writes`.
//! Prints a table. Another release is measured by the same program: `PAIR_BIN_DIR` names the directory of its programs.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the terminal")]

use std::time::{Duration, Instant};

use proto::task::v1::{CreateTaskRequest, Task, UpdateTaskRequest};
use tests::{Account, Pair, number_from_environment};
use tokio_postgres::Client;

/// Clients that write at the same time.
const WRITERS: usize = 8;
const CALLS: usize = 150;
const ROUNDS: usize = 5;
const TEXT: &str = "The quarterly figures of the northern branch are late again; ask Ms Adeyemi for the ledger, the two invoices \
    of the carrier and the minutes of the meeting in which the new prices were agreed.";

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let rows = number_from_environment("ROWS", 100_000);
    let pair = Pair::start_with(&[("ACCESS_TOKEN_TTL", "12h")], &[]).await;
    let alice = pair.sign_up("alice").await;
    let client = pair.task_database.as_ref().unwrap().client().await;
    // Only columns that every release has.
    let fill = format!(
        "INSERT INTO tasks (id, user_id, title, description)
         SELECT gen_random_uuid(), md5((n / 40)::text)::uuid, md5(n::text) || ' task ' || n, '{TEXT}'
         FROM generate_series(1, {rows}::bigint) AS n"
    );
    client.batch_execute(&fill).await.unwrap();
    client.batch_execute("VACUUM ANALYZE tasks").await.unwrap();

    let all = indexes(&client).await;
    let texts: Vec<_> = all.iter().filter(|(name, _)| name == "idx_tasks_live_text").cloned().collect();
    let lists: Vec<_> = all.iter().filter(|(name, _)| name.starts_with("idx_tasks_live_")).cloned().collect();
    let mut states: Vec<(&str, Vec<(String, String)>)> = vec![("all indexes", Vec::new())];
    if !texts.is_empty() {
        states.push(("without the one over texts", texts));
    }
    if !lists.is_empty() {
        states.push(("without those of lists either", lists));
    }
    let mut measured = vec![Vec::new(); states.len()];
    // Side by side: each round takes each state once.
    for _ in 0..ROUNDS {
        for (state, (_, dropped)) in states.iter().enumerate() {
            for (name, _) in dropped {
                client.batch_execute(&format!("DROP INDEX {name}")).await.unwrap();
            }
            measured[state].push(round(&pair, &alice).await);
            for (_, definition) in dropped {
                client.batch_execute(definition).await.unwrap();
            }
        }
    }
    println!("{rows} tasks; medians of {ROUNDS} rounds\n");
    println!("| indexes | CreateTask, ms | UpdateTask, ms | writes a second of {WRITERS} clients |");
    println!("|---|---|---|---|");
    for ((name, _), rounds) in states.iter().zip(measured) {
        let of = |what: fn(&Round) -> f64| median(rounds.iter().map(what).collect());
        println!("| {name} | {:.2} | {:.2} | {:.0} |", of(|r| r.create), of(|r| r.update), of(|r| r.rate));
    }
}

/// What one round measured: medians in milliseconds, and calls a second.
#[derive(Clone)]
struct Round {
    create: f64,
    update: f64,
    rate: f64,
}

async fn round(pair: &Pair, account: &Account) -> Round {
    let alone = write(pair, account).await;
    let begun = Instant::now();
    let writers = (0..WRITERS).map(|_| write(pair, account));
    futures_util::future::join_all(writers).await;
    let rate = (WRITERS * CALLS * 2) as f64 / begun.elapsed().as_secs_f64();
    Round { create: alone.0, update: alone.1, rate }
}

/// One client that makes tasks and changes each.
async fn write(pair: &Pair, account: &Account) -> (f64, f64) {
    let mut tasks = pair.tasks(account);
    let (mut created, mut updated) = (Vec::new(), Vec::new());
    for n in 0..CALLS {
        let begun = Instant::now();
        let request =
            CreateTaskRequest { title: format!("Figures {n}"), description: TEXT.to_owned(), ..Default::default() };
        let made = tasks.create_task(request).await.unwrap().into_inner().task.unwrap();
        created.push(milliseconds(begun));
        let begun = Instant::now();
        let task = Task { id: made.id, title: format!("Figures again {n}"), ..Default::default() };
        tasks.update_task(UpdateTaskRequest { task: Some(task), update_mask: None }).await.unwrap();
        updated.push(milliseconds(begun));
    }
    (median(created), median(updated))
}

/// The indexes of tasks that are no key, and their definitions.
async fn indexes(client: &Client) -> Vec<(String, String)> {
    let sql = "SELECT i.indexrelid::regclass::text, pg_get_indexdef(i.indexrelid) FROM pg_index i
         WHERE i.indrelid = 'tasks'::regclass AND NOT i.indisunique";
    client.query(sql, &[]).await.unwrap().iter().map(|row| (row.get(0), row.get(1))).collect()
}

fn milliseconds(since: Instant) -> f64 {
    Duration::as_secs_f64(&since.elapsed()) * 1000.0
}

fn median(mut figures: Vec<f64>) -> f64 {
    figures.sort_by(f64::total_cmp);
    figures[figures.len() / 2]
}
