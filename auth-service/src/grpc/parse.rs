//! Requests of auth.v1 into domain values. All violations of a request come at once, each with the path of its field.

use std::collections::BTreeSet;

use auth_client::{Principal, PrincipalKind};
use chrono::{DateTime, TimeDelta, Utc};
use proto::auth::v1;
use proto::field_mask;
use proto::time::to_utc;
use proto::validate::{Validate, Violation};
use service_kit::page_token::Bound;
use service_kit::stack::RequestId;
use tonic::Request;
use uuid::Uuid;
use zeroize::Zeroizing;

use crate::domain::account::{Email, Username};
use crate::domain::audit::{AuditFilter, Origin};
use crate::domain::password::check_new_password;
use crate::domain::role::{self, NewRole, RoleChange, RoleName};
use crate::domain::service_account::{self, NewServiceAccount};
use crate::domain::user::ImportedUser;
use crate::domain::user_list::{UserFilter, UserOrder, UserQuery};
use crate::errors::{AuthReason, Problem};
use crate::flows::SignUp;
use crate::store::accounts::AccountChange;
use crate::store::callers::{Acting, Caller, Program};

/// Most characters of a user agent that are kept.
const LONGEST_USER_AGENT: usize = 256;

/// `users.password_hash` is no wider.
const LONGEST_HASH: usize = 255;

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

    /// Permissions of the catalogue; the place of one that is not there.
    fn permissions(&mut self, field: &str, names: &[String]) -> Option<BTreeSet<String>> {
        match role::permissions(names) {
            Ok(permissions) => Some(permissions),
            Err(place) => {
                let expected = "expected a permission of the catalogue: see ListPermissions";
                self.keep(&format!("{field}[{place}]"), Err(expected))
            }
        }
    }

    /// The parsed value, if nothing at all was wrong.
    fn finish<T>(self, value: Option<T>) -> Result<T, Problem> {
        match value {
            Some(value) if self.found.is_empty() => Ok(value),
            _ => Err(invalid(self.found)),
        }
    }
}

fn invalid(violations: Vec<Violation>) -> Problem {
    let problem = Problem::new(AuthReason::InvalidArgument);
    violations.into_iter().fold(problem, |problem, violation| problem.field(violation.field, violation.description))
}

pub(super) fn sign_up(request: v1::SignUpRequest) -> Result<SignUp, Problem> {
    let mut violations = Violations::of(&request);
    let email = violations.keep("email", Email::parse(&request.email));
    let username = violations.keep("username", Username::parse(&request.username));
    violations.keep("password", check_new_password(&request.password, &request.email, &request.username));
    let password = Zeroizing::new(request.password);
    violations.finish((|| Some(SignUp { email: email?, username: username?, password }))())
}

/// What a user may change of its own account.
const WRITABLE_BY_OWNER: [&str; 2] = ["email", "username"];

pub(super) fn update_me(request: &v1::UpdateMeRequest) -> Result<AccountChange, Problem> {
    let (user, named) = masked(request.user.as_ref(), request.update_mask.as_ref(), &WRITABLE_BY_OWNER)?;
    account_change(user, &named)
}

/// The resource of an update and the fields that change.
fn masked<'r>(
    user: Option<&'r v1::User>,
    mask: Option<&prost_types::FieldMask>,
    writable: &[&str],
) -> Result<(&'r v1::User, BTreeSet<String>), Problem> {
    let user =
        user.ok_or_else(|| Problem::new(AuthReason::InvalidArgument).field("user", "expected a value; it is missing"))?;
    let named = field_mask::effective("auth.v1.User", user, mask, writable).map_err(invalid)?;
    if named.is_empty() {
        let expected = "expected at least one field to change, in the mask or set in the user";
        return Err(Problem::new(AuthReason::InvalidArgument).field("update_mask", expected));
    }
    Ok((user, named))
}

/// Fields outside the mask are not looked at: an account may be sent back whole.
fn account_change(user: &v1::User, named: &BTreeSet<String>) -> Result<AccountChange, Problem> {
    let mut violations = Violations { found: Vec::new() };
    let is_named = |field: &str| named.contains(field);
    let email = is_named("email").then(|| violations.keep("user.email", Email::parse(&user.email))).flatten();
    let username =
        is_named("username").then(|| violations.keep("user.username", Username::parse(&user.username))).flatten();
    let email_verified = is_named("email_verified").then_some(user.email_verified);
    violations.finish(Some(AccountChange { email, username, email_verified }))
}

