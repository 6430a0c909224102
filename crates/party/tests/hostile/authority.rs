//! A coordinator that changes what an initiator has signed: every party refuses, naming the rule.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use async_trait::async_trait;
use quorate_authority::{
    Action, AuthoritySecret, Initiators, NamedHolder, Policy, Request, RequestedInput, Signers,
};
use quorate_party::{
    Authority, AuthorityParts, Compute, MemoryLedger, MemoryVault, NoCallback, PartyConfig,
    PartyHandle, PartyServer, Rules,
};
use quorate_ports::ledger::{Consumed, Ledger, Remembered};
use quorate_ports::{Commit, ManageSessions as _};
use quorate_types::*;
use tokio::sync::{Notify, watch};
use tokio::time::Instant;

use crate::middle::{Between, Call, Middle, Told};
use crate::world::{FOR_EVER, Machine, World, party};

/// What the world's clock shows at its start.
const START: Timestamp = Timestamp(1_700_000_000_000);

thread_local! {
    /// When the scene of this thread began, by its runtime's clock.
    static BEGIN: Instant = Instant::now();
}

pub(crate) fn now() -> Timestamp {
    let elapsed = BEGIN.with(Instant::elapsed).as_millis();
    Timestamp(START.0 + i64::try_from(elapsed).unwrap())
}

pub(crate) fn secret(seed: u8) -> AuthoritySecret {
    AuthoritySecret::from_seed(&Secret::new([seed; 32]))
}

/// Changes what one party is shown of a session.
pub(crate) type Lie = Arc<dyn Fn(&mut SessionView) + Send + Sync>;

/// A coordinator that lies to one party, in the events of some kinds.
#[derive(Default)]
struct Liar {
    lies: Mutex<Vec<(PartyId, EventKind, Lie)>>,
    /// Who has handed a message over, by session and round.
    sent: Mutex<BTreeSet<(SessionId, i32, PartyId)>>,
    /// Whose results the coordinator does not take.
    unheard: Mutex<Option<PartyId>>,
}

#[async_trait]
impl Middle for Liar {
    async fn call(&self, who: &PartyId, call: Call<'_>) -> Result<()> {
        match call {
            Call::Route(request) => {
                let sent = (request.session_id, request.round, who.clone());
                self.sent.lock().unwrap().insert(sent);
            }
            Call::Report(Report { outcome: PartyOutcome::Failure(_), .. }) => {}
            Call::Report(_) if self.unheard.lock().unwrap().as_ref() == Some(who) => {
                return Err(Error::new(ErrorCode::Forbidden, "nobody listens"));
            }
            _ => {}
        }
        Ok(())
    }

    fn event(&self, who: &PartyId, mut event: SessionEvent) -> Told<SessionEvent> {
        for (deceived, kind, lie) in &*self.lies.lock().unwrap() {
            if deceived == who && *kind == event.kind {
                lie(&mut event.session);
            }
        }
        vec![Ok(event)]
    }
}

pub(crate) struct Scene {
    world: Arc<World>,
    liar: Arc<Liar>,
    machines: Vec<Machine>,
    _servers: Vec<PartyHandle>,
    nonce: u8,
}

impl Scene {
    pub(crate) async fn new(policy: Policy) -> Self {
        Self::with(policy, Arc::<MemoryLedger>::default()).await
    }

    /// A scene in which `a` keeps this ledger.
    async fn with(policy: Policy, of_a: Arc<dyn Ledger>) -> Self {
        BEGIN.with(|_| ());
        let (world, liar) = (Arc::new(World::new().await), Arc::<Liar>::default());
        let (mut machines, mut servers) = (Vec::new(), Vec::new());
        for name in ["a", "b", "c"] {
            let machine = Machine::new(name, Arc::<MemoryVault>::default());
            let mut initiators = Initiators::default();
            initiators.pin("ops", secret(1).public().clone()).unwrap();
            let parts = AuthorityParts {
                rules: Rules::new(initiators, policy.clone()).unwrap(),
                ledger: match name {
                    "a" => of_a.clone(),
                    _ => Arc::<MemoryLedger>::default(),
                },
                callback: Arc::new(NoCallback),
                now,
            };
            let authority = Some(Arc::new(Authority::open(parts).await.unwrap()));
            let config = PartyConfig { heartbeat: FOR_EVER, authority, ..PartyConfig::default() };
            let between = Between::new(party(name), &world, &liar);
            let compute = Compute::new(2, 2);
            let keyring = machine.keyring.clone();
            let server = PartyServer::start(config, between.clone(), between, keyring, compute);
            server.connected().await;
            machines.push(machine);
            servers.push(server);
        }
        Self { world, liar, machines, _servers: servers, nonce: 0 }
    }

