//! The HTTP side: `/metrics`, `/livez` (never touches the database), `/readyz` (503 and the latches that are not set).

use std::time::Duration;

use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::readiness::Readiness;
use crate::telemetry::Metrics;

/// Histograms are compacted this often when nobody scrapes.
const UPKEEP: Duration = Duration::from_secs(5);

/// The routes; without `metrics`, `/metrics` is empty (tests of parts).
pub fn router(readiness: Readiness, metrics: Option<Metrics>) -> axum::Router {
    let scrape = move || {
        let text = metrics.as_ref().map(Metrics::render).unwrap_or_default();
        std::future::ready(([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], text))
    };
    axum::Router::new()
        .route("/metrics", get(scrape))
        .route("/livez", get(async || "ok\n"))
        .route("/readyz", get(move || std::future::ready(ready(&readiness))))
}

fn ready(readiness: &Readiness) -> impl IntoResponse + use<> {
    let not_ready = readiness.not_ready();
    let status = if not_ready.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    let body = serde_json::json!({ "ready": not_ready.is_empty(), "not_ready": not_ready });
    (status, [(header::CONTENT_TYPE, "application/json")], body.to_string())
}

/// Serves [`router`] on `listener` until `stop` is cancelled. It answers to the end of the drain, so that a shutdown can be watched.
pub async fn serve(
    listener: TcpListener,
    readiness: Readiness,
    metrics: Option<Metrics>,
    stop: CancellationToken,
) -> std::io::Result<()> {
    let upkeep = async {
        let mut tick = tokio::time::interval(UPKEEP);
        loop {
            tick.tick().await;
            if let Some(metrics) = &metrics {
                metrics.upkeep();
            }
        }
    };
    // Not graceful: a kept-alive connection of a scraper must not hold the process.
    let server = axum::serve(listener, router(readiness, metrics.clone()));
    tokio::select! {
        served = async { server.await } => served,
        () = upkeep => Ok(()),
        () = stop.cancelled() => Ok(()),
    }
}
