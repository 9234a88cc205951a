//! Every RPC without a token, with a member's token, and with an empty message.

use std::collections::BTreeSet;

use proto::policy::Access;
use tests::{PASSWORD, Pair, Refusal};
use tonic::{Code, Status};
use tonic_types::StatusExt as _;

use crate::call::{Rpc, bearer, rpcs};
use crate::reasons::{code_name, documented};

/// RPCs that answer UNIMPLEMENTED, sorted. A release that brings one strikes it from this list; it ends empty.
const UNIMPLEMENTED: &[&str] = &[];

/// What every error must be: one that the proto documents, in the domain of the RPC, never a fault of the service.
fn sound(rpc: &Rpc, status: &Status) -> Result<Refusal, String> {
    let path = rpc.path();
    if matches!(status.code(), Code::Internal | Code::Unknown) {
        return Err(format!("{path}: {:?} is a fault of the service; its log says which: {status:?}", status.code()));
    }
    if status.get_error_details().error_info().is_none() {
        return Err(format!("{path}: make it a Problem of errors.rs, so that it carries ErrorInfo: {status:?}"));
    }
    let refusal = Refusal::of(status);
    if refusal.domain != rpc.package() {
        return Err(format!("{path}: the domain is {:?}, expected {:?}", refusal.domain, rpc.package()));
    }
    match documented(&rpc.package()).get(&refusal.reason) {
        None => Err(format!("{path}: describe {} in error_reason.proto", refusal.reason)),
        Some(code) if *code != code_name(refusal.code) => {
            Err(format!("{path}: {} comes as {}, documented as {code}", refusal.reason, code_name(refusal.code)))
        }
        Some(_) => Ok(refusal),
    }
}

#[track_caller]
fn assert_none(breaches: &[String]) {
    assert!(breaches.is_empty(), "{} RPCs break the contract:\n  {}", breaches.len(), breaches.join("\n  "));
}

#[tokio::test]
async fn without_a_token_only_public_rpcs_are_reached() {
    let pair = Pair::start().await;
    let mut breaches = Vec::new();
    for rpc in rpcs() {
        let answer = rpc.call(&pair, &[], &[]).await;
        let refusal = match answer.as_ref().map_err(|status| sound(&rpc, status)) {
            Err(Err(breach)) => {
                breaches.push(breach);
                continue;
            }
            Err(Ok(refusal)) => Some(refusal),
            Ok(()) => None,
        };
        let reason = refusal.as_ref().map_or("OK", |refusal| refusal.reason.as_str());
        let stopped = reason == "TOKEN_MISSING";
        match rpc.access {
            Access::Public if stopped => breaches.push(format!("{} is public, but asks for a token", rpc.path())),
            Access::Authenticated | Access::Permission(_) if !stopped => {
                breaches.push(format!("{} answers {reason} without a token; expected TOKEN_MISSING", rpc.path()));
            }
            _ => {}
        }
    }
    assert_none(&breaches);
}

#[tokio::test]
async fn a_member_does_not_reach_what_needs_a_permission() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let mut breaches = Vec::new();
    for rpc in rpcs() {
        let Access::Permission(permission) = rpc.access else { continue };
        let Err(status) = rpc.call(&pair, &[], &[("authorization", &bearer(alice.access_token()))]).await else {
            breaches.push(format!("{} lets a member in, who lacks {permission}", rpc.path()));
            continue;
        };
        match sound(&rpc, &status) {
            Err(breach) => breaches.push(breach),
            Ok(refusal) => {
                let details = status.get_error_details();
                let named = details.error_info().and_then(|info| info.metadata.get("permission").cloned());
                if refusal.code != Code::PermissionDenied || named.as_ref() != Some(permission) {
                    breaches.push(format!(
                        "{}: expected PERMISSION_DENIED that names {permission}, got {:?} that names {named:?}",
                        rpc.path(),
                        refusal.code
                    ));
                }
            }
        }
    }
    assert_none(&breaches);
}

#[tokio::test]
async fn an_empty_message_is_answered_or_refused_with_the_field() {
    let pair = Pair::start().await;
    let root = pair.administrator().await;
    let mut breaches = Vec::new();
    let mut unimplemented = BTreeSet::new();
    for rpc in rpcs() {
        // Some RPCs end sessions, SignOutAll all of the caller: each gets one of its own.
        let caller =
            if rpc.package() == "auth.v1" { pair.sign_in("root@example.com", PASSWORD).await } else { root.clone() };
        let Err(status) = rpc.call(&pair, &[], &[("authorization", &bearer(caller.access_token()))]).await else {
            continue;
        };
        let refusal = match sound(&rpc, &status) {
            Err(breach) => {
                breaches.push(breach);
                continue;
            }
            Ok(refusal) => refusal,
        };
        if refusal.code == Code::Unimplemented {
            unimplemented.insert(rpc.path());
        }
        let stopped = refusal.code == Code::PermissionDenied || refusal.reason.starts_with("TOKEN_");
        if stopped {
            breaches.push(format!("{}: an administrator gets {}", rpc.path(), refusal.reason));
        }
        if refusal.reason == "VALIDATION_FAILED" {
            let input = rpc.method.input();
            let unknown = |field: &&String| {
                let first = field.split(['.', '[']).next().unwrap_or_default();
                input.get_field_by_name(first).is_none()
            };
            if refusal.fields.is_empty() || refusal.fields.iter().any(|field| unknown(&field)) {
                let fields = &refusal.fields;
                breaches.push(format!("{}: BadRequest names {fields:?}; expected fields of the request", rpc.path()));
            }
        }
    }
    assert_none(&breaches);
    let listed: BTreeSet<_> = UNIMPLEMENTED.iter().map(ToString::to_string).collect();
    assert_eq!(
        unimplemented, listed,
        "left: what answers UNIMPLEMENTED; right: the list UNIMPLEMENTED of this file. Strike what a release brings; never add"
    );
}

#[test]
fn the_list_of_what_is_to_come_is_sorted_and_real() {
    assert!(UNIMPLEMENTED.is_sorted_by(|one, other| one < other), "sort UNIMPLEMENTED, each RPC once");
    let known: BTreeSet<_> = rpcs().iter().map(Rpc::path).collect();
    let unknown: Vec<_> = UNIMPLEMENTED.iter().filter(|path| !known.contains(**path)).collect();
    assert!(unknown.is_empty(), "no such RPCs; strike them: {unknown:?}");
}

#[tokio::test]
async fn bytes_that_are_no_message_are_refused() {
    let pair = Pair::start().await;
    let root = pair.administrator().await;
    let mut breaches = Vec::new();
    for rpc in rpcs() {
        // Field 1 with a length that goes past the end.
        let answer = rpc.call(&pair, &[0x0a, 0x7f], &[("authorization", &bearer(root.access_token()))]).await;
        let refusal = answer.as_ref().map_err(|status| sound(&rpc, status));
        if !matches!(&refusal, Err(Ok(refusal)) if refusal.reason == "MALFORMED_MESSAGE") {
            breaches.push(format!("{}: expected MALFORMED_MESSAGE, got {refusal:?}", rpc.path()));
        }
    }
    assert_none(&breaches);
}
