//! The rules: each with its name, what to do about a breach, and the check.

use chrono::NaiveDateTime;

use crate::files::Migration;
use crate::sql::{Kind, Piece, pieces};
use crate::{online, tables, task, undo};

/// A migration with its statements, and the set it stands in.
pub(crate) struct Case<'a> {
    pub(crate) set: &'a [Migration],
    pub(crate) at: usize,
    pub(crate) up: Vec<Piece>,
    pub(crate) down: Vec<Piece>,
}

impl Case<'_> {
    pub(crate) fn migration(&self) -> &Migration {
        &self.set[self.at]
    }

    /// The pieces of both directions.
    fn both(&self) -> impl Iterator<Item = &Piece> {
        self.up.iter().chain(&self.down)
    }

    fn outside_transaction(&self) -> bool {
        self.migration().text("metadata.toml").contains("run_in_transaction = false")
    }
}

/// One rule.
pub(crate) struct Rule {
    pub(crate) name: &'static str,
    /// What to do about a breach.
    fix: &'static str,
    /// What breaks it.
    check: fn(&Case<'_>) -> Vec<String>,
}

const fn rule(name: &'static str, fix: &'static str, check: fn(&Case<'_>) -> Vec<String>) -> Rule {
    Rule { name, fix, check }
}

/// All of them.
pub(crate) const RULES: &[Rule] = &[
    rule("directory", "name it <UTC yyyy-mm-dd-hhmmss>_<verb_object>; a new verb goes into VERBS", directory),
    rule("version", "history is linear: a new migration gets a version of its own after all others", version),
    rule("files", "write up.sql and down.sql with at least one statement each, metadata.toml when needed", files),
    rule("metadata", "only where it is needed, and then `run_in_transaction = false` and nothing else", metadata),
    rule("line_ends", "end each line with a line feed alone, the last one, too", line_ends),
    rule("transaction", "leave BEGIN and COMMIT to the engine", transaction),
    rule("unqualified", "write names without a schema: the engine pins search_path", unqualified),
    rule("create", "CREATE ... IF NOT EXISTS, or a DO block that looks first", create),
    rule("serial", "CREATE SEQUENCE IF NOT EXISTS, DEFAULT nextval(...), then ALTER SEQUENCE ... OWNED BY", serial),
    rule("columns", "let CREATE TABLE be followed by ADD COLUMN IF NOT EXISTS <name> <type> for each column", columns),
    rule("add_column", "ADD COLUMN IF NOT EXISTS: the column may be there", add_column),
    rule("named", "name it: CONSTRAINT <name> ..., CREATE INDEX ... <name> ON ...", named),
    rule("add_constraint", "add it in a DO block that asks pg_constraint first", add_constraint),
    rule(
        "rename",
        "rename in a DO block that looks first, in a release after the last one that uses the old name",
        rename,
    ),
    rule("guard", "a DO block looks before it acts: IF, FOR over the catalog, or EXCEPTION", guard),
    rule("concurrently", "let it stand alone, with `run_in_transaction = false` in metadata.toml", concurrently),
    rule("insert", "INSERT ... ON CONFLICT: the row may be there", insert),
    rule("where", "give it a WHERE that finds nothing the second time", data_where),
    rule("cascade", "name what is dropped, one by one: CASCADE also takes what nobody thought of", cascade),
    rule("drop", "DROP ... IF EXISTS, or a DO block that looks first", drop_if_exists),
    rule("subcommand", "one sub-command per ALTER TABLE: distributed databases refuse more", subcommand),
    rule("data", "`up` keeps all data: contract in a later release, by hand, with a backup", online::data_kept),
    rule("index", "CREATE INDEX CONCURRENTLY in a migration of its own: writers go on", online::index),
    rule("not_null", "add the column nullable, fill it, VALIDATE a check, then SET NOT NULL", online::not_null),
    rule("rewrite", "no rewrite of a table that can be large: add a column, fill it in batches", online::rewrite),
    rule("not_valid", "ADD ... NOT VALID, then VALIDATE CONSTRAINT; keys USING INDEX", online::not_valid),
    rule("down_comment", "open down.sql with `-- Loses ...`, or why there is nothing to undo", undo::comment),
    rule("down_undoes", "drop in down.sql what up.sql makes", undo::undoes),
    rule("task_alone", "no trigger and no foreign key: rows are distributed by their owner", task::alone),
    rule("task_time", "pass the time as a parameter: now() differs between machines", task::time),
    rule("task_key", "put user_id into the key: rows are distributed by their owner", task::key),
];

/// What breaks a rule in these migrations of one set, in their order.
pub(crate) fn lint(set: &[Migration]) -> Vec<String> {
    let mut breaches = Vec::new();
    for (at, migration) in set.iter().enumerate() {
        let case = Case { set, at, up: pieces(migration.text("up.sql")), down: pieces(migration.text("down.sql")) };
        for rule in RULES {
            for what in (rule.check)(&case) {
                breaches.push(format!("{}: {what} [{}] {}", migration.directory, rule.name, rule.fix));
            }
        }
    }
    breaches
}

/// A breach for each piece that matches.
pub(crate) fn each<'a>(pieces: impl IntoIterator<Item = &'a Piece>, breaks: impl Fn(&Piece) -> bool) -> Vec<String> {
    pieces.into_iter().filter(|piece| breaks(piece)).map(|piece| format!("`{} ...`", piece.line())).collect()
}

/// What a migration does, as the first word of its name.
const VERBS: [&str; 14] = [
    "add",
    "adopt",
    "assign",
    "bound",
    "constrain",
    "create",
    "drop",
    "fill",
    "index",
    "move",
    "rename",
    "seed",
    "split",
    "validate",
];

fn directory(case: &Case<'_>) -> Vec<String> {
    let name = &case.migration().directory;
    let (version, what) = name.split_once('_').unwrap_or((name, ""));
    let words: Vec<_> = what.split('_').collect();
    let plain = |word: &&str| !word.is_empty() && word.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit());
    let dated = version.len() == 17 && NaiveDateTime::parse_from_str(version, "%Y-%m-%d-%H%M%S").is_ok();
    let good = dated && words.len() >= 2 && words.iter().all(plain) && VERBS.contains(&words[0]);
    if good { vec![] } else { vec!["the name of the directory".to_owned()] }
}

