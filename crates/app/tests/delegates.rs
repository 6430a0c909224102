//! Packages from delegates to users, and who may take whose seat, over a real store.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::sync::Arc;

use quorate_app::*;
use quorate_core::inbox::InboxLimits;
use quorate_ports::store::DelegateShareRow;
use quorate_ports::{
    Deliver as _, Directory as _, ManageSessions as _, Store, TakePart as _, Urgency, Write,
};
use quorate_store::SqliteStore;
use quorate_types::*;
use tempfile::TempDir;

const GENERATOR: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

struct World {
    coordinator: CoordinatorApp,
    router: Arc<RouterApp>,
    store: Arc<SqliteStore>,
}

async fn open(folder: &TempDir) -> World {
    let clock = Arc::new(ManualClock::at(Timestamp(1_700_000_000_000)));
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let parts = RouterParts {
        config: RouterConfig { limits: InboxLimits::default() },
        store: store.clone(),
        progress: Arc::new(LateProgress::default()),
        clock: clock.clone(),
    };
    let router = Arc::new(RouterApp::open(parts).await.unwrap());
    let parts = CoordinatorParts {
        config: CoordinatorConfig::default(),
        store: store.clone(),
        service_initiator: None,
        join_tokens: JoinTokens::new(Secret::new([7; 32])),
        directory: router.clone(),
        events: router.clone(),
        notifier: None,
        clock,
    };
    World { coordinator: CoordinatorApp::open(parts).await.unwrap(), router, store }
}

fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

fn seat(name: &str, user: Option<&str>) -> NewParticipant {
    let mut key = vec![0; 32];
    key[0] = 9;
    let seal_key = PackageKey::new(Kem::X25519, key).ok();
    let on_behalf_of = user.map(|user| OnBehalfOf { user_id: party(user), seal_key });
    NewParticipant { party_id: party(name), device: DeviceInfo::default(), on_behalf_of }
}

fn keygen(participants: Vec<NewParticipant>, n: i64) -> CreateSession {
    CreateSession {
        ceremony: CeremonyRequest::Keygen {
            scheme: Scheme::default(),
            threshold: Threshold::new(2, n).unwrap(),
        },
        participants,
        expires_in_seconds: None,
        idempotency_key: Some("once".into()),
        authorization: None,
        label: None,
        replace: false,
        lent: None,
        webhook: None,
    }
}

fn delegated() -> CreateSession {
    keygen(vec![seat("delegate", Some("alice")), seat("b", None)], 2)
}

impl World {
    async fn register(&self, name: &str, role: PartyRole) {
        let registration = Registration {
            party_id: party(name),
            role,
            version: String::new(),
            notification: NotificationChannel::default(),
            identity: None,
            delegate_key: None,
        };
        self.router.register(&Caller::Open, registration).await.unwrap();
    }

    async fn started(&self) -> CreatedSession {
        let created = self.coordinator.create(&Caller::Open, delegated()).await.unwrap();
        for name in ["delegate", "b"] {
            let join = JoinSession {
                session_id: None,
                party_id: party(name),
                token: created.join_tokens[&party(name)].clone(),
                device: DeviceInfo::default(),
                handshake: None,
                ready: true,
                awaiting_approval: false,
                attempt: 0,
            };
            self.coordinator.join(&Caller::Open, join).await.unwrap();
        }
        created
    }

    async fn submit(&self, created: &CreatedSession, package: &[u8]) -> Result<()> {
        let submitted = SubmitShare {
            session_id: created.session.session_id,
            party_id: party("delegate"),
            party_index: PartyIndex(0),
            public_key: hex::decode(GENERATOR).unwrap(),
            package: package.to_vec().into(),
        };
        self.coordinator.submit_share(&Caller::Open, submitted).await
    }

    async fn report(&self, created: &CreatedSession, name: &str) -> SessionStatus {
        let public_key = hex::decode(GENERATOR).unwrap();
        let outcome = PartyOutcome::Key { public_key, attestation: None, epoch: None };
        let session_id = created.session.session_id;
        let report = Report { session_id, party_id: party(name), attempt: 0, outcome };
        self.coordinator.complete(&Caller::Open, report).await.unwrap().status
    }

