//! The real coordinator and router on the test's clock, and the machines of parties.

use std::sync::Arc;
use std::time::Duration;

use quorate_app::*;
use quorate_engine::{Identity, SealKey};
use quorate_party::{Compute, Keyring, PartyConfig, PartyHandle, PartyServer};
use quorate_ports::{Deliver, ManageSessions as _, ReadSession as _, TakePart, Vault};
use quorate_types::*;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

use crate::store::MemoryStore;

/// What seals the shares of every machine here.
pub(crate) const SEAL: [u8; 32] = [7; 32];

/// Longer than any session lives.
pub(crate) const FOR_EVER: Duration = Duration::from_secs(30 * 24 * 3600);

pub(crate) fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

/// The runtime's clock, which the tests pause: time passes when nothing else happens.
struct RuntimeClock(Instant);

impl Clock for RuntimeClock {
    fn now(&self) -> Timestamp {
        let millis = i64::try_from(self.0.elapsed().as_millis()).unwrap();
        Timestamp(1_700_000_000_000 + millis)
    }

    fn monotonic(&self) -> Duration {
        self.0.elapsed()
    }
}

/// An installation's services.
pub(crate) struct World {
    pub(crate) coordinator: Arc<CoordinatorApp>,
    pub(crate) router: Arc<RouterApp>,
    _deadlines: DropGuard,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(RuntimeClock(Instant::now()));
        let store = Arc::new(MemoryStore::default());
        let late = Arc::new(LateProgress::default());
        let router = Arc::new(
            RouterApp::open(RouterParts {
                config: RouterConfig::default(),
                store: store.clone(),
                progress: late.clone(),
                clock: clock.clone(),
            })
            .await
            .unwrap(),
        );
        let coordinator = Arc::new(
            CoordinatorApp::open(CoordinatorParts {
                notifier: None,
                config: CoordinatorConfig::default(),
                store,
                service_initiator: None,
                join_tokens: JoinTokens::new(Secret::new([9; 32])),
                directory: router.clone(),
                events: router.clone(),
                clock,
            })
            .await
            .unwrap(),
        );
        let sink: Arc<dyn ProgressSink> = coordinator.clone();
        late.connect(Arc::downgrade(&sink));
        let stop = CancellationToken::new();
        let (watching, stopped) = (coordinator.clone(), stop.clone());
        tokio::spawn(async move { watching.watch_deadlines(stopped).await });
        Self { coordinator, router, _deadlines: stop.drop_guard() }
    }

    pub(crate) async fn keygen(&self, caller: &Caller, t: i64, names: &[&str]) -> CreatedSession {
        let threshold = Threshold::new(t, i64::try_from(names.len()).unwrap()).unwrap();
        let scheme = Scheme::default();
        let request = request(CeremonyRequest::Keygen { scheme, threshold }, names);
        self.coordinator.create(caller, request).await.unwrap()
    }

    pub(crate) async fn sign(&self, key: KeyId, names: &[&str], digest: Digest) -> CreatedSession {
        let (key, input) = (KeySelector::Id(key), SignInput::Digest(digest));
        let request = request(CeremonyRequest::Sign { key, threshold: None, input }, names);
        self.coordinator.create(&Caller::System, request).await.unwrap()
    }

    pub(crate) async fn refresh(&self, key: KeyId) -> CreatedSession {
        let ceremony = CeremonyRequest::Refresh { key: KeySelector::Id(key), threshold: None };
        self.coordinator.create(&Caller::System, request(ceremony, &[])).await.unwrap()
    }

    /// How a session ended.
    pub(crate) async fn ended(&self, created: &CreatedSession) -> SessionView {
        let wait = Some((WaitFor::End, FOR_EVER));
        self.coordinator.status(&Caller::System, created.session.session_id, wait).await.unwrap()
    }

    /// A key of these parties, which are served.
    pub(crate) async fn key(&self, t: i64, names: &[&str]) -> KeyId {
        let created = self.keygen(&Caller::System, t, names).await;
        let made = self.ended(&created).await;
        assert_eq!(made.status, SessionStatus::Completed, "{:?}", made.failure);
        made.key_id().unwrap()
    }

    /// Why a session ended without a result.
    pub(crate) async fn failure(&self, created: &CreatedSession) -> Failure {
        let ended = self.ended(created).await;
        assert_eq!(ended.status, SessionStatus::Failed);
        ended.failure.unwrap()
    }
}

fn request(ceremony: CeremonyRequest, names: &[&str]) -> CreateSession {
    let participant = |name: &&str| NewParticipant {
        party_id: party(name),
        device: DeviceInfo::default(),
        on_behalf_of: None,
    };
    CreateSession {
        ceremony,
        participants: names.iter().map(participant).collect(),
        expires_in_seconds: None,
        idempotency_key: None,
        authorization: None,
        label: None,
        replace: false,
        lent: None,
        webhook: None,
    }
}

/// A party's things, which outlive its process.
pub(crate) struct Machine {
    pub(crate) identity: Secret<[u8; 32]>,
    pub(crate) vault: Arc<dyn Vault>,
    pub(crate) keyring: Arc<Keyring>,
}

impl Machine {
    pub(crate) fn new(name: &str, vault: Arc<dyn Vault>) -> Self {
        Self::with(name, Identity::generate().secret(), vault)
    }

    pub(crate) fn with(name: &str, identity: Secret<[u8; 32]>, vault: Arc<dyn Vault>) -> Self {
        let seal = SealKey::from_bytes(Secret::new(SEAL));
        let keyring =
            Keyring::new(party(name), Identity::from_secret(&identity), seal, vault.clone());
        Self { identity, vault, keyring: Arc::new(keyring) }
    }

    /// The same machine after a restart of its process.
    pub(crate) fn restarted(&self) -> Self {
        Self::with(self.keyring.party().as_str(), self.identity_copy(), self.vault.clone())
    }

    pub(crate) fn identity_copy(&self) -> Secret<[u8; 32]> {
        Secret::new(*self.identity.expose())
    }

    pub(crate) async fn serve(
        &self,
        router: Arc<dyn Deliver>,
        coordinator: Arc<dyn TakePart>,
        compute: Compute,
    ) -> PartyHandle {
        let config = PartyConfig { heartbeat: FOR_EVER, ..PartyConfig::default() };
        let handle = PartyServer::start(config, router, coordinator, self.keyring.clone(), compute);
        handle.connected().await;
        handle
    }

    /// Serves with nobody in between.
    pub(crate) async fn serve_plainly(&self, world: &World) -> PartyHandle {
        let (router, coordinator) = (world.router.clone(), world.coordinator.clone());
        self.serve(router, coordinator, Compute::new(2, 2)).await
    }
}
