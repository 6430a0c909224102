//! What is told while the disk is busy, and what the wall clock decides: nothing.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use futures_util::poll;
use quorate_ports::store::*;
use quorate_ports::{Coordinator as _, Store};
use quorate_store::SqliteStore;
use tempfile::TempDir;

use super::*;
use crate::{LateProgress, ManualClock, RouterApp, RouterConfig, RouterParts};

const START: Timestamp = Timestamp(1_700_000_000_000);
const HOUR: i64 = 3_600_000;

/// A store whose commits resolve only while it is not held.
struct Held {
    inner: SqliteStore,
    held: watch::Sender<bool>,
}

impl Held {
    fn hold(&self, held: bool) {
        self.held.send_replace(held);
    }
}

#[async_trait]
impl Store for Held {
    fn submit(&self, writes: Vec<Write>, urgency: Urgency) -> Commit {
        let commit = self.inner.submit(writes, urgency);
        let mut held = self.held.subscribe();
        Commit::new(async move {
            held.wait_for(|held| !held).await.expect("the store outlives its commits");
            commit.await
        })
    }

    fn health(&self) -> Result<()> {
        self.inner.health()
    }

    async fn failed(&self) -> Error {
        self.inner.failed().await
    }

    async fn open_sessions(&self) -> Result<Vec<SessionRow>> {
        self.inner.open_sessions().await
    }

    async fn session(&self, id: SessionId) -> Result<Option<SessionRow>> {
        self.inner.session(id).await
    }

    async fn sessions(
        &self,
        tenant: Option<Tenant>,
        before: Option<Timestamp>,
        limit: u32,
    ) -> Result<Vec<SessionRow>> {
        self.inner.sessions(tenant, before, limit).await
    }

    async fn keys(&self, tenant: Option<Tenant>, limit: u32) -> Result<Vec<KeyRecord>> {
        self.inner.keys(tenant, limit).await
    }

    async fn key(&self, id: KeyId) -> Result<Option<KeyRecord>> {
        self.inner.key(id).await
    }

    async fn key_by_public_key(&self, public_key: &PublicKey) -> Result<Option<KeyRecord>> {
        self.inner.key_by_public_key(public_key).await
    }

    async fn idempotency(&self, tenant: &Tenant, key: &str) -> Result<Option<IdempotencyRow>> {
        self.inner.idempotency(tenant, key).await
    }

    async fn accounts(&self) -> Result<Vec<Account>> {
        self.inner.accounts().await
    }

    async fn pending_keys(&self) -> Result<HashMap<SessionId, AccountId>> {
        self.inner.pending_keys().await
    }

    async fn messages(&self) -> Result<Vec<RecoveredMessage>> {
        self.inner.messages().await
    }

    async fn parties(&self) -> Result<Vec<PartyRow>> {
        self.inner.parties().await
    }

    async fn api_keys(&self) -> Result<Vec<ApiKeyRow>> {
        self.inner.api_keys().await
    }
}

struct World {
    app: CoordinatorApp,
    store: Arc<Held>,
    clock: Arc<ManualClock>,
}

async fn open(folder: &TempDir, now: Timestamp) -> World {
    let clock = Arc::new(ManualClock::at(now));
    let inner = SqliteStore::open(folder.path()).unwrap();
    let store = Arc::new(Held { inner, held: watch::Sender::new(false) });
    let parts = RouterParts {
        config: RouterConfig::default(),
        store: store.clone(),
        progress: Arc::new(LateProgress::default()),
        clock: clock.clone(),
    };
    let router = Arc::new(RouterApp::open(parts).await.unwrap());
    let parts = CoordinatorParts {
        config: CoordinatorConfig::default(),
        store: store.clone(),
        mint: TokenMint::new(Secret::new([7; 32])),
        directory: router.clone(),
        events: router,
        clock: clock.clone(),
    };
    World { app: CoordinatorApp::open(parts).await.unwrap(), store, clock }
}

impl World {
    async fn create(&self, idempotency_key: Option<&str>) -> Result<CreatedSession> {
        let participant = |name: &str| NewParticipant {
            party_id: name.parse().unwrap(),
            device: DeviceInfo::default(),
        };
        let request = CreateSession {
            kind: SessionKind::Keygen,
            scheme: Scheme::default(),
            threshold: Some(Threshold::new(2, 2).unwrap()),
            participants: vec![participant("a"), participant("b")],
            key: KeySelector::ByParticipants,
            digest: None,
            expires_in_seconds: Some(300),
            idempotency_key: idempotency_key.map(Into::into),
        };
        self.app.create(&Caller::Open, request).await
    }

