//! auth.v1.AuditService.

use proto::auth::v1::audit_service_server;
use proto::auth::v1::*;
use tonic::{Request, Response, Status};

use crate::errors::not_implemented;

/// The audit trail.
pub struct AuditService;

#[tonic::async_trait]
impl audit_service_server::AuditService for AuditService {
    async fn list_audit_events(
        &self,
        _: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        not_implemented()
    }
}
