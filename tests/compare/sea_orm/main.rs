//! Our SQL files as SeaORM migrations: each file is one `execute_unprepared`. Reads the directory in `SQL_DIR`,
//! `<version>_<name>.up.sql`, `.down.sql` and, where the migration must not run in a transaction, `.no-transaction`.

use std::path::{Path, PathBuf};

use sea_orm_migration::prelude::*;

struct Migrator;

struct SqlFiles {
    name: String,
    directory: PathBuf,
}

impl SqlFiles {
    fn text(&self, suffix: &str) -> Result<String, DbErr> {
        let path = self.directory.join(format!("{}{suffix}", self.name));
        std::fs::read_to_string(&path).map_err(|error| DbErr::Migration(format!("{}: {error}", path.display())))
    }
}

impl MigrationName for SqlFiles {
    fn name(&self) -> &str {
        &self.name
    }
}

#[async_trait::async_trait]
impl MigrationTrait for SqlFiles {
    async fn up(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(&self.text(".up.sql")?).await.map(|_| ())
    }

    async fn down(&self, manager: &SchemaManager) -> Result<(), DbErr> {
        manager.get_connection().execute_unprepared(&self.text(".down.sql")?).await.map(|_| ())
    }

    fn use_transaction(&self) -> Option<bool> {
        Some(!self.directory.join(format!("{}.no-transaction", self.name)).exists())
    }
}

#[async_trait::async_trait]
impl MigratorTrait for Migrator {
    fn migrations() -> Vec<Box<dyn MigrationTrait>> {
        let directory =
            std::env::var_os("SQL_DIR").map(PathBuf::from).expect("SQL_DIR names the directory of the SQL files");
        names(&directory)
            .into_iter()
            .map(|name| Box::new(SqlFiles { name, directory: directory.clone() }) as Box<dyn MigrationTrait>)
            .collect()
    }
}

/// Names of the migrations in order.
fn names(directory: &Path) -> Vec<String> {
    let entries = std::fs::read_dir(directory).expect("SQL_DIR can be read");
    let mut names: Vec<String> = entries
        .filter_map(|entry| entry.ok()?.file_name().to_str()?.strip_suffix(".up.sql").map(str::to_owned))
        .collect();
    names.sort();
    names
}

#[tokio::main]
async fn main() {
    cli::run_cli(Migrator).await;
}
