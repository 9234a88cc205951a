//! Logs on stderr and the metrics recorder.

use std::io::IsTerminal as _;
use std::sync::Arc;

use metrics_exporter_prometheus::{BuildError, Matcher, PrometheusBuilder, PrometheusHandle};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::MakeWriter;
use tracing_subscriber::util::SubscriberInitExt;

use crate::config::{LogFormat, TelemetryArgs};

/// Upper bounds of every `…_seconds` histogram: a token check takes microseconds, a shed sign-in seconds.
const SECONDS_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0];

/// Why telemetry could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter does not parse.
    #[error("RUST_LOG is not a log filter: {0}")]
    Filter(#[from] tracing_subscriber::filter::ParseError),
    /// A recorder stands already, or the buckets are refused.
    #[error("the metrics recorder cannot be installed: {0}")]
    Metrics(#[from] BuildError),
}

/// Renders the metrics of the process. Cheap to clone.
#[derive(Clone)]
pub struct Metrics {
    handle: PrometheusHandle,
    before_scrape: Arc<std::sync::Mutex<Vec<Hook>>>,
}

type Hook = Box<dyn Fn() + Send>;

impl Metrics {
    /// `hook` runs before each scrape: for gauges that are read rather than counted.
    pub fn before_scrape(&self, hook: impl Fn() + Send + 'static) {
        self.before_scrape.lock().unwrap_or_else(std::sync::PoisonError::into_inner).push(Box::new(hook));
    }

    /// The metrics in Prometheus's text format.
    pub fn render(&self) -> String {
        for hook in &*self.before_scrape.lock().unwrap_or_else(std::sync::PoisonError::into_inner) {
            hook();
        }
        self.handle.render()
    }

    /// Moves recorded values into the histograms; called regularly so that memory stays bounded when nobody scrapes.
    pub(crate) fn upkeep(&self) {
        self.handle.run_upkeep();
    }
}

/// Sets up logs and metrics for the whole process; to be called once, before anything logs. Logs are JSON unless stderr is a
/// terminal or `LOG_FORMAT` says otherwise.
pub fn init(args: &TelemetryArgs) -> Result<Metrics, TelemetryError> {
    init_logs(args)?;
    let recorder = recorder()?;
    let handle = recorder.handle();
    // A second start in one process (tests) keeps the first recorder.
    let _ = metrics::set_global_recorder(recorder);
    describe();
    if args.otel_exporter_otlp_endpoint.as_deref().is_some_and(|endpoint| !endpoint.is_empty()) {
        tracing::warn!(
            "OTEL_EXPORTER_OTLP_ENDPOINT is set, but this version exports no traces; logs and metrics are complete without it"
        );
    }
    Ok(Metrics { handle, before_scrape: Arc::default() })
}

/// Sets up logs only: for subcommands that serve nothing.
pub fn init_logs(args: &TelemetryArgs) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder().parse(&args.rust_log)?;
    let terminal = std::io::stderr().is_terminal();
    let format = args.log_format.unwrap_or(if terminal { LogFormat::Text } else { LogFormat::Json });
    // A second start in one process (tests) keeps the first subscriber.
    let _ = match format {
        LogFormat::Json => json_lines(filter, std::io::stderr).try_init().is_ok(),
        LogFormat::Text => {
            let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
            builder.with_ansi(terminal).try_init().is_ok()
        }
    };
    Ok(())
}

/// One JSON object per line. The span goes with it: `span.request_id` joins what happened inside a call to the call's own line.
fn json_lines<W>(filter: EnvFilter, writer: W) -> impl Into<tracing::Dispatch>
where
    W: for<'a> MakeWriter<'a> + Send + Sync + 'static,
{
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(writer).json();
    builder.flatten_event(true).with_current_span(true).with_span_list(false).finish()
}

fn recorder() -> Result<metrics_exporter_prometheus::PrometheusRecorder, BuildError> {
    let builder =
        PrometheusBuilder::new().set_buckets_for_metric(Matcher::Suffix("_seconds".to_owned()), &SECONDS_BUCKETS)?;
    Ok(builder.build_recorder())
}

/// Help texts of the kit's own metrics.
fn describe() {
    use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};
    describe_counter!("grpc_server_requests_total", "Finished RPCs by method and status code");
    describe_histogram!(
        "grpc_server_request_duration_seconds",
        Unit::Seconds,
        "Duration of RPCs, until the last byte of the answer"
    );
    describe_histogram!(
        "database_operation_duration_seconds",
        Unit::Seconds,
        "Duration of database operations, waiting for a connection included"
    );
    describe_histogram!("database_pool_wait_seconds", Unit::Seconds, "Wait for a connection of the pool");
    describe_counter!("database_retries_total", "Transactions run again after a serialization failure or deadlock");
    describe_counter!(
        "database_connections_discarded_total",
        "Connections closed because their work was dropped half way"
    );
    describe_gauge!("database_pool_connections", "Connections of the pool by state: used or idle");
    describe_gauge!("database_pool_max_connections", "Most connections the pool may open");
    describe_gauge!("database_pool_waiting", "Callers waiting for a connection");
    describe_gauge!("service_ready", "1 when all readiness latches are set");
}

#[cfg(test)]
mod tests {
    use std::io::Write;
    use std::sync::Mutex;

    use super::*;

    #[derive(Clone, Default)]
    struct Lines(Arc<Mutex<Vec<u8>>>);

    impl Write for Lines {
        fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
            self.0.lock().unwrap().write(bytes)
        }

        fn flush(&mut self) -> std::io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn a_line_inside_a_call_names_the_request_also_when_only_errors_are_logged() {
        let lines = Lines::default();
        let writer = lines.clone();
        let dispatch: tracing::Dispatch = json_lines(EnvFilter::new("error"), move || writer.clone()).into();
        tracing::dispatcher::with_default(&dispatch, || {
            crate::stack::call_span("id-7", "test.v1.Thing", "Get").in_scope(|| tracing::error!("broken"));
        });
        let line: serde_json::Value = serde_json::from_slice(&lines.0.lock().unwrap()).unwrap();
        assert_eq!((&line["message"], &line["span"]["request_id"]), (&"broken".into(), &"id-7".into()), "{line}");
    }
}
