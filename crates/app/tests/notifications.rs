//! Offline parties and webhooks with a notifier of the test's own, under a clock of its own.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::{party, request};
use quorate_app::*;
use quorate_ports::{
    Deliver as _, Delivery, ManageSessions as _, Notifier, ReadNotifications as _, TakePart as _,
    Undelivered,
};
use quorate_store::SqliteStore;
use quorate_types::*;
use tempfile::TempDir;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

const HOUR: Duration = Duration::from_secs(3_600);

/// The runtime's own time, which passes as soon as nobody has anything to do.
struct VirtualClock(Instant);

impl Clock for VirtualClock {
    fn now(&self) -> Timestamp {
        let passed = i64::try_from(self.0.elapsed().as_millis()).unwrap();
        Timestamp(1_700_000_000_000 + passed)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// Takes what it is given from a moment on.
struct Provider {
    away_until: Instant,
    taken: UnboundedSender<Told>,
    attempts: Mutex<u32>,
}

/// What a provider has taken.
struct Told {
    id: NotificationId,
    step: NotificationStep,
    party: Option<PartyId>,
    token: Option<JoinToken>,
    after: Duration,
}

#[async_trait]
impl Notifier for Provider {
    fn carries(&self, channel: Medium) -> bool {
        channel == Medium::Email
    }

    fn has_webhook(&self, tenant: &Tenant, name: &str) -> bool {
        *tenant == Tenant::default() && name == "settlement"
    }

    async fn deliver(&self, delivery: &Delivery) -> Result<(), Undelivered> {
        *self.attempts.lock().unwrap() += 1;
        if Instant::now() < self.away_until {
            return Err(Undelivered::Later("connection refused".into()));
        }
        let told = Told {
            id: delivery.notification.id,
            step: delivery.notification.step,
            party: delivery.notification.recipient.party.clone(),
            token: delivery.join_token.clone(),
            after: Duration::from_millis(delivery.at.millis_since(delivery.session.created_at)),
        };
        self.taken.send(told).map_err(|_| Undelivered::Later("the test is over".into()))
    }
}

struct World {
    coordinator: CoordinatorApp,
    router: Arc<RouterApp>,
    provider: Arc<Provider>,
    told: UnboundedReceiver<Told>,
    stop: CancellationToken,
    tasks: Vec<tokio::task::JoinHandle<()>>,
}

/// Time stands still while this lives: else it would pass while the disk works.
struct Still(#[expect(dead_code, reason = "held, not read")] std::sync::mpsc::Sender<()>);

impl Still {
    fn begin() -> Self {
        let (sender, receiver) = std::sync::mpsc::channel();
        // The runtime's clock waits for work that blocks.
        tokio::task::spawn_blocking(move || receiver.recv());
        Self(sender)
    }
}

impl World {
    async fn open(folder: &TempDir, away: Duration) -> Self {
        let _still = Still::begin();
        let clock = Arc::new(VirtualClock(Instant::now()));
        let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
        let parts = RouterParts {
            config: RouterConfig::default(),
            store: store.clone(),
            progress: Arc::new(LateProgress::default()),
            clock: clock.clone(),
        };
        let router = Arc::new(RouterApp::open(parts).await.unwrap());
        let (taken, told) = unbounded_channel();
        let away_until = Instant::now() + away;
        let provider = Arc::new(Provider { away_until, taken, attempts: Mutex::default() });
        let parts = CoordinatorParts {
            config: CoordinatorConfig::default(),
            store,
            service_initiator: None,
            join_tokens: JoinTokens::new(Secret::new([7; 32])),
            directory: router.clone(),
            events: router.clone(),
            notifier: Some(provider.clone()),
            clock,
        };
        let coordinator = CoordinatorApp::open(parts).await.unwrap();
        let stop = CancellationToken::new();
        let (one, other) = (coordinator.clone(), coordinator.clone());
        let (stop_one, stop_other) = (stop.clone(), stop.clone());
        let tasks = vec![
            tokio::spawn(async move { one.deliver_notifications(stop_one).await }),
            tokio::spawn(async move { other.watch_deadlines(stop_other).await }),
        ];
        Self { coordinator, router, provider, told, stop, tasks }
    }

    async fn close(self) {
        self.stop.cancel();
        for task in self.tasks {
            task.await.unwrap();
        }
    }

    async fn register(&self, name: &str) {
        let _still = Still::begin();
        let registration = Registration {
            party_id: party(name),
            role: PartyRole::Temporary,
            version: String::new(),
            notification: NotificationChannel {
                email: format!("{name}@x.example"),
                phone: "+1".into(),
                push_token: String::new(),
            },
            identity: None,
            delegate_key: None,
        };
        self.router.register(&Caller::Open, registration).await.unwrap();
    }

    async fn create(&self, webhook: Option<&str>) -> CreatedSession {
        let _still = Still::begin();
        let threshold = Threshold::new(2, 2).unwrap();
        let keygen = CeremonyRequest::Keygen { scheme: Scheme::default(), threshold };
        let webhook = webhook.map(str::to_owned);
        let request = CreateSession { webhook, ..request(keygen, &["phone", "laptop"]) };
        self.coordinator.create(&Caller::Open, request).await.unwrap()
    }

    async fn end(&self, session: SessionId) {
        let _still = Still::begin();
        self.coordinator.close(&Caller::Open, session).await.unwrap();
    }

    async fn next(&mut self) -> Told {
        self.told.recv().await.unwrap()
    }

    async fn rows(&self) -> Vec<Notification> {
        self.coordinator.notifications(&Caller::Open, None, None, 100).await.unwrap().items
    }
}

fn steps(told: &[Told]) -> Vec<&'static str> {
    told.iter().map(|told| told.step.name()).collect()
}

#[tokio::test(start_paused = true)]
async fn a_party_that_never_comes_is_asked_at_each_quarter_of_a_day_and_told_the_end() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::open(&folder, Duration::ZERO).await;
    world.register("phone").await;
    let created = world.create(Some("settlement")).await;
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(world.next().await);
    }
    let ends: BTreeSet<_> =
        told.split_off(4).iter().map(|told| (told.step.name(), told.party.clone())).collect();
    let expired = |party: Option<&str>| ("session_expired", party.map(common::party));
    assert_eq!(ends, BTreeSet::from([expired(None), expired(Some("phone"))]));
    assert_eq!(
        steps(&told),
        ["session_created", "first_reminder", "second_reminder", "last_reminder"]
    );
    for (quarter, told) in (0..).zip(&told) {
        let due = HOUR * 6 * quarter;
        assert!(told.after >= due && told.after < due + HOUR, "{:?}", told.after);
        let token = told.token.as_ref().unwrap();
        assert_eq!(token.expose(), created.join_tokens[&party("phone")].expose());
    }
    world.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_provider_that_is_away_for_an_hour_loses_nothing_and_gets_it_once() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::open(&folder, HOUR).await;
    world.register("phone").await;
    let created = world.create(None).await;
    let told = world.next().await;
    assert_eq!(told.step, NotificationStep::SessionCreated);
    assert!(told.after >= HOUR && told.after < HOUR + HOUR / 3, "{:?}", told.after);
    assert!(*world.provider.attempts.lock().unwrap() > 10);
    world.end(created.session.session_id).await;
    assert_eq!(world.next().await.step, NotificationStep::SessionFailed);
    world.close().await;
    let mut again = World::open(&folder, Duration::ZERO).await;
    assert!(again.told.try_recv().is_err());
    let rows = again.rows().await;
    assert_eq!(rows.iter().filter(|row| row.state == NotificationState::Sent).count(), 2);
    assert_eq!(rows.len(), 2, "the reminders were pointless");
    assert!(rows.iter().all(|row| row.recipient.address.is_empty()));
    again.close().await;
}

