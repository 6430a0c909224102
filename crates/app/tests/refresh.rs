//! Refreshes as the coordinator keeps them: all holders, one at a time, the next epoch for everybody.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use std::sync::Arc;

use common::*;
use ed25519_dalek::{Signer as _, SigningKey};
use quorate_app::*;
use quorate_ports::{ManageSessions as _, Store as _};
use quorate_schemes::{Statement, in_domain};
use quorate_store::SqliteStore;
use quorate_types::*;

#[tokio::test]
async fn a_refresh_takes_all_holders_and_makes_the_next_epoch_for_everybody() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = open(&folder).await;
    let key = make_key(&coordinator).await;
    let create = async |ceremony, named: &[&str]| {
        coordinator.create(&Caller::Open, request(ceremony, named)).await
    };
    for epoch in 1..=2 {
        let created = create(refresh(key), &["b"]).await.unwrap();
        let seats = &created.session.participants;
        let names: Vec<_> = seats.iter().map(|seat| seat.party_id.as_str()).collect();
        assert_eq!(names, HOLDERS, "in the order of their shares");
        assert_eq!((&*seats[1].device.platform, &*seats[0].device.platform), ("iOS", ""));
        let view = complete(&coordinator, &created).await;
        assert_eq!((view.status, view.key_id()), (SessionStatus::Completed, Some(key)));
        let shown = coordinator.key(&Caller::Open, key).await.unwrap();
        assert_eq!((shown.record.key_id, shown.record.epoch), (key, epoch));
        let sessions: Vec<_> = shown.epochs.iter().map(|epoch| epoch.session_id).collect();
        assert_eq!(sessions.len(), usize::try_from(epoch).unwrap() + 1);
        assert_eq!(sessions.last(), Some(&view.session_id));
        let input = SignInput::Digest(Digest([7; 32]));
        let sign = CeremonyRequest::Sign { key: KeySelector::Id(key), threshold: None, input };
        let signing = create(sign, &["a", "c"]).await.unwrap();
        assert_eq!(signing.session.ceremony.key().unwrap().epoch, epoch);
    }
    let refused = create(refresh(key), &["b", "stranger"]).await.err().unwrap();
    assert!(refused.message.contains("stranger"), "{refused}");
    let other = KeyId("550e8400-e29b-41d4-a716-446655440000".parse().unwrap());
    assert_eq!(create(refresh(other), &[]).await.err().unwrap().code, ErrorCode::NotFound);
}

#[tokio::test]
async fn a_key_is_refreshed_by_one_session_at_a_time_also_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = open(&folder).await;
    let (key, other) = (make_key(&coordinator).await, make_key(&coordinator).await);
    let create = async |coordinator: &CoordinatorApp, key| {
        coordinator.create(&Caller::Open, request(refresh(key), &[])).await
    };
    let first = create(&coordinator, key).await.unwrap().session.session_id;
    create(&coordinator, other).await.unwrap();
    let refused = create(&coordinator, key).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::Conflict);
    assert!(refused.message.contains(&first.to_string()), "{refused}");
    drop(coordinator);
    let coordinator = open(&folder).await;
    assert_eq!(create(&coordinator, key).await.err().unwrap().code, ErrorCode::Conflict);
    coordinator.close(&Caller::Open, first).await.unwrap();
    create(&coordinator, key).await.unwrap();
}

/// What all holders have signed of this epoch.
fn attested(key: &KeyEpoch) -> Attestation {
    let signers: Vec<_> = (1..=3).map(|n| SigningKey::from_bytes(&[n; 32])).collect();
    let identities: Vec<_> = signers.iter().map(|key| key.verifying_key().to_bytes()).collect();
    let statement = Statement::new(key, &[7; 32], &identities);
    let (domain, bytes) = statement.signed();
    let sign = |key: &SigningKey| key.sign(&in_domain(domain, bytes)).to_bytes();
    let confirmations = signers.iter().flat_map(sign).collect();
    Attestation { execution: [7; 32], identities, confirmations }
}

#[tokio::test]
async fn a_refresh_whose_end_was_missed_is_learned_from_its_holders() {
    let folder = tempfile::tempdir().unwrap();
    let coordinator = open(&folder).await;
    let id = make_key(&coordinator).await;
    let before = coordinator.key(&Caller::Open, id).await.unwrap().record;
    drop(coordinator);
    let store = SqliteStore::open(folder.path()).unwrap();
    let held = |epoch, holders: &[&str]| {
        let holders = holders.iter().map(|name| party(name)).collect();
        let key = KeyEpoch { epoch, holders, ..(*before.key).clone() };
        let attestation = attested(&key);
        (KeyRecord { key: Arc::new(key), ..before.clone() }, Some(attestation))
    };
    let epoch = async || store.key(id).await.unwrap().unwrap().epoch;
    // What no holder has signed is no epoch.
    let unsigned = (held(1, &HOLDERS).0, None);
    assert!(restore_keys(&store, vec![unsigned]).await.unwrap().is_empty());
    assert_eq!(epoch().await, 0);
    // One holder has the next epoch, the others have yet to hear of it.
    for order in [[0, 1, 0], [1, 0, 0]] {
        let all = order.map(|epoch| held(epoch, &HOLDERS)).to_vec();
        assert!(restore_keys(&store, all).await.unwrap().is_empty(), "the key was there");
        assert_eq!(epoch().await, 1);
    }
    let others = vec![held(1, &HOLDERS), held(2, &["a", "b", "stranger"])];
    assert_eq!(restore_keys(&store, others).await.err().unwrap().code, ErrorCode::Conflict);
}
