//! Tower layer: nothing reaches a handler of ours without the access that its RPC's policy asks for.

use std::pin::Pin;
use std::task::{Context, Poll};

use http::header::AUTHORIZATION;
use http::{Extensions, HeaderMap, Request, Response};
use proto::policy::Access;
use tower::{Layer, Service};

use crate::principal::Principal;
use crate::refusal::Refusal;
use crate::verifier::Verifier;

/// Packages that are ours: an RPC in them without a policy is refused here.
const OUR_PACKAGES: [&str; 2] = ["/auth.v1.", "/task.v1."];

/// Puts [`AuthService`] around a service.
#[derive(Clone)]
pub struct AuthLayer {
    verifier: Verifier,
    domain: &'static str,
}

impl AuthLayer {
    /// A layer whose errors carry `domain` (`auth.v1`, `task.v1`) in their `google.rpc.ErrorInfo`.
    pub fn new(verifier: Verifier, domain: &'static str) -> Self {
        Self { verifier, domain }
    }
}

/// Id of the verified caller in a request's extensions, for the RPC's log line.
pub fn principal_id(extensions: &Extensions) -> Option<String> {
    extensions.get::<Principal>().map(|principal| principal.id.to_string())
}

impl<S> Layer<S> for AuthLayer {
    type Service = AuthService<S>;

    fn layer(&self, inner: S) -> AuthService<S> {
        AuthService { inner, layer: self.clone() }
    }
}

/// Checks access policy and token, and puts the [`Principal`] into the request's extensions.
#[derive(Clone)]
pub struct AuthService<S> {
    inner: S,
    layer: AuthLayer,
}

impl<S, B, R> Service<Request<B>> for AuthService<S>
where
    S: Service<Request<B>, Response = Response<R>> + Clone + Send + 'static,
    S::Future: Send,
    S::Error: Send,
    B: Send + 'static,
    R: Default + Send + 'static,
{
    type Response = Response<R>;
    type Error = S::Error;
    type Future = Pin<Box<dyn Future<Output = Result<Response<R>, S::Error>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.inner.poll_ready(context)
    }

    fn call(&mut self, mut request: Request<B>) -> Self::Future {
        // The instance that was polled ready must serve the call; the clone takes its place.
        let clone = self.inner.clone();
        let mut inner = std::mem::replace(&mut self.inner, clone);
        let needed = Needed::of(request.uri().path());
        if needed == Needed::Nothing {
            return Box::pin(inner.call(request));
        }
        let layer = self.layer.clone();
        let changes = !proto::policy::is_read(request.uri().path());
        Box::pin(async move {
            match layer.admit(needed, changes, request.headers()).await {
                Ok(principal) => {
                    request.extensions_mut().insert(principal);
                    inner.call(request).await
                }
                Err(refusal) => {
                    if let Refusal::TokenInvalid(why) = refusal {
                        tracing::debug!(why, "token refused");
                    }
                    Ok(refusal.status(layer.domain).into_http())
                }
            }
        })
    }
}

/// What a call needs before it may reach its handler.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Needed {
    Nothing,
    Token,
    Permission(&'static str),
    /// An RPC of our packages that no policy knows.
    Impossible,
}

impl Needed {
    fn of(path: &str) -> Self {
        match proto::policy::lookup(path) {
            Some(Access::Public) => Self::Nothing,
            Some(Access::Authenticated) => Self::Token,
            Some(Access::Permission(permission)) => Self::Permission(permission.as_str()),
            None if OUR_PACKAGES.iter().any(|package| path.starts_with(package)) => Self::Impossible,
            // Health and reflection; for anything else the server answers UNIMPLEMENTED.
            None => Self::Nothing,
        }
    }
}

impl AuthLayer {
    async fn admit(&self, needed: Needed, changes: bool, headers: &HeaderMap) -> Result<Principal, Refusal> {
        if needed == Needed::Impossible {
            return Err(Refusal::UnknownMethod);
        }
        let principal = self.verifier.verify(bearer(headers)?).await?;
        // Reads go on with what is known; whoever was demoted a moment ago must not change anything.
        if changes && !self.verifier.revocations_are_live() {
            return Err(Refusal::RevocationsUnknown);
        }
        match needed {
            Needed::Permission(permission) if !principal.has(permission) => {
                Err(Refusal::PermissionMissing(permission.to_owned()))
            }
            _ => Ok(principal),
        }
    }
}

/// The token of the only `authorization` entry; two entries could mean one thing to a proxy and another to us.
fn bearer(headers: &HeaderMap) -> Result<&str, Refusal> {
    let mut entries = headers.get_all(AUTHORIZATION).iter();
    let (Some(entry), None) = (entries.next(), entries.next()) else { return Err(Refusal::TokenMissing) };
    let entry = entry.to_str().map_err(|_| Refusal::TokenMissing)?;
    let (scheme, token) = entry.split_once(' ').ok_or(Refusal::TokenMissing)?;
    let token = token.trim_matches(' ');
    match scheme.eq_ignore_ascii_case("bearer") && !token.is_empty() {
        true => Ok(token),
        false => Err(Refusal::TokenMissing),
    }
}
