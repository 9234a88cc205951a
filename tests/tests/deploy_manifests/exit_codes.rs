//! The exit codes of `migrate` in the Jobs' failure policies, held against those of the engine.

use std::collections::{BTreeMap, BTreeSet};

use k8s_openapi::api::batch::v1::{JobSpec, PodFailurePolicyRule};
use migration_engine::ExitCode;

use crate::assert_none;
use crate::objects::Pod;
use crate::render;

/// What a Job does after a pod that ended with a code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Fate {
    /// The Job is complete.
    Success,
    /// Another pod, within `backoffLimit`: rule `Count`.
    Retried,
    /// The Job has failed: rule `FailJob`.
    Fails,
}

/// What is right for each code. A new one stops the build here: decide, and add it to the manifests and to docs/DEPLOY.md.
fn fate(code: ExitCode) -> Fate {
    match code {
        ExitCode::Done => Fate::Success,
        // A lost race, a held lock and a database that is away may be over the next time.
        ExitCode::Failed | ExitCode::Locked | ExitCode::Unreachable => Fate::Retried,
        // The next pod would find the same.
        ExitCode::Usage | ExitCode::Drift | ExitCode::Pending | ExitCode::Ahead | ExitCode::BackupFailed => Fate::Fails,
    }
}

/// The codes that the rules name, with every fate they are given.
fn named(container: &str, rules: &[PodFailurePolicyRule]) -> Result<BTreeMap<i32, Vec<Fate>>, String> {
    let mut named: BTreeMap<i32, Vec<Fate>> = BTreeMap::new();
    for rule in rules {
        let Some(codes) = &rule.on_exit_codes else { continue };
        let fate = match rule.action.as_str() {
            "FailJob" => Fate::Fails,
            "Count" => Fate::Retried,
            other => return Err(format!("action {other} for exit codes; expected FailJob or Count")),
        };
        if codes.operator != "In" || codes.container_name.as_deref() != Some(container) {
            return Err(format!("a rule is not `In` for the container {container}: {codes:?}"));
        }
        for code in &codes.values {
            named.entry(*code).or_default().push(fate);
        }
    }
    Ok(named)
}

/// What a Job's policy gets wrong.
fn breaches(container: &str, spec: &JobSpec) -> Vec<String> {
    let Some(policy) = &spec.pod_failure_policy else { return vec!["podFailurePolicy is missing".to_owned()] };
    let mut breaches = Vec::new();
    match named(container, &policy.rules) {
        Err(breach) => breaches.push(breach),
        Ok(named) => {
            let expected: BTreeMap<i32, Vec<Fate>> = ExitCode::ALL
                .into_iter()
                .filter(|code| fate(*code) != Fate::Success)
                .map(|code| (code as i32, vec![fate(code)]))
                .collect();
            let codes: BTreeSet<_> = named.keys().chain(expected.keys()).collect();
            for code in codes.into_iter().filter(|code| named.get(code) != expected.get(code)) {
                breaches.push(format!("exit code {code}: {:?}; expected {:?}", named.get(code), expected.get(code)));
            }
        }
    }
    // The first rule that fits decides: a run that was evicted ends with 1, and must not count as one that failed.
    let order: Vec<_> = policy.rules.iter().map(|rule| rule.action.as_str()).collect();
    if order != ["FailJob", "Ignore", "Count"] {
        breaches.push(format!("the rules are {order:?}; expected FailJob, Ignore, Count"));
    }
    let disruptions = policy.rules.iter().filter_map(|rule| rule.on_pod_conditions.as_ref()).flatten();
    let disruptions: Vec<_> = disruptions.map(|pattern| (pattern.type_.as_str(), pattern.status.as_str())).collect();
    if disruptions != [("DisruptionTarget", "True")] {
        breaches.push(format!("ignored conditions are {disruptions:?}; expected DisruptionTarget alone"));
    }
    breaches
}

#[test]
fn every_exit_code_has_one_fate_in_every_job() {
    let mut found = Vec::new();
    for rendered in render::all() {
        for (pod, spec) in rendered.objects.all_jobs() {
            let container = pod.container().name.as_str();
            found.extend(breaches(container, spec).into_iter().map(|breach| of(rendered.directory, &pod, &breach)));
        }
    }
    assert_none(&found, "mend podFailurePolicy, or decide otherwise in fate() above:");
}

