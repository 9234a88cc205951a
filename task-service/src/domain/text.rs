//! Titles, descriptions and search texts: their limits, counted in characters as the database counts them
//! (`char_length`, constraint `tasks_limits_check`).

use super::Invalid;

/// Longest title, in characters.
pub const TITLE_MAX: usize = 200;
/// Longest description, in characters.
pub const DESCRIPTION_MAX: usize = 10_000;

/// Most characters of a title or a description in a list. Only rows from before today's limits have more. It lies above both limits,
/// so that a client cannot write a cut text back by accident, and so low that any task fits into a message.
pub const LISTED_MAX: usize = 65_536;

/// Longest search text, in characters: a longer one could not be in a title.
pub const SEARCH_MAX: usize = 200;

/// A title: 1 to 200 characters after trimming, none of them a control character.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Title(String);

/// A description: at most 10,000 characters, none of them NUL. Never empty: that is "none".
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Description(String);

/// A text to look for in titles or descriptions. Never empty.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SearchText(String);

impl Title {
    /// Trims and checks a title.
    pub fn parse(text: &str) -> Result<Self, Invalid> {
        let text = text.trim();
        let length = text.chars().count();
        if length == 0 || length > TITLE_MAX {
            return Err(Invalid("must have 1 to 200 characters, not counting white space at its ends"));
        }
        if text.chars().any(char::is_control) {
            return Err(Invalid("must not contain control characters, such as a line end"));
        }
        Ok(Self(text.to_owned()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl Description {
    /// Checks a description; an empty one is `None`. White space is kept as it is: it may be an indented list.
    pub fn parse(text: &str) -> Result<Option<Self>, Invalid> {
        if text.chars().count() > DESCRIPTION_MAX {
            return Err(Invalid("must have at most 10000 characters"));
        }
        not_nul(text)?;
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl SearchText {
    /// Checks a search text; an empty one is `None`.
    pub fn parse(text: &str) -> Result<Option<Self>, Invalid> {
        if text.chars().count() > SEARCH_MAX {
            return Err(Invalid("must have at most 200 characters"));
        }
        not_nul(text)?;
        Ok((!text.is_empty()).then(|| Self(text.to_owned())))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// The text as a pattern for LIKE with its default escape character.
    pub fn like_pattern(&self) -> String {
        let mut pattern = String::with_capacity(self.0.len() + 2);
        pattern.push('%');
        for c in self.0.chars() {
            if matches!(c, '%' | '_' | '\\') {
                pattern.push('\\');
            }
            pattern.push(c);
        }
        pattern.push('%');
        pattern
    }
}

/// PostgreSQL's text cannot hold it: the statement would fail.
fn not_nul(text: &str) -> Result<(), Invalid> {
    if text.contains('\0') { Err(Invalid("must not contain the NUL character")) } else { Ok(()) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_title_is_trimmed_and_counted_in_characters() {
        assert_eq!(Title::parse(" \t a b \n").map(|t| t.as_str().to_owned()), Ok("a b".to_owned()));
        assert!(Title::parse(&"ß".repeat(200)).is_ok());
        assert!(Title::parse(&format!(" {} ", "🦀".repeat(200))).is_ok());
        for bad in ["", "  \u{3000} ", "a\nb", "a\0b", "a\u{85}b", &"x".repeat(201)] {
            assert!(Title::parse(bad).is_err(), "{bad:?}");
        }
    }

    #[test]
    fn a_description_keeps_its_lines() {
        assert_eq!(Description::parse(""), Ok(None));
        let text = " 1.\ta\r\n 2. b ";
        assert_eq!(Description::parse(text).map(|d| d.map(|d| d.as_str().to_owned())), Ok(Some(text.to_owned())));
        assert!(Description::parse(&"é".repeat(10_000)).is_ok());
        assert!(Description::parse(&"é".repeat(10_001)).is_err());
        assert!(Description::parse("a\0").is_err());
    }

    #[test]
    fn a_search_text_is_taken_literally() {
        let text = SearchText::parse(r"50%_\").unwrap().unwrap();
        assert_eq!(text.like_pattern(), r"%50\%\_\\%");
        assert_eq!(SearchText::parse(""), Ok(None));
        assert!(SearchText::parse("\0").is_err());
        assert!(SearchText::parse(&"x".repeat(201)).is_err());
    }
}
