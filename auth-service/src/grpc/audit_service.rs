//! auth.v1.AuditService.

use std::sync::Arc;

use proto::auth::v1::audit_service_server;
use proto::auth::v1::*;
use service_kit::page_token::PageTokens;
use tonic::{Request, Response, Status};

use super::{convert, page, parse};
use crate::domain::page::TimeCursor;
use crate::errors::flow_problem;
use crate::flows::Flows;

/// Reading the audit trail.
pub struct AuditService {
    flows: Flows,
    page_tokens: Arc<PageTokens>,
}

impl AuditService {
    /// On these flows, with page tokens of this key.
    pub fn new(flows: Flows, page_tokens: Arc<PageTokens>) -> Self {
        Self { flows, page_tokens }
    }
}

#[tonic::async_trait]
impl audit_service_server::AuditService for AuditService {
    async fn list_audit_events(
        &self,
        request: Request<ListAuditEventsRequest>,
    ) -> Result<Response<ListAuditEventsResponse>, Status> {
        let caller = parse::acting(&request)?;
        let request = request.into_inner();
        let (filter, bound) = parse::audit_filter(caller, &request)?;
        let asked = page::Asked { size: request.page_size, token: &request.page_token };
        let page = asked.open(&self.page_tokens, &bound, TimeCursor::from_bytes)?;
        let found = self.flows.list_audit_events(caller, &filter, page.behind, page.limit()).await;
        let found = found.map_err(|error| flow_problem("list_audit_events", &error))?;
        let (events, next_page_token) = page.close(&self.page_tokens, &bound, found, |event| {
            TimeCursor { time: event.occurred_at, id: event.id }.to_bytes().to_vec()
        });
        let events = events.into_iter().map(convert::audit_event).collect();
        Ok(Response::new(ListAuditEventsResponse { events, next_page_token }))
    }
}
