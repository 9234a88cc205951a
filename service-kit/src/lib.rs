//! What any service here needs before it has a domain: configuration, telemetry, TLS, health, shutdown, one tower stack,
//! the database pool and the error table. It knows no proto package, no table and no service.
//!
//! | module | is for |
//! |---|---|
//! | [`config`] | command line and environment, one struct per concern; one-line errors; masked settings |
//! | [`postgres`] | `DATABASE_URL`, TLS to PostgreSQL, one connection with a classified error |
//! | [`database`] | the pool; one statement or one transaction with bounded retry; database errors by class |
//! | [`status`] | a service's error table and how an error becomes a gRPC status |
//! | [`telemetry`] | logs and metrics |
//! | [`readiness`] | named latches that drive gRPC health and `/readyz` |
//! | [`http`] | `/metrics`, `/livez`, `/readyz` |
//! | [`methods`] | the RPCs of a descriptor set: which exist, which stream |
//! | [`page_token`] | page tokens that are bound to their list |
//! | [`deadline`] | the deadline of the call at hand |
//! | [`stack`] | the one tower stack |
//! | [`streams`] | response streams that end also where their client takes nothing |
//! | [`server`] | bind, serve, drain |
//! | [`peer`] | the channel to another service, whose TLS files may be renewed |
//! | [`tasks`] | owned background tasks |

pub mod config;
pub mod database;
pub mod deadline;
pub mod http;
pub mod methods;
pub mod page_token;
pub mod peer;
pub mod postgres;
pub mod readiness;
pub mod server;
pub mod stack;
pub mod status;
pub mod streams;
pub mod tasks;
pub mod telemetry;

/// Random number in `0..bound`, for jitter only; never for secrets.
pub(crate) fn jitter_below(bound: u64) -> u64 {
    // A v4 UUID is the randomness that is at hand without another crate.
    let random = uuid::Uuid::new_v4().as_u128() as u64;
    if bound == 0 { 0 } else { random % bound }
}
