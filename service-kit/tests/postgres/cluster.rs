//! A private PostgreSQL for the tests of one binary: started by the first test, stopped by the last one that holds it.

use std::sync::{Arc, Mutex, Weak};

use local_pair::postgres::{Cluster, ClusterOptions, PostgresBinaries};
use service_kit::postgres::DatabaseUrl;

/// A running cluster and the directory it lies in.
pub(crate) struct Postgres {
    pub(crate) cluster: Cluster,
    _directory: tempfile::TempDir,
}

impl Postgres {
    /// A cluster of its own, for tests that stop or reconfigure it.
    pub(crate) fn start() -> Self {
        let directory = tempfile::tempdir().unwrap();
        let binaries = PostgresBinaries::find().unwrap();
        let cluster = Cluster::start(&binaries, &ClusterOptions::for_tests(directory.path().join("cluster"))).unwrap();
        Self { cluster, _directory: directory }
    }

    /// The cluster that the tests of this binary share.
    pub(crate) fn shared() -> Arc<Self> {
        static SHARED: Mutex<Weak<Postgres>> = Mutex::new(Weak::new());
        let mut shared = SHARED.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        shared.upgrade().unwrap_or_else(|| {
            let started = Arc::new(Self::start());
            *shared = Arc::downgrade(&started);
            started
        })
    }

    /// The superuser's URL of database `postgres` with these parameters behind the `?`.
    pub(crate) fn url(&self, parameters: &str) -> DatabaseUrl {
        self.url_at("127.0.0.1", parameters)
    }

    pub(crate) fn url_at(&self, host: &str, parameters: &str) -> DatabaseUrl {
        let (password, port) = (self.cluster.password(), self.cluster.port());
        format!("postgres://postgres:{password}@{host}:{port}/postgres?{parameters}").parse().unwrap()
    }
}
