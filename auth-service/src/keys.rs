//! The signing keys in memory, shared by all who sign, publish or verify in this process.

use std::sync::Arc;

use auth_client::{BoxFuture, KeySource, KeySourceError, PublicKey};
use chrono::Utc;
use tokio::sync::watch;

use crate::domain::signing_key::KeyRing;

/// The keys that count. Cheap to clone; all clones share them.
#[derive(Clone, Default)]
pub struct Keys {
    ring: Arc<watch::Sender<Arc<KeyRing>>>,
}

impl Keys {
    /// The ring as it is now; empty until the first was loaded.
    pub fn ring(&self) -> Arc<KeyRing> {
        Arc::clone(&self.ring.borrow())
    }

    /// Replaces the ring.
    pub fn set(&self, ring: KeyRing) {
        self.ring.send_replace(Arc::new(ring));
    }
}

/// For the verifier in this process; waits for the first ring.
impl KeySource for Keys {
    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, KeySourceError>> {
        Box::pin(async {
            let mut changes = self.ring.subscribe();
            let loaded = changes.wait_for(|ring| ring.published(Utc::now()).next().is_some()).await;
            let ring = Arc::clone(&*loaded.map_err(|error| KeySourceError::Store(error.into()))?);
            let known = ring.published(Utc::now()).filter_map(|key| Some((key.kind()?, key)));
            let keys = known.map(|(algorithm, key)| PublicKey::of(algorithm, &key.kid, &key.public_key));
            keys.collect::<Result<_, _>>().map_err(KeySourceError::Unusable)
        })
    }
}
