//! Real keys, tokens made by hand, and a key source that counts.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use auth_client::{BoxFuture, KeySource, KeySourceError, PublicKey, Verifier, VerifierConfig};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

pub(crate) const USER: &str = "0198c7f0-5b1e-7c3a-9d42-6f0e8a1b2c3d";
pub(crate) const SESSION: &str = "0198c7f0-5b1e-7c3a-9d42-6f0e8a1b2c3e";

pub(crate) fn now() -> u64 {
    SystemTime::now().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

/// A key that signs.
pub(crate) enum Signer {
    Ed(Ed25519KeyPair),
    Ec(EcdsaKeyPair),
}

impl Signer {
    pub(crate) fn ed() -> Self {
        Self::Ed(Ed25519KeyPair::generate().unwrap())
    }

    pub(crate) fn ec() -> Self {
        let pkcs8 = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Self::Ec(EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, pkcs8.as_ref()).unwrap())
    }

    pub(crate) fn public_bytes(&self) -> Vec<u8> {
        match self {
            Self::Ed(pair) => pair.public_key().as_ref().to_vec(),
            Self::Ec(pair) => pair.public_key().as_ref().to_vec(),
        }
    }

    pub(crate) fn public(&self, kid: &str) -> PublicKey {
        match self {
            Self::Ed(_) => PublicKey::ed25519(kid, &self.public_bytes()).unwrap(),
            Self::Ec(_) => PublicKey::p256(kid, &self.public_bytes()).unwrap(),
        }
    }

    pub(crate) fn token(&self, header: &Value, claims: &Value) -> String {
        let message = message(header, claims);
        let signature = match self {
            Self::Ed(pair) => pair.sign(message.as_bytes()).as_ref().to_vec(),
            Self::Ec(pair) => pair.sign(&SystemRandom::new(), message.as_bytes()).unwrap().as_ref().to_vec(),
        };
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(signature))
    }
}

pub(crate) fn message(header: &Value, claims: &Value) -> String {
    let part = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    format!("{}.{}", part(header), part(claims))
}

pub(crate) fn header(kid: &str) -> Value {
    json!({"alg": "EdDSA", "typ": "at+jwt", "kid": kid})
}

pub(crate) fn claims() -> Value {
    let now = now();
    json!({
        "iss": "auth-service", "aud": "internal", "sub": USER, "sid": SESSION, "jti": "token-1", "iat": now, "nbf": now, "exp": now + 900,
        "role": "member", "permissions": ["tasks.read"],
    })
}

/// The claims with some of them replaced; `null` takes one away.
pub(crate) fn claims_with(changes: Value) -> Value {
    merged(claims(), changes)
}

pub(crate) fn merged(mut base: Value, changes: Value) -> Value {
    for (name, value) in changes.as_object().unwrap() {
        match value {
            Value::Null => {
                base.as_object_mut().unwrap().remove(name);
            }
            value => base[name] = value.clone(),
        }
    }
    base
}

/// Publishes what it is told to, and counts how often it was asked.
#[derive(Clone, Default)]
pub(crate) struct Published {
    pub(crate) keys: Arc<Mutex<Option<Vec<PublicKey>>>>,
    pub(crate) asked: Arc<AtomicUsize>,
    pub(crate) delay: Duration,
}

impl Published {
    pub(crate) fn of(keys: Vec<PublicKey>) -> Self {
        let published = Self::default();
        published.set(Some(keys));
        published
    }

    pub(crate) fn set(&self, keys: Option<Vec<PublicKey>>) {
        *self.keys.lock().unwrap() = keys;
    }

    pub(crate) fn asked(&self) -> usize {
        self.asked.load(Ordering::SeqCst)
    }
}

impl KeySource for Published {
    fn signing_keys(&self) -> BoxFuture<'_, Result<Vec<PublicKey>, KeySourceError>> {
        Box::pin(async move {
            self.asked.fetch_add(1, Ordering::SeqCst);
            tokio::time::sleep(self.delay).await;
            self.keys.lock().unwrap().clone().ok_or_else(|| KeySourceError::Store("away".into()))
        })
    }
}

/// A running verifier, once it has its keys.
pub(crate) async fn verifier(source: Published) -> Verifier {
    let verifier = Verifier::new(VerifierConfig::new("auth-service", "internal"), source);
    tokio::spawn(verifier.clone().run(CancellationToken::new()));
    verifier.keys_ready().wait_for(|ready| *ready).await.unwrap();
    verifier
}