    fn request(&mut self, action: Action) -> Request {
        self.nonce += 1;
        let expires_at = START.plus_seconds(3_600);
        Request { action, expires_at, nonce: [self.nonce; 16], purpose: "test".to_owned() }
    }

    async fn run(
        &self,
        ceremony: CeremonyRequest,
        names: &[&str],
        authorization: Option<Authorization>,
    ) -> Result<SessionView> {
        let participant = |name: &&str| NewParticipant {
            party_id: party(name),
            device: DeviceInfo::default(),
            on_behalf_of: None,
        };
        let request = CreateSession {
            ceremony,
            participants: names.iter().map(participant).collect(),
            expires_in_seconds: None,
            idempotency_key: None,
            authorization,
            label: None,
            replace: false,
            lent: None,
            webhook: None,
        };
        let created = self.world.coordinator.create(&Caller::System, request).await?;
        Ok(self.world.ended(&created).await)
    }

    fn holders(&self) -> Vec<NamedHolder> {
        let holder = |machine: &Machine| NamedHolder {
            party_id: machine.keyring.party().clone(),
            identity: Some(machine.keyring.identity().public()),
        };
        self.machines.iter().map(holder).collect()
    }

    pub(crate) async fn keygen(&mut self) -> SessionView {
        self.keygen_called(None).await
    }

    async fn keygen_called(&mut self, label: Option<&str>) -> SessionView {
        let (scheme, threshold) = (Scheme::default(), Threshold::new(2, 3).unwrap());
        let holders = self.holders();
        let request = self.request(Action::Keygen {
            scheme,
            threshold,
            holders,
            label: label.map(|label| label.parse().unwrap()),
        });
        let signed = Some(secret(1).authorize(&request));
        let ceremony = CeremonyRequest::Keygen { scheme, threshold };
        self.run(ceremony, &["a", "b", "c"], signed).await.unwrap()
    }

    pub(crate) fn signature(&mut self, key: &SessionView) -> Request {
        self.request(Action::Sign {
            key_id: key.key_id().unwrap(),
            epoch: 0,
            scheme: Scheme::default(),
            public_key: key.public_key().unwrap().clone(),
            input: RequestedInput::Digest(Digest([7; 32])),
            path: Vec::new(),
            signers: Signers::Named(vec![party("a"), party("b")]),
        })
    }

    async fn refresh(&mut self, key: &SessionView) -> SessionView {
        let shown = self.world.coordinator.key(&Caller::System, key.key_id().unwrap()).await;
        let key = shown.unwrap().record.key;
        let KeyEpoch { key_id, epoch, scheme, threshold, .. } = *key;
        let public_key = key.public_key.clone();
        let holders = self.holders();
        let request =
            self.request(Action::Refresh { key_id, epoch, scheme, public_key, threshold, holders });
        let signed = Some(secret(1).authorize(&request));
        let ceremony = CeremonyRequest::Refresh { key: KeySelector::Id(key_id), threshold: None };
        self.run(ceremony, &[], signed).await.unwrap()
    }

    pub(crate) async fn sign(
        &self,
        key: &SessionView,
        signed: Option<Authorization>,
    ) -> Result<SessionView> {
        let input = SignInput::Digest(Digest([7; 32]));
        let key = KeySelector::Id(key.key_id().unwrap());
        self.run(CeremonyRequest::Sign { key, threshold: None, input }, &["a", "b"], signed).await
    }

    /// Tells a lie beside those that are told already.
    pub(crate) fn tell(&self, who: &str, kind: EventKind, lie: &Lie) {
        self.liar.lies.lock().unwrap().push((party(who), kind, lie.clone()));
    }

    pub(crate) fn tell_the_truth(&self) {
        self.liar.lies.lock().unwrap().clear();
    }

