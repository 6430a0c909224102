//! A coordinator over a store in a folder, and a key that three parties have made with it.
#![allow(dead_code, reason = "no test uses all of them")]

use std::sync::Arc;

use quorate_app::*;
use quorate_core::inbox::InboxLimits;
use quorate_ports::{ManageSessions as _, TakePart as _};
use quorate_store::SqliteStore;
use quorate_types::*;
use tempfile::TempDir;

pub(crate) const GENERATOR: &str =
    "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
pub(crate) const HOLDERS: [&str; 3] = ["a", "b", "c"];

pub(crate) async fn open(folder: &TempDir) -> CoordinatorApp {
    open_both(folder).await.0
}

/// The coordinator with the router that hears of its sessions.
pub(crate) async fn open_both(folder: &TempDir) -> (CoordinatorApp, Arc<RouterApp>) {
    let clock = Arc::new(ManualClock::at(Timestamp(1_700_000_000_000)));
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let late = Arc::new(LateProgress::default());
    let parts = RouterParts {
        config: RouterConfig { limits: InboxLimits::default() },
        store: store.clone(),
        progress: late,
        clock: clock.clone(),
    };
    let router = Arc::new(RouterApp::open(parts).await.unwrap());
    let parts = CoordinatorParts {
        config: CoordinatorConfig::default(),
        store,
        service_initiator: None,
        join_tokens: JoinTokens::new(Secret::new([7; 32])),
        directory: router.clone(),
        events: router.clone(),
        notifier: None,
        clock,
    };
    (CoordinatorApp::open(parts).await.unwrap(), router)
}

pub(crate) fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

pub(crate) fn request(ceremony: CeremonyRequest, parties: &[&str]) -> CreateSession {
    let device = DeviceInfo { platform: "iOS".into(), ..DeviceInfo::default() };
    let participant = |name: &&str| NewParticipant {
        party_id: party(name),
        device: device.clone(),
        on_behalf_of: None,
    };
    CreateSession {
        ceremony,
        participants: parties.iter().map(participant).collect(),
        expires_in_seconds: None,
        idempotency_key: None,
        authorization: None,
        label: None,
        replace: false,
        lent: None,
        webhook: None,
    }
}

pub(crate) fn refresh(key: KeyId) -> CeremonyRequest {
    CeremonyRequest::Refresh { key: KeySelector::Id(key), threshold: None }
}

/// All participants join and report the same key.
pub(crate) async fn complete(
    coordinator: &CoordinatorApp,
    created: &CreatedSession,
) -> SessionView {
    let session_id = created.session.session_id;
    for participant in &created.session.participants {
        let party_id = participant.party_id.clone();
        let join = JoinSession {
            session_id: None,
            token: created.join_tokens[&party_id].clone(),
            party_id,
            device: DeviceInfo::default(),
            handshake: None,
            ready: true,
            awaiting_approval: false,
            attempt: 0,
        };
        coordinator.join(&Caller::Open, join).await.unwrap();
    }
    let mut last = None;
    for participant in &created.session.participants {
        let public_key = hex::decode(GENERATOR).unwrap();
        let outcome = PartyOutcome::Key { public_key, attestation: None, epoch: None };
        let report =
            Report { session_id, party_id: participant.party_id.clone(), attempt: 0, outcome };
        last = Some(coordinator.complete(&Caller::Open, report).await.unwrap());
    }
    last.unwrap()
}

pub(crate) async fn make_key(coordinator: &CoordinatorApp) -> KeyId {
    let threshold = Threshold::new(2, 3).unwrap();
    let keygen = CeremonyRequest::Keygen { scheme: Scheme::default(), threshold };
    let created = coordinator.create(&Caller::Open, request(keygen, &HOLDERS)).await.unwrap();
    complete(coordinator, &created).await.key_id().unwrap()
}
