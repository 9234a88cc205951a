//! Finds `pg_dump` and `pg_restore`: newest first, of the server's major version or newer, as pg_dump refuses older ones.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{failed, process, settings};
use crate::error::EngineError;

/// Printing a version takes milliseconds; a tool that hangs is none.
const PROBE_PATIENCE: Duration = Duration::from_secs(10);

/// Parents of installations, what the names in them begin with, and where the programs are below.
const PLACES: &[(&str, &str)] = &[
    ("/usr/lib/postgresql", ""),
    ("/usr", "pgsql-"),
    ("/opt/homebrew/opt", "postgresql"),
    ("/opt/homebrew/opt", "libpq"),
    ("/usr/local/opt", "postgresql"),
    ("/usr/local/opt", "libpq"),
    ("/home/linuxbrew/.linuxbrew/opt", "postgresql"),
    ("/Applications/Postgres.app/Contents/Versions", ""),
];

/// A directory with both programs.
#[derive(Debug)]
pub(super) struct Tools {
    directory: PathBuf,
    /// As `15.13`.
    pub(super) version: String,
}

impl Tools {
    /// The newest in `only`, or else in `PATH` and the usual places, that can dump a server of version `server`.
    pub(super) async fn find(only: Option<&Path>, needed: u32, server: &str) -> Result<Self, EngineError> {
        let directories = only.map_or_else(usual_directories, |directory| vec![directory.to_owned()]);
        let mut newest: Option<Self> = None;
        for directory in directories {
            if let Some(found) = Self::probe(directory).await
                && newest.as_ref().is_none_or(|newest| numbers(&found.version) > numbers(&newest.version))
            {
                newest = Some(found);
            }
        }
        let wanted = format!("PostgreSQL {server} needs them of version {needed} or newer: {}", advice(needed));
        match newest {
            Some(found) if found.major() >= needed => Ok(found),
            Some(found) => Err(failed(format!(
                "pg_dump {} in {} is older than the server; {wanted}",
                found.version,
                found.directory.display()
            ))),
            None => {
                let place = only.map_or_else(
                    || "PATH and the usual places".to_owned(),
                    |directory| format!("PG_BIN_DIR={}", directory.display()),
                );
                Err(failed(format!("pg_dump and pg_restore are not in {place}, or do not run; {wanted}")))
            }
        }
    }

    /// The path of one of the two.
    pub(super) fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    fn major(&self) -> u32 {
        numbers(&self.version).first().copied().unwrap_or_default()
    }

    async fn probe(directory: PathBuf) -> Option<Self> {
        let (dump, restore) = (directory.join("pg_dump"), directory.join("pg_restore"));
        if !dump.is_file() || !restore.is_file() {
            return None;
        }
        // The older of the two decides.
        let version = [version_of(&dump).await?, version_of(&restore).await?];
        let version = version.into_iter().min_by_key(|version| numbers(version))?;
        Some(Self { directory, version })
    }
}

async fn version_of(program: &Path) -> Option<String> {
    let mut command = settings::bare(program);
    command.arg("--version");
    let mut version = None;
    // "pg_dump (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)"
    let probing = process::run(
        command,
        None,
        |line| {
            let number = |word: &&str| word.starts_with(|first: char| first.is_ascii_digit());
            version = version.take().or_else(|| line.split_whitespace().find(number).map(str::to_owned));
        },
        || {},
    );
    match tokio::time::timeout(PROBE_PATIENCE, probing).await {
        Ok(Ok(())) => version,
        other => {
            tracing::debug!(program = %program.display(), ?other, "it does not tell its version");
            None
        }
    }
}

/// `PATH` first, so that of equal versions the caller's own is taken.
fn usual_directories() -> Vec<PathBuf> {
    let mut directories: Vec<PathBuf> =
        std::env::var_os("PATH").map(|path| std::env::split_paths(&path).collect()).unwrap_or_default();
    for (parent, prefix) in PLACES {
        for entry in std::fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                directories.push(entry.path().join("bin"));
            }
        }
    }
    directories
}

/// The numbers of a version: "15.13" → [15, 13], "18beta2" → [18, 2].
fn numbers(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

/// The one command that installs them here.
fn advice(major: u32) -> String {
    let there = |path: &str| Path::new(path).exists();
    let install = if there("/usr/bin/apt-get") {
        format!("sudo apt-get install -y postgresql-client-{major}")
    } else if there("/usr/bin/dnf") {
        format!("sudo dnf install -y postgresql{major}")
    } else if there("/sbin/apk") {
        format!("apk add postgresql{major}-client")
    } else if there("/usr/bin/pacman") {
        "sudo pacman -S postgresql".to_owned()
    } else if cfg!(target_os = "macos") {
        format!("brew install postgresql@{major}")
    } else {
        "your package manager".to_owned()
    };
    format!("install them with `{install}`, or set PG_BIN_DIR to the directory that has them")
}

#[cfg(test)]
mod tests {
    use super::numbers;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(numbers("15.13") > numbers("9.6.24"));
        assert!(numbers("18beta2") > numbers("17.5"));
        assert_eq!(numbers("16devel"), [16]);
    }
}
