//! From a reason to a `tonic::Status` with rich details that stay small.

use std::collections::HashMap;
use std::error::Error as StdError;
use std::time::Duration;

use tonic::Status;
use tonic_types::{ErrorDetails, StatusExt as _};

use super::{CommonReason, Reason};
use crate::database::DatabaseError;

/// Most field violations a status names; clients refuse headers of 8 KiB and more.
const MAX_VIOLATIONS: usize = 16;
/// Longest field path and description, in bytes.
const MAX_FIELD: usize = 80;
const MAX_TEXT: usize = 100;
/// Most metadata entries of `ErrorInfo`.
const MAX_METADATA: usize = 6;
/// When to come back after the database was away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// An error on its way to the client.
#[derive(Debug, Clone)]
#[must_use]
pub struct Problem<R> {
    reason: R,
    fields: Vec<(String, String)>,
    more_fields: usize,
    metadata: HashMap<String, String>,
    retry_after: Option<Duration>,
}

impl<R: Reason> Problem<R> {
    /// The bare reason.
    pub fn new(reason: R) -> Self {
        Self { reason, fields: Vec::new(), more_fields: 0, metadata: HashMap::new(), retry_after: None }
    }

    /// Adds a field violation: the proto path (`task.title`) and what the value must be. After 16 only their number is kept.
    pub fn field(mut self, field: impl AsRef<str>, description: impl AsRef<str>) -> Self {
        if self.fields.len() < MAX_VIOLATIONS {
            self.fields.push((cut(field.as_ref(), MAX_FIELD), cut(description.as_ref(), MAX_TEXT)));
        } else {
            self.more_fields += 1;
        }
        self
    }

    /// Says the fields so far as those of a part: `title` within `requests[3]` is `requests[3].title`.
    pub fn within(mut self, part: &str) -> Self {
        for (field, _) in &mut self.fields {
            *field = cut(&format!("{part}.{field}"), MAX_FIELD);
        }
        self
    }

    /// Adds an entry to `ErrorInfo.metadata`; never a secret or an e-mail. After 6 entries further ones are dropped.
    pub fn metadata(mut self, key: impl AsRef<str>, value: impl AsRef<str>) -> Self {
        if self.metadata.len() < MAX_METADATA {
            self.metadata.insert(cut(key.as_ref(), MAX_FIELD), cut(value.as_ref(), MAX_TEXT));
        }
        self
    }

    /// Says when to try again (`RetryInfo`).
    pub fn retry_after(mut self, delay: Duration) -> Self {
        self.retry_after = Some(delay);
        self
    }

    /// The reason.
    pub fn reason(&self) -> R {
        self.reason
    }

    /// The first field that was named, with what its value must be.
    pub fn first_field(&self) -> Option<(String, String)> {
        self.fields.first().cloned()
    }

    /// Whether any field was named: handlers collect violations and answer only when there are some.
    pub fn has_fields(&self) -> bool {
        !self.fields.is_empty()
    }

    /// `Err(self)` when any field was named.
    pub fn into_result(self) -> Result<(), Self> {
        if self.has_fields() { Err(self) } else { Ok(()) }
    }
}

impl<R: Reason> From<R> for Problem<R> {
    fn from(reason: R) -> Self {
        Self::new(reason)
    }
}

impl<R: Reason> From<Problem<R>> for Status {
    fn from(problem: Problem<R>) -> Self {
        let Problem { reason, fields, more_fields, mut metadata, retry_after } = problem;
        let mut details = ErrorDetails::new();
        if more_fields > 0 {
            metadata.insert("more_violations".to_owned(), more_fields.to_string());
        }
        details.set_error_info(reason.name(), R::DOMAIN, metadata);
        for (field, description) in fields {
            details.add_bad_request_violation(field, description);
        }
        if retry_after.is_some() {
            details.set_retry_info(retry_after);
        }
        Status::with_error_details(reason.code(), reason.message(), details)
    }
}

