//! The reasons of errors: what the services may send is what the proto documents, with the same code.

use std::collections::BTreeMap;
use std::path::Path;

use tonic::Code;

/// Where reasons are written down beside their codes: the file, what opens the table in it, and its packages.
const TABLES: &[(&str, &str, &[&str])] = &[
    ("auth-service/src/errors.rs", "reasons! {", &["auth.v1"]),
    ("task-service/src/errors.rs", "reasons! {", &["task.v1"]),
    ("service-kit/src/stack/details.rs", "fn parts(", &["auth.v1", "task.v1"]),
];

/// Where reasons stand without their codes: the file, what opens the table, its packages, and whether each documents them all.
const NAMES: &[(&str, &str, &[&str], bool)] = &[
    ("service-kit/src/status/table.rs", "const fn name(", &["auth.v1", "task.v1"], true),
    // The reason for missing keys depends on whose keys they are.
    ("auth-service/client/src/refusal.rs", "fn reason(", &["auth.v1", "task.v1"], false),
];

/// The codes as gRPC's documentation writes them.
const CODES: [(Code, &str); 17] = [
    (Code::Ok, "OK"),
    (Code::Cancelled, "CANCELLED"),
    (Code::Unknown, "UNKNOWN"),
    (Code::InvalidArgument, "INVALID_ARGUMENT"),
    (Code::DeadlineExceeded, "DEADLINE_EXCEEDED"),
    (Code::NotFound, "NOT_FOUND"),
    (Code::AlreadyExists, "ALREADY_EXISTS"),
    (Code::PermissionDenied, "PERMISSION_DENIED"),
    (Code::ResourceExhausted, "RESOURCE_EXHAUSTED"),
    (Code::FailedPrecondition, "FAILED_PRECONDITION"),
    (Code::Aborted, "ABORTED"),
    (Code::OutOfRange, "OUT_OF_RANGE"),
    (Code::Unimplemented, "UNIMPLEMENTED"),
    (Code::Internal, "INTERNAL"),
    (Code::Unavailable, "UNAVAILABLE"),
    (Code::DataLoss, "DATA_LOSS"),
    (Code::Unauthenticated, "UNAUTHENTICATED"),
];

/// The name of a code, as the proto files write it.
pub(crate) fn code_name(code: Code) -> &'static str {
    CODES.iter().find(|(known, _)| *known == code).expect("every code has a row").1
}

fn text(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The reasons that a package documents, each with the name of its code: the first word of the comment of the value.
pub(crate) fn documented(package: &str) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut comment = String::new();
    for line in text(&format!("proto/{}/error_reason.proto", package.replace('.', "/"))).lines().map(str::trim) {
        if let Some(said) = line.strip_prefix("//") {
            comment.push_str(said);
        } else {
            if let Some((name, _)) = line.strip_prefix("ERROR_REASON_").and_then(|value| value.split_once(" = ")) {
                let code = comment.trim().split('.').next().unwrap_or_default();
                found.insert(name.to_owned(), code.to_owned());
            }
            comment.clear();
        }
    }
    found
}

/// The part of a file between a table's opening and the next blank line that follows a closing brace.
fn table(path: &str, opening: &str) -> String {
    let whole = text(path);
    let start =
        whole.find(opening).unwrap_or_else(|| panic!("{path}: `{opening}` is gone; point this test to the table"));
    let end = whole[start..].find("}\n\n").map_or(whole.len(), |end| start + end);
    whole[start..end].to_owned()
}

/// Whether it is written like a reason.
fn upper_snake(text: &str) -> bool {
    text.len() > 2 && text.chars().all(|c| c.is_ascii_uppercase() || c.is_ascii_digit() || c == '_')
}

/// Pairs of a reason and a code that stand next to each other, as `"REASON", Code` or `(Code::Code, "REASON"`.
fn in_code(source: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    for line in source.lines() {
        let Some(reason) = line.split('"').skip(1).step_by(2).find(|text| upper_snake(text)) else { continue };
        let (before, after) = line.split_once(&format!("\"{reason}\"")).unwrap();
        let words = |text: &str| text.split(|c: char| !c.is_alphanumeric()).map(str::to_owned).collect::<Vec<_>>();
        let near = words(after).into_iter().find(|word| !word.is_empty());
        let code =
            [near, words(before).into_iter().rfind(|word| !word.is_empty())].into_iter().flatten().find_map(|word| {
                CODES.iter().find(|(code, _)| format!("{code:?}") == word).map(|(_, name)| (*name).to_owned())
            });
        if let Some(code) = code {
            found.push((reason.to_owned(), code));
        }
    }
    found
}

#[test]
fn the_proto_documents_every_reason_with_its_code() {
    for package in ["auth.v1", "task.v1"] {
        let documented = documented(package);
        let values = proto::descriptor_pool().get_enum_by_name(&format!("{package}.ErrorReason")).unwrap();
        for value in values.values().filter(|value| value.number() != 0) {
            let name = value.name().strip_prefix("ERROR_REASON_").unwrap();
            let code = documented.get(name).map(String::as_str).unwrap_or_default();
            let known = CODES.iter().any(|(_, known)| *known == code);
            assert!(
                known,
                "{package} {name}: begin its comment with the status code, as in `NOT_FOUND. There is no ...`"
            );
        }
    }
}

#[test]
fn every_reason_of_the_tables_is_documented_with_its_code() {
    for (path, opening, packages) in TABLES {
        let reasons = in_code(&table(path, opening));
        assert!(reasons.len() >= 3, "{path}: found only {reasons:?}; does this test still read it right?");
        for (reason, code) in reasons {
            for package in *packages {
                let said = documented(package).get(&reason).cloned();
                assert_eq!(said.as_ref(), Some(&code), "{path}: {reason}: say so in {package}'s error_reason.proto");
            }
        }
    }
}

#[test]
fn every_common_reason_is_documented() {
    for (path, opening, packages, each) in NAMES {
        let table = table(path, opening);
        let reasons: Vec<_> = table.split('"').skip(1).step_by(2).filter(|text| upper_snake(text)).collect();
        assert!(reasons.len() >= 3, "{path}: found only {reasons:?}; does this test still read it right?");
        for reason in reasons {
            let holders = packages.iter().filter(|package| documented(package).contains_key(reason)).count();
            let enough = if *each { packages.len() } else { 1 };
            assert!(holders >= enough, "{path}: {reason}: describe it in error_reason.proto of {packages:?}");
        }
    }
}

#[test]
fn reasons_are_read_in_both_orders() {
    let table = "A = \"TASK_NOT_FOUND\", NotFound, \"There is no such task.\";\n(Code::Aborted, \"ETAG_MISMATCH\", X)\n\"OTHER\"";
    let pair = |reason: &str, code: &str| (reason.to_owned(), code.to_owned());
    assert_eq!(in_code(table), [pair("TASK_NOT_FOUND", "NOT_FOUND"), pair("ETAG_MISMATCH", "ABORTED")]);
}
