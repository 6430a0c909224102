//! A router and a coordinator in memory, with the faults that tests ask for.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use quorate_engine::{Identity, SealKey};
use quorate_ports::{BoxStream, Deliver, ReadSession, TakePart, Vault};
use quorate_types::*;
use tokio::sync::{mpsc, watch};

use crate::{Compute, Keyring, MemoryVault, PartyConfig, PartyHandle, PartyServer, clock};

pub(crate) fn party(name: &str) -> PartyId {
    name.parse().unwrap()
}

pub(crate) fn parties(names: &[&str]) -> Vec<PartyId> {
    names.iter().map(|name| party(name)).collect()
}

fn new_session() -> SessionId {
    SessionId(uuid::Uuid::new_v4())
}

/// A party's things, which outlive its server.
#[derive(Clone)]
pub(crate) struct Machine {
    pub(crate) vault: Arc<MemoryVault>,
    pub(crate) keyring: Arc<Keyring>,
}

impl Machine {
    pub(crate) fn new(name: &str) -> Self {
        Self::with_vault(name, Arc::default())
    }

    /// The same shares under another identity.
    pub(crate) fn with_vault(name: &str, vault: Arc<MemoryVault>) -> Self {
        let seal = SealKey::from_bytes(Secret::new([7; 32]));
        let keyring = Keyring::new(party(name), Identity::generate(), seal, vault.clone());
        Self { vault, keyring: Arc::new(keyring) }
    }

    pub(crate) async fn serve(&self, net: &Arc<Net>) -> PartyHandle {
        let config = PartyConfig { grace: Duration::from_secs(60), ..PartyConfig::default() };
        let keyring = Arc::clone(&self.keyring);
        net.0.lock().unwrap().vaults.insert(keyring.party().clone(), self.vault.clone());
        let compute = Compute::default();
        let handle = PartyServer::start(config, net.clone(), net.clone(), keyring, compute);
        handle.connected().await;
        handle
    }
}

struct Sent {
    message: Message,
    to: Vec<PartyId>,
    acknowledged: HashMap<PartyId, bool>,
}

struct Session {
    view: SessionView,
    sent: Vec<Sent>,
    results: Vec<PartyOutcome>,
}

type Queue<T> = mpsc::UnboundedSender<Result<T>>;

#[derive(Default)]
struct State {
    sessions: HashMap<SessionId, Session>,
    keys: HashMap<KeyId, KeyRecord>,
    events: Vec<(PartyId, Queue<SessionEvent>)>,
    messages: Vec<(PartyId, Option<SessionId>, Queue<Message>)>,
    vaults: HashMap<PartyId, Arc<MemoryVault>>,
    silent: HashSet<PartyId>,
    /// Deliver, before each true message, one whose last byte is wrong.
    forging: bool,
    /// Show this party another digest than the others.
    deceived: Option<PartyId>,
    /// Refuse as many messages with "later".
    away: usize,
    /// Answer the next result and forget it, as a coordinator does that restarts right after.
    forgetful: bool,
    /// Break all streams with the n-th message from now.
    cut_at: Option<usize>,
}

/// The router and the coordinator.
pub(crate) struct Net(Mutex<State>, watch::Sender<()>);

impl Net {
    pub(crate) fn new() -> Arc<Self> {
        Arc::new(Self(Mutex::default(), watch::Sender::new(())))
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap()
    }

    /// Nothing that this party sends arrives from now on.
    pub(crate) fn silence(&self, name: &str) {
        self.state().silent.insert(party(name));
    }

    pub(crate) fn forge(&self) {
        self.state().forging = true;
    }

    pub(crate) fn deceive(&self, name: &str) {
        self.state().deceived = Some(party(name));
    }

    pub(crate) fn away(&self, messages: usize) {
        self.state().away = messages;
    }

    pub(crate) fn cut_at(&self, message: usize) {
        self.state().cut_at = Some(message);
    }

