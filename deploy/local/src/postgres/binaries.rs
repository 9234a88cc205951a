//! Finds PostgreSQL server binaries of version 14 or later, newest first, and installs the package where that is ours to do.

use std::collections::BTreeSet;
use std::env;
use std::fmt;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use super::PostgresError;

/// The oldest major version that is supported.
pub const OLDEST_MAJOR: u32 = 14;

const NEEDED: [&str; 3] = ["initdb", "pg_ctl", "postgres"];

/// A directory with `initdb`, `pg_ctl` and `postgres` of one version.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PostgresBinaries {
    directory: PathBuf,
    version: String,
    major: u32,
}

impl PostgresBinaries {
    /// Finds an installation: `PG_BIN_DIR` alone if it is set, else the newest of `PATH`, `/usr/lib/postgresql/*/bin` and Homebrew.
    ///
    /// # Errors
    /// None there, or only older than 14: the text says what to install or set.
    pub fn find() -> Result<Self, PostgresError> {
        Self::look()?.ok_or_else(|| {
            PostgresError::Binaries(format!(
                "no PostgreSQL {OLDEST_MAJOR} or later found; install it with `{}` or set PG_BIN_DIR to the directory of initdb, pg_ctl and postgres",
                install_command()
            ))
        })
    }

    /// Like [`Self::find`], but installs the platform's package when nothing is there and we are root on Debian or Ubuntu.
    ///
    /// # Errors
    /// As [`Self::find`], or the installation failed.
    pub fn find_or_install(say: &mut dyn FnMut(&str)) -> Result<Self, PostgresError> {
        if let Some(found) = Self::look()? {
            return Ok(found);
        }
        if rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists() {
            say("no PostgreSQL found: installing the package postgresql");
            install_with_apt()?;
        }
        Self::find()
    }

    /// The directory of the binaries.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// The version as PostgreSQL prints it, for example `15.13`.
    pub fn version(&self) -> &str {
        &self.version
    }

    /// The major version, for example 15.
    pub fn major(&self) -> u32 {
        self.major
    }

    /// The path of one program in the directory.
    pub fn program(&self, name: &str) -> PathBuf {
        self.directory.join(name)
    }

    /// Whether an optional program (`psql`, `pg_dump`) is there; some builds carry the server only.
    pub fn has(&self, name: &str) -> bool {
        self.program(name).is_file()
    }

    fn look() -> Result<Option<Self>, PostgresError> {
        if let Some(directory) = env::var_os("PG_BIN_DIR").filter(|value| !value.is_empty()) {
            let directory = PathBuf::from(directory);
            let found = Self::probe(&directory).ok_or_else(|| {
                PostgresError::Binaries(format!(
                    "PG_BIN_DIR={}: initdb, pg_ctl and postgres are not there or do not run",
                    directory.display()
                ))
            })?;
            return if found.major < OLDEST_MAJOR { Err(too_old(&found)) } else { Ok(Some(found)) };
        }
        let mut found: Vec<Self> = candidates().iter().filter_map(|directory| Self::probe(directory)).collect();
        found.sort_by_key(|binaries| std::cmp::Reverse(version_key(&binaries.version)));
        match found.into_iter().next() {
            Some(newest) if newest.major < OLDEST_MAJOR => Err(too_old(&newest)),
            newest => Ok(newest),
        }
    }

    fn probe(directory: &Path) -> Option<Self> {
        if !NEEDED.iter().all(|name| directory.join(name).is_file()) {
            return None;
        }
        let output = Command::new(directory.join("postgres")).arg("--version").stdin(Stdio::null()).output().ok()?;
        // "postgres (PostgreSQL) 15.13 (Debian 15.13-0+deb12u1)"
        let version = String::from_utf8_lossy(&output.stdout)
            .split_once("(PostgreSQL) ")?
            .1
            .split_whitespace()
            .next()?
            .to_owned();
        let major = version_key(&version).first().copied()?;
        Some(Self { directory: directory.to_owned(), version, major })
    }
}

