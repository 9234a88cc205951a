//! Both services on a private PostgreSQL: the parts of `cargo up`, also used by the tests.
//!
//! [`postgres`] finds or installs PostgreSQL and runs private clusters; [`up`] is the command itself; [`guard`] ends what a
//! killed run leaves behind.

pub mod files;
pub mod guard;
pub mod health;
mod marker;
pub mod postgres;
pub mod process;
pub mod programs;
pub mod up;
