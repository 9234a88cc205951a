//! The top level shows the design, and both services have the same skeleton.

use std::collections::BTreeSet;

use crate::{assert_none, files, root, text};

/// What must be there, with what it is.
const PARTS: &[(&str, &str)] = &[
    ("Cargo.toml", "the workspace: all versions, all lints"),
    ("README.md", "what it is and the two commands"),
    ("ARCHITECTURE.md", "one page that ends in two walk-throughs"),
    ("rust-toolchain.toml", "the toolchain that everybody uses"),
    ("rustfmt.toml", "the format"),
    ("clippy.toml", "bans with their reasons"),
    ("deny.toml", "licences and banned crates"),
    (".gitattributes", "line ends of migrations"),
    (".cargo/config.toml", "the alias `cargo up`"),
    (".ci/run", "what a contributor and CI run"),
    ("LICENSE-MIT", "a licence"),
    ("LICENSE-APACHE", "a licence"),
    ("proto/auth/v1", "the contract of the auth service"),
    ("proto/task/v1", "the contract of the task service"),
    ("service-kit/src", "what any service needs before it has a domain"),
    ("migrations/auth/expected.json", "the expected schema of the auth service"),
    ("migrations/task/expected.json", "the expected schema of the task service"),
    ("migrations/engine/src", "the crate that runs, verifies and repairs any set"),
    ("auth-service/src", "the auth service"),
    ("auth-service/client/src", "token verification for any internal service"),
    ("task-service/src", "the task service"),
    ("deploy/local/src", "the crate behind `cargo up`"),
    ("deploy/kubernetes/base", "Jobs, Deployments and what belongs to them"),
    ("deploy/kubernetes/overlays", "what differs between a development cluster and production"),
    ("deploy/Dockerfile", "the images"),
    ("tests/src", "the harness"),
    ("tests/tests", "the suites"),
    ("docs/MIGRATION.md", "how to run and write migrations, each exit code, the incident replayed"),
    ("docs/DEVELOPMENT.md", "how to work on it, with measured times"),
    ("docs/DEPLOY.md", "how it gets onto a cluster, and what each exit code of a Job means"),
    ("docs/decisions", "why it is as it is"),
];

/// Directories of the top level; hidden ones and build output aside.
const TOP_LEVEL: &[&str] =
    &["auth-service", "deploy", "docs", "migrations", "proto", "service-kit", "task-service", "tests"];

/// Files that both services have.
const SKELETON: &[&str] = &[
    "build.rs",
    "src/main.rs",
    "src/cli.rs",
    "src/config.rs",
    "src/app.rs",
    "src/background.rs",
    "src/errors.rs",
    "src/migrate.rs",
    "src/migrations.rs",
    "src/grpc/mod.rs",
    "src/grpc/convert.rs",
    "src/grpc/parse.rs",
    "src/domain/mod.rs",
    "src/store/mod.rs",
    "src/store/schema.rs",
];

/// The services with their packages.
const SERVICES: [(&str, &str); 2] = [("auth-service", "auth.v1"), ("task-service", "task.v1")];

/// Lines of a `main.rs`: it hands over to `cli.rs`.
const MAIN_LIMIT: usize = 40;

#[test]
fn every_part_of_the_layout_is_there() {
    let missing: Vec<_> = PARTS
        .iter()
        .filter(|(path, _)| !root().join(path).exists())
        .map(|(path, what)| format!("{path}: {what}"))
        .collect();
    assert_none(&missing, "these parts of the layout are missing; write them:");
}

#[test]
fn the_top_level_holds_nothing_else() {
    let found: BTreeSet<_> = std::fs::read_dir(root())
        .unwrap()
        .map(Result::unwrap)
        .filter(|entry| entry.path().is_dir())
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && name != "target")
        .collect();
    let known: BTreeSet<_> = TOP_LEVEL.iter().map(ToString::to_string).collect();
    assert_eq!(found, known, "the top level shows the design: put it under a part that is there, or change both");
}

#[test]
fn both_services_have_the_same_skeleton() {
    let mut breaches = Vec::new();
    for (service, _) in SERVICES {
        for file in SKELETON.iter().filter(|file| !root().join(service).join(file).is_file()) {
            breaches.push(format!("{service}/{file} is missing"));
        }
        let lines = text(&format!("{service}/src/main.rs")).lines().count();
        if lines >= MAIN_LIMIT {
            breaches.push(format!("{service}/src/main.rs has {lines} lines; expected under {MAIN_LIMIT}"));
        }
    }
    assert_none(&breaches, "who knows one service finds their way in the other: same parts, same file names:");
}

#[test]
fn each_proto_service_has_a_file_of_its_own() {
    let mut breaches = Vec::new();
    for (service, package) in SERVICES {
        let expected: BTreeSet<_> = proto::descriptor_pool()
            .services()
            .filter(|found| found.package_name() == package)
            .map(|found| format!("{service}/src/grpc/{}.rs", snake(found.name())))
            .collect();
        let found: BTreeSet<_> = files(&format!("{service}/src/grpc"), "rs").into_iter().collect();
        breaches.extend(expected.difference(&found).cloned());
        breaches
            .extend(found.iter().filter(|path| path.ends_with("_service.rs") && !expected.contains(*path)).cloned());
    }
    assert_none(&breaches, "one file in grpc/ per proto service, named as the service in snake_case:");
}

#[test]
fn suites_say_in_their_name_what_they_test() {
    let known = ["auth_", "task_", "migrate_", "e2e_", "failure_", "deploy_"];
    let wrong: Vec<_> = std::fs::read_dir(root().join("tests/tests"))
        .unwrap()
        .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
        .filter(|name| !known.iter().any(|prefix| name.starts_with(prefix)))
        .filter(|name| !["architecture", "harness.rs"].contains(&name.as_str()))
        .collect();
    assert_none(&wrong, &format!("begin the name of a suite with one of {known:?}:"));
}

#[test]
fn migrations_keep_their_line_ends() {
    let lines = text(".gitattributes");
    assert!(
        lines.lines().any(|line| line == "*.sql text eol=lf"),
        "a checksum must not depend on the platform: add `*.sql text eol=lf` to .gitattributes"
    );
}

fn snake(name: &str) -> String {
    let mut snake = String::new();
    for (at, letter) in name.char_indices() {
        if letter.is_ascii_uppercase() && at > 0 {
            snake.push('_');
        }
        snake.push(letter.to_ascii_lowercase());
    }
    snake
}