    pub(crate) fn forget_next_result(&self) {
        self.state().forgetful = true;
    }

    /// Says again that a session runs, as a coordinator does that has restarted.
    pub(crate) fn republish(&self, session: SessionId) {
        self.announce(session, EventKind::SessionStarted);
    }

    pub(crate) fn keygen(&self, t: i64, names: &[&str]) -> SessionId {
        let threshold = Threshold::new(t, names.len() as i64).unwrap();
        let scheme = Scheme::EcdsaSecp256k1;
        self.create(Ceremony::Keygen { scheme, threshold }, parties(names))
    }

    pub(crate) fn sign(&self, key: KeyId, names: &[&str]) -> SessionId {
        let input = SignInput::Digest(Digest([9; 32]));
        self.create(Ceremony::Sign { key: self.key(key), input }, parties(names))
    }

    /// A key that was made here, or one that nobody holds.
    pub(crate) fn key(&self, key_id: KeyId) -> Arc<KeyEpoch> {
        let known = self.state().keys.get(&key_id).map(|record| record.key.clone());
        let unknown = || KeyEpoch {
            key_id,
            epoch: 0,
            scheme: Scheme::EcdsaSecp256k1,
            threshold: Threshold::new(2, 2).unwrap(),
            public_key: PublicKey(vec![4; 65]),
            holders: parties(&["a", "b"]),
        };
        known.unwrap_or_else(|| Arc::new(unknown()))
    }

    fn create(&self, ceremony: Ceremony, parties: Vec<PartyId>) -> SessionId {
        let session_id = new_session();
        let participant = |(index, party_id): (usize, PartyId)| ParticipantView {
            party_id,
            party_index: PartyIndex(index as u16),
            status: ParticipantStatus::Waiting,
            device: DeviceInfo::default(),
            handshake: None,
        };
        let view = SessionView {
            tenant: Tenant::default(),
            session_id,
            ceremony,
            status: SessionStatus::Created,
            participants: parties.into_iter().enumerate().map(participant).collect(),
            outcome: None,
            failure: None,
            created_at: clock::now(),
            expires_at: clock::now().plus_seconds(120),
        };
        let session = Session { view, sent: Vec::new(), results: Vec::new() };
        self.state().sessions.insert(session_id, session);
        self.announce(session_id, EventKind::SessionCreated);
        session_id
    }

    fn announce(&self, session: SessionId, kind: EventKind) {
        let mut state = self.state();
        let event = event(&state.sessions[&session].view, kind);
        let concerned =
            |party: &PartyId| event.session.participants.iter().any(|seat| seat.party_id == *party);
        let deceived = state.deceived.clone();
        state.events.retain(|(party, queue)| {
            let mut event = event.for_party(party);
            if deceived.as_ref() == Some(party) {
                let Ceremony::Sign { input, .. } = &mut event.session.ceremony else {
                    panic!("a lie about a signature");
                };
                *input = SignInput::Digest(Digest([1; 32]));
            }
            !concerned(party) || queue.send(Ok(event)).is_ok()
        });
        drop(state);
        self.1.send_replace(());
    }

    pub(crate) fn view(&self, session: SessionId) -> SessionView {
        self.state().sessions[&session].view.clone()
    }

    /// Waits until the session is as wanted.
    pub(crate) async fn until(
        &self,
        session: SessionId,
        wanted: impl Fn(&SessionView) -> bool,
    ) -> SessionView {
        let mut changes = self.1.subscribe();
        loop {
            let view = self.view(session);
            if wanted(&view) {
                return view;
            }
            changes.changed().await.unwrap();
        }
    }

    pub(crate) async fn ended(&self, session: SessionId) -> SessionView {
        self.until(session, |view| view.status.is_final()).await
    }

    pub(crate) fn expire(&self, session: SessionId) {
        self.state().sessions.get_mut(&session).unwrap().view.status = SessionStatus::Expired;
        self.announce(session, EventKind::SessionExpired);
    }

