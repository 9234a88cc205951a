//! What PostgreSQL's own tools need to reach the database that the engine is connected to.

use std::ffi::OsString;
use std::os::unix::ffi::OsStrExt as _;
use std::process::Command;

use secrecy::{ExposeSecret as _, SecretSlice};

/// Variables of the caller that a tool needs to run at all: where programs and libraries are, whom OpenSSL trusts.
const INHERITED: &[&str] = &["PATH", "LD_LIBRARY_PATH", "DYLD_LIBRARY_PATH", "SSL_CERT_FILE", "SSL_CERT_DIR"];

/// How a program on libpq reaches the database. `Debug` masks the password.
#[derive(Debug)]
pub struct ToolSettings {
    /// libpq's variables but the password: `PGHOST`, `PGPORT`, `PGUSER`, `PGDATABASE`, `PGSSLMODE`, ….
    pub environment: Vec<(&'static str, OsString)>,
    /// The password, where there is one; it need not be UTF-8.
    pub password: Option<SecretSlice<u8>>,
}

impl ToolSettings {
    /// Gives `command` the connection, in an environment made by [`bare`].
    ///
    /// The password goes by `PGPASSWORD`: the environment of a process is open to its own user and to root, who can read that
    /// of the engine as well. A password file would stay behind after a SIGKILL, on the volume of the archives where the root
    /// is read-only, and cannot hold every password.
    pub(super) fn apply(&self, command: &mut Command, application: &str) {
        command.envs(self.environment.iter().map(|(name, value)| (name, value)));
        command.env("PGAPPNAME", application);
        // The engine writes; with several hosts a standby that lags behind must not be the one that is dumped.
        command.env("PGTARGETSESSIONATTRS", "read-write");
        if let Some(password) = &self.password {
            command.env("PGPASSWORD", std::ffi::OsStr::from_bytes(password.expose_secret()));
        }
    }
}

/// A command with an environment in which no setting of the caller is left. Messages come in English: some are understood.
pub(super) fn bare(program: &std::path::Path) -> Command {
    let mut command = Command::new(program);
    command.env_clear();
    for name in INHERITED {
        if let Some(value) = std::env::var_os(name) {
            command.env(name, value);
        }
    }
    // No ~/.pgpass, ~/.pg_service.conf or ~/.postgresql of whoever runs it changes the way in.
    command.env("LC_ALL", "C").env("HOME", "/nonexistent");
    command
}

#[cfg(test)]
mod tests {
    use super::*;

    fn settings() -> ToolSettings {
        ToolSettings {
            environment: vec![("PGHOST", "db".into()), ("PGAPPNAME", "x".into())],
            password: Some(SecretSlice::from(b"s3cret".to_vec())),
        }
    }

    #[test]
    fn debug_masks_the_password() {
        let shown = format!("{:?}", settings());
        assert!(shown.contains("PGHOST") && !shown.contains("s3cret"), "{shown}");
    }

    #[test]
    fn a_tool_sees_the_connection_and_nothing_of_the_caller() {
        let mut command = bare("/usr/bin/env".as_ref());
        settings().apply(&mut command, "service backup");
        let seen = String::from_utf8(command.output().unwrap().stdout).unwrap();
        let mut names: Vec<&str> = seen.lines().filter_map(|line| line.split('=').next()).collect();
        names.retain(|name| !INHERITED.contains(name));
        names.sort_unstable();
        assert_eq!(names, ["HOME", "LC_ALL", "PGAPPNAME", "PGHOST", "PGPASSWORD", "PGTARGETSESSIONATTRS"], "{seen}");
        assert!(seen.contains("PGAPPNAME=service backup"), "{seen}");
    }
}
