//! Real tokens, good and forged, against the verifier.

use std::time::Duration;

use crate::support::*;
use auth_client::{PrincipalKind, TokenError, Verifier, VerifierConfig};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::{Algorithm, EncodingKey};
use serde_json::json;

fn invalid(result: Result<auth_client::Principal, TokenError>) -> bool {
    matches!(result, Err(TokenError::Invalid(_)))
}

#[tokio::test]
async fn a_good_token_becomes_its_principal() {
    let key = Signer::ed();
    let verifier = verifier(Published::of(vec![key.public("k1")])).await;
    let principal = verifier.verify(&key.token(&header("k1"), &claims())).await.unwrap();
    assert_eq!(principal.id.to_string(), USER);
    assert_eq!(principal.session_id.unwrap().to_string(), SESSION);
    assert_eq!(
        (principal.kind, principal.role.as_str(), principal.token_id.as_str()),
        (PrincipalKind::User, "member", "token-1")
    );
    assert!(principal.has("tasks.read") && !principal.has("tasks.write"));

    let service = key.token(&header("k1"), &claims_with(json!({"sid": null})));
    assert_eq!(verifier.verify(&service).await.unwrap().kind, PrincipalKind::Service);
}

#[tokio::test]
async fn es256_works_beside_ed25519_and_keys_do_not_trade_algorithms() {
    let (ed, ec) = (Signer::ed(), Signer::ec());
    let verifier = verifier(Published::of(vec![ed.public("ed"), ec.public("ec")])).await;
    let es256 = json!({"alg": "ES256", "typ": "at+jwt", "kid": "ec"});
    assert!(verifier.verify(&ec.token(&es256, &claims())).await.is_ok());
    for (signer, alg, kid) in [(&ec, "EdDSA", "ec"), (&ed, "ES256", "ed"), (&ec, "ES256", "ed"), (&ed, "EdDSA", "ec")] {
        let token = signer.token(&json!({"alg": alg, "typ": "at+jwt", "kid": kid}), &claims());
        assert!(invalid(verifier.verify(&token).await), "{alg} {kid}");
    }
}

#[tokio::test]
async fn alg_none_is_refused() {
    let key = Signer::ed();
    let verifier = verifier(Published::of(vec![key.public("k1")])).await;
    for alg in ["none", "None", "NONE", ""] {
        let message = message(&json!({"alg": alg, "typ": "at+jwt", "kid": "k1"}), &claims());
        for token in [format!("{message}."), message.clone(), format!("{message}.AAAA")] {
            assert!(invalid(verifier.verify(&token).await), "{alg}");
        }
    }
}

#[tokio::test]
async fn hs256_with_the_public_key_as_secret_is_refused() {
    let key = Signer::ed();
    let verifier = verifier(Published::of(vec![key.public("k1")])).await;
    let as_text = URL_SAFE_NO_PAD.encode(key.public_bytes());
    for secret in [key.public_bytes(), as_text.into_bytes()] {
        let mut header = jsonwebtoken::Header::new(Algorithm::HS256);
        header.typ = Some("at+jwt".to_owned());
        header.kid = Some("k1".to_owned());
        let token = jsonwebtoken::encode(&header, &claims(), &EncodingKey::from_secret(&secret)).unwrap();
        assert!(invalid(verifier.verify(&token).await));
    }
}

#[tokio::test]
async fn headers_that_bring_or_point_to_keys_are_refused() {
    let (key, foreign) = (Signer::ed(), Signer::ed());
    let verifier = verifier(Published::of(vec![key.public("k1")])).await;
    let jwk = json!({"kty": "OKP", "crv": "Ed25519", "x": URL_SAFE_NO_PAD.encode(foreign.public_bytes())});
    for extra in [
        json!({"crit": ["exp"]}),
        json!({"crit": []}),
        json!({"jwk": jwk}),
        json!({"jku": "https://example.com/keys"}),
        json!({"x5u": "https://example.com/keys"}),
        json!({"x5c": ["AAAA"]}),
        json!({"b64": false}),
    ] {
        for signer in [&key, &foreign] {
            let token = signer.token(&merged(header("k1"), extra.clone()), &claims());
            assert!(invalid(verifier.verify(&token).await), "{extra}");
        }
    }
}

