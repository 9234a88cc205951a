//! Runs one case and judges it against everything that the property promises.

use std::collections::BTreeSet;

use migration_engine::Expected;
use serde_json::Value;
use tests::catalog::{Object, Snapshot, snapshot};
use tests::legacy::expected_where;
use tests::{MigrateRun, Postgres, Random, Service, TestDatabase, kept, run_migrate};

use crate::mutations::{self, Mutation, View};
use crate::states::{self, State};

/// What all cases share.
pub(crate) struct World {
    /// Where cases start.
    pub(crate) states: Vec<State>,
    fresh: Snapshot,
    expected: [(Service, Expected); 2],
    versions: Vec<String>,
    migrator: String,
}

/// One case.
#[derive(Clone)]
pub(crate) struct Case {
    /// Index of its start state.
    pub(crate) start: usize,
    /// The services in the order in which they are run.
    pub(crate) order: [Service; 2],
    /// What is done to the database before.
    pub(crate) mutations: Vec<Mutation>,
}

/// How a case ended.
pub(crate) enum Verdict {
    /// In the schema of a fresh install, with so many rows compared.
    Converged {
        /// Rows compared over all runs.
        rows: usize,
    },
    /// One service or both refused and changed nothing.
    Refused {
        /// Their reasons, with names and numbers left out.
        reasons: BTreeSet<String>,
    },
    /// Otherwise, which must not be.
    Failed(String),
}

impl Case {
    /// The case as statements.
    pub(crate) fn describe(&self, world: &World) -> String {
        let start = format!("-- start: {}; then up of {:?}", world.states[self.start].name, self.order);
        let lines = self.mutations.iter().map(|mutation| format!("{}; -- {}", mutation.sql, mutation.kind));
        std::iter::once(start).chain(lines).collect::<Vec<_>>().join("\n")
    }
}

impl World {
    /// Makes the start states and the fresh install that all is compared with.
    pub(crate) async fn new() -> Self {
        let states = states::all().await;
        let fresh = TestDatabase::migrated_both().await;
        let client = fresh.client().await;
        let fresh = snapshot(&client).await;
        let versions = fresh.rows["public.__diesel_schema_migrations"]
            .iter()
            .map(|row| row["version"].as_str().unwrap().to_owned())
            .collect();
        let parse = |text: &str| serde_json::from_str(text).unwrap();
        let auth = parse(include_str!("../../../migrations/auth/expected.json"));
        let task = expected_where(&client, parse(include_str!("../../../migrations/task/expected.json"))).await;
        let expected = [(Service::Auth, auth), (Service::Task, task)];
        Self { states, fresh, expected, versions, migrator: Postgres::shared().await.roles().migrator.name.clone() }
    }

    fn tables(&self, service: Service) -> Vec<String> {
        let (_, expected) = self.expected.iter().find(|(of, _)| *of == service).unwrap();
        expected.table_names()
    }

    /// Makes up to `wanted` changes to a copy of a start state, each from the catalog as the last one left it, and judges.
    pub(crate) async fn make_and_judge(
        &self,
        random: &mut Random,
        start: usize,
        order: [Service; 2],
        wanted: usize,
    ) -> (Case, Verdict) {
        let database = self.states[start].template.copy().await;
        // In most cases nothing may be refused, so that refusing is never the easy way out.
        let calm = random.chance(65);
        let mut made = Vec::new();
        let mut tries = 0;
        while made.len() < wanted && tries < 4 * wanted {
            tries += 1;
            let view = View::read(&database, &self.expected, &self.versions).await;
            let Some(mutation) = mutations::propose(random, &view) else { continue };
            if calm && mutation.may_refuse {
                continue;
            }
            if mutation.apply(&database, &self.migrator).await {
                made.push(mutation);
            }
        }
        let case = Case { start, order, mutations: made };
        let verdict = self.run(&database, &case, case.mutations.clone()).await;
        (case, verdict)
    }

    /// Runs a case on a copy of its own. A change that cannot be made without the others is left out.
    pub(crate) async fn judge(&self, case: &Case) -> Verdict {
        let database = self.states[case.start].template.copy().await;
        let mut made = Vec::new();
        for mutation in &case.mutations {
            if mutation.apply(&database, &self.migrator).await {
                made.push(mutation.clone());
            }
        }
        self.run(&database, case, made).await
    }

    async fn run(&self, database: &TestDatabase, case: &Case, made: Vec<Mutation>) -> Verdict {
        match self.run_all(database, case).await {
            Ok((rows, reasons)) if reasons.is_empty() => Verdict::Converged { rows },
            // A refusal must have a cause: nothing here lost data, took a name or put rows in the way.
            Ok((_, reasons)) if !made.iter().any(|mutation| mutation.may_refuse) => {
                Verdict::Failed(format!("refused without need: {reasons:?}"))
            }
            Ok((_, reasons)) => Verdict::Refused { reasons: reasons.iter().map(|text| nameless(text)).collect() },
            Err(reason) => Verdict::Failed(reason),
        }
    }

