//! The words of a statement, for whoever must know what kind of statement it is. Quoted names keep their case; strings and
//! comments are passed over.

use crate::split::{dollar_end, escapes, quoted_end};

/// Walks over the words of one statement.
pub(crate) struct Words {
    /// Words in lower case, quoted names as they are; punctuation stands alone.
    words: Vec<String>,
    at: usize,
    text: String,
    /// Where each word begins in the text.
    starts: Vec<usize>,
}

/// The words of `sql`.
pub(crate) fn words(sql: &str) -> Words {
    let bytes = sql.as_bytes();
    let (mut words, mut starts) = (Vec::new(), Vec::new());
    let mut at = 0;
    while at < bytes.len() {
        let from = at;
        let rest = &sql[at..];
        match bytes[at] {
            b'-' if rest.starts_with("--") => at = rest.find('\n').map_or(sql.len(), |line| at + line),
            b'/' if rest.starts_with("/*") => at = rest.find("*/").map_or(sql.len(), |end| at + end + 2),
            b'\'' => at = string_end(sql, at, '\''),
            b'"' => {
                at = string_end(sql, at, '"');
                words.push(sql[from + 1..at.saturating_sub(1).max(from + 1)].replace("\"\"", "\""));
                starts.push(from);
            }
            byte if byte.is_ascii_alphanumeric() || byte == b'_' || !byte.is_ascii() => {
                let end = rest.find(|c: char| !(c.is_alphanumeric() || c == '_' || c == '$')).unwrap_or(rest.len());
                at += end.max(1);
                words.push(sql[from..at].to_lowercase());
                starts.push(from);
            }
            byte if byte.is_ascii_whitespace() => at += 1,
            _ => {
                at += 1;
                words.push(sql[from..at].to_owned());
                starts.push(from);
            }
        }
    }
    Words { words, at: 0, text: sql.to_owned(), starts }
}

/// The end of what `quote` opens at `at`; a doubled quote is one of the text.
fn string_end(sql: &str, at: usize, quote: char) -> usize {
    let mut from = at + 1;
    while let Some(end) = sql[from..].find(quote) {
        let next = from + end + 1;
        if !sql[next..].starts_with(quote) {
            return next;
        }
        from = next + 1;
    }
    sql.len()
}

/// The statement with every string in it replaced by `'...'`, whatever its quotes; one that does not end reaches to the end.
pub(crate) fn without_literals(sql: &str) -> String {
    let mut shown = String::new();
    let mut at = 0;
    while at < sql.len() {
        let end = match sql.as_bytes()[at] {
            b'\'' => quoted_end(sql, at, b'\'', escapes(sql, at)).unwrap_or(sql.len()),
            // `$1` and `a$b` open nothing: then only the sign is passed over.
            b'$' => dollar_end(sql, at).unwrap_or(sql.len()),
            _ => at,
        };
        if end > at + 1 {
            shown.push_str("'...'");
            at = end;
        } else {
            let next = sql[at..].chars().next().map_or(1, char::len_utf8);
            shown.push_str(&sql[at..at + next]);
            at += next;
        }
    }
    shown
}

impl Words {
    /// The word that comes next; empty at the end.
    pub(crate) fn peek(&self) -> String {
        self.words.get(self.at).cloned().unwrap_or_default()
    }

    /// Takes the next word.
    pub(crate) fn next_word(&mut self) -> String {
        let word = self.peek();
        self.at += 1;
        word
    }

    /// Takes the next word if it is `word`.
    pub(crate) fn skip(&mut self, word: &str) -> bool {
        let is = self.peek() == word;
        if is {
            self.at += 1;
        }
        is
    }

    pub(crate) fn skip_if_not_exists(&mut self) -> bool {
        self.skip_all(&["if", "not", "exists"])
    }

    pub(crate) fn skip_if_exists(&mut self) -> bool {
        self.skip_all(&["if", "exists"])
    }

    fn skip_all(&mut self, wanted: &[&str]) -> bool {
        let is = self.words[self.at.min(self.words.len())..]
            .iter()
            .map(String::as_str)
            .take(wanted.len())
            .eq(wanted.iter().copied());
        if is {
            self.at += wanted.len();
        }
        is
    }

    /// Goes behind the next `word`; false when there is none.
    pub(crate) fn skip_to(&mut self, word: &str) -> bool {
        let place = self.rest().position(|other| other == word);
        self.at += place.map_or(0, |place| place + 1);
        place.is_some()
    }

    /// Takes a name, without its schema.
    pub(crate) fn name(&mut self) -> String {
        let mut name = self.next_word();
        while self.skip(".") {
            name = self.next_word();
        }
        name
    }

    /// The words that are left.
    pub(crate) fn rest(&self) -> impl Iterator<Item = &str> {
        self.words[self.at.min(self.words.len())..].iter().map(String::as_str)
    }

    /// Where the next word begins in the text.
    pub(crate) fn place(&self) -> Option<usize> {
        self.starts.get(self.at).copied()
    }

    /// The text that is left.
    pub(crate) fn rest_of_text(&self) -> &str {
        self.starts.get(self.at).map_or("", |at| &self.text[*at..])
    }

    /// Whether a comma is left outside of brackets.
    pub(crate) fn has_outer_comma(&self) -> bool {
        let mut depth = 0_i32;
        self.rest().any(|word| {
            depth += i32::from(word == "(") - i32::from(word == ")");
            word == "," && depth == 0
        })
    }

    pub(crate) fn ends_with_not_valid(&self) -> bool {
        self.words.ends_with(&["not".to_owned(), "valid".to_owned()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_lower_case_and_quoted_names_are_not() {
        let mut at = words("ALTER TABLE public.\"Odd \"\"one\" ADD /* x */ a 'it''s' -- end\n NOT VALID");
        assert_eq!([at.next_word(), at.next_word()], ["alter", "table"]);
        assert_eq!(at.name(), "Odd \"one");
        assert!(at.skip("add") && !at.skip("column"));
        assert_eq!(at.rest().collect::<Vec<_>>(), ["a", "not", "valid"]);
        assert!(at.ends_with_not_valid());
        assert_eq!(without_literals("SELECT 'a''b', \"c\" WHERE d = 'open"), "SELECT '...', \"c\" WHERE d = '...'");
        assert_eq!(
            without_literals(r"SELECT E'a\'b', $$c$$, $m$d$m$, $1, e$f, 'ü' FROM t"),
            "SELECT E'...', '...', '...', $1, e$f, '...' FROM t"
        );
        assert!(words("").peek().is_empty() && words("'open").peek().is_empty() && words("\"").peek().is_empty());
    }
}
