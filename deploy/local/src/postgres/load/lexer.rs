//! PostgreSQL's lexical rules, as far as they decide where a statement ends
//! (<https://www.postgresql.org/docs/current/sql-syntax-lexical.html>): quotes, dollar quotes, comments.

/// What kind of token it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind {
    /// Keyword or unquoted name.
    Word,
    /// Name in double quotes.
    Quoted,
    /// String, dollar-quoted text or number.
    Literal,
    /// Any other single character.
    Symbol(u8),
}

/// A token by its place in the text.
#[derive(Debug, Clone, Copy)]
pub(super) struct Token {
    pub(super) kind: Kind,
    pub(super) start: usize,
    pub(super) end: usize,
}

/// A construct that is open at the end of the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Unterminated {
    /// Where it begins.
    pub(super) start: usize,
    /// What it is, for people.
    pub(super) what: &'static str,
}

/// Reads tokens from `position` on.
pub(super) struct Lexer<'a> {
    text: &'a str,
    bytes: &'a [u8],
    pub(super) position: usize,
    /// `standard_conforming_strings = off`: a backslash escapes in ordinary strings too.
    pub(super) backslash_escapes: bool,
}

impl<'a> Lexer<'a> {
    pub(super) fn new(text: &'a str) -> Self {
        Self { text, bytes: text.as_bytes(), position: 0, backslash_escapes: false }
    }

    /// The next token after white space and comments; `None` at the end.
    pub(super) fn next(&mut self) -> Result<Option<Token>, Unterminated> {
        self.skip_blank()?;
        let start = self.position;
        let Some(&byte) = self.bytes.get(start) else {
            return Ok(None);
        };
        let kind = match byte {
            b'\'' => self.string(start, self.backslash_escapes)?,
            b'"' => {
                self.until(start + 1, "\"", start, "a quoted name")?;
                Kind::Quoted
            }
            b'$' => self.dollar(start)?,
            b'0'..=b'9' => {
                self.position = self.run(start, |b| b.is_ascii_alphanumeric() || b == b'.' || b == b'_');
                Kind::Literal
            }
            _ if is_word_start(byte) => {
                self.position = self.run(start, |b| is_word_start(b) || b.is_ascii_digit() || b == b'$');
                let is_prefix = self.bytes.get(self.position) == Some(&b'\'') && self.position == start + 1;
                match byte {
                    b'e' | b'E' if is_prefix => self.string(self.position, true)?,
                    b'b' | b'B' | b'x' | b'X' | b'n' | b'N' if is_prefix => {
                        self.string(self.position, self.backslash_escapes)?
                    }
                    _ => Kind::Word,
                }
            }
            _ => {
                self.position = start + 1;
                Kind::Symbol(byte)
            }
        };
        Ok(Some(Token { kind, start, end: self.position }))
    }

    fn skip_blank(&mut self) -> Result<(), Unterminated> {
        loop {
            self.position = self.run(self.position, |b| b.is_ascii_whitespace() || b == 0x0b);
            let rest = &self.bytes[self.position..];
            if rest.starts_with(b"--") {
                self.position = self.run(self.position, |b| b != b'\n');
            } else if rest.starts_with(b"/*") {
                self.comment()?;
            } else {
                return Ok(());
            }
        }
    }

    /// Block comments nest.
    fn comment(&mut self) -> Result<(), Unterminated> {
        let start = self.position;
        let mut depth = 0_usize;
        loop {
            let rest = &self.bytes[self.position..];
            if rest.is_empty() {
                return Err(Unterminated { start, what: "a comment" });
            } else if rest.starts_with(b"/*") {
                depth += 1;
                self.position += 2;
            } else if rest.starts_with(b"*/") {
                depth -= 1;
                self.position += 2;
                if depth == 0 {
                    return Ok(());
                }
            } else {
                self.position += 1;
            }
        }
    }

    /// A string whose opening quote stands at `quote`; a doubled quote is simply the next string.
    fn string(&mut self, quote: usize, escapes: bool) -> Result<Kind, Unterminated> {
        let mut at = quote + 1;
        loop {
            match self.bytes.get(at) {
                None => return Err(Unterminated { start: quote, what: "a string" }),
                Some(b'\\') if escapes => at += 2,
                Some(b'\'') if self.bytes.get(at + 1) == Some(&b'\'') => at += 2,
                Some(b'\'') => break,
                Some(_) => at += 1,
            }
        }
        self.position = at + 1;
        Ok(Kind::Literal)
    }

    fn dollar(&mut self, start: usize) -> Result<Kind, Unterminated> {
        let tag_end = self.run(start + 1, |b| is_word_start(b) || b.is_ascii_digit());
        let starts_with_digit = self.bytes.get(start + 1).is_some_and(u8::is_ascii_digit);
        if self.bytes.get(tag_end) != Some(&b'$') || starts_with_digit {
            // A parameter such as $1, or a lone sign.
            self.position = tag_end.max(start + 1);
            return Ok(Kind::Symbol(b'$'));
        }
        let delimiter = &self.text[start..=tag_end];
        self.until(tag_end + 1, delimiter, start, "a dollar-quoted text")?;
        Ok(Kind::Literal)
    }

    fn until(&mut self, from: usize, delimiter: &str, start: usize, what: &'static str) -> Result<(), Unterminated> {
        let found = self.text[from..].find(delimiter).ok_or(Unterminated { start, what })?;
        self.position = from + found + delimiter.len();
        Ok(())
    }

    fn run(&self, from: usize, belongs: impl Fn(u8) -> bool) -> usize {
        self.bytes[from..].iter().position(|byte| !belongs(*byte)).map_or(self.bytes.len(), |length| from + length)
    }
}

fn is_word_start(byte: u8) -> bool {
    byte.is_ascii_alphabetic() || byte == b'_' || byte >= 0x80
}