    /// The rule by which a session was refused, in which nothing of a result was sent.
    pub(crate) fn refused(&self, view: &SessionView) -> String {
        assert_eq!(view.status, SessionStatus::Failed, "{view:?}");
        let failure = view.failure.as_ref().unwrap();
        assert_eq!(failure.reason, FailureReason::PolicyDenied, "{failure:?}");
        let sent = self.liar.sent.lock().unwrap();
        let early =
            |(id, round, _): &(SessionId, i32, PartyId)| *id != view.session_id || *round == 1;
        assert!(sent.iter().all(early), "{sent:?}");
        let (_, rest) = failure.message.split_once(": ").unwrap();
        rest.split(':').next().unwrap().to_owned()
    }
}

pub(crate) fn lie(lie: impl Fn(&mut SessionView) + Send + Sync + 'static) -> Lie {
    Arc::new(lie)
}

fn change(view: &mut SessionView, change: impl FnOnce(&mut KeyEpoch)) {
    if let Ceremony::Sign { key, .. } = &mut view.ceremony {
        change(Arc::make_mut(key));
    }
}

pub(crate) fn authorization(view: &mut SessionView, change: impl FnOnce(&mut Authorization)) {
    if let Some(authorization) = &mut view.authorization {
        change(Arc::make_mut(authorization));
    }
}

/// Each field of a signed request, changed on the way to a party, and the rule that refuses it.
fn lies() -> Vec<(&'static str, Lie)> {
    vec![
        (
            "input",
            lie(|view| {
                if let Ceremony::Sign { input, .. } = &mut view.ceremony {
                    *input = SignInput::Digest(Digest([8; 32]));
                }
            }),
        ),
        ("epoch", lie(|view| change(view, |key| key.epoch = 1))),
        ("public_key", lie(|view| change(view, |key| key.public_key = PublicKey(vec![2; 33])))),
        ("scheme", lie(|view| change(view, |key| key.scheme = Scheme::Ed25519))),
        ("signers", lie(|view| view.participants[0].party_id = party("c"))),
        (
            "ceremony",
            lie(|view| {
                let (scheme, threshold) = (Scheme::default(), Threshold::new(2, 2).unwrap());
                view.ceremony = Ceremony::Keygen { scheme, threshold };
            }),
        ),
        ("unsigned", lie(|view| view.authorization = None)),
        (
            "unknown_initiator",
            lie(|view| {
                authorization(view, |signed| signed.initiator = secret(2).public().clone());
            }),
        ),
        ("signature", lie(|view| authorization(view, |signed| signed.signature.0[9] ^= 1))),
        (
            "signature",
            lie(|view| {
                authorization(view, |signed| {
                    let mut request = signed.request.to_vec();
                    *request.last_mut().unwrap() ^= 1;
                    signed.request = request.into();
                })
            }),
        ),
    ]
}

#[tokio::test(start_paused = true)]
async fn each_changed_field_of_a_signed_request_is_refused_by_every_party_naming_the_rule() {
    let mut scene = Scene::new(Policy::permissive()).await;
    let key = scene.keygen().await;
    assert_eq!(key.status, SessionStatus::Completed, "{:?}", key.failure);
    for (rule, lie) in lies() {
        for who in ["a", "b"] {
            // The lie about who signs names the first party away: it is told to the second.
            if rule == "signers" && who == "a" {
                continue;
            }
            let request = scene.signature(&key);
            scene.tell_the_truth();
            scene.tell(who, EventKind::SessionCreated, &lie);
            let ended = scene.sign(&key, Some(secret(1).authorize(&request))).await.unwrap();
            assert_eq!(scene.refused(&ended), rule, "told to {who}");
        }
    }
    scene.tell_the_truth();
    let request = scene.signature(&key);
    let signed = scene.sign(&key, Some(secret(1).authorize(&request))).await.unwrap();
    assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
}

#[tokio::test(start_paused = true)]
async fn a_session_that_starts_as_something_else_than_was_joined_is_refused() {
    let mut scene = Scene::new(Policy::permissive()).await;
    let key = scene.keygen().await;
    for who in ["a", "b"] {
        let lie = lie(|view| {
            if let Ceremony::Sign { input, .. } = &mut view.ceremony {
                *input = SignInput::Digest(Digest([8; 32]));
            }
        });
        let request = scene.signature(&key);
        scene.tell_the_truth();
        scene.tell(who, EventKind::SessionStarted, &lie);
        let ended = scene.sign(&key, Some(secret(1).authorize(&request))).await.unwrap();
        assert_eq!(scene.refused(&ended), "input", "told to {who}");
    }
}