    async fn open_session(&self) -> SessionId {
        self.create(None).await.unwrap().session.session_id
    }

    async fn status_after_expiry(&self, id: SessionId) -> SessionStatus {
        self.app.expire_due().await.unwrap();
        self.app.status(&Caller::Open, id, None).await.unwrap().status
    }
}

#[tokio::test]
async fn setting_the_clock_ends_no_session_and_prolongs_none() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let created = world.create(None).await.unwrap();
    let id = created.session.session_id;
    world.clock.set_wall(HOUR);
    assert_eq!(world.status_after_expiry(id).await, SessionStatus::Created);
    let join = JoinSession {
        session_id: None,
        party_id: "a".parse().unwrap(),
        token: created.join_tokens[&"a".parse().unwrap()].clone(),
        device: DeviceInfo::default(),
        hello: None,
        ready: true,
    };
    world.app.join(&Caller::Open, join).await.expect("the session has not ended");
    world.clock.set_wall(-2 * HOUR);
    world.clock.advance(299_999);
    assert_eq!(world.status_after_expiry(id).await, SessionStatus::Waiting);
    world.clock.advance(1);
    assert_eq!(world.status_after_expiry(id).await, SessionStatus::Expired);
}

#[tokio::test]
async fn a_clock_set_back_over_a_restart_prolongs_no_session() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let id = world.open_session().await;
    drop(world);
    let world = open(&folder, Timestamp(START.0 - HOUR)).await;
    world.clock.advance(299_999);
    assert_eq!(world.status_after_expiry(id).await, SessionStatus::Created);
    world.clock.advance(1);
    assert_eq!(world.status_after_expiry(id).await, SessionStatus::Expired);
}

#[tokio::test]
async fn a_restart_leaves_a_session_what_remained_of_its_life() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let id = world.open_session().await;
    drop(world);
    let world = open(&folder, Timestamp(START.0 + 200_000)).await;
    world.clock.advance(99_999);
    assert_eq!(world.status_after_expiry(id).await, SessionStatus::Created);
    world.clock.advance(1);
    assert_eq!(world.status_after_expiry(id).await, SessionStatus::Expired);
}

#[tokio::test]
async fn a_command_tells_no_end_that_is_not_durable() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let id = world.open_session().await;
    world.store.hold(true);
    let mut closing = Box::pin(world.app.execute(id, Command::Close));
    assert!(poll!(&mut closing).is_pending());
    let mut again = Box::pin(world.app.execute(id, Command::Close));
    for _ in 0..100 {
        assert!(poll!(&mut again).is_pending(), "the end is not durable yet");
        tokio::task::yield_now().await;
    }
    world.store.hold(false);
    assert_eq!(again.await.unwrap().1.status, SessionStatus::Failed);
    assert_eq!(closing.await.unwrap().1.status, SessionStatus::Failed);
}

#[tokio::test]
async fn a_repeated_request_waits_until_the_first_is_durable() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    world.store.hold(true);
    let mut first = Box::pin(world.create(Some("once")));
    let mut second = Box::pin(world.create(Some("once")));
    while lock(&world.app.0.state).sessions.is_empty() {
        assert!(poll!(&mut first).is_pending());
        tokio::task::yield_now().await;
    }
    for _ in 0..100 {
        assert!(poll!(&mut second).is_pending(), "the session is not durable yet");
        tokio::task::yield_now().await;
    }
    // Who hangs up takes nothing back.
    drop(first);
    world.store.hold(false);
    let id = second.await.unwrap().session.session_id;
    assert_eq!(lock(&world.app.0.state).open.used(), 1);
    assert!(world.store.session(id).await.unwrap().is_some());
}

#[tokio::test]
async fn a_waiter_is_told_the_end_of_a_session_that_left_memory() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let id = world.open_session().await;
    let wait = Some((WaitFor::End, Duration::from_secs(600)));
    let mut waiting = Box::pin(world.app.status(&Caller::Open, id, wait));
    assert!(poll!(&mut waiting).is_pending());
    world.app.close(&Caller::Open, id).await.unwrap();
    for _ in 0..crate::ENDED_KEPT {
        let other = world.open_session().await;
        world.app.close(&Caller::Open, other).await.unwrap();
    }
    assert!(!lock(&world.app.0.state).sessions.contains_key(&id));
    assert_eq!(waiting.await.unwrap().status, SessionStatus::Failed);
}
