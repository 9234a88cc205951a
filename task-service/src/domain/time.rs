//! The service's clock.

use chrono::{DateTime, SubsecRound as _, Utc};

/// Now, in whole microseconds as PostgreSQL keeps them, so that what a caller gets back equals what is stored.
pub fn now() -> DateTime<Utc> {
    Utc::now().trunc_subsecs(6)
}
