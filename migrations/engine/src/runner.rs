//! The parts that a run is made of: repairs, migrations, steps in code, and convergence. `up` and `repair` put them
//! together on the real schema under the lock; `rehearse` on a shadow of it inside one transaction.

use std::time::{Duration, Instant};

use crate::activity;
use crate::batch::Batched;
use crate::blockers;
use crate::catalog::fingerprint;
use crate::diff::{Difference, Leave};
use crate::error::EngineError;
use crate::ledger::Ledger;
use crate::lock::Lock;
use crate::patience::retrying;
use crate::progress::Progress;
use crate::repair::{Phase, Step, of_phase, text as repair_text};
use crate::report::{Action, DataChange, Outcome, UpReport};
use crate::session::{READ_LOCK_TIMEOUT, Session};
use crate::set::{Migration, MigrationSet};
use crate::skip;
use crate::split::{Statement, summary};
use crate::verify::inspect;

/// One repair can bring the next difference to light (a column, then its index), but not for ever.
const CONVERGE_ROUNDS: usize = 5;
const PREPARE_ROUNDS: usize = 3;
/// How often the progress of an index build is asked for.
const WATCH: Duration = Duration::from_millis(500);
/// How long what a cancelled statement left may take to clear away.
const CLEAR_AWAY: &str = "5s";

/// What the parts work with.
pub(crate) struct Runner<'r> {
    pub(crate) session: &'r Session<'r>,
    pub(crate) set: &'r MigrationSet,
    pub(crate) leave: &'r Leave,
    /// Proven before each step; a rehearsal needs none.
    pub(crate) lock: Option<&'r Lock<'r>>,
    /// A rehearsal writes none.
    pub(crate) ledger: Option<&'r Ledger<'r>>,
    pub(crate) tables: &'r [String],
    /// How long other people's locks are waited for.
    pub(crate) wait: Duration,
    pub(crate) on_terminal: bool,
}

