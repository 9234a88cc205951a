//! Which crate may know which: the directions of our own crates, and one crypto provider, one tonic, one prost, one rustls.

use std::collections::{BTreeMap, BTreeSet};

use crate::{assert_none, cargo, files, text};

/// What each crate of ours may depend on among ours. `tests` may use all.
const DIRECTIONS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("service-kit", &[]),
    ("migration-embed", &[]),
    ("migration-engine", &["migration-embed"]),
    ("auth-client", &["proto"]),
    ("auth-service", &["proto", "service-kit", "migration-engine", "migration-embed", "auth-client"]),
    ("task-service", &["proto", "service-kit", "migration-engine", "migration-embed", "auth-client"]),
    ("local-pair", &[]),
];

/// Starts the private PostgreSQL: every crate's own tests may use it.
const FOR_TESTS: &str = "local-pair";

/// Crates that must not be in the graph of another one, not even indirectly, with the reason.
const BARRED: &[(&str, &[&str], &str)] = &[
    (
        "auth-client",
        &["diesel", "diesel-async", "tokio-postgres", "service-kit"],
        "any internal service may embed it, also one without a database",
    ),
    ("proto", &["diesel", "tokio-postgres", "service-kit"], "the contract is types only"),
    ("migration-engine", &["diesel", "tonic", "prost"], "it speaks PostgreSQL directly and serves nothing"),
];

/// Second TLS stacks, second crypto providers and C clients that a default feature may bring.
const BANNED: &[&str] = &[
    "ring",
    "openssl",
    "openssl-sys",
    "native-tls",
    "boring",
    "rustls-rustcrypto",
    "pq-sys",
    "reqwest",
    "sqlx-core",
    "figment",
    "ginepro",
];

/// Crates of which two versions do not understand each other's types.
const SINGLE: &[&str] = &[
    "tonic",
    "tonic-prost",
    "tonic-health",
    "tonic-reflection",
    "tonic-types",
    "prost",
    "prost-types",
    "rustls",
    "aws-lc-rs",
    "tokio",
    "tokio-postgres",
    "diesel",
    "diesel-async",
    "hyper",
    "http",
    "h2",
    "tower",
];

/// One dependency as a manifest has it.
struct Edge {
    from: String,
    to: String,
    dev: bool,
}

fn edges() -> Vec<Edge> {
    let metadata: serde_json::Value =
        serde_json::from_str(&cargo(&["metadata", "--format-version", "1", "--no-deps"])).unwrap();
    let mut edges = Vec::new();
    for package in metadata["packages"].as_array().unwrap() {
        for dependency in package["dependencies"].as_array().unwrap() {
            edges.push(Edge {
                from: package["name"].as_str().unwrap().to_owned(),
                to: dependency["name"].as_str().unwrap().to_owned(),
                dev: dependency["kind"] == "dev",
            });
        }
    }
    edges
}

/// Names and versions of what is really built for `arguments` of `cargo tree`. The lock file also names what only a feature
/// that is off would bring.
fn built(arguments: &[&str]) -> BTreeMap<String, BTreeSet<String>> {
    let listed = cargo(&[&["tree", "--prefix", "none", "--format", "{p}"], arguments].concat());
    let mut built: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for line in listed.lines() {
        let mut words = line.split_whitespace();
        if let (Some(name), Some(version)) = (words.next(), words.next()) {
            built.entry(name.to_owned()).or_default().insert(version.to_owned());
        }
    }
    built
}

#[test]
fn our_crates_depend_in_one_direction() {
    let directions: BTreeMap<_, _> = DIRECTIONS.iter().copied().collect();
    let mut breaches = Vec::new();
    for Edge { from, to, dev } in edges() {
        if from == "tests" || !(directions.contains_key(to.as_str()) || to == "tests") {
            continue;
        }
        match directions.get(from.as_str()) {
            None => breaches.push(format!("{from} is in no row")),
            Some(may) if may.contains(&to.as_str()) || (dev && to == FOR_TESTS) => {}
            Some(may) => breaches.push(format!("{from} -> {to}, but {from} may depend on {may:?} only")),
        }
    }
    assert_none(
        &breaches,
        "move the code to the side that may know it, or change architecture and DIRECTIONS together:",
    );
}

#[test]
fn every_crate_of_the_workspace_has_its_direction() {
    let crates: BTreeSet<_> = files("", "toml")
        .into_iter()
        .filter(|path| path.ends_with("/Cargo.toml"))
        .map(|path| {
            let manifest = text(&path);
            let name = manifest.lines().find_map(|line| line.strip_prefix("name = ")).expect("a package has a name");
            name.trim_matches('"').to_owned()
        })
        .collect();
    let known: BTreeSet<_> =
        DIRECTIONS.iter().map(|(name, _)| (*name).to_owned()).chain(["tests".to_owned()]).collect();
    assert_eq!(crates, known, "add the crate to DIRECTIONS, with what it may depend on");
}

#[test]
fn what_a_crate_must_not_carry_is_not_in_its_graph() {
    let mut breaches = Vec::new();
    for (name, barred, why) in BARRED {
        let graph = built(&["--package", name, "--edges", "normal,build"]);
        for crate_name in barred.iter().filter(|barred| graph.contains_key(**barred)) {
            breaches.push(format!("{name} carries {crate_name}: {why}"));
        }
    }
    assert_none(&breaches, "`cargo tree -p <crate> -i <barred>` shows who brings it; cut that dependency:");
}

#[test]
fn one_crypto_provider_and_no_second_tls_stack() {
    let graph = built(&["--workspace", "--edges", "normal,build,dev"]);
    let found: Vec<_> = BANNED.iter().filter(|name| graph.contains_key(**name)).map(ToString::to_string).collect();
    assert_none(
        &found,
        "`cargo tree -i <crate>` shows who brings it; switch the feature off that does (aws-lc-rs only):",
    );
    assert!(graph.contains_key("aws-lc-rs"), "aws-lc-rs is the one provider");
}

#[test]
fn one_version_of_what_the_crates_share() {
    let graph = built(&["--workspace", "--edges", "normal,build,dev"]);
    let mut breaches = Vec::new();
    for name in SINGLE {
        match graph.get(*name) {
            Some(versions) if versions.len() == 1 => {}
            versions => breaches.push(format!("{name}: {versions:?}")),
        }
    }
    assert_none(&breaches, "exactly one version of each: `cargo tree -d` shows who asks for the other:");
}

#[test]
fn versions_and_lints_stand_in_the_workspace() {
    let mut breaches = Vec::new();
    for path in files("", "toml").into_iter().filter(|path| path.ends_with("/Cargo.toml")) {
        let manifest = text(&path);
        if !manifest.contains("[lints]\nworkspace = true") {
            breaches.push(format!("{path}: `[lints] workspace = true` is missing"));
        }
        let mut in_dependencies = false;
        for line in manifest.lines().map(str::trim) {
            if line.starts_with('[') {
                in_dependencies = line.ends_with("dependencies]");
            } else if in_dependencies
                && line.contains('=')
                && !line.starts_with('#')
                && !line.contains("workspace = true")
            {
                breaches.push(format!("{path}: {line}"));
            }
        }
    }
    assert_none(&breaches, "put the version into [workspace.dependencies] and write `<crate>.workspace = true` here:");
}
