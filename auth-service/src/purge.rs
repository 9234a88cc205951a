//! Has the tasks of deleted accounts purged by the task service. What is still to do is in `store::user_deletions`.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use chrono::{SubsecRound as _, TimeDelta, Utc};
use proto::task::v1::PurgeUserTasksRequest;
use proto::task::v1::ownership_service_client::OwnershipServiceClient;
use service_kit::peer::Peer;
use service_kit::readiness::Readiness;
use service_kit::tasks::TaskError;
use tokio_util::sync::CancellationToken;
use tonic::metadata::{Ascii, MetadataValue};
use tonic::{Code, Request, Status};
use uuid::{Uuid, uuid};

use crate::background::{SCHEMA, pause_after, stopped_within};
use crate::domain::access_token::{self, Subject, TokenSettings};
use crate::keys::Keys;
use crate::store::AuthStore;
use crate::store::user_deletions::ClaimedPurge;

/// Whose token the calls of this service to others carry: nobody's who is stored, so that it is good for nothing here.
const OWN_ID: Uuid = uuid!("61757468-7365-8276-8963-650000000001");
/// The permission that PurgeUserTasks asks for.
const TASKS_WRITE: &str = "tasks.write";

/// The time for one call. A heap of tasks that takes longer goes on with the next one: what is purged stays purged.
const CALL: Duration = Duration::from_secs(60);
/// A purge is another replica's when this one has not ended within this time: longer than a call takes.
const LEASE: TimeDelta = TimeDelta::seconds(90);
/// How often it is looked for what is to do.
const LOOK: Duration = Duration::from_millis(500);
/// How often it is counted what waits.
const COUNT: Duration = Duration::from_secs(5);
/// The pause after the first failure; each further one doubles it.
const FIRST_PAUSE: TimeDelta = TimeDelta::seconds(1);
const LONGEST_PAUSE: TimeDelta = TimeDelta::minutes(1);

/// Calls the task service for every deleted account. Runs in every replica.
#[derive(Clone)]
pub struct PurgeSender {
    /// What is to do.
    pub store: AuthStore,
    /// The way to the task service.
    pub task_service: Arc<Peer>,
    /// What signs the calls' tokens.
    pub keys: Keys,
    /// Who issues them and for whom.
    pub settings: Arc<TokenSettings>,
    /// Nothing is looked for before the schema is there.
    pub readiness: Readiness,
}

/// Why tasks were not purged.
#[derive(Debug, thiserror::Error)]
enum PurgeError {
    #[error("no signing key can be used")]
    NoSigningKey,
    #[error("the task service answered {0:?}: {1}")]
    Refused(Code, String),
}

impl PurgeSender {
    /// Until told to stop; a call under way is given up then, and made again by whoever comes next.
    pub async fn run(self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            let had_one = self.is_ready()
                && tokio::select! {
                    () = stop.cancelled() => return Ok(()),
                    done = self.next() => done.unwrap_or_else(|error| {
                        tracing::warn!(%error, "the deleted accounts cannot be read");
                        false
                    }),
                };
            if !had_one && stopped_within(&stop, LOOK).await {
                return Ok(());
            }
        }
    }

    /// Counts what waits, until told to stop.
    pub async fn count(self, stop: CancellationToken) -> Result<(), TaskError> {
        loop {
            if self.is_ready()
                && let Ok(waiting) = self.store.purges_waiting(Utc::now()).await
            {
                metrics::gauge!("user_purges_waiting").set(waiting as f64);
            }
            if stopped_within(&stop, COUNT).await {
                return Ok(());
            }
        }
    }

    fn is_ready(&self) -> bool {
        self.readiness.is_set(SCHEMA)
    }

    /// Has the tasks of one account purged; whether there was one.
    async fn next(&self) -> Result<bool, TaskError> {
        let asked_at = Utc::now().trunc_subsecs(6);
        let Some(purge) = self.store.purge_claim(LEASE, asked_at).await? else { return Ok(false) };
        let user_id = purge.user_id;
        match self.purge(&purge).await {
            Ok(task_count) => {
                let is_last = self.store.purge_done(&purge, asked_at).await?;
                metrics::counter!("user_purges_total", "outcome" => "ok").increment(1);
                tracing::info!(%user_id, task_count, is_last, "the tasks of a deleted account are purged");
            }
            Err(error) => {
                metrics::counter!("user_purges_total", "outcome" => "failed").increment(1);
                let attempt = purge.attempts;
                tracing::warn!(%user_id, attempt, %error, "the tasks of a deleted account are not purged yet");
                self.store
                    .purge_postpone(
                        user_id,
                        Utc::now().trunc_subsecs(6) + pause_after(attempt, FIRST_PAUSE, LONGEST_PAUSE),
                    )
                    .await?;
            }
        }
        Ok(true)
    }

    async fn purge(&self, purge: &ClaimedPurge) -> Result<i64, PurgeError> {
        let mut request = Request::new(PurgeUserTasksRequest { user_id: purge.user_id.to_string() });
        request.metadata_mut().insert("authorization", self.authorization()?);
        request.set_timeout(CALL);
        let mut client = OwnershipServiceClient::new(self.task_service.channel());
        let refused = |status: Status| PurgeError::Refused(status.code(), status.message().to_owned());
        Ok(client.purge_user_tasks(request).await.map_err(refused)?.into_inner().task_count)
    }

    fn authorization(&self) -> Result<MetadataValue<Ascii>, PurgeError> {
        let subject = Subject {
            id: OWN_ID,
            session_id: None,
            role: String::new(),
            permissions: BTreeSet::from([TASKS_WRITE.to_owned()]),
            revision: 0,
        };
        let token = access_token::issue(subject, &self.settings, &self.keys.ring(), Utc::now(), None);
        let token = token.map_err(|_| PurgeError::NoSigningKey)?;
        let mut value: MetadataValue<Ascii> =
            format!("Bearer {}", token.text).parse().map_err(|_| PurgeError::NoSigningKey)?;
        value.set_sensitive(true);
        Ok(value)
    }
}
