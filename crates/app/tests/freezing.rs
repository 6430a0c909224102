//! Keys that their owner freezes: nothing is made with them, and what was open ends.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use common::*;
use quorate_ports::{ManageSessions as _, ReadSession as _};
use quorate_types::*;

fn sign(key: KeyId) -> CreateSession {
    let input = SignInput::Digest(Digest([7; 32]));
    let key = KeySelector::Id(key);
    request(CeremonyRequest::Sign { key, threshold: None, input }, &["a", "c"])
}

fn caller(tenant: &str, scopes: &[Scope]) -> Caller {
    Caller::Key { tenant: tenant.parse().unwrap(), scopes: scopes.into() }
}

#[tokio::test]
async fn nothing_is_made_with_a_frozen_key_until_it_is_unfrozen() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = open(&folder).await;
    let (key, other) = (make_key(&coordinator).await, make_key(&coordinator).await);
    let create = async |request| coordinator.create(&Caller::Open, request).await;
    let mut open_before = Vec::new();
    for made in [sign(key), sign(key), request(refresh(key), &[])] {
        open_before.push(create(made).await.unwrap().session.session_id);
    }
    let of_other = create(sign(other)).await.unwrap().session.session_id;
    let reason = "a phone is lost".to_owned();
    let view = coordinator.freeze(&Caller::Open, key, reason.clone()).await.unwrap();
    assert_eq!(
        (view.state, &view.record.frozen.as_ref().unwrap().reason),
        (KeyState::Frozen, &reason)
    );
    for session in open_before {
        let ended = coordinator.status(&Caller::Open, session, None).await.unwrap();
        let failure = ended.failure.unwrap();
        assert_eq!(
            (ended.status, failure.reason),
            (SessionStatus::Failed, FailureReason::KeyFrozen)
        );
    }
    let other_view = coordinator.status(&Caller::Open, of_other, None).await.unwrap();
    assert_eq!(other_view.status, SessionStatus::Created, "of another key");
    let again = coordinator.freeze(&Caller::Open, key, "again".into()).await.unwrap();
    assert_eq!(again.record.frozen, view.record.frozen, "the first one stays");

    let refused = async |coordinator: &quorate_app::CoordinatorApp| {
        for request in [sign(key), request(refresh(key), &[])] {
            let refused = coordinator.create(&Caller::Open, request).await.err().unwrap();
            assert_eq!(refused.code, ErrorCode::KeyFrozen);
            assert!(refused.message.contains(&reason), "{refused}");
        }
        let listed = coordinator.keys(&Caller::Open, None, 10).await.unwrap().items;
        let frozen = |key: &KeyRecord| key.frozen.is_some().then_some(key.key_id);
        assert_eq!(listed.iter().filter_map(frozen).collect::<Vec<_>>(), [key]);
    };
    refused(&coordinator).await;
    drop(coordinator);
    let coordinator = common::open(&folder).await;
    refused(&coordinator).await;
    for _ in 0..2 {
        let view = coordinator.unfreeze(&Caller::Open, key).await.unwrap();
        assert_eq!((view.state, view.record.frozen), (KeyState::Active, None));
    }
    coordinator.create(&Caller::Open, sign(key)).await.unwrap();
    let refreshed = coordinator.create(&Caller::Open, request(refresh(key), &[])).await.unwrap();
    assert_eq!(complete(&coordinator, &refreshed).await.status, SessionStatus::Completed);
}

#[tokio::test]
async fn only_who_manages_sessions_of_its_tenant_freezes_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = open(&folder).await;
    let key = make_key(&coordinator).await;
    for (caller, code) in [
        (caller("default", &[Scope::Read, Scope::Party, Scope::Accounts]), ErrorCode::Forbidden),
        (Caller::Party(party("a")), ErrorCode::Forbidden),
        (caller("evil", &[Scope::Sessions]), ErrorCode::NotFound),
    ] {
        let frozen = coordinator.freeze(&caller, key, String::new()).await;
        assert_eq!(frozen.err().unwrap().code, code, "{caller:?}");
        assert_eq!(coordinator.unfreeze(&caller, key).await.err().unwrap().code, code);
    }
    let owner = caller("default", &[Scope::Sessions]);
    for wrong in ["x".repeat(257), "two\nlines".to_owned()] {
        let refused = coordinator.freeze(&owner, key, wrong).await.err().unwrap();
        assert!(refused.details.fields.contains_key("reason"), "{refused}");
    }
    let view = coordinator.freeze(&owner, key, String::new()).await.unwrap();
    assert_eq!(view.record.frozen.unwrap().by, "an API key of default");
}
