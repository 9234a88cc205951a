//! What the suites of the auth service share.
#![expect(clippy::unwrap_used, clippy::panic, reason = "helpers of tests")]
#![allow(dead_code, unreachable_pub, clippy::allow_attributes, reason = "not every suite uses every helper")]

use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::{
    GetMeRequest, GetMeResponse, RefreshTokenRequest, SignInRequest, SignInResponse, SignOutRequest, SignUpRequest,
    SignUpResponse, Tokens,
};
use tests::{AuthServer, Environment, PASSWORD, Service, TestDatabase, run_program};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio_postgres::Client;
use tonic::Status;

/// The cheapest hashes that the service accepts, so that suites with many sign-ins stay quick.
pub const CHEAP_HASHES: Environment<'static> =
    &[("PASSWORD_HASH_MEMORY_KIB", "19456"), ("PASSWORD_HASH_ITERATIONS", "2"), ("PASSWORD_HASH_PARALLELISM", "1")];

/// A fresh service on a fresh database, and a superuser's connection to it.
pub struct Fixture {
    // Dropped in this order: the service before its database.
    pub server: AuthServer,
    pub client: Client,
    pub database: TestDatabase,
}

impl Fixture {
    pub async fn start() -> Self {
        Self::start_with(&[]).await
    }

    pub async fn start_with(extra: Environment<'_>) -> Self {
        Self::start_on(TestDatabase::migrated_auth().await, extra).await
    }

    pub async fn start_on(database: TestDatabase, extra: Environment<'_>) -> Self {
        let client = database.client().await;
        Self { server: AuthServer::start(&database, &[CHEAP_HASHES, extra].concat()).await, client, database }
    }

    /// Makes the administrator `root` and signs in.
    pub async fn administrator(&self) -> SignInResponse {
        let url = self.database.runtime_url();
        let bootstrap = ["admin", "bootstrap", "--email", "root@example.com", "--password-stdin"];
        let run = run_program(Service::Auth, &bootstrap, &[("DATABASE_URL", &url)], PASSWORD).await;
        assert_eq!(run.code, 0, "{run:#?}");
        self.sign_in("root", PASSWORD).await.unwrap()
    }

    pub async fn sign_up(&self, email: &str, username: &str, password: &str) -> Result<SignUpResponse, Status> {
        let request = SignUpRequest { email: email.into(), username: username.into(), password: password.into() };
        AuthServiceClient::new(self.server.channel()).sign_up(request).await.map(tonic::Response::into_inner)
    }

    pub async fn sign_in(&self, login: &str, password: &str) -> Result<SignInResponse, Status> {
        let request = SignInRequest { login: login.into(), password: password.into() };
        AuthServiceClient::new(self.server.channel()).sign_in(request).await.map(tonic::Response::into_inner)
    }

    pub async fn refresh(&self, token: &str) -> Result<Tokens, Status> {
        let request = RefreshTokenRequest { refresh_token: token.into() };
        let answer = AuthServiceClient::new(self.server.channel()).refresh_token(request).await?;
        Ok(answer.into_inner().tokens.unwrap())
    }

    pub async fn sign_out(&self, token: &str) -> Result<(), Status> {
        let request = SignOutRequest { refresh_token: token.into() };
        AuthServiceClient::new(self.server.channel()).sign_out(request).await.map(|_| ())
    }

    pub async fn me(&self, access_token: &str) -> Result<GetMeResponse, Status> {
        let answer = AuthServiceClient::new(self.server.channel_with(access_token)).get_me(GetMeRequest {}).await;
        answer.map(tonic::Response::into_inner)
    }

    /// Runs statements as the superuser.
    pub async fn sql(&self, sql: &str) {
        self.client.batch_execute(sql).await.unwrap_or_else(|error| panic!("{error:?}: {sql}"));
    }

    /// The first column of the only row.
    pub async fn count(&self, sql: &str) -> i64 {
        self.client.query_one(sql, &[]).await.unwrap_or_else(|error| panic!("{error:?}: {sql}")).get(0)
    }

    /// How many hashes the service has computed.
    pub async fn hashes(&self) -> u64 {
        let page = metrics_page(&self.server).await;
        let lines = page.lines().filter(|line| line.starts_with("password_hashes_total"));
        lines.map(|line| line.rsplit(' ').next().unwrap().parse::<u64>().unwrap()).sum()
    }
}

/// `/metrics`.
pub async fn metrics_page(server: &AuthServer) -> String {
    let mut stream = tokio::net::TcpStream::connect(server.metrics_address()).await.unwrap();
    stream.write_all(b"GET /metrics HTTP/1.1\r\nhost: test\r\nconnection: close\r\n\r\n").await.unwrap();
    let mut page = String::new();
    stream.read_to_string(&mut page).await.unwrap();
    page
}