/// The list of the caller's sessions has no filter.
pub(super) fn sessions(caller: Caller, request: &v1::ListSessionsRequest) -> Result<Bound, Problem> {
    Violations::of(request).finish(Some(()))?;
    Ok(Bound::new("sessions", caller.user_id.as_bytes()))
}

/// Which events, and what their page tokens are bound to.
pub(super) fn audit_filter(
    caller: Acting,
    request: &v1::ListAuditEventsRequest,
) -> Result<(AuditFilter, Bound), Problem> {
    let mut violations = Violations::of(request);
    let actor_id = violations.keep("actor_id", optional(&request.actor_id, uuid));
    let after = violations.keep("occurred_after", time(request.occurred_after.as_ref()));
    let before = violations.keep("occurred_before", time(request.occurred_before.as_ref()));
    let parts = violations.finish((|| Some((actor_id?, after?, before?)))());
    let (actor_id, after, before) = parts?;
    // Numbers that mean nothing are among the proto's own violations.
    let mut actions: Vec<_> =
        request.actions.iter().filter_map(|number| v1::AuditAction::try_from(*number).ok()).collect();
    actions.sort_unstable();
    actions.dedup();
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let filter = AuditFilter {
        actor_id,
        target_id: given(&request.target_id),
        target_type: v1::AuditTargetType::try_from(request.target_type)
            .ok()
            .filter(|kind| *kind != v1::AuditTargetType::Unspecified),
        actions,
        refused: match request.outcome() {
            v1::AuditOutcome::Unspecified => None,
            v1::AuditOutcome::Succeeded => Some(false),
            v1::AuditOutcome::Refused => Some(true),
        },
        source: given(&request.source),
        request_id: given(&request.request_id),
        after,
        before,
    };
    let actions: Vec<u8> = filter.actions.iter().flat_map(|action| i32::from(*action).to_be_bytes()).collect();
    let bound = Bound::new("audit events", caller.id().as_bytes())
        .part(request.actor_id.as_bytes())
        .part(request.target_id.as_bytes())
        .part(&request.target_type.to_be_bytes())
        .part(&actions)
        .part(&request.outcome.to_be_bytes())
        .part(request.source.as_bytes())
        .part(request.request_id.as_bytes())
        .part(&micros(filter.after))
        .part(&micros(filter.before));
    Ok((filter, bound))
}

/// Which accounts in which order, and what their page tokens are bound to.
pub(super) fn users(caller: Acting, request: &v1::ListUsersRequest) -> Result<(UserQuery, Bound), Problem> {
    let mut violations = Violations::of(request);
    let order = violations.keep("order_by", UserOrder::parse(&request.order_by));
    let after = violations.keep("created_after", time(request.created_after.as_ref()));
    let before = violations.keep("created_before", time(request.created_before.as_ref()));
    let (order, created_after, created_before) = violations.finish((|| Some((order?, after?, before?)))())?;
    let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
    let filter = UserFilter {
        role: given(&request.role),
        is_active: request.is_active,
        email_verified: request.email_verified,
        email_contains: given(&request.email_contains),
        username_contains: given(&request.username_contains),
        created_after,
        created_before,
    };
    let flag = |flag: Option<bool>| [flag.map_or(2, u8::from)];
    let bound = Bound::new("users", caller.id().as_bytes())
        .part(format!("{order:?}").as_bytes())
        .part(request.role.as_bytes())
        .part(&flag(filter.is_active))
        .part(&flag(filter.email_verified))
        .part(request.email_contains.as_bytes())
        .part(request.username_contains.as_bytes())
        .part(&micros(filter.created_after))
        .part(&micros(filter.created_before));
    Ok((UserQuery { filter, order }, bound))
}

/// What an administrator may change of an account.
const WRITABLE_BY_ADMINISTRATOR: [&str; 3] = ["email", "username", "email_verified"];

pub(super) fn update_user(request: &v1::UpdateUserRequest) -> Result<(Uuid, AccountChange), Problem> {
    let (user, named) = masked(request.user.as_ref(), request.update_mask.as_ref(), &WRITABLE_BY_ADMINISTRATOR)?;
    let id = id(&v1::GetUserRequest { id: user.id.clone() }, "id", &user.id)
        .map_err(|_| Problem::new(AuthReason::InvalidArgument).field("user.id", "expected a UUID"))?;
    Ok((id, account_change(user, &named)?))
}

