//! What people see: tables and colour on a terminal, plain text elsewhere. Answers go to stdout, errors to stderr.

use std::fmt::Display;
use std::io::IsTerminal as _;

use anstyle::{AnsiColor, Style};
use comfy_table::{Cell, Color, ContentArrangement, Table, presets};
use serde::Serialize;

use crate::blockers::Blocker;
use crate::down::DownReport;
use crate::error::EngineError;
use crate::plan::{Foreseen, Origin, PlanReport};
use crate::repair_plan::{Planned, RepairReport};
use crate::report::{Drift, Outcome, Severity, State, UpReport, VerifyReport};
use crate::set::MigrationSet;
use crate::split::summary;
use crate::verify::StatusReport;

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();
const CARE: Style = AnsiColor::Yellow.on_default().bold();

fn styled(style: Style, text: impl Display) -> String {
    format!("{style}{text}{style:#}")
}

/// `1 row`, `2 rows`.
pub fn counted(number: impl Display, what: &str) -> String {
    let number = number.to_string();
    let plural = if number == "1" { "" } else { "s" };
    format!("{number} {what}{plural}")
}

/// One document, always on stdout.
pub(crate) fn json(value: &impl Serialize) {
    match serde_json::to_string_pretty(value) {
        Ok(text) => anstream::println!("{text}"),
        Err(error) => anstream::eprintln!("error: the answer cannot be written as JSON: {error}"),
    }
}

pub(crate) fn error(error: &EngineError) {
    anstream::eprintln!("{} {error}", styled(BAD, "error:"));
}

pub(crate) fn verify(report: &VerifyReport) {
    let state = match report.state {
        State::Match => styled(GOOD, "match: history and schema are as expected"),
        State::Pending => {
            styled(CARE, format!("pending: {} to run; run `migrate up`", counted(report.pending.len(), "migration")))
        }
        State::Drift => styled(
            BAD,
            "drift: the schema is not the expected one; `migrate up` repairs what it safely can, `migrate repair` shows how",
        ),
        State::Ahead => styled(
            BAD,
            format!("ahead: unknown versions {}; deploy the binary that knows them", report.unknown.join(", ")),
        ),
    };
    anstream::println!("{}: {state}", report.service);
    drift(&report.drift);
}

fn drift(found: &[Drift]) {
    if found.is_empty() {
        return;
    }
    if !std::io::stdout().is_terminal() {
        found.iter().for_each(drift_line);
        return;
    }
    let mut table = table(&["", "kind", "object", "problem", "expected", "actual"]);
    for drift in found {
        let severity = match drift.severity {
            Severity::Error => Cell::new("error").fg(Color::Red),
            Severity::Warning => Cell::new("warning").fg(Color::Yellow),
        };
        table.add_row([
            severity,
            Cell::new(word(&drift.kind)),
            Cell::new(object(&drift.table, &drift.object)),
            Cell::new(word(&drift.problem)),
            Cell::new(drift.expected.as_deref().map(summary).unwrap_or_default()),
            Cell::new(drift.actual.as_deref().map(summary).unwrap_or_default()),
        ]);
    }
    anstream::println!("{table}");
}

/// One line, for logs and pipes, where a table has no width.
fn drift_line(drift: &Drift) {
    let side = |label: &str, text: &Option<String>| {
        text.as_deref().map(|text| format!(" · {label} {}", summary(text))).unwrap_or_default()
    };
    anstream::println!(
        "  {} {} {} {}{}{}",
        word(&drift.severity),
        word(&drift.kind),
        object(&drift.table, &drift.object),
        word(&drift.problem),
        side("expected", &drift.expected),
        side("actual", &drift.actual)
    );
}

