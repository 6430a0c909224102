//! What is told while the disk is busy, and what the wall clock decides: nothing.

mod held;

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use futures_util::poll;
use quorate_ports::store::*;
use quorate_ports::{Deliver as _, ManageSessions as _, ReadSession as _, Store, TakePart as _};
use quorate_store::SqliteStore;
use tempfile::TempDir;

use super::*;
use crate::{LateProgress, ManualClock, RouterApp, RouterConfig, RouterParts};
use held::Held;

const START: Timestamp = Timestamp(1_700_000_000_000);
const HOUR: i64 = 3_600_000;

struct World {
    app: CoordinatorApp,
    router: Arc<RouterApp>,
    store: Arc<Held>,
    clock: Arc<ManualClock>,
}

async fn open(folder: &TempDir, now: Timestamp) -> World {
    let clock = Arc::new(ManualClock::at(now));
    let inner = SqliteStore::open(folder.path()).unwrap();
    let store =
        Arc::new(Held { inner, held: watch::Sender::new(false), blind: AtomicBool::new(false) });
    let parts = RouterParts {
        config: RouterConfig::default(),
        store: store.clone(),
        progress: Arc::new(LateProgress::default()),
        clock: clock.clone(),
    };
    let router = Arc::new(RouterApp::open(parts).await.unwrap());
    let parts = CoordinatorParts {
        config: CoordinatorConfig { keygens_at_once: 2, ..CoordinatorConfig::default() },
        store: store.clone(),
        service_initiator: None,
        join_tokens: JoinTokens::new(Secret::new([7; 32])),
        directory: router.clone(),
        events: router.clone(),
        notifier: None,
        clock: clock.clone(),
    };
    World { app: CoordinatorApp::open(parts).await.unwrap(), router, store, clock }
}

impl World {
    fn request(&self, idempotency_key: Option<&str>) -> CreateSession {
        let participant = |name: &str| NewParticipant {
            party_id: name.parse().unwrap(),
            device: DeviceInfo::default(),
            on_behalf_of: None,
        };
        CreateSession {
            ceremony: CeremonyRequest::Keygen {
                scheme: Scheme::default(),
                threshold: Threshold::new(2, 2).unwrap(),
            },
            participants: vec![participant("a"), participant("b")],
            expires_in_seconds: Some(300),
            idempotency_key: idempotency_key.map(Into::into),
            authorization: None,
            label: None,
            replace: false,
            lent: None,
            webhook: None,
        }
    }

    async fn create(&self, idempotency_key: Option<&str>) -> Result<CreatedSession> {
        self.app.create(&Caller::Open, self.request(idempotency_key)).await
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
        handshake: None,
        ready: true,
        awaiting_approval: false,
        attempt: 0,
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

#[tokio::test]
async fn a_claim_that_comes_second_gets_the_first_ones_session() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let first = world.create(Some("once")).await.unwrap().session.session_id;
    // As if both had asked at once and the first had been forgotten since.
    lock(&world.app.0.state).idempotency.clear();
    world.store.blind.store(true, Ordering::SeqCst);
    let second = world.create(Some("once")).await.unwrap().session.session_id;
    assert_eq!(second, first);
    assert_eq!(lock(&world.app.0.state).deadlines.len(), 1, "the loser is closed");
    assert!(world.store.health().is_ok());
}

/// Changes stored sessions by SQL while nobody has them open.
fn alter(folder: &TempDir, sql: &str) {
    let database = rusqlite::Connection::open(folder.path().join("quorate.db")).unwrap();
    assert!(database.execute(sql, []).unwrap() > 0);
}

#[tokio::test]
async fn a_request_of_the_old_version_is_compared_by_its_facts() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let first = world.create(Some("once")).await.unwrap().session.session_id;
    drop(world);
    alter(&folder, "UPDATE idempotency SET version = 1, request_hash = zeroblob(32)");
    let world = open(&folder, START).await;
    assert_eq!(world.create(Some("once")).await.unwrap().session.session_id, first);
    let other = CreateSession {
        ceremony: CeremonyRequest::Keygen {
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 3).unwrap(),
        },
        ..world.request(Some("once"))
    };
    let error = world.app.create(&Caller::Open, other).await.err().unwrap();
    assert_eq!(error.code, ErrorCode::IdempotencyMismatch);
}