impl fmt::Display for PostgresBinaries {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "PostgreSQL {} in {}", self.version, self.directory.display())
    }
}

fn too_old(found: &PostgresBinaries) -> PostgresError {
    PostgresError::Binaries(format!(
        "{found} is too old: PostgreSQL {OLDEST_MAJOR} or later is needed; install it or set PG_BIN_DIR to the bin directory of one"
    ))
}

/// The numbers of a version text: "15.13" → [15, 13], "18beta2" → [18, 2].
fn version_key(version: &str) -> Vec<u32> {
    version.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

fn candidates() -> BTreeSet<PathBuf> {
    let mut directories: BTreeSet<PathBuf> =
        env::var_os("PATH").map(|path| env::split_paths(&path).collect()).unwrap_or_default();
    for (parent, prefix, bin) in [
        ("/usr/lib/postgresql", "", "bin"),
        ("/usr", "pgsql-", "bin"),
        ("/opt/homebrew/opt", "postgresql", "bin"),
        ("/usr/local/opt", "postgresql", "bin"),
        ("/home/linuxbrew/.linuxbrew/opt", "postgresql", "bin"),
        ("/Applications/Postgres.app/Contents/Versions", "", "bin"),
    ] {
        for entry in fs::read_dir(parent).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().starts_with(prefix) {
                directories.insert(entry.path().join(bin));
            }
        }
    }
    directories
}

/// The one command that installs PostgreSQL here.
fn install_command() -> &'static str {
    let there = |path: &str| Path::new(path).exists();
    if there("/usr/bin/apt-get") {
        "sudo apt-get install -y postgresql"
    } else if there("/usr/bin/dnf") {
        "sudo dnf install -y postgresql-server"
    } else if there("/sbin/apk") {
        "apk add postgresql"
    } else if there("/usr/bin/pacman") {
        "sudo pacman -S postgresql"
    } else if cfg!(target_os = "macos") {
        "brew install postgresql@17"
    } else {
        "your package manager"
    }
}

fn install_with_apt() -> Result<(), PostgresError> {
    // Only the binaries are wanted: the package would otherwise make and start a cluster of its own.
    let directory = Path::new("/etc/postgresql-common/createcluster.d");
    let drop_in = directory.join("local-pair.conf");
    fs::create_dir_all(directory).map_err(|e| PostgresError::file("create", directory, e))?;
    fs::write(&drop_in, "create_main_cluster = false\n").map_err(|e| PostgresError::file("write", &drop_in, e))?;
    let outcome =
        apt_get(&["update"]).and_then(|()| apt_get(&["install", "-y", "--no-install-recommends", "postgresql"]));
    // The machine's own later installations must behave as ever.
    fs::remove_file(&drop_in).map_err(|e| PostgresError::file("remove", &drop_in, e))?;
    outcome
}

fn apt_get(arguments: &[&str]) -> Result<(), PostgresError> {
    let output = Command::new("apt-get")
        .args(["-o", "DPkg::Lock::Timeout=120"])
        .args(arguments)
        .env("DEBIAN_FRONTEND", "noninteractive")
        .stdin(Stdio::null())
        .output()
        .map_err(|e| PostgresError::file("run", "apt-get", e))?;
    if output.status.success() {
        return Ok(());
    }
    let text = String::from_utf8_lossy(&output.stderr);
    let reason = text.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message").to_owned();
    Err(PostgresError::Binaries(format!(
        "`apt-get {}` failed: {reason}; install PostgreSQL by hand or set PG_BIN_DIR",
        arguments.join(" ")
    )))
}

#[cfg(test)]
mod tests {
    use super::version_key;

    #[test]
    fn versions_compare_as_numbers() {
        assert!(version_key("15.13") > version_key("9.6.24"));
        assert!(version_key("18beta2") > version_key("17.5"));
        assert_eq!(version_key("16devel"), [16]);
    }
}
