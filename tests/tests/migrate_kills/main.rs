//! The kill matrix: SIGKILL at every statement boundary of `migrate up`, with a second runner at its side and one more run
//! afterwards. Every time the schema must be the fresh one, with every row, no INVALID index, no temporary name and no lock left.
//!
//! No hook is in the programs: a proxy counts the statements on the wire and kills before, during or after one. Without more
//! said, some points of each start state are tried; `KILLS=30` tries thirty, `KILLS=writes` every one at which something may
//! change, in all three moments, and `KILLS=all` the others too, which leave what their neighbours leave:
//! `KILLS=writes cargo test -p tests --test migrate_kills -- --nocapture`. `TIMES` is the number of kills at
//! random times of each start state and service, `SEED` chooses them.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod matrix;

use std::collections::{BTreeMap, VecDeque};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use comfy_table::Table;
use matrix::{Kill, Matrix, Point};
use tests::proxy::Moment;
use tests::{Random, Service, number_from_environment};

/// Kills under way at a time.
const AT_ONCE: usize = 3;
/// Points of each start state and service that are tried without more said.
const FEW: usize = 6;
/// How often it is told how far the work is.
const TOLD: usize = 100;
/// Kills at random times beside them.
const RANDOM: u64 = 2;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_run_killed_anywhere_is_finished_by_the_next() {
    let matrix = Arc::new(Matrix::new().await);
    let mut random = Random::new(number_from_environment("SEED", 1));
    let word = std::env::var("KILLS").ok().filter(|text| text == "all" || text == "writes");
    let wanted = match word {
        Some(_) => 0,
        None => usize::try_from(number_from_environment("KILLS", FEW as u64)).unwrap(),
    };
    let mut points = VecDeque::new();
    for start in 0..matrix.starts.len() {
        for service in [Service::Auth, Service::Task] {
            let dry = matrix.dry_run(start, service).await;
            println!(
                "{}, {}: {} boundaries, {} of them can change something, {:.1} s",
                matrix.starts[start].name,
                service.name(),
                dry.statements.len(),
                dry.writes().len(),
                dry.took.as_secs_f64()
            );
            let lock = dry.lock();
            let mut add = |kill| points.push_back(Point { start, service, kill, lock });
            let moments = [Moment::Before, Moment::Sent, Moment::Answered];
            if let Some(word) = &word {
                let every = if word == "all" { (1..=dry.statements.len()).collect() } else { dry.writes() };
                for at in every {
                    moments.iter().for_each(|moment| add(Kill::At { at, moment: *moment }));
                }
            } else {
                // A kill at a statement that only reads leaves what one at its neighbour leaves.
                let writes = dry.writes();
                for number in 0..wanted.min(writes.len() * moments.len()) {
                    let at = writes
                        [(number * writes.len() / wanted + random.below(writes.len() / wanted + 1)) % writes.len()];
                    add(Kill::At { at, moment: moments[number % moments.len()] });
                }
            }
            let times = number_from_environment("TIMES", if word.is_some() { 10 } else { RANDOM });
            for _ in 0..times {
                let millis = random.below(usize::try_from(dry.took.as_millis()).unwrap().max(1));
                add(Kill::After(Duration::from_millis(millis as u64)));
            }
        }
    }
    let total = points.len();
    let points = Arc::new(Mutex::new(points));
    let (ended, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let workers = (0..AT_ONCE).map(|_| {
        let (matrix, points, ended) = (Arc::clone(&matrix), Arc::clone(&points), Arc::clone(&ended));
        tokio::spawn(async move {
            let mut done = Vec::new();
            loop {
                let Some(point) = points.lock().unwrap().pop_front() else { return done };
                let started = Instant::now();
                let outcome = matrix.kill(&point).await;
                if let Err(reason) = &outcome {
                    println!("NOT converged: {}: {reason}", matrix.describe(&point));
                }
                done.push((point, outcome, started.elapsed()));
                let ended = ended.fetch_add(1, Ordering::Relaxed) + 1;
                if ended.is_multiple_of(TOLD) {
                    println!("{ended} of {total} kills, {:.0} s", begun.elapsed().as_secs_f64());
                }
            }
        })
    });
    let mut lines: BTreeMap<(usize, &str, &str), Line> = BTreeMap::new();
    let mut failures = Vec::new();
    for done in futures_util::future::join_all(workers).await {
        for (point, outcome, took) in done.unwrap() {
            let line = lines.entry((point.start, point.service.name(), point.kill.name())).or_default();
            line.points += 1;
            line.total += took;
            match outcome {
                Ok(reached) => {
                    line.converged += 1;
                    line.missed += usize::from(!reached);
                }
                Err(reason) => failures.push(format!("{}: {reason}", matrix.describe(&point))),
            }
        }
    }
    let mut table = Table::new();
    table.set_header([
        "start state",
        "service",
        "killed",
        "kill points",
        "converged",
        "NOT converged",
        "ended before",
        "mean s",
    ]);
    for ((start, service, kill), line) in lines {
        table.add_row([
            matrix.starts[start].name.to_owned(),
            service.to_owned(),
            kill.to_owned(),
            line.points.to_string(),
            line.converged.to_string(),
            (line.points - line.converged).to_string(),
            line.missed.to_string(),
            format!("{:.2}", line.total.as_secs_f64() / line.points as f64),
        ]);
    }
    println!("{table}");
    assert!(failures.is_empty(), "{} of {total} kills did not converge:\n{}", failures.len(), failures.join("\n"));
}

#[derive(Default)]
struct Line {
    points: usize,
    converged: usize,
    /// The run had ended before its kill point, as when the other runner came first.
    missed: usize,
    total: Duration,
}
