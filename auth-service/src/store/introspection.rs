//! Whether a token that verifies is still good: what it says is compared with what is so now.

use std::collections::BTreeSet;

use chrono::{DateTime, Utc};

use super::callers::{Acting, caller_check_on_conn, caller_may_on_conn};
use super::roles::role_permissions_on_conn;
use super::service_accounts::program_permissions_on_conn;
use super::{AuthStore, ChangeError};

/// The permission to ask.
const INTROSPECT: &str = "tokens.introspect";

/// What a token says.
#[derive(Debug, Clone, Copy)]
pub struct Said<'t> {
    /// Whose it is.
    pub whose: Acting,
    /// The role; empty for a service account.
    pub role: &'t str,
    /// What it allows.
    pub permissions: &'t BTreeSet<String>,
}

impl AuthStore {
    /// Whether a token is good now: its session goes on and its account is active, with the same role, which still allows
    /// what the token allows. `None` is a token that does not verify: only the asker is checked.
    pub async fn token_is_good(
        &self,
        acting: Acting,
        said: Option<Said<'_>>,
        now: DateTime<Utc>,
    ) -> Result<bool, ChangeError> {
        self.database
            .run("token_is_good", async |conn| {
                caller_may_on_conn(conn, acting, INTROSPECT, now).await?;
                let Some(said) = said else { return Ok(false) };
                let held = match said.whose {
                    Acting::Person(caller) => match role_now(caller_check_on_conn(conn, caller, now).await)? {
                        Some(role) if role == said.role => Some(role_permissions_on_conn(conn, &role).await?),
                        _ => None,
                    },
                    Acting::Program(program) => program_permissions_on_conn(conn, program).await?,
                };
                Ok::<_, ChangeError>(held.is_some_and(|held| said.permissions.is_subset(&held)))
            })
            .await
    }
}

/// A caller that is gone is an answer here.
fn role_now(checked: Result<String, ChangeError>) -> Result<Option<String>, ChangeError> {
    match checked {
        Ok(role) => Ok(Some(role)),
        Err(ChangeError::CallerGone) => Ok(None),
        Err(error) => Err(error),
    }
}