fn version(case: &Case<'_>) -> Vec<String> {
    let earlier = case.set[..case.at].iter().filter(|other| other.version() >= case.migration().version());
    earlier.map(|other| format!("not after {}", other.directory)).collect()
}

fn files(case: &Case<'_>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (file, statements) in [("up.sql", &case.up), ("down.sql", &case.down)] {
        if statements.is_empty() {
            breaches.push(format!("{file} is missing or empty"));
        }
    }
    let known = ["up.sql", "down.sql", "metadata.toml"];
    let others = case.migration().files.keys().filter(|file| !known.contains(&file.as_str()));
    breaches.extend(others.map(|file| format!("{file} is not read by anybody")));
    breaches
}

fn metadata(case: &Case<'_>) -> Vec<String> {
    let Some(text) = case.migration().files.get("metadata.toml") else { return vec![] };
    let lines: Vec<_> = text.lines().map(str::trim).filter(|line| !line.is_empty() && !line.starts_with('#')).collect();
    // Diesel: without the key no transaction, with a malformed value one after all.
    if lines == ["run_in_transaction = false"] { vec![] } else { vec![format!("metadata.toml holds {lines:?}")] }
}

fn line_ends(case: &Case<'_>) -> Vec<String> {
    let files = case.migration().files.iter();
    let wrong = files.filter(|(_, text)| text.contains('\r') || !text.ends_with('\n'));
    wrong.map(|(file, _)| file.clone()).collect()
}

fn transaction(case: &Case<'_>) -> Vec<String> {
    let words = ["begin", "start transaction", "commit", "rollback", "savepoint", "abort", "end"];
    each(case.both(), |piece| !piece.guarded && words.iter().any(|word| piece.begins(word)))
}

fn unqualified(case: &Case<'_>) -> Vec<String> {
    let before = ["table", "exists", "only", "into", "update", "references", "from", "join"];
    each(case.both(), |piece| {
        piece.tokens.windows(3).any(|part| {
            let name = part[1].text.as_str();
            let named = matches!(part[1].kind, Kind::Word | Kind::Name) && part[2].is(".");
            let catalog = name.starts_with("pg_") || name == "information_schema";
            named && (name == "public" || (!catalog && before.iter().any(|word| part[0].is(word))))
        })
    })
}

fn create(case: &Case<'_>) -> Vec<String> {
    each(case.both(), |piece| {
        !piece.guarded && piece.begins("create") && !piece.has("if not exists") && !piece.begins("create or replace")
    })
}

/// `serial` makes a sequence under whatever name is free; the column may be there, and its sequence gone.
fn serial(case: &Case<'_>) -> Vec<String> {
    let types = ["serial", "bigserial", "smallserial", "serial2", "serial4", "serial8"];
    let is_serial = |token: &crate::sql::Token| token.kind == Kind::Word && types.contains(&token.text.as_str());
    each(&case.up, |piece| piece.tokens.iter().any(is_serial))
}

fn columns(case: &Case<'_>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (at, created) in case.up.iter().enumerate().filter_map(|(at, piece)| Some((at, tables::created(piece)?))) {
        for (column, kind) in &created.columns {
            let follows = case.up[at..]
                .iter()
                .filter_map(tables::added)
                .any(|(table, added, added_kind, _)| (&table, &added, &added_kind) == (&created.table, column, kind));
            if !follows {
                breaches.push(format!("{}.{column} {kind}", created.table));
            }
        }
    }
    breaches
}

