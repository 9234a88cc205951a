//! Tokens of SQL, enough for the rules: words, quoted names, texts, bodies and signs with the depth of their parentheses.

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A keyword or name, lower-cased.
    Word,
    /// A quoted name, without its quotes.
    Name,
    /// A string constant, without its quotes.
    Text,
    /// A dollar-quoted text, without its quotes.
    Body,
    /// Anything else, one character.
    Sign,
}

/// A token of a statement.
#[derive(Clone, Debug)]
pub(crate) struct Token {
    pub(crate) kind: Kind,
    pub(crate) text: String,
    /// How many parentheses are open around it; a parenthesis itself counts as outside.
    pub(crate) depth: usize,
}

impl Token {
    /// Whether it is this keyword or sign.
    pub(crate) fn is(&self, wanted: &str) -> bool {
        matches!(self.kind, Kind::Word | Kind::Sign) && self.text == wanted
    }
}

/// A statement, or one that stands in the body of a `DO` or is put together by an `EXECUTE` in it.
#[derive(Clone, Debug)]
pub(crate) struct Piece {
    pub(crate) tokens: Vec<Token>,
    /// It stands in a body, where an IF can guard it.
    pub(crate) guarded: bool,
}

impl Piece {
    /// Whether these words stand next to each other anywhere; answers where the first of them stands.
    pub(crate) fn find(&self, words: &str) -> Option<usize> {
        self.find_from(0, words)
    }

    /// As [`Self::find`], not before `start`.
    pub(crate) fn find_from(&self, start: usize, words: &str) -> Option<usize> {
        let words: Vec<_> = words.split(' ').collect();
        (start..self.tokens.len()).find(|&at| {
            words.iter().enumerate().all(|(n, word)| self.tokens.get(at + n).is_some_and(|token| token.is(word)))
        })
    }

    /// Whether these words stand somewhere.
    pub(crate) fn has(&self, words: &str) -> bool {
        self.find(words).is_some()
    }

    /// Whether it begins with these words.
    pub(crate) fn begins(&self, words: &str) -> bool {
        self.find(words) == Some(0)
    }

    /// The text of the token at `at`; empty past the end.
    pub(crate) fn word(&self, at: usize) -> &str {
        self.tokens.get(at).map_or("", |token| token.text.as_str())
    }

    /// The statement on one line, shortened.
    pub(crate) fn line(&self) -> String {
        let words: Vec<_> = self.tokens.iter().take(12).map(|token| token.text.as_str()).collect();
        words.join(" ")
    }
}

/// The statements of a file with what stands in their bodies. Panics where the engine itself would refuse the text.
pub(crate) fn pieces(source: &str) -> Vec<Piece> {
    let mut found = Vec::new();
    for statement in migration_engine::split(source).unwrap_or_else(|error| panic!("{error}: {source}")) {
        collect(&statement.sql, false, &mut found);
    }
    found
}

fn collect(sql: &str, guarded: bool, found: &mut Vec<Piece>) {
    const VERBS: [&str; 8] = ["create", "alter", "drop", "delete", "insert", "update", "truncate", "grant"];
    let tokens = tokens(sql);
    for token in &tokens {
        let built = guarded && token.kind == Kind::Text && {
            let first = token.text.split_whitespace().next().unwrap_or_default().to_ascii_lowercase();
            VERBS.contains(&first.as_str())
        };
        if token.kind == Kind::Body || built {
            for inner in migration_engine::split(&token.text).unwrap_or_default() {
                collect(&inner.sql, true, found);
            }
        }
    }
    found.push(Piece { tokens, guarded });
}

/// The tokens of one statement, without its comments.
pub(crate) fn tokens(sql: &str) -> Vec<Token> {
    let mut found: Vec<Token> = Vec::new();
    let (mut rest, mut depth) = (sql, 0_usize);
    while let Some(first) = rest.chars().next() {
        let (kind, text, length) = if first.is_whitespace() {
            rest = &rest[first.len_utf8()..];
            continue;
        } else if rest.starts_with("--") {
            rest = &rest[rest.find('\n').unwrap_or(rest.len())..];
            continue;
        } else if rest.starts_with("/*") {
            rest = &rest[rest.find("*/").map_or(rest.len(), |end| end + 2)..];
            continue;
        } else if first == '\'' || first == '"' {
            let length = quoted_length(rest, first);
            let kind = if first == '"' { Kind::Name } else { Kind::Text };
            (kind, rest[1..length - 1].to_owned(), length)
        } else if let Some(tag) = dollar_tag(rest) {
            let body = &rest[tag.len()..];
            let end = body.find(tag).unwrap_or(body.len());
            (Kind::Body, body[..end].to_owned(), (2 * tag.len() + end).min(rest.len()))
        } else if first.is_alphanumeric() || first == '_' {
            let length = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
            (Kind::Word, rest[..length].to_lowercase(), length)
        } else {
            (Kind::Sign, first.to_string(), first.len_utf8())
        };
        if kind == Kind::Sign && text == ")" {
            depth = depth.saturating_sub(1);
        }
        found.push(Token { kind, text, depth });
        if found.last().is_some_and(|token| token.is("(")) {
            depth += 1;
        }
        rest = &rest[length..];
    }
    found
}

fn quoted_length(rest: &str, quote: char) -> usize {
    let mut at = 1;
    loop {
        match rest[at..].find(quote) {
            None => return rest.len(),
            Some(end) if rest[at + end + 1..].starts_with(quote) => at += end + 2,
            Some(end) => return at + end + 1,
        }
    }
}

/// `$$` or `$name$` at the start.
fn dollar_tag(rest: &str) -> Option<&str> {
    let name = rest.strip_prefix('$')?;
    let end = name.find('$')?;
    let named =
        name[..end].chars().all(|c| c.is_alphanumeric() || c == '_') && !name.starts_with(|c: char| c.is_ascii_digit());
    named.then(|| &rest[..end + 2])
}

#[test]
fn words_texts_bodies_and_depth() {
    let found = tokens("CREATE /* a */ TABLE \"T\" (a text DEFAULT 'it''s' -- b\n, b int)");
    let texts: Vec<_> = found.iter().map(|token| token.text.as_str()).collect();
    assert_eq!(texts, ["create", "table", "T", "(", "a", "text", "default", "it''s", ",", "b", "int", ")"]);
    assert_eq!((found[3].depth, found[4].depth, found[11].depth), (0, 1, 0));
}

#[test]
fn statements_in_bodies_are_seen() {
    let found = pieces("DO $$ BEGIN EXECUTE format('DROP INDEX %I', x); DELETE FROM t; END $$; SELECT 'DROP TABLE t'");
    assert!(found.iter().any(|piece| piece.guarded && piece.begins("drop index")));
    assert!(found.iter().any(|piece| piece.guarded && piece.has("delete from t")));
    assert!(!found.iter().any(|piece| piece.has("drop table")), "a text outside a body is data");
}