    /// The rows compared, and the reasons of those that refused.
    async fn run_all(&self, database: &TestDatabase, case: &Case) -> Result<(usize, Vec<String>), String> {
        let client = database.client().await;
        let (mut rows, mut reasons, mut done) = (0, Vec::new(), Vec::new());
        let mut before = snapshot(&client).await;
        let first = before.clone();
        for service in case.order {
            let run = migrate(service, database, "up").await;
            let after = snapshot(&client).await;
            match run.code {
                // An up-to-date database is not looked at row by row: what has odd values there keeps them.
                0 if run.json()["actions"].as_array().is_some_and(Vec::is_empty) => {
                    let changed = before.differences(&after);
                    if !changed.is_empty() {
                        return Err(format!("{} changed something without an action: {changed:?}", service.name()));
                    }
                    done.push(service);
                }
                0 => {
                    let kept = kept::compare(&before.rows, &after.rows, &[service]);
                    let kept = kept.map_err(|wrong| format!("{}: {}", service.name(), wrong.join("\n  ")))?;
                    kept::said(&kept, &run.json()["data_changes"]).map_err(|wrong| wrong.join("\n  "))?;
                    rows += kept.compared;
                    done.push(service);
                }
                3 => {
                    let changed = before.differences(&after);
                    if !changed.is_empty() {
                        return Err(format!(
                            "{} refused after a change:\n  {}\n  {}",
                            service.name(),
                            changed.join("\n  "),
                            run.brief()
                        ));
                    }
                    reasons.extend(blockers(&run)?);
                }
                code => return Err(format!("{} up: exit {code}\n  {}", service.name(), run.brief())),
            }
            before = after;
        }
        for service in &done {
            self.is_done(*service, database, &first, &before).await?;
        }
        Ok((rows, reasons))
    }

    /// The schema is that of a fresh install, verify agrees, and another run finds nothing to do.
    async fn is_done(
        &self,
        service: Service,
        database: &TestDatabase,
        first: &Snapshot,
        after: &Snapshot,
    ) -> Result<(), String> {
        let verify = migrate(service, database, "verify").await;
        if verify.code != 0 {
            return Err(format!("{} verify after up: {}", service.name(), verify.brief()));
        }
        let warned: BTreeSet<(String, String)> = verify.json()["drift"]
            .as_array()
            .unwrap()
            .iter()
            .filter(|drift| drift["severity"] == "warning")
            .map(|drift| {
                (format!("public.{}", drift["table"].as_str().unwrap()), drift["object"].as_str().unwrap().to_owned())
            })
            .collect();
        let owned: BTreeSet<String> = self.tables(service).iter().map(|table| format!("public.{table}")).collect();
        let of = |snapshot: &Snapshot| {
            let mine = snapshot.catalog.clone().into_iter().filter(|(object, _)| owned.contains(&object.table));
            mine.collect::<std::collections::BTreeMap<Object, String>>()
        };
        let (fresh, live, was) = (of(&self.fresh), of(after), of(first));
        let mut wrong = Vec::new();
        for (object, wanted) in &fresh {
            if live.get(object) != Some(wanted) {
                wrong.push(format!("{object}: fresh `{wanted}`, here {:?}", live.get(object)));
            }
        }
        for (object, extra) in live.iter().filter(|(object, _)| !fresh.contains_key(object)) {
            let mut known = warned.contains(&(object.table.clone(), object.name.clone()));
            // An index is told with its constraint, and an extra column may lose its NOT NULL.
            known &= was.contains_key(object);
            // Policies without row security, rules that only add, and parents hang on what somebody else made.
            if !known && !matches!(object.kind.as_str(), "policy" | "rule") {
                wrong.push(format!("{object} is not of a fresh install and verify does not tell it: `{extra}`"));
            }
        }
        let history = &after.rows["public.__diesel_schema_migrations"];
        for version in self.fresh.rows["public.__diesel_schema_migrations"].iter().map(|row| &row["version"]) {
            let of_service = verify.json()["applied"].as_array().unwrap().contains(version);
            let times = history.iter().filter(|row| row["version"] == *version).count();
            if of_service && times != 1 {
                wrong.push(format!("the history has {version} {times} times"));
            }
        }
        let again = migrate(service, database, "up").await;
        let again_json = if again.code == 0 { again.json() } else { Value::Null };
        let idle = |key: &str| again_json[key].as_array().is_some_and(Vec::is_empty);
        if !idle("actions") || !idle("data_changes") {
            wrong.push(format!("a second up finds something to do: {}", again.brief()));
        }
        if wrong.is_empty() { Ok(()) } else { Err(format!("{}: {}", service.name(), wrong.join("\n  "))) }
    }
}

async fn migrate(service: Service, database: &TestDatabase, command: &str) -> MigrateRun {
    run_migrate(service, &database.migrator_url(), &[command, "--output", "json"]).await
}

/// The reasons of a refusal; each obstacle must name an object, and say what resolves it.
fn blockers(run: &MigrateRun) -> Result<Vec<String>, String> {
    let report = run.json();
    let blockers = report["blockers"].as_array().filter(|found| !found.is_empty());
    let blockers = blockers.ok_or_else(|| format!("exit 3 without an obstacle: {}", run.brief()))?;
    let said = |blocker: &Value, key: &str| blocker[key].as_str().is_some_and(|text| !text.is_empty());
    for blocker in blockers {
        let counted = blocker["rows"].as_i64().is_some_and(|rows| rows >= 0);
        let sampled = blocker["rows"] == 0 || blocker["sample"].as_array().is_some_and(|keys| !keys.is_empty());
        let told = ["table", "object", "reason", "resolve"].iter().all(|key| said(blocker, key));
        if !(counted && sampled && told) {
            return Err(format!("an obstacle that does not say enough: {blocker:#}"));
        }
    }
    Ok(blockers.iter().map(|blocker| blocker["reason"].as_str().unwrap().to_owned()).collect())
}

/// A reason without names and numbers, so that reasons of a kind can be counted together.
fn nameless(reason: &str) -> String {
    let common = |word: &str| {
        let word = word.trim_matches(|c: char| c.is_ascii_punctuation() && c != '_');
        !word.is_empty() && word.chars().all(|c| c.is_ascii_lowercase()) && !["tasks", "users", "roles"].contains(&word)
    };
    let words = reason.split_whitespace().map(|word| if common(word) { word } else { "…" });
    let mut kept: Vec<&str> = words.take(14).collect();
    kept.dedup();
    kept.join(" ")
}
