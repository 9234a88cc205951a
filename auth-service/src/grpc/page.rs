//! Pages of lists: from the request's size and token, to the answer's. One form for what orders a list.

use service_kit::page_token::{Bound, PageTokens};

use crate::domain::page::{TimeCursor, page_size};
use crate::errors::{Problem, page_token_problem};

/// Where a page begins: the last entry of the page before, by what orders the list.
pub(super) trait Cursor: Sized {
    /// As sealed in a token.
    fn to_bytes(&self) -> Vec<u8>;
    /// From an opened token; `None` is damage.
    fn from_bytes(bytes: &[u8]) -> Option<Self>;
}

/// A list by time and id.
impl Cursor for TimeCursor {
    fn to_bytes(&self) -> Vec<u8> {
        Self::to_bytes(*self).to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_bytes(bytes)
    }
}

/// A list by a unique name.
impl Cursor for String {
    fn to_bytes(&self) -> Vec<u8> {
        self.as_bytes().to_vec()
    }

    fn from_bytes(bytes: &[u8]) -> Option<Self> {
        Self::from_utf8(bytes.to_vec()).ok()
    }
}

/// What a request says of its page.
pub(super) struct Asked<'r> {
    /// `page_size`, checked not to be negative.
    pub(super) size: i32,
    /// `page_token`.
    pub(super) token: &'r str,
}

/// A page that is to be read.
pub(super) struct Page<C> {
    size: i64,
    /// Behind which entry it begins; `None`: at the beginning.
    pub(super) behind: Option<C>,
}

impl Asked<'_> {
    /// The page, if the token belongs to this list.
    pub(super) fn open<C: Cursor>(self, tokens: &PageTokens, bound: &Bound) -> Result<Page<C>, Problem> {
        let behind = match self.token {
            "" => None,
            token => {
                let bytes = tokens.open(bound, token).map_err(|_| page_token_problem())?;
                Some(C::from_bytes(&bytes).ok_or_else(page_token_problem)?)
            }
        };
        Ok(Page { size: page_size(self.size), behind })
    }
}

impl<C: Cursor> Page<C> {
    /// How many entries to read: one more than the page has tells whether there is another one.
    pub(super) fn limit(&self) -> i64 {
        self.size + 1
    }

    /// The entries of the page and the token of the next one; empty after the last.
    pub(super) fn close<T>(
        &self,
        tokens: &PageTokens,
        bound: &Bound,
        mut found: Vec<T>,
        cursor: impl Fn(&T) -> C,
    ) -> (Vec<T>, String) {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let has_more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| has_more).map(cursor);
        let token = last.map(|cursor| tokens.seal(bound, &cursor.to_bytes())).unwrap_or_default();
        (found, token)
    }
}