#[tokio::test]
async fn wrong_typ_issuer_audience_and_missing_claims_are_refused() {
    let key = Signer::ed();
    let verifier = verifier(Published::of(vec![key.public("k1")])).await;
    for typ in [
        json!({"typ": "JWT"}),
        json!({"typ": null}),
        json!({"typ": "at+JWT "}),
        json!({"kid": null}),
        json!({"kid": 1}),
    ] {
        assert!(invalid(verifier.verify(&key.token(&merged(header("k1"), typ.clone()), &claims())).await), "{typ}");
    }
    for wrong in [
        json!({"iss": "somebody"}),
        json!({"aud": "public"}),
        json!({"aud": ["internal", "public"]}),
        json!({"iss": ["auth-service"]}),
        json!({"sub": "not a uuid"}),
        json!({"sub": "00000000-0000-0000-0000-000000000000"}),
        json!({"sid": "not a uuid"}),
        json!({"iss": null}),
        json!({"aud": null}),
        json!({"sub": null}),
        json!({"exp": null}),
        json!({"iat": null}),
        json!({"nbf": null}),
        json!({"jti": null}),
        json!({"exp": "9999999999"}),
    ] {
        assert!(invalid(verifier.verify(&key.token(&header("k1"), &claims_with(wrong.clone()))).await), "{wrong}");
    }
}

#[tokio::test]
async fn times_have_thirty_seconds_of_leeway_and_no_more() {
    let key = Signer::ed();
    let verifier = verifier(Published::of(vec![key.public("k1")])).await;
    let verify = async |changes| verifier.verify(&key.token(&header("k1"), &claims_with(changes))).await;
    assert_eq!(verify(json!({"exp": now() - 33})).await, Err(TokenError::Expired));
    assert!(verify(json!({"exp": now() - 20})).await.is_ok());
    assert_eq!(verify(json!({"nbf": now() + 40})).await, Err(TokenError::Invalid("not valid yet")));
    assert!(verify(json!({"nbf": now() + 20, "iat": now() + 20})).await.is_ok());
    assert_eq!(verify(json!({"iat": now() + 40})).await, Err(TokenError::Invalid("issued in the future")));
}

#[tokio::test]
async fn damaged_tokens_are_refused_and_do_not_say_expired() {
    let key = Signer::ed();
    let verifier = verifier(Published::of(vec![key.public("k1")])).await;
    let token = key.token(&header("k1"), &claims());
    let (message, signature) = token.rsplit_once('.').unwrap();
    let mut flipped = URL_SAFE_NO_PAD.decode(signature).unwrap();
    flipped[10] ^= 1;
    let changed = key.token(&header("k1"), &claims_with(json!({"role": "admin"})));
    let expired_by_another = Signer::ed().token(&header("k1"), &claims_with(json!({"exp": now() - 1000})));
    for bad in [
        String::new(),
        ".".to_owned(),
        "..".to_owned(),
        "a.b.c".to_owned(),
        message.to_owned(),
        format!("{token}.x"),
        format!("{message}.{}", URL_SAFE_NO_PAD.encode(flipped)),
        format!("{}.{signature}", changed.rsplit_once('.').unwrap().0),
        expired_by_another,
        format!("{token}{}", "x".repeat(9000)),
    ] {
        assert!(invalid(verifier.verify(&bad).await), "{bad:.40}");
    }
}