#[tokio::test(start_paused = true)]
async fn what_nobody_known_has_signed_or_what_was_used_is_refused() {
    let mut scene = Scene::new(Policy::permissive()).await;
    let key = scene.keygen().await;
    let unsigned = scene.sign(&key, None).await.unwrap();
    assert_eq!(scene.refused(&unsigned), "unsigned");
    let request = scene.signature(&key);
    let foreign = scene.sign(&key, Some(secret(2).authorize(&request))).await.unwrap();
    assert_eq!(scene.refused(&foreign), "unknown_initiator");
    let signed = secret(1).authorize(&request);
    let first = scene.sign(&key, Some(signed.clone())).await.unwrap();
    assert_eq!(first.status, SessionStatus::Completed, "{:?}", first.failure);
    let again = scene.sign(&key, Some(signed)).await.unwrap();
    assert_eq!(scene.refused(&again), "nonce");

    // What every party would refuse is refused before there is a session.
    let mut other = scene.signature(&key);
    if let Action::Sign { input, .. } = &mut other.action {
        *input = RequestedInput::Digest(Digest([1; 32]));
    }
    let refused = scene.sign(&key, Some(secret(1).authorize(&other))).await.unwrap_err();
    assert_eq!(refused.code, ErrorCode::PolicyDenied);
    assert!(refused.message.starts_with("input"), "{refused}");
    let expired = Request { expires_at: START, ..scene.signature(&key) };
    let refused = scene.sign(&key, Some(secret(1).authorize(&expired))).await.unwrap_err();
    assert!(refused.message.starts_with("expiry"), "{refused}");
}

#[tokio::test(start_paused = true)]
async fn a_key_whose_refresh_the_coordinator_missed_signs_and_is_refreshed_by_its_requests() {
    let mut scene = Scene::new(Policy::permissive()).await;
    let key = scene.keygen().await;
    *scene.liar.unheard.lock().unwrap() = Some(party("c"));
    let missed = scene.refresh(&key).await;
    assert_ne!(missed.status, SessionStatus::Completed, "the coordinator has not heard of c");
    for machine in &scene.machines {
        let share = machine.vault.share(key.key_id().unwrap()).await.unwrap().unwrap();
        assert_eq!(share.epoch, 1, "the holders have the next epoch all the same");
    }
    *scene.liar.unheard.lock().unwrap() = None;
    // What it knows is epoch 0, and what is signed says so.
    let request = scene.signature(&key);
    let signed = scene.sign(&key, Some(secret(1).authorize(&request))).await.unwrap();
    assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
    let learnt = scene.refresh(&key).await;
    assert_eq!(learnt.status, SessionStatus::Completed, "{:?}", learnt.failure);
    let shown = scene.world.coordinator.key(&Caller::System, key.key_id().unwrap()).await.unwrap();
    assert_eq!(shown.record.epoch, 1, "nothing new was made");
    // Nobody takes a request for an epoch that the holders do not have yet.
    let mut ahead = scene.signature(&key);
    if let Action::Sign { epoch, .. } = &mut ahead.action {
        *epoch = 2;
    }
    let refused = scene.sign(&key, Some(secret(1).authorize(&ahead))).await.unwrap_err();
    assert!(refused.message.starts_with("epoch"), "{refused}");
}

/// A ledger on a disk that takes its time.
struct SlowDisk {
    /// What has become of the writes, once that is known.
    written: watch::Sender<Option<Result<()>>>,
    /// Somebody waits for a write.
    awaited: Arc<Notify>,
}

impl SlowDisk {
    fn new(written: Option<Result<()>>) -> Arc<Self> {
        Arc::new(Self { written: watch::Sender::new(written), awaited: Arc::default() })
    }
}

#[async_trait]
impl Ledger for SlowDisk {
    async fn load(&self, _: Timestamp) -> Result<Remembered> {
        Ok(Remembered::default())
    }

    fn consume(&self, _: Consumed) -> Commit {
        let (mut written, awaited) = (self.written.subscribe(), self.awaited.clone());
        Commit::new(async move {
            if written.borrow().is_none() {
                awaited.notify_one();
            }
            let written = written.wait_for(Option::is_some).await.unwrap().clone();
            written.unwrap()
        })
    }
}