#[tokio::test(start_paused = true)]
async fn a_party_that_has_joined_is_not_reminded_and_told_the_end_after_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let mut world = World::open(&folder, Duration::ZERO).await;
    world.register("phone").await;
    let created = world.create(None).await;
    let first = world.next().await;
    let join = JoinSession {
        session_id: None,
        party_id: party("phone"),
        token: first.token.unwrap(),
        device: DeviceInfo::default(),
        handshake: None,
        ready: false,
        awaiting_approval: false,
        attempt: 0,
    };
    world.coordinator.join(&Caller::Open, join).await.unwrap();
    tokio::time::sleep(HOUR * 20).await;
    assert!(world.told.try_recv().is_err(), "it has joined");
    world.close().await;
    let mut again = World::open(&folder, Duration::ZERO).await;
    again.end(created.session.session_id).await;
    let end = again.next().await;
    assert_eq!((end.step, end.party), (NotificationStep::SessionFailed, Some(party("phone"))));
    assert_ne!(end.id, first.id);
    again.close().await;
}

#[tokio::test]
async fn a_webhook_of_another_tenant_is_refused_and_the_rows_are_the_operators() {
    let folder = tempfile::tempdir().unwrap();
    let world = World::open(&folder, Duration::ZERO).await;
    let threshold = Threshold::new(2, 2).unwrap();
    let keygen = CeremonyRequest::Keygen { scheme: Scheme::default(), threshold };
    let webhook = Some("settlement".to_owned());
    let request = CreateSession { webhook, ..request(keygen, &["a", "b"]) };
    let other = Caller::Key { tenant: "other".parse().unwrap(), scopes: vec![Scope::Sessions] };
    let refused = world.coordinator.create(&other, request).await.err().unwrap();
    assert_eq!(refused.code, ErrorCode::InvalidRequest);
    assert!(refused.details.fields.contains_key("webhook"));
    let refused = world.coordinator.notifications(&other, None, None, 10).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::Forbidden);
    world.close().await;
}