fn add_column(case: &Case<'_>) -> Vec<String> {
    each(case.both(), |piece| {
        let bare_add = tables::altered(piece).is_some() && {
            let add = piece.tokens.iter().position(|token| token.is("add"));
            let words = ["column", "constraint", "primary", "unique", "check", "foreign", "exclude"];
            // `ADD <name> <type>`: COLUMN may be left out.
            add.is_some_and(|at| !words.contains(&piece.word(at + 1)))
        };
        let add_column = piece.has("add column") && !piece.has("add column if not exists");
        !piece.guarded && (bare_add || add_column)
    })
}

fn named(case: &Case<'_>) -> Vec<String> {
    let mut breaches = Vec::new();
    for piece in case.both() {
        breaches.extend(tables::created(piece).into_iter().flat_map(|created| created.unnamed));
        let unnamed = ["add primary", "add unique", "add check", "add foreign", "add exclude"];
        if tables::altered(piece).is_some() && unnamed.iter().any(|words| piece.has(words)) {
            breaches.push(format!("`{} ...`", piece.line()));
        }
        if let Some((.., definition)) = tables::added(piece) {
            let makes = |word: &str| ["primary", "unique", "references", "check"].contains(&word);
            let bare = definition.iter().enumerate().any(|(at, token)| {
                token.kind == Kind::Word && makes(&token.text) && !(at >= 2 && definition[at - 2].is("constraint"))
            });
            if bare {
                breaches.push(format!("`{} ...`", piece.line()));
            }
        }
        if let Some((None, table)) = tables::index(piece) {
            breaches.push(format!("an index on {table}"));
        }
    }
    breaches
}

fn add_constraint(case: &Case<'_>) -> Vec<String> {
    each(case.both(), |piece| !piece.guarded && piece.has("add constraint"))
}

fn rename(case: &Case<'_>) -> Vec<String> {
    each(case.both(), |piece| !piece.guarded && piece.begins("alter") && piece.has("rename"))
}

fn guard(case: &Case<'_>) -> Vec<String> {
    let looks = ["if", "for", "exception"];
    let mut breaches = Vec::new();
    for piece in case.both().filter(|piece| piece.begins("do")) {
        for body in piece.tokens.iter().filter(|token| token.kind == Kind::Body) {
            if !crate::sql::tokens(&body.text).iter().any(|token| looks.iter().any(|word| token.is(word))) {
                breaches.push(format!("`{} ...`", piece.line()));
            }
        }
    }
    breaches
}

fn concurrently(case: &Case<'_>) -> Vec<String> {
    let mut breaches = Vec::new();
    for (file, pieces) in [("up.sql", &case.up), ("down.sql", &case.down)] {
        if pieces.iter().any(|piece| piece.has("concurrently")) && !case.outside_transaction() {
            breaches.push(format!("{file} runs in a transaction"));
        }
        let statements = pieces.iter().filter(|piece| !piece.guarded).count();
        if case.outside_transaction() && statements > 1 {
            breaches.push(format!("{file} holds {statements} statements outside a transaction"));
        }
    }
    breaches
}

fn insert(case: &Case<'_>) -> Vec<String> {
    each(case.both(), |piece| piece.find("insert into").is_some_and(|at| piece.find_from(at, "on conflict").is_none()))
}

fn data_where(case: &Case<'_>) -> Vec<String> {
    let not_a_statement = ["on", "do", "for", "key", "or", "before", "after"];
    each(case.both(), |piece| {
        piece.tokens.iter().enumerate().any(|(at, token)| {
            let update = token.is("update") && !(at > 0 && not_a_statement.contains(&piece.word(at - 1)));
            let delete = token.is("delete") && piece.word(at + 1) == "from";
            let mut rest = piece.tokens[at + 1..].iter().take_while(|other| other.depth >= token.depth);
            (update || delete) && !rest.any(|other| other.depth == token.depth && other.is("where"))
        })
    })
}

fn cascade(case: &Case<'_>) -> Vec<String> {
    // ON DELETE CASCADE is what a foreign key does, not what the migration drops.
    each(case.both(), |piece| {
        piece.tokens.windows(2).any(|two| two[1].is("cascade") && !two[0].is("delete") && !two[0].is("update"))
    })
}

fn drop_if_exists(case: &Case<'_>) -> Vec<String> {
    each(case.both(), |piece| {
        let drops = piece.begins("drop") || tables::altered(piece).is_some() && undo::dropped_part(piece).is_some();
        !piece.guarded && drops && !piece.has("if exists")
    })
}

fn subcommand(case: &Case<'_>) -> Vec<String> {
    each(case.both(), |piece| {
        piece.begins("alter table") && piece.tokens.iter().any(|token| token.is(",") && token.depth == 0)
    })
}