impl Runner<'_> {
    /// What the migrations rely on: columns, types, names, and the keys whose columns are all there.
    pub(crate) async fn prepare(&self, differences: &[Difference], report: &mut UpReport) -> Result<(), EngineError> {
        for (difference, fix) in of_phase(differences, &[Phase::Prepare]) {
            self.repair(difference, &fix.steps, report).await?;
        }
        // So that ON CONFLICT and foreign keys of the migrations find the keys: their columns' NOT NULL, then themselves,
        // then what the old keys held back.
        for _ in 0..PREPARE_ROUNDS {
            let inspection = inspect(self.session, self.set, self.leave).await?;
            let mut repaired = false;
            for (difference, fix) in of_phase(&inspection.differences, &[Phase::Prepare, Phase::PrepareIfPossible]) {
                if blockers::holds_now(self.session.scope(), self.set, &inspection.live, difference).await? {
                    self.repair(difference, &fix.steps, report).await?;
                    repaired = true;
                }
            }
            if !repaired {
                break;
            }
        }
        Ok(())
    }

    /// Every migration, then the steps in code.
    pub(crate) async fn migrate_all(&self, report: &mut UpReport) -> Result<(), EngineError> {
        for migration in &self.set.migrations {
            self.migrate(migration, report).await?;
        }
        for step in &self.set.steps {
            self.prove().await?;
            let work = step.run(self.session.scope().client);
            let rows = tokio::select! {
                rows = work => rows?,
                () = self.session.interrupt().fired() => return Err(EngineError::Interrupted),
            };
            if rows > 0 {
                tracing::info!(rows, "{}", step.description());
                let description = step.description().to_owned();
                report.data_changes.push(DataChange { version: None, description, rows });
            }
        }
        Ok(())
    }

    /// Repairs what still differs, until nothing does.
    pub(crate) async fn converge(&self, report: &mut UpReport) -> Result<(), EngineError> {
        for _ in 0..CONVERGE_ROUNDS {
            let inspection = inspect(self.session, self.set, self.leave).await?;
            let errors: Vec<Difference> =
                inspection.differences.iter().filter(|difference| difference.fix.is_some()).cloned().collect();
            if errors.is_empty() {
                break;
            }
            // Rows may have come in since the first look.
            let in_the_way =
                blockers::find(self.session.scope(), self.set, &inspection.live, &errors, self.leave).await?;
            if !in_the_way.is_empty() {
                return Err(EngineError::Stopped(in_the_way));
            }
            for (difference, fix) in of_phase(&errors, &[Phase::Prepare, Phase::PrepareIfPossible, Phase::Converge]) {
                self.repair(difference, &fix.steps, report).await?;
            }
        }
        Ok(())
    }

    /// Mends one difference.
    pub(crate) async fn repair(
        &self,
        difference: &Difference,
        steps: &[Step],
        report: &mut UpReport,
    ) -> Result<(), EngineError> {
        let started = Instant::now();
        let context = format!("repair of {}.{}", difference.drift.table, difference.drift.object);
        let statement = summary(&repair_text(steps));
        let alone = steps.iter().any(|step| matches!(step, Step::Alone(_)));
        let journal = if alone { self.journal_begins(None, &statement).await? } else { None };
        for step in steps {
            self.prove().await?;
            match step {
                Step::Alone(sql) => self.alone(sql, &context).await?,
                Step::Transaction(statements) => self.in_transaction(statements, &context).await?,
            };
        }
        self.tell(&format!("repaired {}.{}", difference.drift.table, difference.drift.object));
        let action = Action { version: None, statement, outcome: Outcome::Repaired, duration_ms: millis(started) };
        self.journal_ends(journal, &action).await?;
        report.actions.push(action);
        Ok(())
    }

    async fn in_transaction(&self, statements: &[String], context: &str) -> Result<u64, EngineError> {
        self.retrying(async |timeout| {
            self.session.begin(timeout).await?;
            let mut rows = 0;
            for sql in statements {
                rows += self.session.execute(sql, context).await?;
            }
            self.session.commit(context).await?;
            Ok(rows)
        })
        .await
    }

    /// One migration. Each of its statements can be run again by itself (a rule), so each commits by itself: a transaction
    /// that held a lock on one table while it waits for one on another would meet clients that take them the other way round.
    async fn migrate(&self, migration: &Migration, report: &mut UpReport) -> Result<(), EngineError> {
        self.prove().await?;
        for statement in &migration.statements {
            if !migration.in_transaction {
                self.migrate_alone(migration, statement, report).await?;
            } else if statement.batch.is_some() && !self.session.is_shadow() {
                self.migrate_in_parts(migration, statement, report).await?;
            } else {
                let (action, rows) =
                    self.retrying(async |timeout| self.migrate_statement(migration, statement, timeout).await).await?;
                report.actions.push(action);
                report.data_changes.extend(data_change(migration, statement, rows));
            }
        }
        self.tell(&format!("migration {}_{} ran", migration.version, migration.name));
        Ok(())
    }

    async fn migrate_statement(
        &self,
        migration: &Migration,
        statement: &Statement,
        timeout: Duration,
    ) -> Result<(Action, u64), EngineError> {
        let (scope, started) = (self.session.scope(), Instant::now());
        if self.is_needless(statement).await? {
            let action = action(migration, statement, Outcome::AlreadyThere, started);
            if let Some(ledger) = self.ledger {
                ledger.actions(std::slice::from_ref(&action)).await?;
            }
            return Ok((action, 0));
        }
        self.session.begin(timeout).await?;
        let before = fingerprint(scope, self.tables).await?;
        let rows = self.session.execute(&statement.sql, &context(migration)).await?;
        let changed = before != fingerprint(scope, self.tables).await? || (rows > 0 && !statement.is_query());
        let outcome = if changed { Outcome::Applied } else { Outcome::AlreadyThere };
        let action = action(migration, statement, outcome, started);
        if let Some(ledger) = self.ledger {
            ledger.actions(std::slice::from_ref(&action)).await?;
        }
        self.session.commit(&context(migration)).await?;
        Ok((action, rows))
    }

    async fn is_needless(&self, statement: &Statement) -> Result<bool, EngineError> {
        Ok(skip::is_superseded(&statement.sql, self.set)
            || skip::has_nothing_to_do(self.session.scope(), &statement.sql).await?)
    }

    /// A rehearsal says nothing of what it does to its copy.
    fn tell(&self, what: &str) {
        if self.session.is_shadow() {
            tracing::debug!(what, "rehearsed");
        } else {
            tracing::info!("{what}");
        }
    }

    async fn migrate_in_parts(
        &self,
        migration: &Migration,
        statement: &Statement,
        report: &mut UpReport,
    ) -> Result<(), EngineError> {
        let Some(batch) = &statement.batch else { return Ok(()) };
        let started = Instant::now();
        let journal = self.journal_begins(Some(&migration.version), &statement.summary()).await?;
        let progress = Progress::new(statement.data.as_deref().unwrap_or(&migration.name), self.on_terminal);
        let batched = Batched { session: self.session, tables: self.tables, wait: self.wait, progress: &progress };
        let rows = batched.run(statement, batch, &context(migration)).await?;
        let outcome = if rows > 0 { Outcome::Applied } else { Outcome::AlreadyThere };
        let action = action(migration, statement, outcome, started);
        self.journal_ends(journal, &action).await?;
        report.actions.push(action);
        report.data_changes.extend(data_change(migration, statement, rows));
        Ok(())
    }

    async fn migrate_alone(
        &self,
        migration: &Migration,
        statement: &Statement,
        report: &mut UpReport,
    ) -> Result<(), EngineError> {
        let (scope, started) = (self.session.scope(), Instant::now());
        if self.is_needless(statement).await? {
            let action = action(migration, statement, Outcome::AlreadyThere, started);
            if let Some(ledger) = self.ledger {
                ledger.actions(std::slice::from_ref(&action)).await?;
            }
            report.actions.push(action);
            return Ok(());
        }
        let journal = self.journal_begins(Some(&migration.version), &statement.summary()).await?;
        let before = fingerprint(scope, self.tables).await?;
        self.alone(&statement.sql, &context(migration)).await?;
        let changed = before != fingerprint(scope, self.tables).await?;
        let outcome = if changed { Outcome::Applied } else { Outcome::AlreadyThere };
        let action = action(migration, statement, outcome, started);
        self.journal_ends(journal, &action).await?;
        report.actions.push(action);
        Ok(())
    }

    /// One statement outside a transaction. It waits as long as it must: a timeout in a concurrent build would leave an
    /// INVALID index behind. Meanwhile it is told how far it is and who holds it up.
    pub(crate) async fn alone(&self, sql: &str, context: &str) -> Result<u64, EngineError> {
        if self.session.is_shadow() {
            return self.in_transaction(&[sql.to_owned()], context).await;
        }
        let scope = self.session.scope();
        let invalid = self.invalid_indexes().await?;
        scope.batch("SET lock_timeout = 0").await?;
        let progress = Progress::new(&summary(sql), self.on_terminal);
        let ran = tokio::select! {
            ran = self.session.execute(sql, context) => ran,
            never = self.watch(&progress) => match never {},
        };
        if ran.is_err() {
            // The next run would mend it as well; but an INVALID index costs every write until then.
            self.clear_away(&invalid).await;
        }
        let rows = ran?;
        scope.batch(&format!("SET lock_timeout = '{READ_LOCK_TIMEOUT}'")).await?;
        Ok(rows)
    }

    async fn watch(&self, progress: &Progress) -> std::convert::Infallible {
        let Some(lock) = self.lock else { return std::future::pending().await };
        let mut told: Option<String> = None;
        loop {
            tokio::time::sleep(WATCH).await;
            let Ok(Some(build)) = activity::index_build(lock.session().scope(), &self.session.pid).await else {
                continue;
            };
            let blocker = build.blocker.as_deref().map(|who| format!(", waits for {who}")).unwrap_or_default();
            progress.show(build.done, build.whole, &format!("{}{blocker}", build.phase));
            if build.blocker.is_some() && build.blocker != told {
                tracing::info!(
                    blocker = build.blocker,
                    phase = build.phase,
                    "the index build waits for another session"
                );
                told = build.blocker;
            }
        }
    }

    async fn invalid_indexes(&self) -> Result<Vec<String>, EngineError> {
        let rows = self
            .session
            .scope()
            .query(
                "SELECT x.relname::text FROM pg_catalog.pg_index i JOIN pg_catalog.pg_class x ON x.oid = i.indexrelid \
                 JOIN pg_catalog.pg_class c ON c.oid = i.indrelid \
                 WHERE NOT i.indisvalid AND c.relnamespace = pg_catalog.to_regnamespace('public') AND c.relname = ANY ($1)",
                &[(&self.tables, tokio_postgres::types::Type::TEXT_ARRAY)],
            )
            .await?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    }

    /// Drops the INVALID indexes that were not there `before`, as far as that takes moments.
    async fn clear_away(&self, before: &[String]) {
        let Ok(now) = self.invalid_indexes().await else { return };
        for index in now.iter().filter(|index| !before.contains(index)) {
            let drop = format!("DROP INDEX CONCURRENTLY IF EXISTS public.{}", crate::repair::name(index));
            let scope = self.session.scope();
            let cleared = async {
                scope.batch(&format!("SET statement_timeout = '{CLEAR_AWAY}'")).await?;
                scope.batch(&drop).await?;
                scope.batch("SET statement_timeout = 0").await
            };
            match cleared.await {
                Ok(()) => tracing::info!(index, "dropped what the unfinished build left"),
                Err(error) => {
                    tracing::warn!(index, %error, "the unfinished build left an INVALID index; the next run mends it");
                }
            }
        }
    }

    pub(crate) async fn retrying<T>(
        &self,
        attempt: impl AsyncFnMut(Duration) -> Result<T, EngineError>,
    ) -> Result<T, EngineError> {
        retrying(self.session, self.tables, self.wait, attempt).await
    }

    pub(crate) async fn prove(&self) -> Result<(), EngineError> {
        self.session.interrupt().check()?;
        match self.lock {
            Some(lock) => lock.prove(self.session).await,
            None => Ok(()),
        }
    }

    pub(crate) async fn journal_begins(
        &self,
        version: Option<&str>,
        statement: &str,
    ) -> Result<Option<i32>, EngineError> {
        match self.ledger {
            Some(ledger) => Ok(Some(ledger.action_begins(version, statement).await?)),
            None => Ok(None),
        }
    }

    /// Closes the entry, or writes the whole action where none was opened.
    pub(crate) async fn journal_ends(&self, step: Option<i32>, action: &Action) -> Result<(), EngineError> {
        match (self.ledger, step) {
            (Some(ledger), Some(step)) => ledger.action_ends(step, action.outcome.word(), None).await,
            (Some(ledger), None) => ledger.actions(std::slice::from_ref(action)).await,
            (None, _) => Ok(()),
        }
    }
}

fn context(migration: &Migration) -> String {
    format!("migration {}_{}", migration.version, migration.name)
}

fn action(migration: &Migration, statement: &Statement, outcome: Outcome, started: Instant) -> Action {
    Action {
        version: Some(migration.version.clone()),
        statement: statement.summary(),
        outcome,
        duration_ms: millis(started),
    }
}

fn data_change(migration: &Migration, statement: &Statement, rows: u64) -> Option<DataChange> {
    let description = statement.data.clone().filter(|_| rows > 0)?;
    Some(DataChange { version: Some(migration.version.clone()), description, rows })
}

pub(crate) fn millis(started: Instant) -> u64 {
    u64::try_from(started.elapsed().as_millis()).unwrap_or(u64::MAX)
}
