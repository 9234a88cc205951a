//! Backfills in batches: a statement that changes many rows runs over one part of its table at a time, so that no row is
//! locked for long, with progress and a pause after each part.
//!
//! The part comes in where the statement says so in a comment, which every other tool reads over:
//! - `/* engine: batch <table> */` becomes a range of the table's blocks (`ctid`): one pass over the table.
//! - `/* engine: batch <table> by <expression> */` becomes one of as many groups of rows as the table's size asks for; rows
//!   with one value of the expression meet in one group. Each group costs a pass over the table.
//!
//! A last run of the whole statement catches what came in meanwhile: by the rules of migrations it finds next to nothing.

use std::time::{Duration, Instant};

use tokio_postgres::types::Type;

use crate::error::EngineError;
use crate::patience::retrying;
use crate::progress::Progress;
use crate::repair::{name, table as qualified};
use crate::session::Session;
use crate::split::{Batch, Statement};

/// A table of fewer blocks (8 KiB each) is changed at once: that takes moments.
const SMALL: i64 = 2_048;
/// The first part.
const FIRST_BLOCKS: i64 = 512;
const FEWEST_BLOCKS: i64 = 64;
const MOST_BLOCKS: i64 = 16_384;
/// How long one part should hold its row locks.
const AIM: Duration = Duration::from_millis(250);
/// Rows of one group, about.
const GROUP: f64 = 40_000.0;
/// Rows of one block of a table of accounts, about.
const ROWS_OF_BLOCK: f64 = 50.0;
/// Between two parts others get their turn, and replicas catch up: this part of the time that the last one took.
const PAUSE_PART: u32 = 4;
const LONGEST_PAUSE: Duration = Duration::from_millis(200);

/// How a batched statement runs.
pub(crate) struct Batched<'r> {
    pub(crate) session: &'r Session<'r>,
    pub(crate) tables: &'r [String],
    pub(crate) wait: Duration,
    pub(crate) progress: &'r Progress,
}

impl Batched<'_> {
    /// Runs it part by part, then once whole; answers how many rows it touched.
    pub(crate) async fn run(&self, statement: &Statement, batch: &Batch, context: &str) -> Result<u64, EngineError> {
        let (blocks, rows) = self.size(&batch.table).await?;
        let mut touched = 0;
        if blocks >= SMALL {
            touched += match &batch.by {
                None => self.by_blocks(statement, batch, blocks, context).await?,
                Some(expression) => self.by_groups(statement, batch, expression, rows, context).await?,
            };
        }
        Ok(touched + self.part(&statement.sql, context).await?)
    }

    async fn size(&self, table: &str) -> Result<(i64, f64), EngineError> {
        let row = self
            .session
            .scope()
            .query_opt(
                "SELECT pg_catalog.pg_relation_size(oid) / pg_catalog.current_setting('block_size')::int8, reltuples::float8 \
                 FROM pg_catalog.pg_class WHERE oid = pg_catalog.to_regclass($1)",
                &[(&qualified(table), Type::TEXT)],
            )
            .await?;
        Ok(match row {
            Some(row) => {
                let (blocks, rows): (i64, f64) = (row.try_get(0)?, row.try_get(1)?);
                // A table that was just restored is not analysed yet and has -1: its size tells about as much.
                (blocks, if rows > 0.0 { rows } else { blocks as f64 * ROWS_OF_BLOCK })
            }
            None => (0, 0.0),
        })
    }

    async fn by_blocks(
        &self,
        statement: &Statement,
        batch: &Batch,
        blocks: i64,
        context: &str,
    ) -> Result<u64, EngineError> {
        let (mut from, mut width, mut touched) = (0, FIRST_BLOCKS, 0);
        while from < blocks {
            let to = (from + width).min(blocks);
            let place = format!("{}.ctid", name(&batch.alias));
            let range = format!(" AND {place} >= '({from},0)'::tid AND {place} < '({to},0)'::tid");
            let began = Instant::now();
            touched += self.part(&batch.within(&statement.sql, &range), context).await?;
            let took = began.elapsed();
            self.told(to.unsigned_abs(), blocks.unsigned_abs(), touched);
            self.pause(took).await?;
            (from, width) = (to, next_width(width, took));
        }
        Ok(touched)
    }

    async fn by_groups(
        &self,
        statement: &Statement,
        batch: &Batch,
        expression: &str,
        rows: f64,
        context: &str,
    ) -> Result<u64, EngineError> {
        let groups = (rows / GROUP).ceil().clamp(1.0, 1_000.0);
        let mut touched = 0;
        for group in 0..groups as u32 {
            let condition =
                format!(" AND (pg_catalog.hashtext(({expression})::text)::int8 & 2147483647) % {groups} = {group}");
            let began = Instant::now();
            touched += self.part(&batch.within(&statement.sql, &condition), context).await?;
            self.told(u64::from(group + 1), groups as u64, touched);
            self.pause(began.elapsed()).await?;
        }
        Ok(touched)
    }

    async fn part(&self, sql: &str, context: &str) -> Result<u64, EngineError> {
        retrying(self.session, self.tables, self.wait, async |timeout| {
            self.session.begin(timeout).await?;
            let rows = self.session.execute(sql, context).await?;
            self.session.commit(context).await?;
            Ok(rows)
        })
        .await
    }

    fn told(&self, done: u64, whole: u64, touched: u64) {
        self.progress.show(done, whole, &format!("{touched} rows changed"));
    }

    async fn pause(&self, took: Duration) -> Result<(), EngineError> {
        self.session.interrupt().sleep((took / PAUSE_PART).min(LONGEST_PAUSE)).await
    }
}

fn next_width(width: i64, took: Duration) -> i64 {
    let next = if took > AIM * 2 {
        width / 2
    } else if took < AIM / 2 {
        width * 2
    } else {
        width
    };
    next.clamp(FEWEST_BLOCKS, MOST_BLOCKS)
}
