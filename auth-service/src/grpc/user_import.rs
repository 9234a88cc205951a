//! The stream of auth.v1.UserService/ImportUsers: one answer for each account.

use std::collections::HashSet;

use proto::auth::v1::import_users_request::Part;
use proto::auth::v1::*;
use service_kit::status::Reason as _;
use tonic::{Status, Streaming};

use super::parse;
use crate::domain::audit::Origin;
use crate::domain::user::ImportedUser as Account;
use crate::errors::{AuthReason, Problem, flow_problem};
use crate::flows::{FlowError, Flows};
use crate::store::ChangeError;
use crate::store::callers::Acting;
use crate::store::user_import::Imported;

/// An import under way.
pub(super) struct Import {
    pub(super) flows: Flows,
    pub(super) acting: Acting,
    pub(super) origin: Origin,
    pub(super) incoming: Streaming<ImportUsersRequest>,
    pub(super) dry_run: bool,
    pub(super) index: i64,
    /// Names of a dry run: nothing keeps them from standing twice in the stream otherwise.
    pub(super) seen: HashSet<(&'static str, String)>,
}

impl Import {
    /// Reads the options, which come first.
    pub(super) async fn begin(
        flows: Flows,
        acting: Acting,
        origin: Origin,
        mut incoming: Streaming<ImportUsersRequest>,
    ) -> Result<Self, Status> {
        let expected = "expected the options in the first message";
        let missing = || Status::from(Problem::new(AuthReason::InvalidArgument).field("options", expected));
        let Some(Part::Options(ImportOptions { dry_run })) = incoming.message().await?.and_then(|first| first.part)
        else {
            return Err(missing());
        };
        Ok(Self { flows, acting, origin, incoming, dry_run, index: 0, seen: HashSet::new() })
    }

    /// The answer for the next account; `None`: there are no more.
    pub(super) async fn next(&mut self) -> Result<Option<ImportUsersResponse>, Status> {
        let Some(message) = self.incoming.message().await? else { return Ok(None) };
        let Some(Part::User(user)) = message.part else {
            let problem = Problem::new(AuthReason::InvalidArgument);
            return Err(problem.field("user", "expected an account in every message but the first").into());
        };
        let index = self.index;
        self.index += 1;
        match self.import(user).await {
            Ok((outcome, user_id)) => {
                Ok(Some(ImportUsersResponse { index, outcome: outcome.into(), user_id, ..Default::default() }))
            }
            // What is wrong with one account is its answer; what is wrong with us or the caller ends the stream.
            Err(Failure::OfTheAccount(problem)) => {
                let (field, description) = problem.first_field().unwrap_or_default();
                Ok(Some(ImportUsersResponse {
                    index,
                    outcome: ImportOutcome::Refused.into(),
                    reason: problem.reason().name().to_owned(),
                    field,
                    description,
                    ..Default::default()
                }))
            }
            Err(Failure::OfTheImport(problem)) => Err(problem.into()),
        }
    }

    async fn import(&mut self, user: ImportedUser) -> Result<(ImportOutcome, String), Failure> {
        let has_own_id = !user.id.is_empty();
        let account = parse::imported(user, |hash| self.flows.importable(hash)).map_err(Failure::OfTheAccount)?;
        if self.dry_run {
            self.first_of_its_name(&account).map_err(Failure::OfTheAccount)?;
        }
        let done = self.flows.import_user(self.acting, &account, self.dry_run, &self.origin).await;
        match done.map_err(|error| Failure::of(&error))? {
            Imported::AlreadyThere(id) => Ok((ImportOutcome::AlreadyThere, id.to_string())),
            Imported::Created if self.dry_run && !has_own_id => Ok((ImportOutcome::Created, String::new())),
            Imported::Created => Ok((ImportOutcome::Created, account.id.to_string())),
        }
    }

    fn first_of_its_name(&mut self, account: &Account) -> Result<(), Problem> {
        if !self.seen.insert(("email", account.email.key())) {
            return Err(Problem::new(AuthReason::EmailTaken).field("email", "expected an address that stands once"));
        }
        if !self.seen.insert(("username", account.username.key())) {
            return Err(Problem::new(AuthReason::UsernameTaken).field("username", "expected a name that stands once"));
        }
        Ok(())
    }
}

/// Whose fault it is.
enum Failure {
    /// What is wrong with one account is its answer.
    OfTheAccount(Problem),
    /// What is wrong with us or with who imports ends the stream.
    OfTheImport(Problem),
}

impl Failure {
    fn of(error: &FlowError) -> Self {
        let is_of_the_account = match error {
            FlowError::EmailTaken | FlowError::UsernameTaken => true,
            FlowError::Change(ChangeError::RoleNotFound | ChangeError::RoleInactive | ChangeError::UserIdTaken) => true,
            // Who imports may import, but not give this role.
            FlowError::Change(ChangeError::PermissionMissing(permission)) => permission != "users.write",
            _ => false,
        };
        let problem = flow_problem("import_users", error);
        if is_of_the_account { Self::OfTheAccount(problem) } else { Self::OfTheImport(problem) }
    }
}
