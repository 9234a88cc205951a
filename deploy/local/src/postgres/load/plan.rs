//! Decides what is done with each piece of a dump: run, leave out (it would act on the server, not on our one database), or
//! refuse; and which roles the dump names.

use std::collections::BTreeSet;

use super::lexer::{Kind, Lexer};

/// What is done with a statement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Decision {
    /// Send it.
    Run,
    /// Leave it out; the text says what it was.
    LeaveOut(String),
}

/// What is done with the SQL statement `sql`.
pub(super) fn decide(sql: &str) -> Decision {
    let words = leading_words(sql, 4);
    let words: Vec<&str> = words.iter().map(String::as_str).collect();
    let leave_out = match words.as_slice() {
        ["create" | "alter", "user", "mapping", ..] | ["drop", "user", "mapping", ..] => false,
        ["create" | "alter" | "drop", "database" | "role" | "user" | "group" | "tablespace" | "subscription", ..] => {
            true
        }
        ["comment", "on", "database", ..] | ["alter", "system", ..] => true,
        ["set", "role", ..]
        | ["set", "session", "authorization", ..]
        | ["reset", "role", ..]
        | ["reset", "session", "authorization", ..] => true,
        // The text goes to the server as UTF-8, whatever the dump was written in.
        ["set", "client_encoding", ..] => true,
        _ => on_a_database(&words),
    };
    if leave_out {
        Decision::LeaveOut(words.iter().take(3).copied().collect::<Vec<_>>().join(" ").to_uppercase())
    } else {
        Decision::Run
    }
}

/// GRANT … ON DATABASE names the old database.
fn on_a_database(words: &[&str]) -> bool {
    matches!(words, ["grant" | "revoke", _, "on", "database", ..])
}

/// What is done with a psql command such as `\restrict`; `None` means that it is not understood.
pub(super) fn decide_psql(line: &str) -> Option<Decision> {
    let command = line.split_whitespace().next().unwrap_or_default();
    match command {
        "\\restrict" | "\\unrestrict" | "\\echo" | "\\encoding" | "\\timing" | "\\set" | "\\pset" => {
            Some(Decision::Run)
        }
        "\\connect" | "\\c" => Some(Decision::LeaveOut(command.to_owned())),
        _ => None,
    }
}

/// Adds the roles that `sql` names as an owner, in a grant or by creating them.
pub(super) fn collect_roles(sql: &str, roles: &mut BTreeSet<String>) {
    let first = leading_words(sql, 2);
    let words: Vec<&str> = first.iter().map(String::as_str).collect();
    match words.as_slice() {
        ["create", "role" | "user" | "group"] => {
            roles.extend(names_after(sql, "", 2).into_iter().take(1).filter(|name| name != "mapping"))
        }
        ["alter", "default"] => {
            roles.extend(after_pair(sql, "for", "role"));
            roles.extend(after_last(sql, &["to", "from"]));
        }
        ["alter", _] => roles.extend(after_pair(sql, "owner", "to")),
        ["grant", _] => roles.extend(after_last(sql, &["to"])),
        ["revoke", _] => roles.extend(after_last(sql, &["from"])),
        ["create", "schema"] => roles.extend(names_after(sql, "authorization", 0).into_iter().take(1)),
        ["create", "policy"] => roles.extend(after_last(sql, &["to"])),
        _ => {}
    }
    for word in ["public", "current_user", "session_user", "current_role"] {
        roles.remove(word);
    }
}

fn leading_words(sql: &str, count: usize) -> Vec<String> {
    tokens(sql, count).into_iter().map(|token| token.name).collect()
}

struct Name {
    /// Folded to lower case unless it was quoted; empty for anything that is no name.
    name: String,
    is_comma: bool,
}

fn tokens(sql: &str, limit: usize) -> Vec<Name> {
    let mut lexer = Lexer::new(sql);
    let mut found = Vec::new();
    while found.len() < limit
        && let Ok(Some(token)) = lexer.next()
    {
        let text = &sql[token.start..token.end];
        let name = match token.kind {
            Kind::Word => text.to_lowercase(),
            Kind::Quoted => text[1..text.len() - 1].replace("\"\"", "\""),
            _ => String::new(),
        };
        found.push(Name { name, is_comma: token.kind == Kind::Symbol(b',') });
    }
    found
}

/// The comma-separated names after the token number `skip`, or after the last `keyword` if one is given.
fn names_after(sql: &str, keyword: &str, skip: usize) -> Vec<String> {
    let all = tokens(sql, 10_000);
    let from = if keyword.is_empty() {
        Some(skip)
    } else {
        all.iter().rposition(|token| token.name == keyword).map(|at| at + 1)
    };
    from.map(|from| list(&all[from.min(all.len())..])).unwrap_or_default()
}

fn after_last(sql: &str, keywords: &[&str]) -> Vec<String> {
    keywords.iter().flat_map(|keyword| names_after(sql, keyword, 0)).collect()
}

fn after_pair(sql: &str, first: &str, second: &str) -> Vec<String> {
    let all = tokens(sql, 10_000);
    let at = all.windows(2).rposition(|pair| pair[0].name == first && pair[1].name == second);
    at.map(|at| list(&all[at + 2..])).unwrap_or_default()
}

fn list(tokens: &[Name]) -> Vec<String> {
    let mut names = Vec::new();
    let mut expects_name = true;
    for token in tokens {
        match (expects_name, token.is_comma) {
            (true, false) if token.name == "group" => {}
            (true, false) if !token.name.is_empty() => {
                names.push(token.name.clone());
                expects_name = false;
            }
            (false, true) => expects_name = true,
            _ => break,
        }
    }
    names
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn roles_are_found_where_dumps_name_them() {
        let mut roles = BTreeSet::new();
        for sql in [
            "ALTER TABLE public.tasks OWNER TO taskapp",
            "ALTER TABLE public.\"owner to\" OWNER TO \"Odd Name\"",
            "GRANT SELECT, INSERT ON TABLE public.users TO reader, GROUP writers WITH GRANT OPTION",
            "REVOKE ALL ON SCHEMA public FROM PUBLIC",
            "REVOKE ALL ON SCHEMA public FROM rdsadmin CASCADE",
            "ALTER DEFAULT PRIVILEGES FOR ROLE boss IN SCHEMA public GRANT SELECT ON TABLES TO worker",
            "CREATE SCHEMA audit AUTHORIZATION auditor",
            "CREATE ROLE app",
            "CREATE USER MAPPING FOR someone SERVER s",
            "INSERT INTO t VALUES ('OWNER TO nobody')",
        ] {
            collect_roles(sql, &mut roles);
        }
        let found: Vec<&str> = roles.iter().map(String::as_str).collect();
        assert_eq!(found, ["Odd Name", "app", "auditor", "boss", "rdsadmin", "reader", "taskapp", "worker", "writers"]);
    }

    #[test]
    fn server_wide_statements_are_left_out() {
        assert_eq!(
            decide("CREATE DATABASE legacy WITH TEMPLATE = template0"),
            Decision::LeaveOut("CREATE DATABASE LEGACY".to_owned())
        );
        assert!(matches!(decide("ALTER ROLE postgres WITH SUPERUSER PASSWORD 'md5'"), Decision::LeaveOut(_)));
        assert!(matches!(decide("SET client_encoding = 'LATIN1'"), Decision::LeaveOut(_)));
        assert_eq!(decide("CREATE TABLE users (id uuid)"), Decision::Run);
        assert_eq!(decide_psql("\\restrict abc"), Some(Decision::Run));
        assert_eq!(decide_psql("\\! rm -rf x"), None);
    }
}
