//! Small fake services for the tests of fronts: they answer what the test set, and keep what they
//! were asked.

#![allow(clippy::unwrap_used, clippy::panic, reason = "a test's helpers panic as its tests do")]

mod seeded;

pub use seeded::Seeded;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use futures_util::{StreamExt, stream};
use quorate_ports::{
    Accounts, Announce, BoxStream, Deliver, Directory, ManageSessions, NoteProgress, ReadMessages,
    ReadNotifications, ReadSession, TakePart,
};
use quorate_types::*;

/// The session every fake knows.
pub const SESSION: &str = "550e8400-e29b-41d4-a716-446655440000";
/// The message every fake makes.
pub const MESSAGE: &str = "660e8400-e29b-41d4-a716-446655440001";

/// A keygen session of two parties that nobody has joined.
pub fn session() -> SessionView {
    let participant = |name: &str, index| ParticipantView {
        party_id: name.parse().unwrap(),
        party_index: PartyIndex(index),
        status: ParticipantStatus::Waiting,
        device: DeviceInfo::default(),
        handshake: None,
        on_behalf_of: None,
    };
    SessionView {
        ceremony: Ceremony::Keygen {
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 2).unwrap(),
        },
        tenant: Tenant::default(),
        session_id: SESSION.parse().unwrap(),
        status: SessionStatus::Created,
        participants: vec![participant("alice", 0), participant("bob", 1)],
        authorization: None,
        attempt: 0,
        replaced: Vec::new(),
        outcome: None,
        failure: None,
        created_at: Timestamp(1_703_145_300_000),
        expires_at: Timestamp(1_703_145_600_000),
    }
}

/// A message from bob to all.
pub fn message(round: i32) -> Message {
    Message {
        message_id: MESSAGE.parse().unwrap(),
        session_id: SESSION.parse().unwrap(),
        from_party: "bob".parse().unwrap(),
        is_broadcast: true,
        round,
        message_type: "t".into(),
        payload: vec![0, 1, 2].into(),
        created_at: Timestamp(1_703_145_600_500),
    }
}

fn tokens() -> BTreeMap<PartyId, JoinToken> {
    let token = |party: &str| (party.parse().unwrap(), Secret::new(format!("token-{party}")));
    ["alice", "bob"].map(token).into()
}

fn of(cursor: Option<Cursor>) -> String {
    cursor.map(|cursor| format!(" {cursor}")).unwrap_or_default()
}

fn created() -> CreatedSession {
    CreatedSession { session: session(), join_tokens: tokens(), fetch_tokens: BTreeMap::new() }
}

/// What a fake was asked, in words, and the refusal it answers with, if any.
#[derive(Default)]
pub struct Fake {
    /// Calls in their order.
    pub calls: Mutex<Vec<String>>,
    /// Answered to every call when set.
    pub refusal: Mutex<Option<Error>>,
    /// Given out by `subscribe`; the stream stays open when the last is no error and `open`.
    pub messages: Mutex<Vec<Result<Message>>>,
    /// Whether streams stay open after their items.
    pub open: bool,
}

impl Fake {
    /// One that refuses everything.
    pub fn refusing(error: Error) -> Arc<Self> {
        Arc::new(Self { refusal: Mutex::new(Some(error)), ..Self::default() })
    }

    /// One whose subscription gives these.
    pub fn streaming(messages: Vec<Result<Message>>, open: bool) -> Arc<Self> {
        Arc::new(Self { messages: Mutex::new(messages), open, ..Self::default() })
    }

    /// The calls so far.
    pub fn seen(&self) -> Vec<String> {
        self.calls.lock().unwrap().clone()
    }

    fn call(&self, words: String) -> Result<()> {
        self.calls.lock().unwrap().push(words);
        self.refusal.lock().unwrap().clone().map_or(Ok(()), Err)
    }

    fn stream<T: Send + 'static>(&self, items: Vec<Result<T>>) -> BoxStream<Result<T>> {
        let items = stream::iter(items);
        if self.open { items.chain(stream::pending()).boxed() } else { items.boxed() }
    }
}