pub(crate) fn repair(report: &RepairReport) {
    verify(&report.verify);
    if !report.repairs.is_empty() {
        anstream::println!("\n`migrate repair --apply` would run:");
    }
    for repair in &report.repairs {
        let drift = &repair.drift;
        let of = object(&drift.table, &drift.object);
        anstream::println!("-- {} {of}: {}", word(&drift.kind), word(&drift.problem));
        for planned in &repair.statements {
            anstream::println!("{};{}", planned.statement, effect(planned));
        }
    }
    anstream::print!("{}", blockers(&report.blockers));
    if !report.verify.pending.is_empty() {
        let pending = counted(report.verify.pending.len(), "migration");
        anstream::println!("{pending} to run: `migrate up` does that, and repairs too");
    }
}

pub(crate) fn plan(report: &PlanReport) {
    verify(&report.verify);
    let already = report.statements.iter().filter(|statement| statement.outcome == Foreseen::AlreadyThere).count();
    let mut version: Option<&str> = None;
    for (at, statement) in report.statements.iter().enumerate() {
        if statement.outcome == Foreseen::AlreadyThere {
            continue;
        }
        if at == 0 || version != statement.version.as_deref() {
            version = statement.version.as_deref();
            anstream::println!(
                "\n-- {}",
                version.map_or_else(|| word(&statement.origin), |version| format!("migration {version}"))
            );
        }
        let depends = if statement.outcome == Foreseen::Depends { ", if its rows are there" } else { "" };
        let parts = if statement.batched { ", in parts" } else { "" };
        if statement.origin == Origin::Code {
            anstream::println!("-- the service's own code: {}{depends}{parts}", statement.planned.statement);
            continue;
        }
        anstream::println!("{};{}{depends}{parts}", statement.planned.statement, effect(&statement.planned));
    }
    if report.statements.is_empty() && report.verify.unknown.is_empty() {
        anstream::println!("`migrate up` would do nothing");
    } else if already > 0 {
        anstream::println!("\nnothing to do for {}, not sent", counted(already, "statement"));
    }
    anstream::print!("{}", blockers(&report.blockers));
}

pub(crate) fn rehearse(report: &UpReport) {
    let count = |outcome| report.actions.iter().filter(|action| action.outcome == outcome).count();
    anstream::eprint!("{}", blockers(&report.blockers));
    match &report.error {
        None if report.actions.is_empty() => {
            anstream::println!("{}: {}", report.verify.service, styled(GOOD, "`migrate up` would do nothing"))
        }
        None => anstream::println!(
            "{}: {}: {} applied, {} already there, {} repaired on a copy of the schema; nothing is left of it",
            report.verify.service,
            styled(GOOD, "a run would converge"),
            counted(count(Outcome::Applied), "statement"),
            count(Outcome::AlreadyThere),
            count(Outcome::Repaired)
        ),
        Some(error) => anstream::eprintln!(
            "{} {}: a run would not converge: {error}",
            styled(BAD, "error:"),
            report.verify.service
        ),
    }
}

pub(crate) fn down(report: &DownReport) {
    for action in &report.actions {
        anstream::println!("  reverted  {} ({} ms)", action.statement, action.duration_ms);
    }
    for loss in &report.losses {
        let lost = if report.error.is_none() { "lost:" } else { "would be lost:" };
        anstream::println!("  {} {loss}", styled(CARE, lost));
    }
    match &report.error {
        None if report.reverted.is_empty() => anstream::println!("{}: nothing to revert", report.verify.service),
        None => anstream::println!("{}: reverted {}", report.verify.service, report.reverted.join(", ")),
        Some(error) => anstream::eprintln!("{} {}: {error}", styled(BAD, "error:"), report.verify.service),
    }
}

/// What a statement does to others, as a SQL comment: the text stays runnable.
pub(crate) fn effect(planned: &Planned) -> String {
    let Some(lock) = planned.lock else { return String::new() };
    let mut text = format!("  -- {lock}, blocks {}", planned.blocks);
    if !planned.effect.certain {
        text.push_str(" (at worst)");
    }
    if planned.effect.rewrites {
        text.push_str(", rewrites the table");
    } else if planned.effect.scans {
        text.push_str(", scans the table");
    }
    text
}

