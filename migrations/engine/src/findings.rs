//! What a person should know or do, asked of the rows after a run.

use crate::error::EngineError;
use crate::ledger::Memory;
use crate::report::FindingReport;
use crate::scope::Scope;
use crate::set::MigrationSet;

/// Which questions are asked. Some read whole tables, so an up-to-date database is asked only what was open before.
pub(crate) enum Ask<'m> {
    All,
    Open(&'m Memory),
}

/// Asks the set's questions.
///
/// # Errors
/// Any database error.
pub(crate) async fn ask(scope: Scope<'_>, set: &MigrationSet, ask: Ask<'_>) -> Result<Vec<FindingReport>, EngineError> {
    let mut found = Vec::new();
    for finding in &set.findings {
        if matches!(ask, Ask::Open(memory) if !memory.open_findings.contains(finding.code)) {
            continue;
        }
        let row = scope.query_one(finding.query, &[]).await?;
        let count: i64 = row.try_get(0)?;
        if count > 0 {
            found.push(FindingReport {
                code: finding.code.to_owned(),
                count,
                sample: row.try_get::<_, Option<Vec<String>>>(1)?.unwrap_or_default(),
                message: finding.message.replace("{count}", &count.to_string()),
                advice: finding.advice.to_owned(),
            });
        }
    }
    Ok(found)
}
