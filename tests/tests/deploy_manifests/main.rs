//! The manifests in deploy/kubernetes: rendered by kubectl, read into typed objects, and held against rules and against the programs.
#![expect(clippy::unwrap_used, clippy::expect_used, clippy::panic, reason = "a suite ends the test with a panic")]

mod exit_codes;
mod network;
mod objects;
mod parts;
mod pods;
mod programs;
mod render;
mod roles;

/// Panics with the list of breaches and what to do about them.
#[track_caller]
fn assert_none(breaches: &[String], fix: &str) {
    assert!(breaches.is_empty(), "{fix}\n  {}", breaches.join("\n  "));
}