    async fn completed(&self) -> CreatedSession {
        let created = self.started().await;
        self.report(&created, "b").await;
        self.submit(&created, b"sealed").await.unwrap();
        assert_eq!(self.report(&created, "delegate").await, SessionStatus::Completed);
        created
    }
}

fn asked(created: &CreatedSession, name: &str) -> FetchShare {
    FetchShare {
        session_id: created.session.session_id,
        party_id: party(name),
        token: created.fetch_tokens[&party("delegate")].clone(),
    }
}

#[tokio::test]
async fn a_package_is_fetched_until_it_is_confirmed_also_over_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let created = {
        let world = open(&folder).await;
        let created = world.completed().await;
        for name in ["alice", "delegate", "alice"] {
            let fetched =
                world.coordinator.fetch_share(&Caller::Open, asked(&created, name)).await.unwrap();
            assert_eq!(
                (&fetched.package[..], fetched.party_index),
                (&b"sealed"[..], PartyIndex(0))
            );
            assert_eq!((fetched.user_id, fetched.party_id), (party("alice"), party("delegate")));
        }
        created
    };
    let world = open(&folder).await;
    let again = world.coordinator.create(&Caller::Open, delegated()).await.unwrap();
    let tokens = |of: &CreatedSession| of.fetch_tokens[&party("delegate")].expose().clone();
    assert_eq!(tokens(&again), tokens(&created), "a repeated request gives the same tokens");
    world.coordinator.fetch_share(&Caller::Open, asked(&created, "alice")).await.unwrap();
    world.submit(&created, b"sealed").await.unwrap();
    for _ in 0..2 {
        world.coordinator.confirm_share(&Caller::Open, asked(&created, "alice")).await.unwrap();
    }
    world.submit(&created, b"sealed").await.unwrap();
    let gone = world.coordinator.fetch_share(&Caller::Open, asked(&created, "alice")).await;
    assert_eq!(gone.unwrap_err().code, ErrorCode::NotFound);
    assert_eq!(world.store.delegate_shares(&Tenant::default()).await.unwrap(), 0);
}

#[tokio::test]
async fn a_package_is_given_to_its_token_only_and_not_before_the_keygen_has_completed() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let created = world.started().await;
    world.submit(&created, b"sealed").await.unwrap();
    let refused = async |asked: FetchShare, caller: &Caller| {
        let fetched = world.coordinator.fetch_share(caller, asked.clone()).await.unwrap_err().code;
        let confirmed = world.coordinator.confirm_share(caller, asked).await.unwrap_err().code;
        assert_eq!(fetched, confirmed);
        fetched
    };
    let own = || asked(&created, "alice");
    assert_eq!(refused(own(), &Caller::Open).await, ErrorCode::Conflict);
    let join = created.join_tokens[&party("delegate")].clone();
    let wrong = FetchShare { token: join, ..own() };
    assert_eq!(refused(wrong, &Caller::Open).await, ErrorCode::Unauthorized);
    world.report(&created, "b").await;
    assert_eq!(world.report(&created, "delegate").await, SessionStatus::Completed);
    let nobody = FetchShare { party_id: party("b"), ..own() };
    assert_eq!(refused(nobody, &Caller::Open).await, ErrorCode::NotFound);
    let key =
        |tenant: &str, scope| Caller::Key { tenant: tenant.parse().unwrap(), scopes: vec![scope] };
    assert_eq!(refused(own(), &key("evil", Scope::Party)).await, ErrorCode::NotFound);
    assert_eq!(refused(own(), &key("default", Scope::Read)).await, ErrorCode::Forbidden);
    let party_key = key("default", Scope::Party);
    world.coordinator.fetch_share(&party_key, own()).await.unwrap();
}

#[tokio::test]
async fn a_package_that_is_empty_too_large_or_of_a_session_that_failed_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let created = world.started().await;
    let empty = world.submit(&created, b"").await.unwrap_err();
    assert!(empty.details.fields.contains_key("encrypted_share"));
    let large = world.submit(&created, &vec![0; MAX_PACKAGE + 1]).await.unwrap_err();
    assert_eq!(large.code, ErrorCode::MessageTooLarge);
    world.submit(&created, &vec![0; MAX_PACKAGE]).await.unwrap();
    let waiting = async || world.store.delegate_shares(&Tenant::default()).await.unwrap();
    assert_eq!(waiting().await, 1);
    world.coordinator.close(&Caller::Open, created.session.session_id).await.unwrap();
    assert_eq!(waiting().await, 0);
}

