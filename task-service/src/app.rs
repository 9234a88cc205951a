//! The composition root: the only file that knows all parts.

use std::path::Path;
use std::sync::Arc;

use auth_client::{AuthLayer, ChannelOptions, GrpcKeySource, Verifier, VerifierConfig};
use proto::task::v1;
use proto::task::v1::ownership_service_server::OwnershipServiceServer;
use proto::task::v1::task_service_server::TaskServiceServer;
use service_kit::config::TlsArgs;
use service_kit::database::Database;
use service_kit::postgres::DatabaseUrl;
use service_kit::readiness::Readiness;
use service_kit::server::{MESSAGE_LIMIT, ServerBuilder};
use service_kit::status::Reason as _;
use service_kit::tasks::Supervisor;
use service_kit::telemetry::Metrics;

use crate::cli::ServeArgs;
use crate::config::{PagingArgs, PeerArgs, TokenArgs};
use crate::domain::page_token::PageTokens;
use crate::errors::TaskReason;
use crate::grpc::{OwnershipService, TaskService};
use crate::store::TaskStore;
use crate::{background, migrate, migrations};

/// A setting that reads well and yet cannot be used: exit code 2.
#[derive(Debug, thiserror::Error)]
#[error("{variable}: {reason}")]
pub struct ConfigurationError {
    variable: &'static str,
    reason: String,
}

/// Serves until told to stop.
pub async fn serve(args: ServeArgs, metrics: Metrics) -> anyhow::Result<()> {
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
    let verifier = verifier(&args.tokens, &args.peer, &args.tls)?;

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
        },
    );
    let pool = database.clone();
    metrics.before_scrape(move || pool.record_metrics());

    let tasks = TaskServiceServer::new(TaskService::new(store, page_tokens)).max_decoding_message_size(MESSAGE_LIMIT);
    let ownership = OwnershipServiceServer::new(OwnershipService).max_decoding_message_size(MESSAGE_LIMIT);
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

/// What `serve` checks of its settings before it opens anything, beyond their form.
pub fn configuration_check(args: &ServeArgs) -> anyhow::Result<()> {
    channel_options(&args.peer, &args.tls)?;
    Ok(())
}

fn verifier(tokens: &TokenArgs, peer: &PeerArgs, tls: &TlsArgs) -> anyhow::Result<Verifier> {
    let source = GrpcKeySource::connect_lazy(&peer.auth_service_url, channel_options(peer, tls)?)
        .map_err(|error| ConfigurationError { variable: "AUTH_SERVICE_URL", reason: error.to_string() })?;
    Ok(Verifier::new(VerifierConfig::new(&tokens.jwt_issuer, &tokens.jwt_audience), source))
}

/// TLS towards the auth service. This server's own certificate is also its client certificate, should the auth service ask for one.
fn channel_options(peer: &PeerArgs, tls: &TlsArgs) -> Result<ChannelOptions, ConfigurationError> {
    let ca_pem = pem("AUTH_SERVICE_CA_FILE", peer.auth_service_ca_file.as_deref())?;
    let certificate = pem("TLS_CERT_FILE", tls.tls_cert_file.as_deref())?;
    let key = pem("TLS_KEY_FILE", tls.tls_key_file.as_deref())?;
    Ok(ChannelOptions { ca_pem, identity_pem: certificate.zip(key), ..ChannelOptions::default() })
}

fn pem(variable: &'static str, path: Option<&Path>) -> Result<Option<Vec<u8>>, ConfigurationError> {
    let read = |path: &Path| {
        std::fs::read(path).map_err(|error| {
            let reason = format!("{} cannot be read: {error}; expected a PEM file", path.display());
            ConfigurationError { variable, reason }
        })
    };
    path.map(read).transpose()
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