#[tokio::test]
async fn a_kid_is_only_ever_a_name() {
    let key = Signer::ed();
    let verifier = verifier(Published::of(vec![key.public("k1")])).await;
    for kid in ["../../etc/passwd", "' OR 1=1 --", "k1\u{0}", "K1", "", "http://example.com/k1"] {
        assert_eq!(verifier.verify(&key.token(&header(kid), &claims())).await, Err(TokenError::UnknownKey), "{kid}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_unknown_kid_fetches_once_and_then_not_before_the_floor() {
    let (old, new) = (Signer::ed(), Signer::ed());
    let source = Published { delay: Duration::from_millis(50), ..Published::of(vec![old.public("old")]) };
    let verifier = verifier(source.clone()).await;
    assert_eq!(source.asked(), 1);
    tokio::time::advance(Duration::from_secs(6)).await;

    source.set(Some(vec![old.public("old"), new.public("new")]));
    let token = new.token(&header("new"), &claims());
    let together = std::iter::repeat_with(|| verifier.verify(&token)).take(32);
    for verified in futures_util::future::join_all(together).await {
        assert!(verified.is_ok(), "everybody who came with the new kid gets in: {verified:?}");
    }
    assert_eq!(source.asked(), 2, "one fetch served them all");

    let forged = new.token(&header("forged"), &claims());
    for _ in 0..100 {
        assert_eq!(verifier.verify(&forged).await, Err(TokenError::UnknownKey));
    }
    assert_eq!(source.asked(), 2, "within the floor nothing is fetched");
    tokio::time::advance(Duration::from_secs(6)).await;
    for _ in 0..100 {
        assert_eq!(verifier.verify(&forged).await, Err(TokenError::UnknownKey));
    }
    assert_eq!(source.asked(), 3, "one more after the floor");
}

#[tokio::test(start_paused = true)]
async fn a_hanging_source_holds_a_request_no_longer_than_one_fetch() {
    let key = Signer::ed();
    let source = Published::of(vec![key.public("k1")]);
    let verifier = Verifier::new(
        VerifierConfig::new("auth-service", "internal"),
        Published { delay: Duration::from_secs(3600), ..source },
    );
    tokio::spawn(verifier.clone().run(tokio_util::sync::CancellationToken::new()));
    let start = tokio::time::Instant::now();
    assert_eq!(verifier.verify(&key.token(&header("k1"), &claims())).await, Err(TokenError::NoKeys));
    assert!(start.elapsed() < Duration::from_secs(4), "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn cached_keys_outlive_the_source_and_withdrawn_keys_go() {
    let (one, two) = (Signer::ed(), Signer::ed());
    let source = Published::of(vec![one.public("one"), two.public("two")]);
    let verifier = verifier(source.clone()).await;
    let by_one = one.token(&header("one"), &claims());
    let by_two = two.token(&header("two"), &claims());

    source.set(None);
    tokio::time::sleep(Duration::from_secs(300)).await;
    assert!(source.asked() > 10, "it keeps trying: {}", source.asked());
    assert!(verifier.verify(&by_one).await.is_ok() && verifier.verify(&by_two).await.is_ok());

    source.set(Some(vec![]));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert!(verifier.verify(&by_one).await.is_ok(), "an empty list is a fault, not a withdrawal of everything");

    source.set(Some(vec![two.public("two")]));
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(verifier.verify(&by_one).await, Err(TokenError::UnknownKey));
    assert!(verifier.verify(&by_two).await.is_ok());
}

#[tokio::test(start_paused = true)]
async fn without_keys_it_says_so_and_recovers() {
    let key = Signer::ed();
    let source = Published::default();
    let verifier = Verifier::new(VerifierConfig::new("auth-service", "internal"), source.clone());
    tokio::spawn(verifier.clone().run(tokio_util::sync::CancellationToken::new()));
    let token = key.token(&header("k1"), &claims());
    assert_eq!(verifier.verify(&token).await, Err(TokenError::NoKeys));
    assert!(!*verifier.keys_ready().borrow());
    source.set(Some(vec![key.public("k1")]));
    verifier.keys_ready().wait_for(|ready| *ready).await.unwrap();
    assert!(verifier.verify(&token).await.is_ok());
}