#[tokio::test]
async fn a_tenant_has_so_many_packages_waiting_and_others_have_room() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    let share = |n: u128| {
        Write::DelegateShare(DelegateShareRow {
            session_id: SessionId(uuid::Uuid::from_u128(n)),
            party_id: party("delegate"),
            tenant: Tenant::default(),
            package: vec![1].into(),
        })
    };
    world.store.submit((0..999).map(share).collect(), Urgency::Now).await.unwrap();
    world.coordinator.create(&Caller::Open, delegated()).await.unwrap();
    let another = || CreateSession { idempotency_key: None, ..delegated() };
    let refused = world.coordinator.create(&Caller::Open, another()).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::RateLimited, "one waits to be made, 999 to be fetched");
    let acme = Caller::Key { tenant: "acme".parse().unwrap(), scopes: vec![Scope::Sessions] };
    world.coordinator.create(&acme, another()).await.unwrap();
    let plain = keygen(vec![seat("a", None), seat("b", None)], 2);
    let plain = CreateSession { idempotency_key: None, ..plain };
    world.coordinator.create(&Caller::Open, plain).await.unwrap();
}

#[tokio::test]
async fn server_parties_fill_places_and_delegates_temporary_parties_and_recovery_devices_do_not() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    world.register("delegate", PartyRole::Delegate).await;
    world.register("guest", PartyRole::Temporary).await;
    world.register("recovery", PartyRole::Temporary).await;
    world.register("server", PartyRole::Persistent).await;
    let mut recovery = seat("recovery", None);
    recovery.device.device_type = "recovery".into();
    let ask = |participants| CreateSession { idempotency_key: None, ..keygen(participants, 3) };
    let create =
        async |participants| world.coordinator.create(&Caller::Open, ask(participants)).await;
    let few = create(vec![recovery.clone()]).await.err().unwrap();
    assert_eq!(few.code, ErrorCode::ThresholdNotMet, "only one is chosen");
    let made = create(vec![recovery, seat("guest", None)]).await.unwrap();
    let names: Vec<_> = made.session.participants.iter().map(|p| p.party_id.as_str()).collect();
    assert_eq!(names, ["recovery", "guest", "server"]);
    for wrong in [seat("delegate", None), seat("server", Some("alice"))] {
        let refused = create(vec![wrong, seat("x", None), seat("y", None)]).await.err().unwrap();
        assert!(refused.details.fields.contains_key("participants"), "{refused:?}");
    }
    create(vec![seat("delegate", Some("alice")), seat("guest", Some("bob"))]).await.unwrap();
}

#[tokio::test]
async fn the_registration_of_a_temporary_party_ends_with_its_last_session() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder).await;
    world.register("guest", PartyRole::Temporary).await;
    world.register("server", PartyRole::Persistent).await;
    let ask = || CreateSession {
        idempotency_key: None,
        ..keygen(vec![seat("guest", None), seat("server", None)], 2)
    };
    let first = world.coordinator.create(&Caller::Open, ask()).await.unwrap();
    let second = world.coordinator.create(&Caller::Open, ask()).await.unwrap();
    let names = async || -> Vec<String> {
        let all = world.router.parties(&Caller::Open, None, false).await.unwrap();
        all.into_iter().map(|view| view.registration.party_id.to_string()).collect()
    };
    world.coordinator.close(&Caller::Open, first.session.session_id).await.unwrap();
    assert_eq!(names().await, ["guest", "server"], "it takes part in another one");
    world.coordinator.close(&Caller::Open, second.session.session_id).await.unwrap();
    assert_eq!(names().await, ["server"]);
    // What was written of it nobody has waited for.
    world.store.submit(Vec::new(), Urgency::Now).await.unwrap();
    assert!(
        world
            .store
            .parties()
            .await
            .unwrap()
            .iter()
            .all(|row| { row.registration.party_id == party("server") })
    );
}
