//! The migrations of auth-service, and what adoption should tell a person about the data.

use futures_util::future::BoxFuture;
use migration_engine::{DataStep, Finding, MigrationSet, SetError};

use crate::store::login_keys::fill_missing_keys;

include!(concat!(env!("OUT_DIR"), "/migrations.rs"));

/// The embedded set.
///
/// # Errors
/// When an embedded file breaks a rule of the engine; a test finds that before anybody else does.
pub fn set() -> Result<MigrationSet, SetError> {
    Ok(MigrationSet::new("auth-service", MIGRATIONS, EXPECTED, SIBLINGS)?
        .with_step(FillLoginKeys)
        .with_findings(FINDINGS))
}

/// Keys of addresses and names beyond ASCII, with the case folding that sign-in uses.
struct FillLoginKeys;

impl DataStep for FillLoginKeys {
    fn description(&self) -> &str {
        "Computed the case-insensitive keys of e-mail addresses and user names beyond ASCII"
    }

    fn run<'a>(&'a self, client: &'a tokio_postgres::Client) -> BoxFuture<'a, Result<u64, tokio_postgres::Error>> {
        Box::pin(fill_missing_keys(client))
    }
}

/// Samples are ids, never addresses: reports end in logs.
const FINDINGS: &[Finding] = &[
    Finding {
        code: "PUBLISHED_PASSWORD_HASH",
        query: "SELECT count(*), array_agg(id::text ORDER BY id) FROM users WHERE password_hash = \
                '$argon2id$v=19$m=65536,t=3,p=4$rwjnw7itO1QP7YiQLYYPuw$bwYljZ/eNoieCwcPydAbagPt05UT9wcs+n0zH58ZxS4'",
        message: "{count} account(s) still have the administrator's password hash whose password was published with the old source",
        advice: "set another one now: auth-service admin bootstrap --email <the account's address> --password-stdin --reset",
    },
    Finding {
        code: "UNREADABLE_PASSWORD_HASH",
        query: "SELECT count(*), (array_agg(id::text ORDER BY id))[1:20] FROM users WHERE password_hash !~ \
                '^\\$argon2(id|i|d)\\$(v=\\d+\\$)?m=\\d+,t=\\d+,p=\\d+(,[a-z]+=[^$]+)*\\$[A-Za-z0-9+/]+\\$[A-Za-z0-9+/]+$' AND password_hash !~ \
                '^\\$(2[aby]\\$\\d\\d\\$[./A-Za-z0-9]{53}|(scrypt|pbkdf2-sha256|pbkdf2-sha512)\\$[^$]+\\$[^$]+\\$[^$]+)$'",
        message: "{count} account(s) have a stored password hash that this service cannot read, so no password can fit (a shell or compose file may have eaten its $ signs)",
        advice: "let their owners reset the password, or for an administrator: auth-service admin bootstrap --email <address> --password-stdin --reset",
    },
    Finding {
        code: "DUPLICATE_EMAIL",
        query: "SELECT count(*), (array_agg(id::text ORDER BY created_at, id))[1:20] FROM users WHERE email_key IS NULL",
        message: "{count} account(s) have an e-mail address that differs from an older account's only by case; kept, and they sign in with the exact spelling",
        advice: "ask the owners which account stays; nothing is merged by itself",
    },
    Finding {
        code: "DUPLICATE_USERNAME",
        query: "SELECT count(*), (array_agg(id::text ORDER BY created_at, id))[1:20] FROM users WHERE username_key IS NULL",
        message: "{count} account(s) have a user name that differs from an older account's only by case; kept, and they sign in with the exact spelling",
        advice: "ask the owners which account stays; nothing is merged by itself",
    },
    Finding {
        code: "NO_ADMINISTRATOR",
        query: "SELECT CASE WHEN EXISTS (SELECT FROM users) AND NOT EXISTS (SELECT FROM users JOIN roles ON roles.id = users.role_id \
                WHERE roles.name = 'admin' AND users.is_active) THEN 1 ELSE 0 END::bigint, NULL::text[]",
        message: "no active administrator",
        advice: "make one: auth-service admin bootstrap --email <address> --password-stdin",
    },
];

#[cfg(test)]
mod tests {
    #[test]
    fn the_embedded_set_keeps_the_rules() {
        let set = super::set().unwrap();
        assert!(!set.migrations.is_empty());
    }
}
