//! Accounts of the tests and channels that carry their access tokens.

use proto::auth::v1::auth_service_client::AuthServiceClient;
use proto::auth::v1::{SignInRequest, SignUpRequest, Tokens, User};
use tonic::metadata::{Ascii, MetadataValue};
use tonic::service::Interceptor;
use tonic::service::interceptor::InterceptedService;
use tonic::transport::Channel;
use tonic::{Request, Status};

use crate::AuthServer;

/// The password of every account that the harness makes: long, on no list, like no name.
pub const PASSWORD: &str = "correct zebra 4 battery staple";

/// A signed-in account.
#[derive(Debug, Clone)]
pub struct Account {
    /// Its tokens.
    pub tokens: Tokens,
    /// The account as the service answered it.
    pub user: User,
}

impl Account {
    /// The access token.
    pub fn access_token(&self) -> &str {
        &self.tokens.access_token
    }

    /// The user's id.
    pub fn id(&self) -> &str {
        &self.user.id
    }
}

/// A channel whose calls carry an access token.
pub type Authorized = InterceptedService<Channel, Bearer>;

/// Puts `authorization: Bearer <token>` on every call.
#[derive(Debug, Clone)]
pub struct Bearer(MetadataValue<Ascii>);

impl Interceptor for Bearer {
    fn call(&mut self, mut request: Request<()>) -> Result<Request<()>, Status> {
        request.metadata_mut().insert("authorization", self.0.clone());
        Ok(request)
    }
}

/// `channel` with an access token on every call.
pub fn authorized(channel: Channel, access_token: &str) -> Authorized {
    let value = format!("Bearer {access_token}").parse().expect("a token is ASCII");
    InterceptedService::new(channel, Bearer(value))
}

/// Signs up `name` with the e-mail `<name>@example.com` and [`PASSWORD`].
pub async fn sign_up(server: &AuthServer, name: &str) -> Account {
    let request = SignUpRequest {
        email: format!("{name}@example.com"),
        username: name.to_owned(),
        password: PASSWORD.to_owned(),
    };
    let answer = AuthServiceClient::new(server.channel()).sign_up(request).await;
    let answer = answer.unwrap_or_else(|status| panic!("signing up {name}: {status:?}")).into_inner();
    Account {
        tokens: answer.tokens.expect("SignUp answers tokens"),
        user: answer.user.expect("SignUp answers the user"),
    }
}

/// Signs in with an e-mail or user name.
pub async fn sign_in(server: &AuthServer, login: &str, password: &str) -> Account {
    let request = SignInRequest { login: login.to_owned(), password: password.to_owned() };
    let answer = AuthServiceClient::new(server.channel()).sign_in(request).await;
    let answer = answer.unwrap_or_else(|status| panic!("signing in {login}: {status:?}")).into_inner();
    Account {
        tokens: answer.tokens.expect("SignIn answers tokens"),
        user: answer.user.expect("SignIn answers the user"),
    }
}
