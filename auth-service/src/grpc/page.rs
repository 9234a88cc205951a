//! Pages of lists: from the request's size and token, to the answer's. What orders a list gives its place as bytes.

use service_kit::page_token::{Bound, PageTokens};

use crate::domain::page::page_size;
use crate::errors::{Problem, page_token_problem};

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
    /// The page, if the token belongs to this list and `place` reads it.
    pub(super) fn open<C>(
        self,
        tokens: &PageTokens,
        bound: &Bound,
        place: impl Fn(&[u8]) -> Option<C>,
    ) -> Result<Page<C>, Problem> {
        let behind = match self.token {
            "" => None,
            token => {
                let bytes = tokens.open(bound, token).map_err(|_| page_token_problem())?;
                Some(place(&bytes).ok_or_else(page_token_problem)?)
            }
        };
        Ok(Page { size: page_size(self.size), behind })
    }
}

impl<C> Page<C> {
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
        place: impl Fn(&T) -> Vec<u8>,
    ) -> (Vec<T>, String) {
        let size = usize::try_from(self.size).unwrap_or(usize::MAX);
        let has_more = found.len() > size;
        found.truncate(size);
        let last = found.last().filter(|_| has_more).map(place);
        let token = last.map(|place| tokens.seal(bound, &place)).unwrap_or_default();
        (found, token)
    }
}

/// The place in a list that a name orders.
pub(super) fn name(bytes: &[u8]) -> Option<String> {
    String::from_utf8(bytes.to_vec()).ok()
}
