//! auth.v1.AuthService.

use proto::auth::v1::auth_service_server;
use proto::auth::v1::*;
use service_kit::stack::CallRecord;
use tonic::{Request, Response, Status};
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{convert, parse};
use crate::domain::refresh_token::RefreshToken;
use crate::errors::{flow_problem, not_implemented};
use crate::flows::Flows;

/// Signing up, in and out, and one's own account.
pub struct AuthService {
    flows: Flows,
}

impl AuthService {
    /// On these flows.
    pub fn new(flows: Flows) -> Self {
        Self { flows }
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
        let (device, record) = (parse::device(&request), request.extensions().get::<CallRecord>().cloned());
        let wanted = parse::sign_up(request.into_inner())?;
        let new = self.flows.sign_up(wanted, device).await.map_err(|error| flow_problem("sign_up", &error))?;
        note(record, new.user.id);
        Ok(Response::new(SignUpResponse {
            tokens: Some(convert::tokens(new.tokens)),
            user: Some(convert::user(new.user)),
        }))
    }

    async fn sign_in(&self, request: Request<SignInRequest>) -> Result<Response<SignInResponse>, Status> {
        let (device, record) = (parse::device(&request), request.extensions().get::<CallRecord>().cloned());
        let SignInRequest { login, password } = request.into_inner();
        let password = Zeroizing::new(password);
        let new =
            self.flows.sign_in(&login, &password, device).await.map_err(|error| flow_problem("sign_in", &error))?;
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
        let presented = RefreshToken::presented(request.into_inner().refresh_token);
        let tokens = self.flows.refresh(&presented).await.map_err(|error| flow_problem("refresh_token", &error))?;
        Ok(Response::new(RefreshTokenResponse { tokens: Some(convert::tokens(tokens)) }))
    }

    async fn sign_out(&self, request: Request<SignOutRequest>) -> Result<Response<SignOutResponse>, Status> {
        let record = request.extensions().get::<CallRecord>().cloned();
        let token = RefreshToken::presented(request.into_inner().refresh_token);
        let whose = self.flows.sign_out(&token).await.map_err(|error| flow_problem("sign_out", &error))?;
        if let Some(user_id) = whose {
            note(record, user_id);
        }
        Ok(Response::new(SignOutResponse {}))
    }

    async fn get_me(&self, request: Request<GetMeRequest>) -> Result<Response<GetMeResponse>, Status> {
        let (user_id, session_id) = parse::user_caller(&request)?;
        let user = self.flows.me(user_id, session_id).await.map_err(|error| flow_problem("get_me", &error))?;
        Ok(Response::new(GetMeResponse { user: Some(convert::user(user)) }))
    }

    async fn sign_out_all(&self, _: Request<SignOutAllRequest>) -> Result<Response<SignOutAllResponse>, Status> {
        not_implemented()
    }

    async fn update_me(&self, _: Request<UpdateMeRequest>) -> Result<Response<UpdateMeResponse>, Status> {
        not_implemented()
    }

    async fn change_password(
        &self,
        _: Request<ChangePasswordRequest>,
    ) -> Result<Response<ChangePasswordResponse>, Status> {
        not_implemented()
    }

    async fn request_password_reset(
        &self,
        _: Request<RequestPasswordResetRequest>,
    ) -> Result<Response<RequestPasswordResetResponse>, Status> {
        not_implemented()
    }

    async fn reset_password(
        &self,
        _: Request<ResetPasswordRequest>,
    ) -> Result<Response<ResetPasswordResponse>, Status> {
        not_implemented()
    }

    async fn request_email_verification(
        &self,
        _: Request<RequestEmailVerificationRequest>,
    ) -> Result<Response<RequestEmailVerificationResponse>, Status> {
        not_implemented()
    }

    async fn verify_email(&self, _: Request<VerifyEmailRequest>) -> Result<Response<VerifyEmailResponse>, Status> {
        not_implemented()
    }

    async fn delete_me(&self, _: Request<DeleteMeRequest>) -> Result<Response<DeleteMeResponse>, Status> {
        not_implemented()
    }

    async fn list_sessions(&self, _: Request<ListSessionsRequest>) -> Result<Response<ListSessionsResponse>, Status> {
        not_implemented()
    }

    async fn revoke_session(
        &self,
        _: Request<RevokeSessionRequest>,
    ) -> Result<Response<RevokeSessionResponse>, Status> {
        not_implemented()
    }
}
