//! auth.v1.AuthService.

use std::sync::Arc;

use proto::auth::v1::auth_service_server;
use proto::auth::v1::*;
use service_kit::page_token::PageTokens;
use service_kit::stack::CallRecord;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{convert, page, parse};
use crate::domain::opaque_token::OpaqueToken;
use crate::domain::page::TimeCursor;
use crate::domain::refresh_token::RefreshToken;
use crate::errors::flow_problem;
use crate::flows::Flows;

/// Signing up, in and out, and one's own account.
pub struct AuthService {
    flows: Flows,
    page_tokens: Arc<PageTokens>,
}

impl AuthService {
    /// On these flows, with page tokens of this key.
    pub fn new(flows: Flows, page_tokens: Arc<PageTokens>) -> Self {
        Self { flows, page_tokens }
    }
}

/// Notes in the call's log line whom it turned out to be about.
fn note(record: Option<CallRecord>, user_id: Uuid) {
    if let Some(record) = record {
        record.set_principal(user_id.to_string());
    }
}

#[tonic::async_trait]
impl auth_service_server::AuthService for AuthService {
    async fn sign_up(&self, request: Request<SignUpRequest>) -> Result<Response<SignUpResponse>, Status> {
        let (origin, record) = (parse::origin(&request), request.extensions().get::<CallRecord>().cloned());
        let wanted = parse::sign_up(request.into_inner())?;
        let new = self.flows.sign_up(wanted, &origin).await.map_err(|error| flow_problem("sign_up", &error))?;
        note(record, new.user.id);
        Ok(Response::new(SignUpResponse {
            tokens: Some(convert::tokens(new.tokens)),
            user: Some(convert::user(new.user)),
        }))
    }

    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let (origin, record) = (parse::origin(&request), request.extensions().get::<CallRecord>().cloned());
        let SignInRequest { login, password } = request.into_inner();
        let password = Zeroizing::new(password);
        let new =
            self.flows.sign_in(&login, &password, &origin).await.map_err(|error| flow_problem("sign_in", &error))?;
        note(record, new.user.id);
        Ok(Response::new(SignInResponse {
            tokens: Some(convert::tokens(new.tokens)),
            user: Some(convert::user(new.user)),
        }))
    }

    async fn refresh_token(
        &self,
        request: Request<RefreshTokenRequest>,
    ) -> Result<Response<RefreshTokenResponse>, Status> {
        let origin = parse::origin(&request);
        let presented = RefreshToken::presented(request.into_inner().refresh_token);
        let tokens =
            self.flows.refresh(&presented, &origin).await.map_err(|error| flow_problem("refresh_token", &error))?;
        Ok(Response::new(RefreshTokenResponse { tokens: Some(convert::tokens(tokens)) }))
    }

    async fn sign_out(&self, request: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        let (origin, record) = (parse::origin(&request), request.extensions().get::<CallRecord>().cloned());
        let token = RefreshToken::presented(request.into_inner().refresh_token);
        let whose = self.flows.sign_out(&token, &origin).await.map_err(|error| flow_problem("sign_out", &error))?;
        if let Some(user_id) = whose {
            note(record, user_id);
        }
        Ok(Response::new(SignOutResponse {}))
    }

    async fn get_me(&self, request: Request<GetMeRequest>) -> Result<Response<GetMeResponse>, Status> {
        let caller = parse::user_caller(&request)?;
        let user = self.flows.me(caller).await.map_err(|error| flow_problem("get_me", &error))?;
        Ok(Response::new(GetMeResponse { user: Some(convert::user(user)) }))
    }

    async fn sign_out_all(&self, request: Request<SignOutAllRequest>) -> Result<Response<SignOutAllResponse>, Status> {
        let (caller, origin) = (parse::user_caller(&request)?, parse::origin(&request));
        let ended = self.flows.sign_out_all(caller, &origin).await;
        let ended = ended.map_err(|error| flow_problem("sign_out_all", &error))?;
        Ok(Response::new(SignOutAllResponse { session_count: i32::try_from(ended).unwrap_or(i32::MAX) }))
    }

    async fn update_me(&self, request: Request<UpdateMeRequest>) -> Result<Response<UpdateMeResponse>, Status> {
        let (caller, origin) = (parse::user_caller(&request)?, parse::origin(&request));
        let change = parse::update_me(request.get_ref())?;
        let user = self.flows.update_me(caller, &change, &origin).await;
        let user = user.map_err(|error| flow_problem("update_me", &error))?;
        Ok(Response::new(UpdateMeResponse { user: Some(convert::user(user)) }))
    }

    async fn change_password(
        &self,
        request: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        let (caller, origin) = (parse::user_caller(&request)?, parse::origin(&request));
        let request = request.into_inner();
        // The new password is checked against the account later, where that is known.
        let checked = parse::valid(&request);
        let (current, new) = (Zeroizing::new(request.current_password), Zeroizing::new(request.new_password));
        checked?;
        let changed = self.flows.change_password(caller, &current, &new, &origin).await;
        changed.map_err(|error| flow_problem("change_password", &error))?;
        Ok(Response::new(ChangePasswordResponse {}))
    }

    async fn request_password_reset(
        &self,
        request: Request<RequestPasswordResetRequest>,
    ) -> Result<Response<RequestPasswordResetResponse>, Status> {
        let origin = parse::origin(&request);
        let asked = self.flows.password_reset_ask(&request.get_ref().email, &origin).await;
        asked.map_err(|error| flow_problem("request_password_reset", &error))?;
        Ok(Response::new(RequestPasswordResetResponse {}))
    }

    async fn reset_password(
        &self,
        request: Request<ResetPasswordRequest>,
    ) -> Result<Response<ResetPasswordResponse>, Status> {
        let (origin, record) = (parse::origin(&request), request.extensions().get::<CallRecord>().cloned());
        let request = request.into_inner();
        let checked = parse::valid(&request);
        let (token, new) = (OpaqueToken::presented(request.token), Zeroizing::new(request.new_password));
        checked?;
        let done = self.flows.password_reset(&token, &new, &origin).await;
        note(record, done.map_err(|error| flow_problem("reset_password", &error))?);
        Ok(Response::new(ResetPasswordResponse {}))
    }

    async fn request_email_verification(
        &self,
        request: Request<RequestEmailVerificationRequest>,
    ) -> Result<Response<RequestEmailVerificationResponse>, Status> {
        let (caller, origin) = (parse::user_caller(&request)?, parse::origin(&request));
        let asked = self.flows.email_verification_ask(caller, &origin).await;
        asked.map_err(|error| flow_problem("request_email_verification", &error))?;
        Ok(Response::new(RequestEmailVerificationResponse {}))
    }

    async fn verify_email(
        &self,
        request: Request<VerifyEmailRequest>,
    ) -> Result<Response<VerifyEmailResponse>, Status> {
        let (origin, record) = (parse::origin(&request), request.extensions().get::<CallRecord>().cloned());
        let token = OpaqueToken::presented(request.into_inner().token);
        let done = self.flows.email_verify(&token, &origin).await;
        note(record, done.map_err(|error| flow_problem("verify_email", &error))?);
        Ok(Response::new(VerifyEmailResponse {}))
    }

    async fn delete_me(&self, request: Request<DeleteMeRequest>) -> Result<Response<DeleteMeResponse>, Status> {
        let (caller, origin) = (parse::user_caller(&request)?, parse::origin(&request));
        let password = Zeroizing::new(request.into_inner().password);
        let deleted = self.flows.delete_me(caller, &password, &origin).await;
        deleted.map_err(|error| flow_problem("delete_me", &error))?;
        Ok(Response::new(DeleteMeResponse {}))
    }

    async fn list_sessions(
        &self,
        request: Request<ListSessionsRequest>,
    ) -> Result<Response<ListSessionsResponse>, Status> {
        let caller = parse::user_caller(&request)?;
        let request = request.into_inner();
        let bound = parse::sessions(caller, &request)?;
        let asked = page::Asked { size: request.page_size, token: &request.page_token };
        let page = asked.open(&self.page_tokens, &bound, TimeCursor::from_bytes)?;
        let found = self.flows.list_sessions(caller, page.behind, page.limit()).await;
        let found = found.map_err(|error| flow_problem("list_sessions", &error))?;
        let (sessions, next_page_token) = page.close(&self.page_tokens, &bound, found, |session| {
            TimeCursor { time: session.last_used_at, id: session.id }.to_bytes().to_vec()
        });
        let sessions = sessions.into_iter().map(|session| convert::session(session, caller.session_id)).collect();
        Ok(Response::new(ListSessionsResponse { sessions, next_page_token }))
    }

    async fn revoke_session(
        &self,
        request: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        let (caller, origin) = (parse::user_caller(&request)?, parse::origin(&request));
        let id = parse::id(request.get_ref(), "session_id", &request.get_ref().session_id)?;
        let ended = self.flows.revoke_session(caller, id, &origin).await;
        ended.map_err(|error| flow_problem("revoke_session", &error))?;
        Ok(Response::new(RevokeSessionResponse {}))
    }
}