#[tokio::test]
async fn one_damaged_session_stops_neither_the_start_nor_a_list() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let (damaged, newer, whole) =
        (world.open_session().await, world.open_session().await, world.open_session().await);
    drop(world);
    let hex = |id: SessionId| id.0.simple().to_string();
    let sql = format!("UPDATE sessions SET document = x'7b' WHERE id = x'{}'", hex(damaged));
    alter(&folder, &sql);
    let version = SESSION_VERSION + 1;
    let newest = format!("UPDATE sessions SET version = {version} WHERE id = x'{}'", hex(newer));
    alter(&folder, &newest);
    let world = open(&folder, START).await;
    let listed = world.app.list(&Caller::Open, None, 10).await.unwrap();
    assert_eq!(listed.items.iter().map(|v| v.session_id).collect::<Vec<_>>(), [whole]);
    for id in [damaged, newer] {
        let error = world.app.status(&Caller::Open, id, None).await.unwrap_err();
        assert_eq!(error.code, ErrorCode::Internal);
        assert!(error.message.contains(&format!("session {id} is damaged")), "{error}");
    }
    assert_eq!(world.status_after_expiry(whole).await, SessionStatus::Created);
}

/// The key whose secret is 1, and its signature on 32 bytes of 9.
const GENERATOR: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const SIGNATURE: &str = "531fe6068134503d2723133227c867ac8fa6c83c537e9a44c3c5bdbdcb1fe337\
    63aad8a2883166ea471c692a85986eafa70705a414997149ec16268c91fd7a02";

/// A session that has made [`SIGNATURE`].
async fn signed(world: &World) -> SessionId {
    let key =
        quorate_schemes::normalize_public_key(Scheme::default(), &hex::decode(GENERATOR).unwrap());
    let names = ["a", "b"].map(|name| name.parse::<PartyId>().unwrap());
    let key = KeyRecord {
        key: Arc::new(KeyEpoch {
            key_id: KeyId(uuid::Uuid::from_u128(1)),
            epoch: 0,
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 2).unwrap(),
            public_key: key.unwrap(),
            holders: names.to_vec(),
        }),
        tenant: Tenant::default(),
        created_at: START,
        label: None,
        frozen: None,
    };
    let key_id = key.key_id;
    let epoch = EpochRecord {
        epoch: 0,
        session_id: SessionId(key_id.0),
        made_at: START,
        attestation: None,
    };
    world.store.submit(vec![Write::Key(key, epoch)], Urgency::Now).await.unwrap();
    let request = CreateSession {
        ceremony: CeremonyRequest::Sign {
            key: KeySelector::Id(key_id),
            threshold: None,
            input: SignInput::Digest(Digest([9; 32])),
        },
        ..world.request(None)
    };
    let created = world.app.create(&Caller::Open, request).await.unwrap();
    let id = created.session.session_id;
    world.all_join(&created).await;
    for party_id in names {
        let bytes = hex::decode(SIGNATURE).unwrap();
        let outcome = PartyOutcome::Signature { bytes, recovery_id: None };
        let report = Report { session_id: id, party_id, attempt: 0, outcome };
        world.app.complete(&Caller::Open, report).await.unwrap();
    }
    id
}

#[tokio::test]
async fn a_signature_changed_on_the_disk_is_not_served() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let id = signed(&world).await;
    drop(world);
    let world = open(&folder, START).await;
    let view = world.app.status(&Caller::Open, id, None).await.unwrap();
    assert_eq!(view.status, SessionStatus::Completed);
    let mut row = world.store.session(id).await.unwrap().unwrap();
    let mut document: serde_json::Value = serde_json::from_slice(&row.document).unwrap();
    let signature = &mut document["outcome"]["signature"]["bytes"];
    let mut text = signature.as_str().unwrap().to_owned();
    let changed = if &text[40..41] == "A" { "B" } else { "A" };
    text.replace_range(40..41, changed);
    *signature = text.into();
    row.document = serde_json::to_vec(&document).unwrap();
    world.store.submit(vec![Write::Session(row)], Urgency::Now).await.unwrap();
    let error = world.app.status(&Caller::Open, id, None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::Internal);
    assert!(error.message.contains("damaged"), "{error}");
    let listed = world.app.list(&Caller::Open, None, 10).await.unwrap();
    assert!(listed.items.is_empty());
}

#[tokio::test]
async fn only_what_ended_long_ago_is_forgotten() {
    const DAY: i64 = 24 * HOUR;
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let old = signed(&world).await;
    drop(world);
    let world = open(&folder, Timestamp(START.0 + 90 * DAY)).await;
    let (waiting, new) = (world.open_session().await, signed(&world).await);
    let kept = async || {
        let page = world.app.list(&Caller::Open, None, 10).await.unwrap();
        page.items.into_iter().map(|view| view.session_id).collect::<Vec<_>>()
    };
    world.app.forget_some(Duration::from_millis(90 * DAY as u64));
    world.store.submit(Vec::new(), Urgency::Later).await.unwrap();
    assert!(kept().await.contains(&old), "it is 90 days old and not older");
    world.clock.advance(1);
    world.app.forget_some(Duration::from_millis(90 * DAY as u64));
    world.store.submit(Vec::new(), Urgency::Later).await.unwrap();
    let kept = kept().await;
    assert!(kept.contains(&waiting) && kept.contains(&new) && !kept.contains(&old));
    let error = world.app.status(&Caller::Open, old, None).await.unwrap_err();
    assert_eq!(error.code, ErrorCode::NotFound);
    let key = world.app.keys(&Caller::Open, None, 10).await.unwrap();
    assert_eq!(key.items.len(), 1, "keys stay");
}