#[async_trait]
impl ReadSession for Fake {
    async fn status(
        &self,
        _: &Caller,
        session_id: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        self.call(format!("status {session_id} {wait:?}"))?;
        Ok(session())
    }
}

#[async_trait]
impl TakePart for Fake {
    async fn join(&self, _: &Caller, request: JoinSession) -> Result<JoinedSession> {
        self.call(format!("join {} {}", request.party_id, request.token.expose()))?;
        Ok(JoinedSession { party_index: PartyIndex(1), session: session() })
    }

    async fn ready(&self, _: &Caller, _: SessionId, party: &PartyId) -> Result<ReadyCount> {
        if party.as_str() == "panic" {
            panic!("a bug with a secret");
        }
        self.call(format!("ready {party}"))?;
        Ok(ReadyCount { ready: 2, total: 3 })
    }

    async fn complete(&self, _: &Caller, report: Report) -> Result<SessionView> {
        self.call(format!("complete {} {:?}", report.party_id, report.outcome))?;
        Ok(session())
    }

    async fn submit_share(&self, _: &Caller, submitted: SubmitShare) -> Result<()> {
        self.call(format!("submit {} {:?}", submitted.party_id, submitted.package))
    }

    async fn fetch_share(&self, _: &Caller, asked: FetchShare) -> Result<DelegatedShare> {
        self.call(format!("fetch {} {}", asked.party_id, asked.token.expose()))?;
        Ok(DelegatedShare {
            session_id: asked.session_id,
            party_id: asked.party_id,
            user_id: "alice".parse().unwrap(),
            party_index: PartyIndex(1),
            package: vec![1, 2, 3].into(),
        })
    }

    async fn confirm_share(&self, _: &Caller, asked: FetchShare) -> Result<()> {
        self.call(format!("confirm {} {}", asked.party_id, asked.token.expose()))
    }
}

#[async_trait]
impl ManageSessions for Fake {
    async fn create(&self, caller: &Caller, request: CreateSession) -> Result<CreatedSession> {
        let parties = request.participants.len();
        self.call(format!("create {caller:?} {parties} {:?}", request.idempotency_key))?;
        Ok(created())
    }

    async fn start(&self, _: &Caller, session_id: SessionId) -> Result<SessionView> {
        self.call(format!("start {session_id}"))?;
        Ok(SessionView { status: SessionStatus::InProgress, ..session() })
    }

    async fn close(&self, _: &Caller, session_id: SessionId) -> Result<SessionView> {
        self.call(format!("close {session_id}"))?;
        Ok(SessionView { status: SessionStatus::Failed, ..session() })
    }

    async fn approve(&self, _: &Caller, _: SessionId, _: Approval) -> Result<SessionView> {
        Ok(session())
    }

    async fn timeline(&self, _: &Caller, _: SessionId) -> Result<Timeline> {
        self.call("timeline".into())?;
        let entry = TimelineEntry { at: Timestamp(1), party_id: None, what: "created".into() };
        Ok(Timeline { session: session(), entries: vec![entry] })
    }

