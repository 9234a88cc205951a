//! Waits until a service says SERVING through the standard health protocol (grpc.health.v1).

use std::net::SocketAddr;
use std::time::Duration;

use tonic::transport::Endpoint;
use tonic_health::pb::HealthCheckRequest;
use tonic_health::pb::health_check_response::ServingStatus;
use tonic_health::pb::health_client::HealthClient;

/// How often a service that starts is asked.
pub const POLL: Duration = Duration::from_millis(50);

/// One answer must not hold up the next question.
const ANSWER_PATIENCE: Duration = Duration::from_secs(2);

/// Whether the service at `address` says SERVING now for the whole server; anything else, also no answer, is `false`.
pub async fn is_serving(address: SocketAddr) -> bool {
    let Ok(endpoint) = Endpoint::from_shared(format!("http://{address}")) else {
        return false;
    };
    let Ok(channel) = endpoint.connect_timeout(ANSWER_PATIENCE).timeout(ANSWER_PATIENCE).connect().await else {
        return false;
    };
    match HealthClient::new(channel).check(HealthCheckRequest { service: String::new() }).await {
        Ok(answer) => answer.into_inner().status() == ServingStatus::Serving,
        Err(_) => false,
    }
}