#[tokio::test(start_paused = true)]
async fn nothing_of_a_result_leaves_before_the_request_is_on_the_disk() {
    let disk = SlowDisk::new(Some(Ok(())));
    let mut scene = Scene::with(Policy::permissive(), disk.clone()).await;
    let key = scene.keygen().await;
    assert_eq!(key.status, SessionStatus::Completed, "{:?}", key.failure);
    let of_a = |scene: &Scene| {
        let sent = scene.liar.sent.lock().unwrap();
        let late = |(id, round, who): &&(SessionId, i32, PartyId)| {
            *id != key.session_id && *round > 2 && *who == party("a")
        };
        sent.iter().filter(late).count()
    };
    disk.written.send_replace(None);
    let signed = Some(secret(1).authorize(&scene.signature(&key)));
    let meanwhile = async {
        disk.awaited.notified().await;
        assert_eq!(of_a(&scene), 0, "the message with its part of the signature waits");
        disk.written.send_replace(Some(Ok(())));
    };
    let (ended, ()) = tokio::join!(scene.sign(&key, signed), meanwhile);
    assert_eq!(ended.unwrap().status, SessionStatus::Completed);
    assert!(of_a(&scene) > 0, "it was sent then");
    scene.liar.sent.lock().unwrap().clear();

    disk.written.send_replace(Some(Err(Error::unavailable("no space left on device"))));
    let signed = Some(secret(1).authorize(&scene.signature(&key)));
    let ended = scene.sign(&key, signed.clone()).await.unwrap();
    assert_eq!(ended.status, SessionStatus::Failed);
    assert!(ended.failure.unwrap().message.starts_with("a: "), "it says why it gave up");
    assert_eq!(of_a(&scene), 0, "nothing was sent without the write");
    disk.written.send_replace(Some(Ok(())));
    let again = scene.sign(&key, signed).await.unwrap();
    assert_eq!(scene.refused(&again), "nonce", "whatever became of the write");
}

#[tokio::test(start_paused = true)]
async fn each_party_keeps_the_label_that_was_signed_and_its_policy_goes_by_that() {
    let text =
        "version = 1\notherwise = \"allow\"\n[keys.cold]\nlabels = [\"cold\"]\ndigests = false";
    let mut scene = Scene::new(Policy::read(text).unwrap()).await;
    // A label that a coordinator puts into a request is not its initiator's.
    let relabel = lie(|view| {
        authorization(view, |signed| {
            let mut request = Request::decode(&signed.request).unwrap();
            if let Action::Keygen { label, .. } = &mut request.action {
                *label = Some("hot".parse().unwrap());
            }
            signed.request = request.encode().into();
        });
    });
    for kind in [EventKind::SessionCreated, EventKind::SessionStarted] {
        scene.tell_the_truth();
        scene.tell("b", kind, &relabel);
        let ended = scene.keygen_called(Some("cold")).await;
        assert_eq!(scene.refused(&ended), "signature", "{kind:?}");
    }
    scene.tell_the_truth();
    let key = scene.keygen_called(Some("cold")).await;
    assert_eq!(key.status, SessionStatus::Completed, "{:?}", key.failure);
    for epoch in 0..2 {
        for machine in &scene.machines {
            let share = machine.vault.share(key.key_id().unwrap()).await.unwrap().unwrap();
            assert_eq!((share.epoch, share.record.label), (epoch, Some("cold".parse().unwrap())));
        }
        let shown = scene.world.coordinator.key(&Caller::System, key.key_id().unwrap()).await;
        assert_eq!(shown.unwrap().record.label, Some("cold".parse().unwrap()));
        if epoch == 0 {
            let refreshed = scene.refresh(&key).await;
            assert_eq!(refreshed.status, SessionStatus::Completed, "{:?}", refreshed.failure);
        }
    }
    let mut request = scene.signature(&key);
    if let Action::Sign { epoch, .. } = &mut request.action {
        *epoch = 1;
    }
    let refused = scene.sign(&key, Some(secret(1).authorize(&request))).await.unwrap();
    assert_eq!(scene.refused(&refused), "digests");
    let bare = scene.keygen().await;
    let request = scene.signature(&bare);
    let signed = scene.sign(&bare, Some(secret(1).authorize(&request))).await.unwrap();
    assert_eq!(signed.status, SessionStatus::Completed, "{:?}", signed.failure);
}
