//! The table at the end: what became of the cases by start state, and which kinds of change were used.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use comfy_table::Table;

use crate::judge::Verdict;

/// What became of one case.
pub(crate) struct Outcome {
    /// Name of the start state.
    pub(crate) state: &'static str,
    /// The changes that were made.
    pub(crate) kinds: Vec<&'static str>,
    /// How it ended.
    pub(crate) verdict: Verdict,
    /// The shrunk case, when it failed.
    pub(crate) failure: Option<String>,
    /// How long it took, shrinking left out.
    pub(crate) took: Duration,
}

#[derive(Default)]
struct Line {
    converged: usize,
    refused: usize,
    failed: usize,
    rows: usize,
    total: Duration,
    longest: Duration,
}

/// All outcomes.
#[derive(Default)]
pub(crate) struct Report {
    states: BTreeMap<&'static str, Line>,
    kinds: BTreeMap<&'static str, [usize; 3]>,
    reasons: BTreeMap<String, usize>,
    failures: Vec<String>,
}

impl Report {
    /// Counts one outcome.
    pub(crate) fn add(&mut self, outcome: Outcome) {
        let line = self.states.entry(outcome.state).or_default();
        line.total += outcome.took;
        line.longest = line.longest.max(outcome.took);
        let column = match outcome.verdict {
            Verdict::Converged { rows } => {
                line.converged += 1;
                line.rows += rows;
                0
            }
            Verdict::Refused { reasons } => {
                line.refused += 1;
                for reason in reasons {
                    *self.reasons.entry(reason).or_default() += 1;
                }
                1
            }
            Verdict::Failed(_) => {
                line.failed += 1;
                2
            }
        };
        for kind in outcome.kinds {
            self.kinds.entry(kind).or_default()[column] += 1;
        }
        self.failures.extend(outcome.failure);
    }

    /// The failed cases, shrunk.
    pub(crate) fn failures(&self) -> &[String] {
        &self.failures
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut table = Table::new();
        table.set_header(["start state", "converged", "refused", "FAILED", "rows compared", "mean s", "longest s"]);
        let mut all = Line::default();
        for (state, line) in &self.states {
            table.add_row(cells(state, line));
            all.converged += line.converged;
            all.refused += line.refused;
            all.failed += line.failed;
            all.rows += line.rows;
            all.total += line.total;
            all.longest = all.longest.max(line.longest);
        }
        table.add_row(cells("all", &all));
        writeln!(f, "{table}")?;
        let mut kinds = Table::new();
        kinds.set_header(["change", "in converged", "in refused", "in FAILED"]);
        for (kind, counts) in &self.kinds {
            kinds.add_row([(*kind).to_owned(), counts[0].to_string(), counts[1].to_string(), counts[2].to_string()]);
        }
        writeln!(f, "{kinds}")?;
        let mut reasons = Table::new();
        reasons.set_header(["why refused (names left out)", "times"]);
        for (reason, times) in &self.reasons {
            reasons.add_row([reason.clone(), times.to_string()]);
        }
        write!(f, "{reasons}")
    }
}

fn cells(name: &str, line: &Line) -> Vec<String> {
    let cases = line.converged + line.refused + line.failed;
    let mean = line.total.as_secs_f64() / f64::from(u32::try_from(cases.max(1)).unwrap_or(u32::MAX));
    vec![
        name.to_owned(),
        line.converged.to_string(),
        line.refused.to_string(),
        line.failed.to_string(),
        line.rows.to_string(),
        format!("{mean:.2}"),
        format!("{:.2}", line.longest.as_secs_f64()),
    ]
}
