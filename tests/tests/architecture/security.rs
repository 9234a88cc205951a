//! docs/SECURITY.md names tests: they must be there, in the suite that it says.

use super::{files, text};

/// Every `file`: test, test … of a table row.
fn cited() -> Vec<(String, String)> {
    let document = text("docs/SECURITY.md");
    let mut cited = Vec::new();
    for row in document.lines().filter(|line| line.starts_with("| ") && line.contains('`')) {
        let cell = row.trim_end_matches(['|', ' ']).rsplit(" | ").next().unwrap().to_owned();
        let mut suite = String::new();
        for part in cell.split([';', ',', ':']).map(str::trim) {
            match part.strip_prefix('`').and_then(|part| part.strip_suffix('`')) {
                Some(name) => name.clone_into(&mut suite),
                // Names of tests are sentences.
                None if part.matches('_').count() >= 2 && !part.contains(' ') => {
                    cited.push((suite.clone(), part.to_owned()));
                }
                None => {}
            }
        }
    }
    cited
}

#[test]
fn every_test_that_the_security_page_names_is_there() {
    let cited = cited();
    assert!(cited.len() > 40, "the tables are not read any more: {cited:?}");
    let mut sources = files("tests/tests", "rs");
    sources.extend(files("auth-service/client/tests", "rs"));
    let missing: Vec<_> = cited
        .iter()
        .filter(|(suite, test)| {
            let of_suite = |path: &&String| {
                let stem = suite.trim_end_matches(".rs").trim_start_matches("client/");
                path.contains(&format!("/{stem}.rs")) || path.contains(&format!("/{stem}/"))
            };
            !sources.iter().filter(of_suite).any(|path| text(path).contains(&format!("fn {test}(")))
        })
        .collect();
    assert!(missing.is_empty(), "correct docs/SECURITY.md, these are not there: {missing:?}");
}
