//! Passwords: what a new one must be, what a hash may cost, and the threads that hash.

mod cost;
mod foreign;
mod phc;
mod pool;
mod rules;

pub use cost::{HashBounds, HashCost};
pub use phc::StoredHash;
pub use pool::{HashingBusy, HashingPool, HashingPoolConfig};
pub use rules::{PasswordProblem, check_new_password};