    /// How many deliveries were acknowledged as processed, and as failed.
    pub(crate) fn acknowledged(&self, session: SessionId) -> (usize, usize) {
        let state = self.state();
        let acks = state.sessions[&session].sent.iter().flat_map(|sent| sent.acknowledged.values());
        let (good, bad): (Vec<bool>, Vec<bool>) = acks.copied().partition(|success| *success);
        (good.len(), bad.len())
    }

    /// A device that joins without a handshake.
    pub(crate) async fn join_plainly(&self, session: SessionId, name: &str) {
        let request = JoinSession {
            session_id: Some(session),
            party_id: party(name),
            token: token(session),
            device: DeviceInfo::default(),
            handshake: None,
            ready: true,
        };
        self.join(&Caller::Open, request).await.unwrap();
    }
}

fn token(session: SessionId) -> JoinToken {
    Secret::new(session.to_string())
}

fn event(view: &SessionView, kind: EventKind) -> SessionEvent {
    let tokens = view.participants.iter().map(|p| (p.party_id.clone(), token(view.session_id)));
    SessionEvent {
        event_id: EventId(uuid::Uuid::new_v4()),
        kind,
        session: view.clone(),
        join_tokens: tokens.collect::<BTreeMap<_, _>>(),
        created_at: clock::now(),
    }
}

fn ended() -> Error {
    Error::new(ErrorCode::SessionExpired, "the session has ended")
}

impl State {
    /// Puts a message into its recipients' streams and keeps it.
    fn deliver(&mut self, request: &RouteRequest, payload: bytes::Bytes) -> MessageId {
        let session = self.sessions.get_mut(&request.session_id).unwrap();
        let others = session.view.participants.iter().map(|p| p.party_id.clone());
        let others: Vec<_> = others.filter(|p| *p != request.from_party).collect();
        let to = if request.to_parties.is_empty() { others } else { request.to_parties.clone() };
        let message = Message {
            message_id: MessageId(uuid::Uuid::new_v4()),
            session_id: request.session_id,
            from_party: request.from_party.clone(),
            is_broadcast: request.to_parties.is_empty(),
            round: request.round,
            message_type: request.message_type.clone(),
            payload,
            created_at: clock::now(),
        };
        self.messages.retain(|(party, wanted, queue)| {
            let fits = to.contains(party) && wanted.is_none_or(|id| id == request.session_id);
            !fits || queue.send(Ok(message.clone())).is_ok()
        });
        let id = message.message_id;
        session.sent.push(Sent { message, to, acknowledged: HashMap::new() });
        id
    }

    fn acknowledge(&mut self, session: SessionId, id: MessageId, by: &PartyId, success: bool) {
        let session = self.sessions.get_mut(&session).unwrap();
        let sent = session.sent.iter_mut().find(|sent| sent.message.message_id == id).unwrap();
        sent.acknowledged.insert(by.clone(), success);
    }

    fn cut(&mut self) {
        let broken = || Error::unavailable("cut");
        self.events.drain(..).for_each(|(_, queue)| drop(queue.send(Err(broken()))));
        self.messages.drain(..).for_each(|(_, _, queue)| drop(queue.send(Err(broken()))));
    }
}

fn stream_of<T: Send + 'static>(
    first: Vec<T>,
    queue: mpsc::UnboundedReceiver<Result<T>>,
) -> BoxStream<Result<T>> {
    let live = stream::unfold(queue, |mut queue| async { Some((queue.recv().await?, queue)) });
    Box::pin(stream::iter(first.into_iter().map(Ok)).chain(live))
}

#[async_trait]
impl Deliver for Net {
    async fn register(&self, caller: &Caller, registration: Registration) -> Result<Timestamp> {
        caller.speaks_for(&registration.party_id)?;
        assert!(registration.identity.is_some());
        Ok(clock::now())
    }

