//! Who signs, and who signs instead when somebody does not, by a clock that stands still.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::sync::Arc;

use quorate_app::*;
use quorate_core::inbox::InboxLimits;
use quorate_ports::{Deliver as _, ManageSessions as _, ReadSession as _, TakePart as _};
use quorate_store::SqliteStore;
use quorate_types::*;
use tempfile::TempDir;

const GENERATOR: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const HOLDERS: [&str; 3] = ["a", "b", "c"];

/// A coordinator with three server parties that hold a 2-of-3 key.
struct World {
    coordinator: CoordinatorApp,
    clock: Arc<ManualClock>,
    key: KeyId,
    _folder: TempDir,
}

fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

fn request(ceremony: CeremonyRequest, parties: &[&str]) -> CreateSession {
    let participant = |name: &&str| NewParticipant {
        party_id: party(name),
        device: DeviceInfo::default(),
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

impl World {
    async fn open() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let clock = Arc::new(ManualClock::at(Timestamp(1_700_000_000_000)));
        let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let progress = Arc::new(LateProgress::default());
        let parts = RouterParts {
            config: RouterConfig { limits: InboxLimits::default() },
            store: store.clone(),
            progress,
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
            clock: clock.clone(),
        };
        let coordinator = CoordinatorApp::open(parts).await.unwrap();
        for name in HOLDERS {
            let registration = Registration {
                party_id: party(name),
                role: PartyRole::Persistent,
                version: String::new(),
                notification: NotificationChannel::default(),
                identity: None,
                delegate_key: None,
            };
            router.register(&Caller::System, registration).await.unwrap();
        }
        let key = KeyId(uuid::Uuid::nil());
        let mut world = Self { coordinator, clock, key, _folder: folder };
        let threshold = Threshold::new(2, 3).unwrap();
        let keygen = CeremonyRequest::Keygen { scheme: Scheme::default(), threshold };
        let made =
            world.coordinator.create(&Caller::System, request(keygen, &HOLDERS)).await.unwrap();
        for name in HOLDERS {
            world.join(&made, name, 0).await.unwrap();
        }
        for name in HOLDERS {
            let public_key = hex::decode(GENERATOR).unwrap();
            let outcome = PartyOutcome::Key { public_key, attestation: None, epoch: None };
            world.report(&made, name, 0, outcome).await;
        }
        world.key = made.session.session_id.into();
        world
    }

    async fn join(&self, created: &CreatedSession, name: &str, attempt: u32) -> Result<()> {
        let session = created.session.session_id;
        let token = JoinTokens::new(Secret::new([7; 32])).token(session, &party(name));
        let join = JoinSession {
            session_id: None,
            token,
            party_id: party(name),
            device: DeviceInfo::default(),
            handshake: Some(Handshake::from_static(b"handshake")),
            ready: true,
            awaiting_approval: false,
            attempt,
        };
        self.coordinator.join(&Caller::System, join).await.map(drop)
    }

    async fn report(&self, of: &CreatedSession, name: &str, attempt: u32, outcome: PartyOutcome) {
        let session_id = of.session.session_id;
        let report = Report { session_id, party_id: party(name), attempt, outcome };
        self.coordinator.complete(&Caller::System, report).await.unwrap();
    }

    async fn sign(&self, number: u8, named: &[&str]) -> CreatedSession {
        let key = KeySelector::Id(self.key);
        let input = SignInput::Digest(Digest([number; 32]));
        let sign = CeremonyRequest::Sign { key, threshold: None, input };
        self.coordinator.create(&Caller::System, request(sign, named)).await.unwrap()
    }

    async fn view(&self, of: &CreatedSession) -> SessionView {
        let session = of.session.session_id;
        self.coordinator.status(&Caller::System, session, None).await.unwrap()
    }

    /// So much later, and those who are silent by now are replaced.
    async fn later(&self, millis: i64) {
        self.clock.advance(millis);
        self.coordinator.replace_silent().await.unwrap();
    }
}

fn names(view: &SessionView) -> String {
    view.participants.iter().map(|seat| seat.party_id.as_str()).collect()
}

#[tokio::test]
async fn signers_have_their_turns() {
    let world = World::open().await;
    let mut chosen = Vec::new();
    for number in 0..4 {
        let created = world.sign(number, &[]).await;
        world.coordinator.close(&Caller::System, created.session.session_id).await.unwrap();
        chosen.push(names(&created.session));
    }
    assert_eq!(chosen, ["ab", "ac", "bc", "ab"]);
}

#[tokio::test]
async fn who_is_silent_is_replaced_and_chosen_last_until_it_is_heard() {
    let world = World::open().await;
    let created = world.sign(1, &[]).await;
    assert_eq!(names(&created.session), "ab");
    world.join(&created, "a", 0).await.unwrap();
    world.later(499).await;
    assert_eq!(names(&world.view(&created).await), "ab");
    world.later(1).await;
    let view = world.view(&created).await;
    assert_eq!((names(&view), view.attempt), ("ac".to_owned(), 0));
    world.join(&created, "c", 0).await.unwrap();
    assert_eq!(world.view(&created).await.status, SessionStatus::InProgress);
    // Both compute, and c says nothing.
    let id = created.session.session_id;
    ProgressSink::progress(&world.coordinator, id, &party("a"), 1);
    world.later(10_000).await;
    let view = world.view(&created).await;
    assert_eq!((names(&view), view.attempt), ("ab".to_owned(), 1), "b again, where c was");
    assert_eq!(view.replaced, [party("c")]);
    let stale = world.join(&created, "a", 0).await.unwrap_err();
    assert_eq!(stale.code, ErrorCode::Conflict);
    world.join(&created, "b", 1).await.unwrap();
    for number in 2..5 {
        let next = world.sign(number, &["a"]).await;
        assert_eq!(names(&next.session), "ab", "b was heard again, and c was not");
        world.coordinator.close(&Caller::System, next.session.session_id).await.unwrap();
    }
}

#[tokio::test]
async fn who_works_for_others_is_slow_and_not_silent() {
    let world = World::open().await;
    let created = world.sign(1, &["a"]).await;
    assert_eq!(names(&created.session), "ab");
    world.join(&created, "a", 0).await.unwrap();
    for number in 2..10 {
        world.clock.advance(400);
        let other = world.sign(number, &["b", "a"]).await;
        world.join(&other, "b", 0).await.unwrap();
        world.coordinator.replace_silent().await.unwrap();
        assert_eq!(names(&world.view(&created).await), "ab");
    }
    world.later(15_000).await;
    assert_eq!(names(&world.view(&created).await), "ac", "nobody is waited for longer than that");
}

#[tokio::test]
async fn a_ban_keeps_a_pair_from_being_chosen() {
    let world = World::open().await;
    let created = world.sign(1, &[]).await;
    for name in ["a", "b"] {
        world.join(&created, name, 0).await.unwrap();
    }
    let (reason, message) = (FailureReason::PartyCheated, "it cheated".to_owned());
    let failure = Failure { reason, message, parties: vec![party("b")] };
    world.report(&created, "a", 0, PartyOutcome::Failure(failure)).await;
    let view = world.view(&created).await;
    assert_eq!((names(&view), view.attempt), ("ac".to_owned(), 1));
    world.coordinator.close(&Caller::System, created.session.session_id).await.unwrap();
    for number in 2..8 {
        let next = world.sign(number, &[]).await;
        assert_ne!(names(&next.session), "ab");
        world.coordinator.close(&Caller::System, next.session.session_id).await.unwrap();
    }
}

#[tokio::test]
async fn who_reports_a_signature_that_does_not_verify_is_replaced() {
    let world = World::open().await;
    let created = world.sign(1, &[]).await;
    for name in ["a", "b"] {
        world.join(&created, name, 0).await.unwrap();
    }
    let outcome = PartyOutcome::Signature { bytes: vec![1; 64], recovery_id: None };
    let session_id = created.session.session_id;
    let report = Report { session_id, party_id: party("b"), attempt: 0, outcome };
    let refused = world.coordinator.complete(&Caller::System, report).await.unwrap_err();
    assert_eq!(refused.details.blame.unwrap().party_id, party("b"));
    let view = world.view(&created).await;
    assert_eq!((names(&view), view.attempt), ("ac".to_owned(), 1));
    assert_eq!(view.status, SessionStatus::Created);
}
