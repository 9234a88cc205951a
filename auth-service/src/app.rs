//! The composition root: the only file that knows all parts.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;
use auth_client::{AuthLayer, ChannelOptions, Verifier, VerifierConfig};
use chrono::Utc;
use proto::auth::v1;
use proto::auth::v1::audit_service_server::AuditServiceServer;
use proto::auth::v1::auth_service_server::AuthServiceServer;
use proto::auth::v1::role_service_server::RoleServiceServer;
use proto::auth::v1::service_account_service_server::ServiceAccountServiceServer;
use proto::auth::v1::token_service_server::TokenServiceServer;
use proto::auth::v1::user_service_server::UserServiceServer;
use service_kit::config::TlsArgs;
use service_kit::database::Database;
use service_kit::peer::{Peer, PeerError, PeerFiles, PeerSettings};
use service_kit::readiness::Readiness;
use service_kit::server::{MESSAGE_LIMIT, ServerBuilder};
use service_kit::status::Reason as _;
use service_kit::tasks::Supervisor;
use service_kit::telemetry::Metrics;
use tokio::sync::Semaphore;

use crate::cli::ServeArgs;
use crate::config::{KeyEncryptionKey, PeerArgs, SignUpPolicy};
use crate::domain::password::HashingPool;
use crate::domain::sealing::SealingKey;
use crate::domain::signing_key::{KeyRing, KeyRingError};
use crate::errors::AuthReason;
use crate::flows::{Flows, RESET_ASKS, UnusableHashes, delta};
use crate::grpc::{AuditService, AuthService, RoleService, ServiceAccountService, TokenService, UserService};
use crate::keys::Keys;
use crate::mail::Mailer;
use crate::revocations::Revocations;
use crate::store::AuthStore;
use crate::{background, metrics_help, migrate, migrations};

/// How long a start waits to look at the stored keys; a database that is away is waited for later, with the service not ready.
const FIRST_LOOK: Duration = Duration::from_secs(2);
/// The keys are in this process, so looking at them often costs nothing.
const KEY_REFRESH: Duration = Duration::from_secs(5);
/// And looking again for an unknown kid costs hardly more.
const KEY_FLOOR: Duration = Duration::from_millis(50);

/// A setting that reads well and yet cannot be used: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {reason}")]
pub struct ConfigurationError {
    variable: &'static str,
    reason: String,
}