    async fn heartbeat(&self, _: &Caller, _: &PartyId) -> Result<Pulse> {
        Ok(Pulse { server_time: clock::now(), pending_messages: 0 })
    }

    async fn route(&self, caller: &Caller, request: RouteRequest) -> Result<MessageId> {
        caller.speaks_for(&request.from_party)?;
        let mut state = self.state();
        if state.sessions[&request.session_id].view.status.is_final() {
            return Err(ended());
        }
        if state.away > 0 {
            state.away -= 1;
            return Err(Error::unavailable("away"));
        }
        for id in &request.acknowledges {
            state.acknowledge(request.session_id, *id, &request.from_party, true);
        }
        if state.silent.contains(&request.from_party) {
            return Ok(MessageId(uuid::Uuid::new_v4()));
        }
        if state.forging {
            let mut forged = request.payload.to_vec();
            *forged.last_mut().unwrap() ^= 1;
            state.deliver(&request, forged.into());
        }
        let id = state.deliver(&request, request.payload.clone());
        match state.cut_at {
            Some(0) => {
                state.cut_at = None;
                state.cut();
            }
            Some(left) => state.cut_at = Some(left - 1),
            None => {}
        }
        Ok(id)
    }

    async fn subscribe(
        &self,
        caller: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        _: Timestamp,
    ) -> Result<BoxStream<Result<Message>>> {
        caller.speaks_for(party)?;
        let mut state = self.state();
        let open = state.sessions.values().filter(|s| !s.view.status.is_final());
        let open = open.filter(|s| session.is_none_or(|id| id == s.view.session_id));
        let kept = open.flat_map(|session| &session.sent);
        let kept = kept.filter(|s| s.to.contains(party) && !s.acknowledged.contains_key(party));
        let kept = kept.map(|sent| sent.message.clone()).collect();
        let (queue, live) = mpsc::unbounded_channel();
        state.messages.push((party.clone(), session, queue));
        Ok(stream_of(kept, live))
    }

    async fn acknowledge(&self, _: &Caller, ack: Acknowledge) -> Result<()> {
        self.state().acknowledge(ack.session_id, ack.message_id, &ack.party_id, ack.success);
        self.1.send_replace(());
        Ok(())
    }

    async fn subscribe_events(
        &self,
        caller: &Caller,
        party: &PartyId,
        _: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>> {
        caller.speaks_for(party)?;
        let mut state = self.state();
        let views = state.sessions.values().map(|session| &session.view);
        let open = views.filter(|view| !view.status.is_final());
        let mine = open.filter(|view| view.participants.iter().any(|p| p.party_id == *party));
        let last = mine.map(|view| {
            let kind = match view.status {
                SessionStatus::InProgress => EventKind::SessionStarted,
                _ => EventKind::SessionCreated,
            };
            event(view, kind).for_party(party)
        });
        let last = last.collect();
        let (queue, live) = mpsc::unbounded_channel();
        state.events.push((party.clone(), queue));
        Ok(stream_of(last, live))
    }
}

#[async_trait]
impl ReadSession for Net {
    async fn status(
        &self,
        _: &Caller,
        session: SessionId,
        _: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        Ok(self.view(session))
    }
}

#[async_trait]
impl TakePart for Net {
    async fn join(&self, _: &Caller, request: JoinSession) -> Result<JoinedSession> {
        let id = request.session_id.unwrap();
        assert_eq!(request.token.expose(), token(id).expose());
        let mut state = self.state();
        let view = &mut state.sessions.get_mut(&id).unwrap().view;
        if view.status.is_final() {
            return Err(ended());
        }
        let mut seats = view.participants.iter_mut();
        let seat = seats.find(|p| p.party_id == request.party_id).unwrap();
        if view.status == SessionStatus::InProgress && seat.handshake != request.handshake {
            return Err(Error::new(ErrorCode::Conflict, "it runs with your earlier handshake"));
        }
        seat.handshake = request.handshake;
        seat.status =
            if request.ready { ParticipantStatus::Ready } else { ParticipantStatus::Joined };
        let party_index = seat.party_index;
        view.status = SessionStatus::Waiting;
        let started = view.participants.iter().all(|p| p.status == ParticipantStatus::Ready);
        if started {
            view.status = SessionStatus::InProgress;
            view.participants.iter_mut().for_each(|p| p.status = ParticipantStatus::Computing);
        }
        let session = view.clone();
        drop(state);
        self.announce(id, if started { EventKind::SessionStarted } else { EventKind::PartyJoined });
        Ok(JoinedSession { party_index, session })
    }