#[tokio::test]
async fn sessions_of_one_millisecond_are_each_on_one_page() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    let mut made = Vec::new();
    for _ in 0..7 {
        made.push(world.open_session().await);
    }
    let (mut paged, mut before) = (Vec::new(), None);
    loop {
        let page = world.app.list(&Caller::Open, before, 3).await.unwrap();
        paged.extend(page.items.into_iter().map(|view| view.session_id));
        before = page.next;
        if before.is_none() {
            break;
        }
    }
    made.sort_unstable();
    made.reverse();
    assert_eq!(paged, made);
}

impl World {
    /// Makes these parties server parties.
    async fn serve(&self, names: &[&str]) {
        for name in names {
            let registration = Registration {
                party_id: name.parse().unwrap(),
                role: PartyRole::Persistent,
                version: "1".into(),
                notification: NotificationChannel::default(),
                identity: None,
                delegate_key: None,
            };
            self.router.register(&Caller::Open, registration).await.unwrap();
        }
    }

    async fn all_join(&self, created: &CreatedSession) {
        for (party, token) in &created.join_tokens {
            let join = JoinSession {
                session_id: None,
                party_id: party.clone(),
                token: token.clone(),
                device: DeviceInfo::default(),
                handshake: None,
                ready: true,
                awaiting_approval: false,
                attempt: 0,
            };
            self.app.join(&Caller::Open, join).await.unwrap();
        }
    }

    async fn status(&self, created: &CreatedSession) -> SessionStatus {
        let id = created.session.session_id;
        self.app.status(&Caller::Open, id, None).await.unwrap().status
    }
}

#[tokio::test]
async fn keygens_of_server_parties_run_a_few_at_a_time() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    world.serve(&["a", "b"]).await;
    let mut made = Vec::new();
    for _ in 0..4 {
        made.push(world.create(None).await.unwrap());
    }
    // The last one is ready first.
    made.reverse();
    for created in &made {
        world.all_join(created).await;
        world.clock.advance(1);
    }
    let running = SessionStatus::InProgress;
    let waiting = SessionStatus::Waiting;
    let mut stand = Vec::new();
    for created in &made {
        stand.push(world.status(created).await);
    }
    assert_eq!(stand, [running, running, waiting, waiting]);
    world.app.close(&Caller::Open, made[1].session.session_id).await.unwrap();
    assert_eq!(world.status(&made[2]).await, running, "a place was free");
    assert_eq!(world.status(&made[3]).await, waiting);
    // A restart finds two that run and one that has to join again.
    drop(world);
    let world = open(&folder, START).await;
    world.serve(&["a", "b"]).await;
    world.all_join(&made[3]).await;
    assert_eq!(world.status(&made[3]).await, waiting);
    world.app.close(&Caller::Open, made[0].session.session_id).await.unwrap();
    assert_eq!(world.status(&made[3]).await, running);
}

#[tokio::test]
async fn a_keygen_without_a_turn_before_its_deadline_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    world.serve(&["a", "b"]).await;
    let mut made = 0;
    let refused = loop {
        match world.create(None).await {
            Ok(_) => made += 1,
            Err(error) => break error,
        }
    };
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(refused.details.retry_after.is_some_and(|seconds| seconds > 0));
    // 2 at once, 3 s each: 100 take the half of 300 s that is planned with.
    assert!((90..=100).contains(&made), "{made}");
    let patient =
        CreateSession { expires_in_seconds: Some(3_600), ..world.request(Some("patient")) };
    world.app.create(&Caller::Open, patient).await.expect("it has more time");
}

#[tokio::test]
async fn sessions_that_wait_for_people_leave_server_parties_room() {
    let folder = tempfile::tempdir().unwrap();
    let world = open(&folder, START).await;
    world.serve(&["a", "c"]).await;
    // `b` never comes.
    let mut refused = None;
    while refused.is_none() {
        let many = (0..128).map(|_| world.create(None));
        let made = futures_util::future::join_all(many).await;
        refused = made.into_iter().find_map(Result::err);
    }
    let refused = refused.unwrap();
    assert_eq!(refused.code, ErrorCode::RateLimited);
    assert!(refused.message.starts_with("a waits for people"), "{refused}");
    let alone = CreateSession { participants: vec![], ..world.request(None) };
    let created = world.app.create(&Caller::Open, alone).await.unwrap();
    world.all_join(&created).await;
    assert_eq!(world.status(&created).await, SessionStatus::InProgress);
}
