//! How the programs of the services are run: nothing of the shell's settings for other installations reaches them.

use std::ffi::OsStr;
use std::path::Path;
use std::process::Stdio;

use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

use super::UpError;

/// Every variable that a service reads; `RUST_LOG` is left to the person at the terminal.
const VARIABLES: [&str; 42] = [
    "ACCESS_TOKEN_TTL",
    "AUTH_CLIENT_ID",
    "AUTH_CLIENT_SECRET",
    "AUTH_SERVICE_CA_FILE",
    "AUTH_SERVICE_URL",
    "DATABASE_MAX_CONNECTIONS",
    "DATABASE_URL",
    "EMAIL_VERIFICATION_LINK",
    "HASHING_MEMORY_BUDGET_KIB",
    "HASHING_QUEUE",
    "JWT_AUDIENCE",
    "JWT_ISSUER",
    "KEY_ENCRYPTION_KEY",
    "LISTEN_ADDR",
    "LOG_FORMAT",
    "MAIL_DIR",
    "MAIL_FROM",
    "METRICS_ADDR",
    "OTEL_EXPORTER_OTLP_ENDPOINT",
    "PAGE_TOKEN_KEY",
    "PASSWORD_HASH_ITERATIONS",
    "PASSWORD_HASH_MAX_ITERATIONS",
    "PASSWORD_HASH_MAX_MEMORY_KIB",
    "PASSWORD_HASH_MAX_PARALLELISM",
    "PASSWORD_HASH_MEMORY_KIB",
    "PASSWORD_HASH_PARALLELISM",
    "PASSWORD_RESET_LINK",
    "PG_BIN_DIR",
    "REFRESH_TOKEN_TTL",
    "SESSION_TTL",
    "SHUTDOWN_DRAIN",
    "SHUTDOWN_PROPAGATION",
    "SIGNING_ALGORITHM",
    "SIGNING_KEY_MAX_AGE",
    "SIGN_UP",
    "SMTP_CA_FILE",
    "SMTP_URL",
    "TASK_SERVICE_CA_FILE",
    "TASK_SERVICE_URL",
    "TLS_CERT_FILE",
    "TLS_CLIENT_CA_FILE",
    "TLS_KEY_FILE",
];

/// The command that runs a service's program without the variables of other installations. Ended when it is dropped.
pub(super) fn service_command(program: &Path) -> Command {
    let mut command = Command::new(program);
    command.kill_on_drop(true);
    for name in VARIABLES {
        command.env_remove(name);
    }
    for (name, _) in std::env::vars_os().filter(|(name, _)| is_telemetry(name)) {
        command.env_remove(name);
    }
    command
}

/// Runs a program that reads `input`; gives its exit code and the last line that it said on stderr.
pub(super) async fn run_with_input(
    mut command: Command,
    program: &Path,
    input: &str,
) -> Result<(Option<i32>, String), UpError> {
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().map_err(|error| UpError::file("run", program, &error))?;
    if let Some(mut stdin) = child.stdin.take() {
        // If it does not read, it says why on stderr.
        let _closed = stdin.write_all(input.as_bytes()).await;
    }
    let output = child.wait_with_output().await.map_err(|error| UpError::file("run", program, &error))?;
    let stderr = String::from_utf8_lossy(&output.stderr);
    let last = stderr.lines().rev().find(|line| !line.trim().is_empty()).unwrap_or("no message");
    Ok((output.status.code(), last.trim_start_matches("error: ").to_owned()))
}

/// The many variables of the OpenTelemetry libraries.
fn is_telemetry(name: &OsStr) -> bool {
    name.as_encoded_bytes().starts_with(b"OTEL_")
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;
    use std::fs;

    use super::*;

    /// The names in `env = "NAME"` below `directory`.
    fn declared(directory: &Path, found: &mut BTreeSet<String>) {
        for entry in fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                declared(&path, found);
            } else if path.extension() == Some(OsStr::new("rs")) {
                let text = fs::read_to_string(path).unwrap();
                let names = text.split("env = \"").skip(1).filter_map(|rest| rest.split('"').next());
                found.extend(names.map(str::to_owned));
            }
        }
    }

    #[test]
    fn no_setting_of_a_service_comes_from_the_shell() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../..");
        let mut found = BTreeSet::new();
        for sources in ["service-kit/src", "auth-service/src", "task-service/src", "migrations/engine/src"] {
            declared(&root.join(sources), &mut found);
        }
        assert!(found.len() > 30 && found.remove("RUST_LOG"), "{found:?}");
        let command = service_command(Path::new("auth-service"));
        for name in found {
            assert!(
                command.as_std().get_envs().any(|(removed, value)| removed == OsStr::new(&name) && value.is_none()),
                "{name} of the shell reaches the services: add it to VARIABLES"
            );
        }
        assert!(!command.as_std().get_envs().any(|(name, _)| name == "RUST_LOG"));
    }
}