pub(super) fn create_role(request: &v1::CreateRoleRequest) -> Result<NewRole, Problem> {
    let mut violations = Violations::of(request);
    let name = violations.keep("name", RoleName::parse(&request.name));
    let permissions = violations.permissions("permissions", &request.permissions);
    let (name, permissions) = violations.finish((|| Some((name?, permissions?)))())?;
    let display_name = match request.display_name.as_str() {
        "" => name.as_str().to_owned(),
        given => given.to_owned(),
    };
    Ok(NewRole { id: Uuid::now_v7(), name, display_name, description: request.description.clone(), permissions })
}

pub(super) fn create_service_account(request: &v1::CreateServiceAccountRequest) -> Result<NewServiceAccount, Problem> {
    let mut violations = Violations::of(request);
    let name = violations.keep("name", service_account::name(&request.name));
    let permissions = violations.permissions("permissions", &request.permissions);
    let (name, permissions) = violations.finish((|| Some((name?, permissions?)))())?;
    Ok(NewServiceAccount::new(name, permissions))
}

/// Which service account, and how long its last secret stays good.
pub(super) fn rotate_secret(request: &v1::RotateSecretRequest) -> Result<(Uuid, TimeDelta), Problem> {
    let id = id(request, "id", &request.id)?;
    let overlap = request.overlap.map_or(service_account::OVERLAP, |overlap| {
        TimeDelta::seconds(overlap.seconds) + TimeDelta::nanoseconds(overlap.nanos.into())
    });
    Ok((id, overlap))
}

/// What of a role can change.
const WRITABLE_OF_ROLE: [&str; 5] = ["name", "display_name", "description", "permissions", "is_active"];

/// Which role, and what changes. Fields outside the mask are not looked at: a role may be sent back whole.
pub(super) fn update_role(request: v1::UpdateRoleRequest) -> Result<(Uuid, RoleChange), Problem> {
    let role = request
        .role
        .ok_or_else(|| Problem::new(AuthReason::InvalidArgument).field("role", "expected a value; it is missing"))?;
    let named = field_mask::effective("auth.v1.Role", &role, request.update_mask.as_ref(), &WRITABLE_OF_ROLE);
    let named = named.map_err(invalid)?;
    if named.is_empty() {
        let expected = "expected at least one field to change, in the mask or set in the role";
        return Err(Problem::new(AuthReason::InvalidArgument).field("update_mask", expected));
    }
    let is_named = |field: &str| named.contains(field);
    let mut checked = v1::Role { id: role.id.clone(), ..Default::default() };
    if is_named("display_name") {
        checked.display_name.clone_from(&role.display_name);
    }
    if is_named("description") {
        checked.description.clone_from(&role.description);
    }
    if is_named("permissions") {
        checked.permissions.clone_from(&role.permissions);
    }
    let mut violations = Violations::of(&v1::UpdateRoleRequest { role: Some(checked), update_mask: None });
    let id = violations.keep("role.id", uuid(&role.id));
    let name = is_named("name").then(|| violations.keep("role.name", RoleName::parse(&role.name))).flatten();
    let permissions =
        is_named("permissions").then(|| violations.permissions("role.permissions", &role.permissions)).flatten();
    let display_name = is_named("display_name").then_some(role.display_name);
    if display_name.as_deref() == Some("") {
        violations.keep("role.display_name", Err::<(), _>("expected 1 to 100 characters"));
    }
    let description = is_named("description").then_some(role.description);
    let is_active = is_named("is_active").then_some(role.is_active);
    let id = violations.finish(id)?;
    Ok((id, RoleChange { name, display_name, description, permissions, is_active }))
}

/// A request that has nothing but the proto's own rules.
pub(super) fn valid(request: &impl Validate) -> Result<(), Problem> {
    Violations::of(request).finish(Some(()))
}

/// A required id.
pub(super) fn id(request: &impl Validate, field: &str, text: &str) -> Result<Uuid, Problem> {
    let mut violations = Violations::of(request);
    let id = violations.keep(field, uuid(text));
    violations.finish(id)
}

/// Ids that are all required.
pub(super) fn ids(request: &v1::BatchGetUsersRequest) -> Result<Vec<Uuid>, Problem> {
    let mut violations = Violations::of(request);
    let ids: Vec<Option<Uuid>> = request
        .ids
        .iter()
        .enumerate()
        .map(|(place, text)| violations.keep(&format!("ids[{place}]"), uuid(text)))
        .collect();
    violations.finish(ids.into_iter().collect())
}

fn uuid(text: &str) -> Result<Uuid, &'static str> {
    Uuid::parse_str(text).map_err(|_| "expected a UUID")
}

