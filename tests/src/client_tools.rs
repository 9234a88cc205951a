//! `pg_dump` and `pg_restore` for the suites. Some builds of PostgreSQL carry the server only, so they are looked for apart.

use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;

use local_pair::postgres::PostgresBinaries;

/// A directory with `pg_dump` and `pg_restore` that are as new as the server of the tests. Where there is none, the package is
/// installed as root on Debian and Ubuntu; elsewhere the test fails and says what to install.
pub fn client_tools() -> &'static Path {
    static TOOLS: OnceLock<PathBuf> = OnceLock::new();
    TOOLS.get_or_init(|| {
        let server = PostgresBinaries::find().unwrap_or_else(|error| panic!("{error}"));
        let needed = server.major();
        let find = || candidates(&server).into_iter().find(|directory| major(directory).is_some_and(|it| it >= needed));
        if let Some(found) = find() {
            return found;
        }
        let package = format!("postgresql-client-{needed}");
        if rustix::process::geteuid().is_root() && Path::new("/usr/bin/apt-get").exists() {
            for arguments in [&["update"][..], &["install", "-y", "--no-install-recommends", &package]] {
                let status = Command::new("apt-get").args(arguments).env("DEBIAN_FRONTEND", "noninteractive").status();
                assert!(status.is_ok_and(|status| status.success()), "`apt-get {}` failed", arguments.join(" "));
            }
        }
        find().unwrap_or_else(|| {
            panic!("no pg_dump of version {needed} or newer for {server}: install {package} or what it is called here")
        })
    })
}

fn candidates(server: &PostgresBinaries) -> Vec<PathBuf> {
    let installed = std::fs::read_dir("/usr/lib/postgresql").into_iter().flatten().flatten();
    let path = std::env::var_os("PATH").unwrap_or_default();
    let mut found = vec![server.directory().to_owned()];
    found.extend(installed.map(|entry| entry.path().join("bin")));
    found.extend(std::env::split_paths(&path));
    found
}

fn major(directory: &Path) -> Option<u32> {
    if !directory.join("pg_restore").is_file() {
        return None;
    }
    let output = Command::new(directory.join("pg_dump")).arg("--version").output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    text.split_once(") ")?.1.split(['.', ' ', '\n']).next()?.parse().ok()
}
