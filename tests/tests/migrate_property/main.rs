//! The property of `migrate up`: whatever happened to a database, it ends in the schema of a fresh install with every row
//! kept, or it changes nothing and says why.
//!
//! Drifts are made up from the live catalog, not taken from a list: a start state, then up to seven random changes to random
//! tables, columns, keys, indexes, rows and the history. A failing case is shrunk to the fewest changes that still fail.
//!
//! `DRIFTS=1000 SEED=1 cargo test -p tests --test migrate_property -- --nocapture` raises the number of cases; a case is made
//! again by its seed alone: `DRIFTS=1 SEED=<seed>`. `KINDS=history,index` tries only changes with one of these words in their
//! name, `KINDS=-trigger` all others; a seed makes another case then.
#![expect(clippy::unwrap_used, reason = "a suite ends the test with a panic")]

mod judge;
mod mutations;
mod report;
mod states;

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Instant;

use judge::{Case, Verdict, World};
use mutations::Mutation;
use report::{Outcome, Report};
use tests::{Random, Service, number_from_environment};

/// Databases under test at a time: a case waits for processes as often as it computes.
const AT_ONCE: usize = 3;
/// How often it is told how far the work is.
const TOLD: usize = 100;
/// Changes of one case.
const MOST: usize = 7;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn any_database_converges_with_every_row_or_is_refused_unchanged() {
    let count = number_from_environment("DRIFTS", 40);
    let first = number_from_environment("SEED", 1);
    let world = Arc::new(World::new().await);
    let next = Arc::new(AtomicU64::new(first));
    let (ended, begun) = (Arc::new(AtomicUsize::new(0)), Instant::now());
    let workers = (0..AT_ONCE).map(|_| {
        let (world, next, ended) = (Arc::clone(&world), Arc::clone(&next), Arc::clone(&ended));
        tokio::spawn(async move {
            let mut outcomes = Vec::new();
            loop {
                let seed = next.fetch_add(1, Ordering::SeqCst);
                if seed >= first + count {
                    return outcomes;
                }
                outcomes.push(one(&world, seed).await);
                let ended = ended.fetch_add(1, Ordering::Relaxed) + 1;
                if ended.is_multiple_of(TOLD) {
                    println!("{ended} of {count} cases, {:.0} s", begun.elapsed().as_secs_f64());
                }
            }
        })
    });
    let mut report = Report::default();
    for outcomes in futures_util::future::join_all(workers).await {
        outcomes.unwrap().into_iter().for_each(|outcome| report.add(outcome));
    }
    println!("{report}");
    assert!(
        report.failures().is_empty(),
        "{} of {count} cases failed:\n{}",
        report.failures().len(),
        report.failures().join("\n")
    );
}

/// Makes the case of a seed, judges it, and shrinks it if it fails.
async fn one(world: &World, seed: u64) -> Outcome {
    let started = Instant::now();
    let mut random = Random::new(seed);
    let start = random.below(world.states.len());
    let order = if random.chance(50) { [Service::Auth, Service::Task] } else { [Service::Task, Service::Auth] };
    let wanted = 1 + random.below(MOST);
    let (case, verdict) = world.make_and_judge(&mut random, start, order, wanted).await;
    let took = started.elapsed();
    let failure = match &verdict {
        Verdict::Failed(reason) => {
            println!("seed {seed}: FAILED, shrinking\n{}", case.describe(world));
            let (least, reason) = shrink(world, case.clone(), reason.clone()).await;
            let text = format!(
                "SEED={seed} DRIFTS=1 on {}: {}\n-- the least that fails ({} of {} changes):\n{}",
                world.states[start].name,
                reason,
                least.mutations.len(),
                case.mutations.len(),
                least.describe(world)
            );
            println!("{text}");
            Some(text)
        }
        _ => None,
    };
    Outcome {
        state: world.states[start].name,
        kinds: case.mutations.iter().map(|mutation| mutation.kind).collect(),
        verdict,
        failure,
        took,
    }
}

/// Leaves out one change after the other as long as the case still fails; a change that another one needed does nothing.
async fn shrink(world: &World, mut case: Case, mut reason: String) -> (Case, String) {
    let mut at = case.mutations.len();
    while at > 0 {
        at -= 1;
        let mut fewer: Vec<Mutation> = case.mutations.clone();
        fewer.remove(at);
        let smaller = Case { mutations: fewer, ..case.clone() };
        if let Verdict::Failed(why) = world.judge(&smaller).await {
            (case, reason) = (smaller, why);
        }
    }
    (case, reason)
}
