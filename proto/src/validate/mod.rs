//! The `buf.validate` rules of the messages, as code that the build writes from the .proto files.
//!
//! ```text
//! request.validate()?   // all violations at once, each with the path of its field, as in "requests[3].title"
//! ```
//!
//! A rule that the generator does not know fails the build. Rules that need more than one field, the trimmed value or the
//! database are checked by the services; the .proto comments say so.

mod check;
#[cfg(test)]
mod tests;

use std::fmt;

/// No more violations than this are reported: details of a status travel in headers, which are limited to 16 KiB.
pub const MAX_VIOLATIONS: usize = 50;

/// One field that breaks a rule: what `google.rpc.BadRequest.FieldViolation` wants to know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Violation {
    /// The path of the field from the request on, as in "task.title" or "requests[3].title".
    pub field: String,
    /// What was expected. Never the value itself.
    pub description: String,
}

/// A message with rules, or without any.
pub trait Validate {
    /// Adds the violations of this message, which stands at `at` in the request.
    fn collect(&self, at: &Path<'_>, out: &mut Vec<Violation>);

    /// Checks the message and everything in it.
    ///
    /// # Errors
    /// Every rule that is broken, in the order of the fields, up to [`MAX_VIOLATIONS`].
    fn validate(&self) -> Result<(), Vec<Violation>> {
        let mut out = Vec::new();
        self.collect(&Path::ROOT, &mut out);
        if out.is_empty() { Ok(()) } else { Err(out) }
    }
}

/// Where a value stands in the request. It is written out only when there is something to report.
#[derive(Clone, Copy, Debug)]
pub struct Path<'a> {
    parent: Option<&'a Path<'a>>,
    name: &'static str,
    index: Option<usize>,
}

impl Path<'static> {
    /// The request itself.
    pub const ROOT: Path<'static> = Path { parent: None, name: "", index: None };
}

impl<'a> Path<'a> {
    /// A field of the message at this path.
    pub fn field(&'a self, name: &'static str) -> Path<'a> {
        Path { parent: Some(self), name, index: None }
    }

    /// An item of the repeated field at this path, counted from 0.
    pub fn item(&self, index: usize) -> Path<'a> {
        Path { index: Some(index), ..*self }
    }
}

impl fmt::Display for Path<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(parent) = self.parent.filter(|parent| !parent.name.is_empty()) {
            write!(f, "{parent}.")?;
        }
        f.write_str(self.name)?;
        match self.index {
            Some(index) => write!(f, "[{index}]"),
            None => Ok(()),
        }
    }
}

mod generated {
    //! `impl Validate` for every message of the packages.
    use super::{Path, Validate, Violation, check};

    include!(concat!(env!("OUT_DIR"), "/validate.rs"));
}