    async fn ready(&self, _: &Caller, _: SessionId, _: &PartyId) -> Result<ReadyCount> {
        unreachable!("parties join ready")
    }

    async fn complete(&self, caller: &Caller, report: Report) -> Result<SessionView> {
        caller.speaks_for(&report.party_id)?;
        let vault = self.state().vaults.get(&report.party_id).cloned();
        if let (PartyOutcome::Key { .. }, Some(vault)) = (&report.outcome, vault) {
            let share = vault.share(report.session_id.into()).await?;
            assert!(share.is_some(), "the share is stored before it is reported");
        }
        let id = report.session_id;
        let mut state = self.state();
        let State { sessions, keys, forgetful, .. } = &mut *state;
        let session = sessions.get_mut(&id).unwrap();
        if session.view.status.is_final() {
            return Err(ended());
        }
        if !matches!(report.outcome, PartyOutcome::Failure(_)) && std::mem::take(forgetful) {
            return Ok(session.view.clone());
        }
        let kind = match report.outcome {
            PartyOutcome::Failure(failure) => {
                session.view.status = SessionStatus::Failed;
                session.view.failure = Some(failure);
                Some(EventKind::SessionFailed)
            }
            outcome => {
                let mut seats = session.view.participants.iter_mut();
                seats.find(|p| p.party_id == report.party_id).unwrap().status =
                    ParticipantStatus::Completed;
                session.results.push(outcome);
                session.finish(keys).then_some(EventKind::SessionCompleted)
            }
        };
        let view = session.view.clone();
        drop(state);
        if let Some(kind) = kind {
            self.announce(id, kind);
        }
        Ok(view)
    }
}

impl Session {
    /// Completes the session when all have reported the same.
    fn finish(&mut self, keys: &mut HashMap<KeyId, KeyRecord>) -> bool {
        let view = &mut self.view;
        if self.results.len() < view.participants.len() {
            return false;
        }
        assert!(self.results.iter().all(|result| *result == self.results[0]), "results differ");
        view.status = SessionStatus::Completed;
        view.outcome = Some(match &self.results[0] {
            PartyOutcome::Key { public_key: key, .. } => {
                let key_id = view.session_id.into();
                let record = KeyRecord {
                    key: Arc::new(KeyEpoch {
                        key_id,
                        epoch: 0,
                        scheme: view.ceremony.scheme(),
                        threshold: view.ceremony.threshold(),
                        public_key: PublicKey(key.clone()),
                        holders: view.participants.iter().map(|p| p.party_id.clone()).collect(),
                    }),
                    tenant: Tenant::default(),
                    created_at: clock::now(),
                };
                keys.insert(key_id, record);
                Outcome::PublicKey(PublicKey(key.clone()))
            }
            PartyOutcome::Signature { bytes, recovery_id } => {
                let signature = Signature { bytes: bytes.clone(), recovery_id: *recovery_id };
                let Ceremony::Sign { key, input } = &view.ceremony else {
                    panic!("a signature of a keygen");
                };
                quorate_schemes::verify(key.scheme, &key.public_key, input, &signature).unwrap();
                Outcome::Signature(signature)
            }
            PartyOutcome::Failure(_) => unreachable!("a failure ends the session"),
        });
        true
    }
}