/// What a database error means when no constraint of the service explains it: UNAVAILABLE with RetryInfo, DEADLINE_EXCEEDED, ABORTED
/// or INTERNAL. Logs the chain, so call it once, where the error is handled.
pub fn database_problem<R: Reason>(operation: &'static str, error: &DatabaseError) -> Problem<R> {
    let common = match error {
        DatabaseError::Unavailable { .. } => CommonReason::Unavailable,
        DatabaseError::Timeout => CommonReason::DeadlineExceeded,
        DatabaseError::Serialization(_) => CommonReason::ConcurrentChange,
        DatabaseError::Conflict { .. } | DatabaseError::Other(_) => CommonReason::Internal,
    };
    let chain = chain(error);
    let class = error.class();
    match common {
        CommonReason::Internal => tracing::error!(operation, class, error = %chain, "database error"),
        _ => tracing::warn!(operation, class, error = %chain, "database error"),
    }
    let problem = Problem::new(R::common(common));
    match common {
        CommonReason::Unavailable | CommonReason::ConcurrentChange => problem.retry_after(RETRY_AFTER),
        _ => problem,
    }
}

/// INTERNAL for an error that should not have happened. Logs the chain, so call it once, where the error is handled.
pub fn internal_problem<R: Reason>(operation: &'static str, error: &(dyn StdError + 'static)) -> Problem<R> {
    tracing::error!(operation, error = %chain(error), "internal error");
    Problem::new(R::common(CommonReason::Internal))
}

/// An error and its sources in one line; an error that only repeats its source is not told twice.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(source) = next {
        let line = source.to_string();
        if !text.ends_with(&line) {
            text.push_str(": ");
            text.push_str(&line);
        }
        next = source.source();
    }
    text.replace('\n', " ")
}

/// At most `most` bytes, cut at a character.
fn cut(text: &str, most: usize) -> String {
    let mut end = text.len().min(most);
    while !text.is_char_boundary(end) {
        end -= 1;
    }
    text.get(..end).unwrap_or_default().to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    crate::reasons! {
        /// Table of these tests.
        enum Table("test.v1") {
            /// Nothing there.
            ThingNotFound = "THING_NOT_FOUND", NotFound, "There is no such thing.";
        }
    }

    #[test]
    fn a_status_carries_reason_domain_fields_and_retry() {
        let problem = Problem::new(Table::InvalidArgument)
            .field("name", "must not be empty")
            .metadata("limit", "3")
            .retry_after(Duration::from_secs(2));
        let status = Status::from(problem);
        let details = status.get_error_details();
        let info = details.error_info().unwrap();
        assert_eq!(
            (info.reason.as_str(), info.domain.as_str(), info.metadata["limit"].as_str()),
            ("VALIDATION_FAILED", "test.v1", "3")
        );
        assert_eq!(details.bad_request().unwrap().field_violations[0].field, "name");
        assert_eq!(details.retry_info().unwrap().retry_delay, Some(Duration::from_secs(2)));
        assert_eq!(Status::from(Problem::from(Table::ThingNotFound)).message(), "There is no such thing.");
    }

    #[test]
    fn the_largest_status_stays_below_8_kib() {
        let long = "ä".repeat(10_000);
        let mut problem = Problem::new(Table::InvalidArgument);
        for index in 0..1000 {
            problem = problem.field(format!("tasks[{index}].{long}"), &long).metadata(format!("{index}{long}"), &long);
        }
        let status = Status::from(problem);
        let headers = status.into_http::<()>().into_parts().0.headers;
        let size: usize = headers.iter().map(|(name, value)| name.as_str().len() + value.len() + 32).sum();
        assert!(size < 7 * 1024, "{size}");
    }

    #[test]
    fn database_errors_become_the_common_reasons() {
        let away = DatabaseError::Unavailable { reason: "pool".to_owned(), source: None };
        let problem: Problem<Table> = database_problem("thing_get", &away);
        assert_eq!(problem.reason(), Table::Unavailable);
        assert!(Status::from(problem).get_error_details().retry_info().is_some());
        assert_eq!(database_problem::<Table>("thing_get", &DatabaseError::Timeout).reason(), Table::DeadlineExceeded);
        let other = DatabaseError::Other(diesel::result::Error::NotFound);
        assert_eq!(database_problem::<Table>("thing_get", &other).reason(), Table::Internal);
    }

    #[test]
    fn a_chain_tells_nothing_twice() {
        let other = DatabaseError::Other(diesel::result::Error::NotFound);
        assert_eq!(chain(&other), "the database refused the statement: Record not found");
    }
}
