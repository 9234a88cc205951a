//! The stream of auth.v1.UserService/ImportUsers: one answer for each account.

use std::collections::{HashMap, HashSet};

use proto::auth::v1::import_users_request::Part;
use proto::auth::v1::*;
use service_kit::status::Reason as _;
use tonic::{Status, Streaming};
use uuid::Uuid;

use super::parse;
use crate::domain::audit::Origin;
use crate::domain::user::ImportedUser as Account;
use crate::errors::{AuthReason, Problem, flow_problem};
use crate::flows::{FlowError, Flows};
use crate::store::ChangeError;
use crate::store::callers::Acting;
use crate::store::user_import::Imported;

/// What a dry run keeps in mind has a bound.
const MOST_IN_A_DRY_RUN: usize = 1_000_000;

/// An import under way.
pub(super) struct Import {
    flows: Flows,
    acting: Acting,
    origin: Origin,
    incoming: Streaming<ImportUsersRequest>,
    dry_run: bool,
    index: i64,
    /// What a dry run would have made: nothing keeps it from standing twice in the stream otherwise.
    seen: Seen,
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
        Ok(Self { flows, acting, origin, incoming, dry_run, index: 0, seen: Seen::default() })
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
        let done = self.flows.import_user(self.acting, &account, self.dry_run, &self.origin).await;
        match done.map_err(|error| Failure::of(&error))? {
            Imported::AlreadyThere(id) => Ok((ImportOutcome::AlreadyThere, id.to_string())),
            Imported::Created if self.dry_run && self.seen.add(&account)? => {
                Ok((ImportOutcome::AlreadyThere, String::new()))
            }
            Imported::Created if self.dry_run && !has_own_id => Ok((ImportOutcome::Created, String::new())),
            Imported::Created => Ok((ImportOutcome::Created, account.id.to_string())),
        }
    }
}

/// The accounts that a dry run would have made.
#[derive(Default)]
struct Seen {
    /// By the folded address: the address and the name as they were spelled.
    emails: HashMap<String, (String, String)>,
    usernames: HashSet<String>,
    ids: HashSet<Uuid>,
}

impl Seen {
    /// Adds an account; whether it is there already, with the very address and name.
    fn add(&mut self, account: &Account) -> Result<bool, Failure> {
        let spelled = (account.email.as_str().to_owned(), account.username.as_str().to_owned());
        if self.emails.get(&account.email.key()) == Some(&spelled) {
            return Ok(true);
        }
        let refused = |reason, field, expected| Err(Failure::OfTheAccount(Problem::new(reason).field(field, expected)));
        if self.emails.contains_key(&account.email.key()) {
            return refused(AuthReason::EmailTaken, "email", "expected an address that stands once");
        }
        if self.usernames.contains(&account.username.key()) {
            return refused(AuthReason::UsernameTaken, "username", "expected a name that stands once");
        }
        if self.ids.contains(&account.id) {
            return refused(AuthReason::UserIdTaken, "id", "expected an id that stands once");
        }
        if self.ids.len() >= MOST_IN_A_DRY_RUN {
            let expected = "expected a million accounts at most in a dry run";
            return Err(Failure::OfTheImport(Problem::new(AuthReason::InvalidArgument).field("user", expected)));
        }
        self.emails.insert(account.email.key(), spelled);
        self.usernames.insert(account.username.key());
        self.ids.insert(account.id);
        Ok(false)
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
