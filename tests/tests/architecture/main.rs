//! The rules of the layout and of the source, each as a test whose failure says the fix.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod dependencies;
mod layout;
mod schema;
mod security;
mod sources;

use std::path::{Path, PathBuf};
use std::process::Command;

/// The root of the workspace.
fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the crate lies in the workspace")
}

/// A file of the workspace, by its path from the root.
fn text(path: &str) -> String {
    std::fs::read_to_string(root().join(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// Every file of ours under `directory` (a path from the root) with this extension, as a path from the root, sorted.
/// Hidden directories, build output and what others wrote are left out.
fn files(directory: &str, extension: &str) -> Vec<String> {
    fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(directory).unwrap_or_else(|error| panic!("{}: {error}", directory.display())) {
            let path = entry.unwrap().path();
            let name = path.file_name().unwrap().to_string_lossy().into_owned();
            if path.is_file() {
                found.push(path);
            } else if path.is_dir() && !name.starts_with('.') && !["target", "third_party"].contains(&name.as_str()) {
                walk(&path, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(&root().join(directory), &mut found);
    found.retain(|path| path.extension().is_some_and(|found| found == extension));
    let from_root = |path: PathBuf| path.strip_prefix(root()).unwrap().to_string_lossy().into_owned();
    let mut found: Vec<_> = found.into_iter().map(from_root).collect();
    found.sort();
    assert!(!found.is_empty(), "no .{extension} file under {directory}: does this test look in the right place?");
    found
}

/// What a cargo command without network answers.
fn cargo(arguments: &[&str]) -> String {
    let cargo = std::env::var_os("CARGO").unwrap_or_else(|| "cargo".into());
    let output = Command::new(cargo).args(arguments).args(["--locked", "--offline"]).current_dir(root()).output();
    let output = output.expect("cargo runs");
    assert!(output.status.success(), "cargo {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// Panics with the list of breaches and what to do about them.
#[track_caller]
fn assert_none(breaches: &[String], fix: &str) {
    assert!(breaches.is_empty(), "{fix}\n  {}", breaches.join("\n  "));
}
