//! The set and the connections to it.

use std::time::Duration;

use futures_util::future::BoxFuture;
use migration_engine::{
    Connect, ConnectError, EmbeddedMigration, EngineError, Interrupt, MigrationSet, RunOptions, ToolSettings, UpReport,
    mend, rehearse, up,
};
use tests::TestDatabase;
use tokio_postgres::{Client, NoTls};

const FILES: &[EmbeddedMigration] = &[
    EmbeddedMigration {
        directory: "2026-01-01-000000_create_items",
        up: include_str!("../../fixtures/sample/2026-01-01-000000_create_items/up.sql"),
        down: include_str!("../../fixtures/sample/2026-01-01-000000_create_items/down.sql"),
        metadata: None,
    },
    EmbeddedMigration {
        directory: "2026-01-01-000100_count_changes",
        up: include_str!("../../fixtures/sample/2026-01-01-000100_count_changes/up.sql"),
        down: include_str!("../../fixtures/sample/2026-01-01-000100_count_changes/down.sql"),
        metadata: None,
    },
];

/// As it is committed.
pub(crate) const EXPECTED: &str = include_str!("../../fixtures/sample/expected.json");

pub(crate) fn set() -> MigrationSet {
    MigrationSet::new("sample", FILES, EXPECTED, &[]).unwrap()
}

/// Connections as the role that runs migrations.
pub(crate) struct Connections(String);

impl Connections {
    pub(crate) fn to(database: &TestDatabase) -> Self {
        Self(database.migrator_url())
    }
}

impl Connect for Connections {
    fn connect(&self) -> BoxFuture<'_, Result<Client, ConnectError>> {
        Box::pin(async {
            let connected = tokio_postgres::connect(&self.0, NoTls).await;
            let (client, connection) = connected.map_err(|error| ConnectError::Refused(format!("{error:?}")))?;
            tokio::spawn(connection);
            Ok(client)
        })
    }

    fn tool_settings(&self) -> ToolSettings {
        ToolSettings { environment: Vec::new(), password: None }
    }
}

fn options() -> RunOptions {
    RunOptions {
        lock_wait: Duration::from_secs(30),
        connect_wait: Duration::ZERO,
        time_zone: None,
        interrupt: Interrupt::never(),
        on_terminal: false,
        backup: None,
    }
}

/// A command that changes, or tries to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Command {
    Up,
    Repair,
    Rehearse,
}

pub(crate) async fn run(command: Command, database: &TestDatabase) -> (UpReport, Result<(), EngineError>) {
    let (connections, set, options) = (Connections::to(database), set(), options());
    match command {
        Command::Up => up(&connections, &set, &options).await,
        Command::Repair => mend(&connections, &set, &options).await,
        Command::Rehearse => rehearse(&connections, &set, &options).await,
    }
}

pub(crate) async fn down(database: &TestDatabase, steps: usize) -> Result<(), EngineError> {
    let target = migration_engine::Target::Steps(steps);
    migration_engine::down(&Connections::to(database), &set(), &target, true, &options()).await.1
}
