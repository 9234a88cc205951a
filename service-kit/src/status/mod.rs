//! Errors as clients see them: one table per service, declared with [`crate::reasons!`], and the way from an entry of that table to
//! a `tonic::Status` with `google.rpc.ErrorInfo`, `BadRequest` and `RetryInfo`.
//!
//! Public text is constant. What really happened is logged once, where it is turned into a status ([`database_problem`],
//! [`internal_problem`]).
//!
//! ```
//! use service_kit::status::{Problem, Reason};
//! service_kit::reasons! {
//!     /// Errors of the pizza service.
//!     pub enum PizzaReason("pizza.v1") {
//!         /// No pizza of that id, or not the caller's.
//!         PizzaNotFound = "PIZZA_NOT_FOUND", NotFound, "There is no such pizza.";
//!     }
//! }
//! let status: tonic::Status = Problem::new(PizzaReason::PizzaNotFound).metadata("id", "7").into();
//! assert_eq!(status.code(), tonic::Code::NotFound);
//! let status: tonic::Status = Problem::new(PizzaReason::InvalidArgument).field("size", "must be 20 to 40").into();
//! assert_eq!(status.code(), tonic::Code::InvalidArgument);
//! ```

mod problem;
mod table;

pub use problem::{Problem, database_problem, internal_problem};
pub use table::{CommonReason, Reason, table_errors};
pub use tonic::Code;
