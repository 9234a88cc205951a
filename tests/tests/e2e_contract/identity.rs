//! Who a caller is: the verified token says it, and nothing else.

use proto::auth::v1::GetMeRequest;
use proto::policy::Access;
use proto::task::v1::{CreateTaskRequest, ListTasksRequest};
use tests::{Pair, Refusal, assert_refused};
use tonic::{Code, Request};

use crate::call::{bearer, rpcs};

/// Metadata by which other systems hand on who calls.
const CLAIMS: [&str; 9] = [
    "x-user-id",
    "user-id",
    "x-forwarded-user",
    "x-auth-request-user",
    "x-remote-user",
    "x-role",
    "x-permissions",
    "x-principal",
    "x-access-token",
];

#[tokio::test]
async fn metadata_does_not_change_who_calls() {
    let pair = Pair::start().await;
    let (alice, root) = (pair.sign_up("alice").await, pair.administrator().await);
    let pretend = |request: &mut tonic::metadata::MetadataMap| {
        for name in CLAIMS {
            request.insert(name, root.id().parse().unwrap());
        }
    };

    let mut request = Request::new(GetMeRequest {});
    pretend(request.metadata_mut());
    let me = pair.auth_as(&alice).get_me(request).await.unwrap().into_inner().user.unwrap();
    assert_eq!((me.id.as_str(), me.role.as_str()), (alice.id(), "member"));

    let mut request = Request::new(CreateTaskRequest { title: "mine".to_owned(), ..Default::default() });
    pretend(request.metadata_mut());
    let task = pair.tasks(&alice).create_task(request).await.unwrap().into_inner().task.unwrap();
    assert_eq!(task.user_id, alice.id());

    let mut request = Request::new(ListTasksRequest { user_id: root.id().to_owned(), ..Default::default() });
    pretend(request.metadata_mut());
    assert_refused(pair.tasks(&alice).list_tasks(request).await, Code::PermissionDenied, "PERMISSION_MISSING");
}

#[tokio::test]
async fn metadata_does_not_stand_in_for_a_token() {
    let pair = Pair::start().await;
    let root = pair.administrator().await;
    let claims: Vec<_> = CLAIMS.iter().map(|name| (*name, root.id())).collect();
    for rpc in rpcs().into_iter().filter(|rpc| *rpc.access != Access::Public) {
        let refusal = Refusal::of(&rpc.call(&pair, &[], &claims).await.unwrap_err());
        assert_eq!((refusal.code, refusal.reason.as_str()), (Code::Unauthenticated, "TOKEN_MISSING"), "{}", rpc.path());
    }
}

#[tokio::test]
async fn two_authorizations_are_refused_everywhere() {
    let pair = Pair::start().await;
    let (alice, root) = (pair.sign_up("alice").await, pair.administrator().await);
    let (one, other) = (bearer(alice.access_token()), bearer(root.access_token()));
    for (first, second) in [(&one, &other), (&other, &one), (&one, &one)] {
        for rpc in rpcs() {
            let answer = rpc.call(&pair, &[], &[("authorization", first), ("authorization", second)]).await;
            let refusal = Refusal::of(&answer.expect_err("two tokens are one too many"));
            let expected = (Code::Unauthenticated, "AUTHORIZATION_AMBIGUOUS", rpc.package());
            assert_eq!((refusal.code, refusal.reason.as_str(), refusal.domain), expected, "{}", rpc.path());
        }
    }
}

#[tokio::test]
async fn a_scheme_or_token_that_is_none_is_refused() {
    let pair = Pair::start().await;
    let alice = pair.sign_up("alice").await;
    let basic = format!("Basic {}", alice.access_token());
    let two_in_one = format!("Bearer {0}, Bearer {0}", alice.access_token());
    for rpc in rpcs().into_iter().filter(|rpc| *rpc.access != Access::Public) {
        for wrong in ["", "Bearer", "Bearer ", "Bearer x", alice.access_token(), &basic, &two_in_one] {
            let refusal = Refusal::of(&rpc.call(&pair, &[], &[("authorization", wrong)]).await.unwrap_err());
            assert_eq!(refusal.code, Code::Unauthenticated, "{}: {}", rpc.path(), refusal.reason);
            assert!(["TOKEN_MISSING", "TOKEN_INVALID"].contains(&refusal.reason.as_str()), "{}", refusal.reason);
        }
    }
}
