//! The composition root: the only file that knows all parts.

use std::sync::Arc;

use auth_client::{AuthLayer, ChannelOptions, ChannelSource, GrpcKeySource, Revocations, Verifier, VerifierConfig};
use proto::task::v1;
use proto::task::v1::ownership_service_server::OwnershipServiceServer;
use proto::task::v1::task_service_server::TaskServiceServer;
use service_kit::config::TlsArgs;
use service_kit::database::Database;
use service_kit::peer::{Peer, PeerError, PeerFiles, PeerSettings};
use service_kit::postgres::DatabaseUrl;
use service_kit::readiness::Readiness;
use service_kit::server::{MESSAGE_LIMIT, ServerBuilder};
use service_kit::status::Reason as _;
use service_kit::tasks::Supervisor;
use service_kit::telemetry::Metrics;

use crate::background::Following;
use crate::cli::ServeArgs;
use crate::config::{PagingArgs, PeerArgs, TokenArgs};
use crate::domain::page_token::PageTokens;
use crate::errors::TaskReason;
use crate::grpc::{OwnershipService, TaskService};
use crate::store::TaskStore;
use crate::watch::Feed;
use crate::{background, metrics_help, migrate, migrations};

/// Largest message of task.v1.TaskService: a batch of tasks with long descriptions.
const BATCH_LIMIT: usize = 4 * 1024 * 1024;

/// Serves until told to stop.
pub async fn serve(args: ServeArgs, metrics: Metrics) -> anyhow::Result<()> {
    metrics_help::describe();
    let unprotected = proto::policy::missing(TaskReason::DOMAIN);
    anyhow::ensure!(
        unprotected.is_empty(),
        "RPCs without an access policy: {}; give each the option access",
        unprotected.join(", ")
    );

    let database_url = args.database.database_url;
    let database = Database::new(&database_url, args.database.database_max_connections)?;
    let page_tokens = Arc::new(page_tokens(&args.paging, &database_url)?);
    let store = TaskStore::new(database.clone());
    let auth = auth_service(&args.peer, &args.tls)?;
    let verifier = verifier(&args.tokens, Arc::clone(&auth));
    let revocations = args.peer.credentials().map(|credentials| Following {
        revocations: Revocations::default(),
        channel: auth,
        credentials,
    });
    let verifier = match &revocations {
        Some(following) => verifier.with_revocations(following.revocations.clone()),
        None => {
            tracing::warn!(
                "tokens are good until they expire, whatever is revoked: set AUTH_CLIENT_ID and AUTH_CLIENT_SECRET"
            );
            verifier
        }
    };

    let (feed, revoked) = (Feed::default(), revocations.as_ref().map(|following| following.revocations.clone()));
    let readiness = Readiness::new(&[background::DATABASE, background::SCHEMA, background::KEYS]);
    let supervisor = Supervisor::new();
    background::spawn_all(
        &supervisor,
        &readiness,
        background::Parts {
            database: database.clone(),
            connector: migrate::EngineConnections::new(database_url),
            migrations: migrations::set()?,
            verifier: verifier.clone(),
            store: store.clone(),
            revocations,
            feed: feed.clone(),
        },
    );
    let pool = database.clone();
    metrics.before_scrape(move || pool.record_metrics());

    let ownership =
        OwnershipServiceServer::new(OwnershipService::new(store.clone())).max_decoding_message_size(MESSAGE_LIMIT);
    let tasks = TaskService::new(store, page_tokens, feed, revoked);
    let tasks = TaskServiceServer::new(tasks).max_decoding_message_size(BATCH_LIMIT);
    let served = ServerBuilder::new(args.listen, args.tls, args.shutdown, readiness)
        .descriptor_set(v1::FILE_DESCRIPTOR_SET)
        .add_service(tasks)
        .add_service(ownership)
        .auth_layer(AuthLayer::new(verifier, TaskReason::DOMAIN))
        .principal(auth_client::principal_id)
        .metrics(metrics)
        .supervisor(supervisor)
        .serve()
        .await;
    database.close();
    Ok(served?)
}

/// What `serve` finds out about its settings beyond their form; opens no port and no connection.
/// Must run on a runtime, as channels do.
pub fn configuration_check(args: &ServeArgs) -> anyhow::Result<()> {
    args.tls.check()?;
    auth_service(&args.peer, &args.tls)?;
    Ok(())
}

/// The channel to the auth service.
fn auth_service(peer: &PeerArgs, tls: &TlsArgs) -> Result<ChannelSource, PeerError> {
    let url = ("AUTH_SERVICE_URL", peer.auth_service_url.as_str());
    let settings = PeerSettings::new(url, ("AUTH_SERVICE_CA_FILE", peer.auth_service_ca_file.as_deref()), tls);
    let peer = Peer::new(settings, |url, PeerFiles { ca, certificate, key }| {
        let options = ChannelOptions { ca_pem: ca, identity_pem: certificate.zip(key), ..ChannelOptions::default() };
        auth_client::channel_lazy(url, options).map_err(|error| error.to_string())
    })?;
    Ok(Arc::new(move || peer.channel()))
}

fn verifier(tokens: &TokenArgs, auth: ChannelSource) -> Verifier {
    Verifier::new(VerifierConfig::new(&tokens.jwt_issuer, &tokens.jwt_audience), GrpcKeySource::new(auth))
}

/// All replicas must accept each other's page tokens: see docs/decisions/page-token-key.md.
fn page_tokens(args: &PagingArgs, url: &DatabaseUrl) -> anyhow::Result<PageTokens> {
    let (database, password) =
        (url.config().get_dbname().unwrap_or_default(), url.config().get_password().unwrap_or_default());
    let tokens = match &args.page_token_key {
        Some(key) => PageTokens::from_secret(&key.0),
        None => PageTokens::from_password(password, database.as_bytes()),
    };
    if args.page_token_key.is_none() && password.is_empty() {
        tracing::warn!(
            "page tokens can be forged (within the caller's own tasks): set PAGE_TOKEN_KEY, as DATABASE_URL has no password"
        );
    }
    Ok(tokens?)
}