/// Serves until told to stop.
pub async fn serve(args: ServeArgs, metrics: Metrics) -> anyhow::Result<()> {
    configuration_check(&args)?;
    metrics_help::describe();
    let unprotected = proto::policy::missing(AuthReason::DOMAIN);
    anyhow::ensure!(
        unprotected.is_empty(),
        "RPCs without an access policy: {}; give each the option access",
        unprotected.join(", ")
    );

    let mailer = mailer(&args)?;
    let database = Database::new(&args.database.database_url, args.database.database_max_connections)?;
    let task_service = Arc::new(task_service(&args.peer, &args.tls)?);
    let settings = Arc::new(args.tokens.settings());
    let store = AuthStore::new(database.clone());
    let KeyEncryptionKey { sealing, page_tokens } = args.keys.key_encryption_key;
    keys_first_look(&store, &sealing).await?;

    let keys = Keys::default();
    let config = VerifierConfig {
        refresh_interval: KEY_REFRESH,
        // A key that signs from one moment to the next, after a rotation in an emergency, must verify here at once.
        unknown_kid_floor: KEY_FLOOR,
        ..VerifierConfig::new(&args.tokens.jwt_issuer, &args.tokens.jwt_audience)
    };
    let verifier = Verifier::new(config, keys.clone());
    let revocations = Revocations::default();
    let supervisor = Supervisor::new();
    let flows = Flows {
        supervisor: supervisor.clone(),
        reset_asks: Arc::new(Semaphore::new(RESET_ASKS)),
        store: store.clone(),
        hashing: HashingPool::start(args.passwords.pool(&args.hashing))
            .context("the hashing threads cannot be started")?,
        keys: keys.clone(),
        sealing: Arc::clone(&sealing),
        signing_algorithm: args.keys.signing_algorithm,
        settings: Arc::clone(&settings),
        sign_up_open: args.accounts.sign_up == SignUpPolicy::Open,
        unusable_hashes: UnusableHashes::default(),
    };

    let readiness = Readiness::new(&[background::DATABASE, background::SCHEMA, background::KEYS]);
    background::spawn_all(
        &supervisor,
        &readiness,
        background::Parts {
            database: database.clone(),
            connector: migrate::EngineConnections::new(args.database.database_url),
            migrations: migrations::set()?,
            verifier: verifier.clone(),
            store,
            sealing,
            keys: keys.clone(),
            signing_algorithm: args.keys.signing_algorithm,
            key_max_age: delta(args.key_age.signing_key_max_age),
            mailer,
            task_service,
            settings,
            revocations: revocations.clone(),
        },
    );
    let pool = database.clone();
    metrics.before_scrape(move || pool.record_metrics());

    let served = ServerBuilder::new(args.listen, args.tls, args.shutdown, readiness)
        .descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .add_service(
            AuthServiceServer::new(AuthService::new(flows.clone(), Arc::clone(&page_tokens)))
                .max_decoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(
            UserServiceServer::new(UserService::new(flows.clone(), Arc::clone(&page_tokens)))
                .max_decoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(
            RoleServiceServer::new(RoleService::new(flows.clone(), Arc::clone(&page_tokens)))
                .max_decoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(
            TokenServiceServer::new(TokenService::new(flows.clone(), verifier.clone(), revocations))
                .max_decoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(
            ServiceAccountServiceServer::new(ServiceAccountService::new(flows.clone(), Arc::clone(&page_tokens)))
                .max_decoding_message_size(MESSAGE_LIMIT),
        )
        .add_service(
            AuditServiceServer::new(AuditService::new(flows, page_tokens)).max_decoding_message_size(MESSAGE_LIMIT),
        )
        .auth_layer(AuthLayer::new(verifier, AuthReason::DOMAIN))
        .principal(auth_client::principal_id)
        .metrics(metrics)
        .supervisor(supervisor)
        .serve()
        .await;
    database.close();
    Ok(served?)
}

/// What `serve` checks of its settings before it opens anything, beyond their form. Must run on a runtime, as channels do.
pub fn configuration_check(args: &ServeArgs) -> anyhow::Result<()> {
    if let Some((variable, reason)) = args.passwords.conflict() {
        return Err(ConfigurationError { variable, reason }.into());
    }
    if args.tokens.refresh_token_ttl > args.tokens.session_ttl {
        let reason = "is longer than SESSION_TTL; expected at most that".to_owned();
        return Err(ConfigurationError { variable: "REFRESH_TOKEN_TTL", reason }.into());
    }
    args.tls.check()?;
    task_service(&args.peer, &args.tls)?;
    mailer(args)?;
    Ok(())
}

/// The channel to the task service.
fn task_service(peer: &PeerArgs, tls: &TlsArgs) -> Result<Peer, PeerError> {
    let url = ("TASK_SERVICE_URL", peer.task_service_url.as_str());
    let settings = PeerSettings::new(url, ("TASK_SERVICE_CA_FILE", peer.task_service_ca_file.as_deref()), tls);
    Peer::new(settings, |url, PeerFiles { ca, certificate, key }| {
        let options = ChannelOptions { ca_pem: ca, identity_pem: certificate.zip(key), ..ChannelOptions::default() };
        auth_client::channel_lazy(url, options).map_err(|error| error.to_string())
    })
}

fn mailer(args: &ServeArgs) -> anyhow::Result<Mailer> {
    let mailer = args.mail.mailer().map_err(|(variable, reason)| ConfigurationError { variable, reason });
    Ok(mailer?)
}

/// A wrong KEY_ENCRYPTION_KEY is best told before anything is served. Whatever else is wrong with the database shows in
/// readiness.
async fn keys_first_look(store: &AuthStore, sealing: &SealingKey) -> anyhow::Result<()> {
    let Ok(Ok(stored)) = tokio::time::timeout(FIRST_LOOK, store.signing_keys_list()).await else { return Ok(()) };
    match KeyRing::open(stored, sealing, Utc::now()) {
        Ok(_) => Ok(()),
        Err(error @ KeyRingError::WrongEncryptionKey { .. }) => {
            Err(ConfigurationError { variable: "KEY_ENCRYPTION_KEY", reason: error.to_string() }.into())
        }
        Err(error @ KeyRingError::Malformed { .. }) => Err(error.into()),
    }
}
