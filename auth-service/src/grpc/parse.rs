//! Requests of auth.v1 into domain values. All violations of a request come at once, each with the path of its field.

use auth_client::{Principal, PrincipalKind};
use proto::auth::v1;
use proto::validate::{Validate, Violation};
use tonic::Request;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::domain::account::{Email, Username};
use crate::domain::password::check_new_password;
use crate::errors::{AuthReason, Problem};
use crate::flows::{Device, SignUp};

/// Most characters of a user agent that are kept.
const LONGEST_USER_AGENT: usize = 256;

/// Collects what is wrong with a request.
struct Violations {
    found: Vec<Violation>,
}

impl Violations {
    /// Those of the proto's own rules.
    fn of(request: &impl Validate) -> Self {
        Self { found: request.validate().err().unwrap_or_default() }
    }

    /// The parsed value; a failure is kept unless the field has one already.
    fn keep<T>(&mut self, field: &str, parsed: Result<T, impl ToString>) -> Option<T> {
        parsed
            .map_err(|expected| {
                if !self.found.iter().any(|violation| violation.field == field) {
                    self.found.push(Violation { field: field.to_owned(), description: expected.to_string() });
                }
            })
            .ok()
    }

    /// The parsed value, if nothing at all was wrong.
    fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => {
                let problem = Problem::new(AuthReason::InvalidArgument);
                Err(self
                    .found
                    .into_iter()
                    .fold(problem, |problem, violation| problem.field(violation.field, violation.description)))
            }
        }
    }
}

pub(super) fn sign_up(request: v1::SignUpRequest) -> Result<SignUp, Problem> {
    let mut violations = Violations::of(&request);
    let email = violations.keep("email", Email::parse(&request.email));
    let username = violations.keep("username", Username::parse(&request.username));
    violations.keep("password", check_new_password(&request.password, &request.email, &request.username));
    let password = Zeroizing::new(request.password);
    violations.finish((|| Some(SignUp { email: email?, username: username?, password }))())
}

/// From where a call comes, for the list of sessions. What the client says of itself is kept without control characters.
pub(super) fn device<T>(request: &Request<T>) -> Device {
    let said = request.metadata().get("user-agent").and_then(|value| value.to_str().ok());
    let user_agent = said.map(|text| text.chars().filter(|c| !c.is_control()).take(LONGEST_USER_AGENT).collect());
    Device { user_agent, source_address: request.remote_addr().map(|address| address.ip().to_canonical().to_string()) }
}

/// The user and the session of the caller. The access layer has put the verified principal there; metadata never names a user.
pub(super) fn user_caller<T>(request: &Request<T>) -> Result<(Uuid, Uuid), Problem> {
    let principal = request.extensions().get::<Principal>().ok_or(AuthReason::TokenMissing)?;
    match (principal.kind, principal.session_id) {
        (PrincipalKind::User, Some(session_id)) => Ok((principal.id, session_id)),
        _ => Err(AuthReason::UserNotFound.into()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fields(email: &str, username: &str, password: &str) -> Vec<String> {
        let request =
            v1::SignUpRequest { email: email.to_owned(), username: username.to_owned(), password: password.to_owned() };
        match sign_up(request) {
            Ok(_) => Vec::new(),
            Err(problem) => {
                let status = tonic::Status::from(problem);
                let details = tonic_types::StatusExt::get_details_bad_request(&status).unwrap();
                details.field_violations.into_iter().map(|violation| violation.field).collect()
            }
        }
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once_and_once() {
        assert_eq!(fields("a@b.c", "bob", "correct zebra battery"), Vec::<String>::new());
        assert_eq!(fields("", "", ""), ["email", "username", "password"]);
        assert_eq!(fields("a@b.c", "b@b", "password"), ["username", "password"]);
        assert_eq!(fields("a@b.c", "bob", &"é".repeat(600)), ["password"]);
    }
}