    async fn list(
        &self,
        _: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<SessionView>> {
        self.call(format!("list{} {limit}", of(before)))?;
        let last = session();
        let next = Cursor { at: last.created_at, id: last.session_id.0 };
        Ok(Page { items: vec![session(); 2], next: (limit == 2).then_some(next) })
    }

    async fn key(&self, _: &Caller, key: KeyId) -> Result<KeyView> {
        self.call(format!("key {key}"))?;
        Ok(key_view(key))
    }

    async fn freeze(&self, _: &Caller, key: KeyId, reason: String) -> Result<KeyView> {
        self.call(format!("freeze {key} {reason}"))?;
        Ok(frozen(key_view(key), reason))
    }

    async fn unfreeze(&self, _: &Caller, key: KeyId) -> Result<KeyView> {
        self.call(format!("unfreeze {key}"))?;
        Ok(key_view(key))
    }

    async fn keys(
        &self,
        _: &Caller,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<KeyRecord>> {
        self.call(format!("keys{} {limit}", of(before)))?;
        let next = Cursor { at: Timestamp(5), id: session().session_id.0 };
        Ok(Page { items: vec![], next: (limit == 2).then_some(next) })
    }
}

#[async_trait]
impl NoteProgress for Fake {
    async fn progress(&self, _: SessionId, _: &PartyId, _: i32) {}
}

#[async_trait]
impl Deliver for Fake {
    async fn register(&self, _: &Caller, registration: Registration) -> Result<Timestamp> {
        self.call(format!("register {}", registration.party_id))?;
        Ok(Timestamp(7))
    }

    async fn heartbeat(&self, _: &Caller, party: &PartyId) -> Result<Pulse> {
        self.call(format!("heartbeat {party}"))?;
        Ok(Pulse { server_time: Timestamp(9), pending_messages: 1 })
    }

    async fn route(&self, _: &Caller, request: RouteRequest) -> Result<MessageId> {
        let RouteRequest { from_party, round, payload, acknowledges, .. } = request;
        let riding = match acknowledges.len() {
            0 => String::new(),
            count => format!(" acknowledges {count}"),
        };
        self.call(format!("route {from_party} {round} {}{riding}", payload.len()))?;
        Ok(MESSAGE.parse().unwrap())
    }

    async fn subscribe(
        &self,
        _: &Caller,
        session: Option<SessionId>,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<BoxStream<Result<Message>>> {
        self.call(format!("subscribe {session:?} {party} {}", after.0))?;
        let messages = std::mem::take(&mut *self.messages.lock().unwrap());
        Ok(self.stream(messages))
    }

    async fn acknowledge(&self, _: &Caller, ack: Acknowledge) -> Result<()> {
        self.call(format!("acknowledge {} {} {}", ack.party_id, ack.message_id, ack.success))
    }

    async fn subscribe_events(
        &self,
        _: &Caller,
        party: &PartyId,
        kinds: Vec<EventKind>,
    ) -> Result<BoxStream<Result<SessionEvent>>> {
        self.call(format!("subscribe_events {party} {kinds:?}"))?;
        let event = SessionEvent {
            event_id: MESSAGE.parse().unwrap(),
            kind: EventKind::SessionCreated,
            session: session(),
            join_tokens: tokens(),
            lent: None,
            created_at: Timestamp(3),
        };
        Ok(self.stream(vec![Ok(event)]))
    }
}

#[async_trait]
impl ReadMessages for Fake {
    async fn pending(
        &self,
        _: &Caller,
        _: SessionId,
        party: &PartyId,
        after: Timestamp,
    ) -> Result<Vec<Message>> {
        self.call(format!("pending {party} {}", after.0))?;
        Ok(vec![message(1)])
    }

    async fn message_status(
        &self,
        _: &Caller,
        _: SessionId,
        message: MessageId,
    ) -> Result<Vec<Delivery>> {
        self.call(format!("message_status {message}"))?;
        Ok(vec![])
    }
}

#[async_trait]
impl Directory for Fake {
    async fn parties(
        &self,
        _: &Caller,
        role: Option<PartyRole>,
        only_online: bool,
    ) -> Result<Vec<PartyView>> {
        self.call(format!("parties {role:?} {only_online}"))?;
        Ok(vec![])
    }

    async fn contacts(&self, _: &Caller, _: &Tenant, _: &[PartyId]) -> Result<Vec<Contact>> {
        self.call("contacts".into())?;
        Ok(vec![])
    }
}

#[async_trait]
impl ReadNotifications for Fake {
    async fn notifications(
        &self,
        _: &Caller,
        state: Option<NotificationState>,
        before: Option<Cursor>,
        limit: u32,
    ) -> Result<Page<Notification>> {
        self.call(format!("notifications {state:?}{} {limit}", of(before)))?;
        Ok(Page { items: vec![], next: None })
    }
}

#[async_trait]
impl Announce for Fake {
    async fn publish_event(&self, _: &Caller, _: SessionEvent) -> Result<u32> {
        Ok(0)
    }
}

/// A key as the fake has it: one holder has banned the other.
pub fn key_view(key_id: KeyId) -> KeyView {
    let holders: Vec<PartyId> = ["a", "b"].map(|name| name.parse().unwrap()).to_vec();
    let ban = ReportedBan {
        key_id,
        epoch: 0,
        reporter: holders[0].clone(),
        peer: holders[1].clone(),
        reason: "ot_check_failed: a check failed".into(),
        session_id: session().session_id,
        at: Timestamp(7),
    };
    let record = KeyRecord {
        key: Arc::new(KeyEpoch {
            key_id,
            epoch: 0,
            scheme: Scheme::default(),
            threshold: Threshold::new(2, 2).unwrap(),
            public_key: PublicKey([&[4][..], &[1; 64]].concat()),
            holders,
        }),
        tenant: Tenant::default(),
        created_at: Timestamp(5),
        label: None,
        frozen: None,
    };
    let epoch = EpochRecord {
        epoch: 0,
        session_id: SessionId(key_id.0),
        made_at: Timestamp(5),
        attestation: Some(Attestation {
            execution: [1; 32],
            identities: vec![[2; 32], [3; 32]],
            confirmations: vec![4; 128],
        }),
    };
    KeyView { record, state: KeyState::Locked, epochs: vec![epoch], bans: vec![ban] }
}

/// A key as the fake has it once it is frozen.
pub fn frozen(view: KeyView, reason: String) -> KeyView {
    let frozen = Some(Freeze { by: "open".into(), at: Timestamp(8), reason });
    KeyView { state: KeyState::Frozen, record: KeyRecord { frozen, ..view.record }, ..view }
}

/// An account as the fake has it.
pub fn account() -> Account {
    Account {
        id: MESSAGE.parse().unwrap(),
        tenant: Tenant::default(),
        username: "alice".into(),
        email: None,
        phone: None,
        public_key: None,
        key_id: None,
        initiator_key: None,
        status: AccountStatus::Active,
        created_at: Timestamp(1_705_314_600_000),
        updated_at: Timestamp(1_705_314_600_000),
    }
}

#[async_trait]
impl Accounts for Fake {
    async fn create(&self, _: &Caller, new: NewAccount) -> Result<Account> {
        self.call(format!("create account {}", new.username))?;
        Ok(account())
    }

    async fn get(&self, _: &Caller, id: AccountId) -> Result<Account> {
        self.call(format!("get {id}"))?;
        Ok(account())
    }

    async fn list(&self, _: &Caller, after: Option<AccountId>, limit: u32) -> Result<Vec<Account>> {
        self.call(format!("list {after:?} {limit}"))?;
        Ok(vec![account()])
    }

    async fn update(&self, _: &Caller, id: AccountId, change: AccountChange) -> Result<Account> {
        self.call(format!("update {id} {:?} {:?}", change.email, change.status))?;
        Ok(account())
    }

    async fn keygen(
        &self,
        _: &Caller,
        account: Option<AccountId>,
        request: CreateSession,
    ) -> Result<CreatedSession> {
        self.call(format!("keygen {account:?} {:?}", request.ceremony.threshold()))?;
        Ok(created())
    }

    async fn sign(
        &self,
        _: &Caller,
        account: AccountId,
        request: CreateSession,
    ) -> Result<CreatedSession> {
        self.call(format!("sign {account} {:?}", request.ceremony))?;
        Ok(created())
    }

    async fn session(
        &self,
        _: &Caller,
        session_id: SessionId,
        wait: Option<(WaitFor, Duration)>,
    ) -> Result<SessionView> {
        self.call(format!("session {session_id} {wait:?}"))?;
        Ok(session())
    }
}
