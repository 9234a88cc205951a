//! What a source file looks like, and what the layers of a service must not know.

use crate::{assert_none, files, text};

/// Lines of a file that still fits in one reading.
const FILE_LIMIT: usize = 600;
/// Half of the files are shorter than this, or the crate is cut into too large parts.
const MEDIAN_LIMIT: usize = 170;

/// What code in a layer must not name, and where it belongs instead.
const LAYERS: &[(&str, &[&str], &str)] = &[
    ("domain", &["tonic", "diesel", "diesel_async", "tokio_postgres"], "domain/ holds newtypes and rules only"),
    ("domain", &["crate::grpc", "crate::app", "crate::cli"], "domain/ is below: pass in what it needs"),
    ("grpc", &["diesel", "diesel_async", "tokio_postgres"], "queries belong to store/"),
    ("store", &["tonic", "crate::grpc"], "statuses are made in errors.rs and grpc/"),
];

const SERVICES: [&str; 2] = ["auth-service", "task-service"];

/// The code of a line: what stands before a comment.
fn code(line: &str) -> &str {
    line.split("//").next().unwrap_or_default()
}

/// Whether `name` stands in `code` as a whole path segment or path.
fn names(code: &str, name: &str) -> bool {
    let part = |c: char| c.is_alphanumeric() || c == '_';
    code.match_indices(name).any(|(at, _)| {
        !code[..at].chars().next_back().is_some_and(part) && !code[at + name.len()..].chars().next().is_some_and(part)
    })
}

#[test]
fn names_are_found_as_whole_words() {
    assert!(names("use diesel::prelude::*;", "diesel"));
    assert!(names("use {tonic};", "tonic"));
    assert!(!names("use diesel_async::X;", "diesel"));
    assert!(!names(code("let a = 1; // as diesel does"), "diesel"));
    assert!(names("crate::grpc::parse", "crate::grpc"));
}

#[test]
fn layers_do_not_know_what_is_not_theirs() {
    let mut breaches = Vec::new();
    for service in SERVICES {
        for (layer, barred, instead) in LAYERS {
            for path in files(&format!("{service}/src/{layer}"), "rs") {
                for (at, line) in text(&path).lines().enumerate() {
                    for name in barred.iter().filter(|name| names(code(line), name)) {
                        breaches.push(format!("{path}:{}: {name}: {instead}", at + 1));
                    }
                }
            }
        }
    }
    assert_none(&breaches, "move the code to the layer it belongs to:");
}

#[test]
fn every_file_says_what_it_is_for() {
    let bare: Vec<_> = files("", "rs").into_iter().filter(|path| !text(path).trim_start().starts_with("//!")).collect();
    assert_none(&bare, "begin the file with a line `//! …` that says what it is for:");
}

#[test]
fn every_file_fits_in_one_reading() {
    let mut lengths: Vec<_> = files("", "rs").into_iter().map(|path| (text(&path).lines().count(), path)).collect();
    let long: Vec<_> = lengths
        .iter()
        .filter(|(lines, _)| *lines > FILE_LIMIT)
        .map(|(lines, path)| format!("{path}: {lines} lines"))
        .collect();
    assert_none(&long, &format!("split these along their subjects; the limit is {FILE_LIMIT} lines:"));
    lengths.sort();
    let (median, _) = lengths[lengths.len() / 2];
    assert!(median <= MEDIAN_LIMIT, "half of the files have more than {median} lines; expected at most {MEDIAN_LIMIT}");
}

/// Put together here, so that this file does not hold them. The first status of a task is called so, too: only a comment
/// that opens with the word is a note.
fn unfinished() -> [(String, &'static str); 6] {
    [
        (["// TO", "DO"].concat(), "do it, or write down what must happen for it to go"),
        (["FIX", "ME"].concat(), "mend it"),
        (["to", "do!("].concat(), "write it, or answer not_implemented()"),
        (["unimple", "mented!("].concat(), "write it, or answer not_implemented()"),
        (["#[ig", "nore"].concat(), "a test that does not run proves nothing: make it run or delete it"),
        (["-- TO", "DO"].concat(), "do it, or write down what must happen for it to go"),
    ]
}

#[test]
fn nothing_is_left_unfinished() {
    let mut breaches = Vec::new();
    for extension in ["rs", "proto", "sql", "toml"] {
        for path in files("", extension) {
            for (at, line) in text(&path).lines().enumerate() {
                for (mark, fix) in unfinished().iter().filter(|(mark, _)| line.contains(mark.as_str())) {
                    breaches.push(format!("{path}:{}: {mark}: {fix}", at + 1));
                }
            }
        }
    }
    assert_none(&breaches, "finish these:");
}

#[test]
fn no_lint_is_switched_off_without_a_reason() {
    let mut breaches = Vec::new();
    for path in files("", "rs") {
        let whole = text(&path);
        for (at, _) in whole.match_indices("[allow(").chain(whole.match_indices("[expect(")) {
            // An attribute opens a line; a mention in a comment or string does not.
            let line_start = whole[..at].rfind('\n').map_or(0, |end| end + 1);
            let before = whole[line_start..at].trim();
            let attribute = &whole[at..whole[at..].find(")]").map_or(whole.len(), |end| at + end)];
            if (before == "#" || before == "#!") && !attribute.contains("reason = ") {
                breaches.push(format!("{path}:{}", whole[..at].lines().count()));
            }
        }
    }
    assert_none(&breaches, "write `#[expect(<lint>, reason = \"...\")]`:");
}