/// An empty text is none.
fn optional<T>(text: &str, parse: impl FnOnce(&str) -> Result<T, &'static str>) -> Result<Option<T>, &'static str> {
    if text.is_empty() { Ok(None) } else { parse(text).map(Some) }
}

/// A bound of a list. What PostgreSQL cannot hold lies beyond every event, and is cut to what it can.
fn time(timestamp: Option<&prost_types::Timestamp>) -> Result<Option<DateTime<Utc>>, &'static str> {
    let expected = "expected a time from 0001-01-01T00:00:00Z to 9999-12-31T23:59:59.999999999Z";
    timestamp.map(|timestamp| to_utc(timestamp).ok_or(expected)).transpose()
}

fn micros(time: Option<DateTime<Utc>>) -> Vec<u8> {
    time.map(|time| time.timestamp_micros().to_be_bytes().to_vec()).unwrap_or_default()
}

/// Not the nil UUID, which stands for nobody: tasks without an owner are its.
fn somebodys_id(text: &str) -> Result<Uuid, &'static str> {
    uuid(text)
        .ok()
        .filter(|id| !id.is_nil())
        .ok_or("expected a UUID other than the nil UUID, of an account that is not being deleted")
}

/// An account that is to be taken over; `importable` says what is wrong with a hash.
pub(super) fn imported(
    user: v1::ImportedUser,
    importable: impl FnOnce(&str) -> Result<(), String>,
) -> Result<ImportedUser, Problem> {
    let mut violations = Violations { found: Vec::new() };
    let own_id = violations.keep("id", optional(&user.id, somebodys_id));
    let email = violations.keep("email", Email::parse(&user.email));
    let username = violations.keep("username", Username::parse(&user.username));
    let fits = user.password_hash.len() <= LONGEST_HASH && !user.password_hash.contains('\0');
    let hash = if fits { importable(&user.password_hash) } else { Err("expected 255 characters or less".to_owned()) };
    violations.keep("password_hash", hash);
    let role = match user.role.as_str() {
        "" => "member".to_owned(),
        role => role.to_owned(),
    };
    if role.len() > LONGEST_HASH || role.contains('\0') {
        violations.keep("role", Err::<(), _>("expected the name of a role"));
    }
    let created_at = violations.keep("created_at", time(user.created_at.as_ref()));
    let parts = (|| Some((own_id?, email?, username?, created_at?)))();
    let (own_id, email, username, created_at) = violations.finish(parts)?;
    Ok(ImportedUser {
        id: own_id.unwrap_or_else(Uuid::now_v7),
        has_own_id: own_id.is_some(),
        email,
        username,
        password_hash: user.password_hash,
        email_verified: user.email_verified,
        is_active: !user.is_deactivated,
        role,
        created_at: created_at.unwrap_or_else(Utc::now),
    })
}

/// The revision to follow from.
pub(super) fn watch(request: &v1::WatchRevocationsRequest) -> Result<i64, Problem> {
    Violations::of(request).finish(Some(request.after_revision))
}

/// From where a call comes. What the client says of itself is kept without control characters.
pub(super) fn origin<T>(request: &Request<T>) -> Origin {
    let said = request.metadata().get("user-agent").and_then(|value| value.to_str().ok());
    let user_agent = said.map(|text| text.chars().filter(|c| !c.is_control()).take(LONGEST_USER_AGENT).collect());
    Origin {
        user_agent,
        source: request.remote_addr().map(|address| address.ip().to_canonical().to_string()),
        request_id: request.extensions().get::<RequestId>().map(|id| id.as_str().to_owned()),
    }
}

/// The user and the session of the caller. The access layer has put the verified principal there; metadata never names a user.
pub(super) fn user_caller<T>(request: &Request<T>) -> Result<Caller, Problem> {
    let principal = request.extensions().get::<Principal>().ok_or(AuthReason::TokenMissing)?;
    match (principal.kind, principal.session_id) {
        (PrincipalKind::User, Some(session_id)) => Ok(caller_as(principal, session_id)),
        _ => Err(AuthReason::UserNotFound.into()),
    }
}

/// The person or the program that administrates.
pub(super) fn acting<T>(request: &Request<T>) -> Result<Acting, Problem> {
    Ok(acting_as(request.extensions().get::<Principal>().ok_or(AuthReason::TokenMissing)?))
}

/// Whom a verified token is of.
pub(super) fn acting_as(principal: &Principal) -> Acting {
    match principal.session_id {
        Some(session_id) => Acting::Person(caller_as(principal, session_id)),
        None => Acting::Program(Program { id: principal.id, revision: principal.revision }),
    }
}

fn caller_as(principal: &Principal, session_id: Uuid) -> Caller {
    Caller { user_id: principal.id, session_id, revision: principal.revision }
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