pub(crate) fn status(report: &StatusReport, set: &MigrationSet) {
    let mut table = table(&["version", "name", "state"]);
    for migration in &set.migrations {
        let state = if report.applied.contains(&migration.version) {
            Cell::new("applied").fg(Color::Green)
        } else {
            Cell::new("pending").fg(Color::Yellow)
        };
        table.add_row([Cell::new(&migration.version), Cell::new(&migration.name), state]);
    }
    for version in &report.unknown {
        table.add_row([Cell::new(version), Cell::new(""), Cell::new("unknown to this binary").fg(Color::Red)]);
    }
    anstream::println!("{table}");
    match &report.last_run {
        Some(run) => anstream::println!(
            "last run: {} at {} by {} with version {}{}",
            run.outcome,
            run.finished_at.format("%Y-%m-%d %H:%M:%S UTC"),
            run.database_user,
            run.binary_version,
            run.error.as_ref().map(|error| format!(": {error}")).unwrap_or_default()
        ),
        None => anstream::println!("last run: none recorded"),
    }
}

pub(crate) fn up(report: &UpReport) {
    if let Some(backup) = &report.backup {
        let size = indicatif::HumanBytes(backup.bytes);
        anstream::println!("  backup    {} ({size}, sha256 {})", backup.path.display(), backup.sha256);
    }
    let count = |outcome| report.actions.iter().filter(|action| action.outcome == outcome).count();
    if !report.actions.is_empty() {
        anstream::println!(
            "{}: {} applied, {} already there, {} repaired",
            report.verify.service,
            counted(count(Outcome::Applied), "statement"),
            count(Outcome::AlreadyThere),
            count(Outcome::Repaired)
        );
    }
    for action in report.actions.iter().filter(|action| action.outcome == Outcome::Repaired) {
        anstream::println!("  repaired  {} ({} ms)", action.statement, action.duration_ms);
    }
    for change in &report.data_changes {
        anstream::println!("  data      {}: {}", change.description, counted(change.rows, "row"));
    }
    for finding in &report.findings {
        anstream::println!("  {} {} ({})", styled(CARE, "finding"), finding.message, finding.code);
        if !finding.sample.is_empty() {
            anstream::println!("            keys: {}", finding.sample.join("; "));
        }
        anstream::println!("            {}", finding.advice);
    }
    anstream::eprint!("{}", blockers(&report.blockers));
    match &report.error {
        None => verify(&report.verify),
        Some(error) => anstream::eprintln!("{} {}: {error}", styled(BAD, "error:"), report.verify.service),
    }
}

/// What is in the way, each with its resolution.
fn blockers(found: &[Blocker]) -> String {
    let mut text = String::new();
    for blocker in found {
        let of = object(&blocker.table, &blocker.object);
        text.push_str(&format!("{} {of}: {}\n", styled(BAD, "in the way:"), blocker.reason));
        for (label, side) in [("expected", &blocker.expected), ("actual", &blocker.actual)] {
            if let Some(side) = side.as_deref().filter(|side| !blocker.reason.contains(side)) {
                text.push_str(&format!("  {label}: {}\n", summary(side)));
            }
        }
        if blocker.rows > 0 {
            let keys = blocker.sample.join("; ");
            text.push_str(&format!("  {} (keys: {keys})\n", counted(blocker.rows, "row")));
        }
        text.push_str(&format!("  resolve: {}\n", blocker.resolve));
    }
    text
}

/// The object with its table.
fn object(table: &str, object: &str) -> String {
    if table == object { table.to_owned() } else { format!("{table}.{object}") }
}

fn table(header: &[&str]) -> Table {
    let mut table = Table::new();
    table.load_preset(presets::UTF8_BORDERS_ONLY).set_content_arrangement(ContentArrangement::Dynamic);
    table.set_header(header);
    table
}

/// The JSON name of a unit variant.
fn word(value: &impl Serialize) -> String {
    serde_json::to_value(value).ok().and_then(|value| value.as_str().map(str::to_owned)).unwrap_or_default()
}