#[test]
fn a_code_that_is_missing_doubled_or_unknown_is_seen() {
    let objects = &render::overlay("base").objects;
    let jobs = objects.all_jobs();
    let (pod, spec) = jobs.first().unwrap();
    let container = pod.container().name.as_str();
    let with = |change: &dyn Fn(&mut Vec<i32>)| {
        let mut spec = (*spec).clone();
        change(&mut spec.pod_failure_policy.as_mut().unwrap().rules[0].on_exit_codes.as_mut().unwrap().values);
        breaches(container, &spec)
    };
    assert_eq!(with(&|_| {}), Vec::<String>::new());
    assert_eq!(with(&|codes| codes.retain(|code| *code != 7)), ["exit code 7: None; expected Some([Fails])"]);
    assert_eq!(with(&|codes| codes.push(6)), ["exit code 6: Some([Fails, Retried]); expected Some([Retried])"]);
    assert_eq!(with(&|codes| codes.push(9)), ["exit code 9: Some([Fails]); expected None"]);
}

#[test]
fn codes_are_numbered_without_a_gap() {
    let numbers: Vec<_> = ExitCode::ALL.into_iter().map(|code| code as i32).collect();
    assert_eq!(numbers, (0..9).collect::<Vec<_>>(), "add the new code to ExitCode::ALL");
}

/// Whoever reads a code finds what it means and what to do next, in both guides.
#[test]
fn every_code_is_in_the_tables_of_the_guides() {
    let codes: Vec<i32> = ExitCode::ALL.into_iter().map(|code| code as i32).collect();
    let guides = [("MIGRATION.md", "## Exit codes"), ("DEPLOY.md", "## 6.")];
    for (guide, section) in guides {
        let path = format!("{}/../docs/{guide}", env!("CARGO_MANIFEST_DIR"));
        let text = std::fs::read_to_string(path).unwrap();
        let text = text.split(section).nth(1).unwrap_or_else(|| panic!("{guide} has no section {section}"));
        let text = text.split("\n## ").next().unwrap();
        let told: Vec<i32> =
            text.lines().filter_map(|line| line.strip_prefix("| ")?.split(" |").next()?.parse().ok()).collect();
        assert_eq!(told, codes, "docs/{guide}, {section}");
    }
}

#[test]
fn jobs_end() {
    let mut found = Vec::new();
    for rendered in render::all() {
        for (pod, spec) in rendered.objects.all_jobs() {
            let rules = [
                (
                    pod.spec.restart_policy.as_deref() == Some("Never"),
                    "restartPolicy: Never, which failure policies need",
                ),
                (spec.backoff_limit.is_some_and(|limit| (1..=10).contains(&limit)), "a backoffLimit of 1 to 10"),
                (spec.active_deadline_seconds.is_some_and(|seconds| seconds > 0), "activeDeadlineSeconds"),
                (
                    spec.ttl_seconds_after_finished.is_some_and(|seconds| seconds >= 86_400),
                    "ttlSecondsAfterFinished of a day or more",
                ),
                (
                    spec.pod_replacement_policy.as_deref() == Some("Failed"),
                    "podReplacementPolicy: Failed, so that two never run at once",
                ),
                (spec.parallelism.unwrap_or(1) == 1 && spec.completions.unwrap_or(1) == 1, "one pod"),
            ];
            found.extend(
                rules.into_iter().filter(|(held, _)| !held).map(|(_, rule)| of(rendered.directory, &pod, rule)),
            );
        }
        for cron_job in &rendered.objects.cron_jobs {
            let spec = cron_job.spec.as_ref().unwrap();
            if spec.concurrency_policy.as_deref() != Some("Forbid") || spec.failed_jobs_history_limit.unwrap_or(1) < 1 {
                found.push(format!(
                    "{}: {:?}: concurrencyPolicy: Forbid, and failed Jobs are kept",
                    rendered.directory, cron_job.metadata.name
                ));
            }
        }
    }
    assert_none(&found, "a Job that does not end, or is gone before anybody looks, alerts nobody; write:");
}

fn of(directory: &str, pod: &Pod<'_>, text: &str) -> String {
    format!("{directory}: {}: {text}", pod.owner)
}
