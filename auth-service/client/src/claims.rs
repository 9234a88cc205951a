//! The claims of an access token: one definition for the issuer and for every verifier.

use std::collections::BTreeSet;

use serde::{Deserialize, Serialize};

/// `typ` of an access token (RFC 9068); a token of any other type is refused.
pub const TOKEN_TYPE: &str = "at+jwt";

/// Claims of an access token. Times are seconds since the Unix epoch.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Claims {
    /// Who issued the token.
    pub iss: String,
    /// For whom it is meant.
    pub aud: String,
    /// Id of the user or the service account, a UUID.
    pub sub: String,
    /// Not valid from this time on.
    pub exp: u64,
    /// Issued at.
    pub iat: u64,
    /// Not valid before.
    pub nbf: u64,
    /// Id of the token, unique.
    pub jti: String,
    /// The newest revocation that the issuer knew of: what was revoked later voids the token. 0: not said.
    #[serde(default)]
    pub rev: i64,
    /// Id of the session, a UUID; absent in the token of a service account.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub sid: Option<String>,
    /// Name of the role; empty for a service account.
    #[serde(default)]
    pub role: String,
    /// Permissions by their names in the catalogue.
    #[serde(default)]
    pub permissions: BTreeSet<String>,
}
