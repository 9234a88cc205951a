//! Pages of task lists on a large table: `ROWS=1000000 cargo bench --profile dev -p tests --bench task_lists`. Prints a table: the first
//! page and the thousandth, of a member with a tenth of all tasks and of an administrator over everybody's, in every order.
#![expect(clippy::unwrap_used, clippy::print_stdout, reason = "a program for the terminal")]

use std::time::{Duration, Instant};

use proto::task::v1::task_service_client::TaskServiceClient;
use proto::task::v1::{CreateTaskRequest, GetTaskStatsRequest, ListTasksRequest, Task, UpdateTaskRequest};
use tests::{Account, Authorized, Pair, fill_tasks, number_from_environment};

const ORDERS: [&str; 5] = ["created_at", "updated_at", "due_date", "title", "status"];
const PAGE: i32 = 50;
const FIRSTS: usize = 20;

fn main() {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().unwrap().block_on(run());
}

async fn run() {
    let rows = number_from_environment("ROWS", 1_000_000);
    let pages = usize::try_from(number_from_environment("PAGES", 1_000)).unwrap();
    let pair = Pair::start_with(&[("ACCESS_TOKEN_TTL", "12h")], &[]).await;
    let (alice, root) = (pair.sign_up("alice").await, pair.administrator().await);
    let client = pair.task_database.as_ref().unwrap().client().await;
    let begun = Instant::now();
    fill_tasks(&client, alice.id(), rows / 10, rows).await;
    let sizes = "SELECT pg_size_pretty(pg_relation_size('tasks')), pg_size_pretty(pg_indexes_size('tasks'))";
    let sizes = client.query_one(sizes, &[]).await.unwrap();
    let (table, indexes): (String, String) = (sizes.get(0), sizes.get(1));
    println!(
        "{rows} tasks, {} of one owner, filled in {:.0?}; table {table}, indexes {indexes}\n",
        rows / 10,
        begun.elapsed()
    );

    println!("| whose | order | first page, median ms | last page of the walk | its ms (median of 5) |");
    println!("|---|---|---|---|---|");
    for (whose, account) in [("one owner's", &alice), ("everybody's", &root)] {
        for order in ORDERS {
            for direction in ["asc", "desc"] {
                row(&pair, account, whose, &format!("{order} {direction}"), pages).await;
            }
        }
    }
    println!("\n| search for | whose | with the index over texts, ms | without, ms |\n|---|---|---|---|");
    let definition = "SELECT pg_get_indexdef(to_regclass('idx_tasks_live_text')::oid)";
    let definition: Option<String> = client.query_one(definition, &[]).await.unwrap().get(0);
    let with = searches(&pair, [&alice, &root]).await;
    client.batch_execute("DROP INDEX IF EXISTS idx_tasks_live_text").await.unwrap();
    let without = searches(&pair, [&alice, &root]).await;
    client.batch_execute(&definition.unwrap_or_default()).await.unwrap();
    for ((name, with), (_, without)) in with.iter().zip(without) {
        println!("| {name} | {with:.2} | {without:.2} |");
    }
    println!("\n| call | median ms |\n|---|---|");
    let mut alices = tasks(&pair, &alice);
    println!("| GetTaskStats, one owner's | {:.2} |", stats(&mut alices).await);
    println!("| GetTaskStats, everybody's | {:.2} |", stats(&mut tasks(&pair, &root)).await);
    let (mut created, mut updated) = (Vec::new(), Vec::new());
    for n in 0..200 {
        let begun = Instant::now();
        let request = CreateTaskRequest { title: format!("timed {n}"), ..Default::default() };
        let made = alices.create_task(request).await.unwrap().into_inner().task.unwrap();
        created.push(begun.elapsed());
        let begun = Instant::now();
        let task = Task { id: made.id, title: format!("again {n}"), ..Default::default() };
        alices.update_task(UpdateTaskRequest { task: Some(task), update_mask: None }).await.unwrap();
        updated.push(begun.elapsed());
    }
    println!("| CreateTask | {:.2} |\n| UpdateTask | {:.2} |", median(created), median(updated));
}

fn tasks(pair: &Pair, account: &Account) -> TaskServiceClient<Authorized> {
    pair.tasks(account).max_decoding_message_size(64 * 1024 * 1024)
}

/// The first page of some searches, for what hardly any task has, what some have and what every task has; median ms.
async fn searches(pair: &Pair, accounts: [&Account; 2]) -> Vec<(String, f64)> {
    let mut measured = Vec::new();
    for text in ["no such title", "task 77", "abc", "task", "zq"] {
        for (whose, account) in ["one owner's", "everybody's"].into_iter().zip(accounts) {
            let mut tasks = tasks(pair, account);
            let mut times = Vec::new();
            for _ in 0..5 {
                let request =
                    ListTasksRequest { title_contains: text.to_owned(), page_size: PAGE, ..Default::default() };
                let begun = Instant::now();
                tasks.list_tasks(request).await.unwrap();
                times.push(begun.elapsed());
            }
            measured.push((format!("{text:?} | {whose}"), median(times)));
        }
    }
    measured
}

async fn stats(tasks: &mut TaskServiceClient<Authorized>) -> f64 {
    let mut times = Vec::new();
    for _ in 0..7 {
        let begun = Instant::now();
        tasks.get_task_stats(GetTaskStatsRequest::default()).await.unwrap();
        times.push(begun.elapsed());
    }
    median(times)
}

async fn row(pair: &Pair, account: &Account, whose: &str, order: &str, pages: usize) {
    let mut tasks = tasks(pair, account);
    let mut page = async |page_token: &str| {
        let request = ListTasksRequest {
            page_size: PAGE,
            order_by: order.into(),
            page_token: page_token.into(),
            ..Default::default()
        };
        let begun = Instant::now();
        let answer = tasks.list_tasks(request).await.unwrap().into_inner();
        (begun.elapsed(), answer.next_page_token)
    };
    let mut firsts = Vec::new();
    for _ in 0..FIRSTS {
        firsts.push(page("").await.0);
    }
    let (mut token, mut number) = (page("").await.1, 1);
    while number + 1 < pages && !token.is_empty() {
        let next = page(&token).await.1;
        if next.is_empty() {
            break;
        }
        (token, number) = (next, number + 1);
    }
    let mut lasts = Vec::new();
    for _ in 0..5 {
        lasts.push(page(&token).await.0);
    }
    println!("| {whose} | {order} | {:.2} | {} | {:.2} |", median(firsts), number + 1, median(lasts));
}

fn median(mut times: Vec<Duration>) -> f64 {
    times.sort_unstable();
    times[times.len() / 2].as_secs_f64() * 1000.0
}
