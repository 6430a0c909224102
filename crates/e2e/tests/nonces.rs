//! Nonces of FROST at the real binary: a commitment is answered by one share at most, whatever its peer
//! replays, and by none once its party was killed.

use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::StreamExt as _;
use quorate_client::{Compute, Connection, Device, Endpoint, Keyring, MemoryVault};
use quorate_e2e::{Role, call, free_ports};
use quorate_engine::{Identity, Member, Output, Run, SealKey, Task, make_handshake};
use quorate_ports::{BoxStream, Deliver as _, ReadSession as _, TakePart as _};
use quorate_rpc::remote::RemoteRouter;
use quorate_types::*;
use serde_json::{Value, json};

const VICTIM: &str = "alpha";
const REPLAYER: &str = "mallory";
const SECRET: [u8; 32] = [5; 32];

/// Services and a party that are processes, and the other holder of the key, which this test is.
struct World {
    folder: tempfile::TempDir,
    ports: [u16; 6],
    _services: [Role; 2],
    victim: Role,
    router: RemoteRouter,
    keyring: Arc<Keyring>,
}

impl World {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = free_ports::<6>();
        let [router, coordinator] = [1, 3].map(|at| format!("http://127.0.0.1:{}", ports[at]));
        let (at, to) = (folder.path(), ["--coordinator", coordinator.as_str()]);
        let router_role = Role::start(at, "router", [ports[0], ports[1]], &to).await;
        let to = ["--router", router.as_str()];
        let coordinator_role = Role::start(at, "coordinator", [ports[2], ports[3]], &to).await;
        let victim = Self::party(at, ports).await;
        let party = REPLAYER.parse().expect("a name");
        let (identity, seal) = (Secret::new(SECRET), Secret::new([6; 32]));
        let identity = Identity::from_secret(&identity);
        let vault = Arc::<MemoryVault>::default();
        let keyring = Arc::new(Keyring::new(party, identity, SealKey::from_bytes(seal), vault));
        let router = RemoteRouter::new(Endpoint::new(&router, None).expect("an address"));
        let services = [router_role, coordinator_role];
        Self { folder, ports, _services: services, victim, router, keyring }
    }

    async fn party(folder: &Path, ports: [u16; 6]) -> Role {
        let router = format!("http://127.0.0.1:{}", ports[1]);
        let more = ["--id", VICTIM, "--router", &router];
        Role::start(&folder.join(VICTIM), "party", [ports[4], ports[5]], &more).await
    }

    /// SIGKILL, and a new process over the same folder.
    async fn kill_victim(&mut self) {
        self.victim.process.kill().await.expect("it runs");
        self.victim = Self::party(self.folder.path(), self.ports).await;
    }

    fn caller(&self) -> Caller {
        Caller::Party(self.keyring.party().clone())
    }

    /// A session of both: its id and the token of this side.
    async fn create(&self, mut body: Value) -> (SessionId, JoinToken) {
        body["participants"] = json!([{"party_id": VICTIM}, {"party_id": REPLAYER}]);
        let url = format!("http://127.0.0.1:{}/api/v1/sessions", self.ports[2]);
        let (status, made) = call("POST", &url, Some(&body)).await;
        assert_eq!(status, 201, "{made}");
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        let session = text(&made["session_id"]).parse().expect("an id");
        (session, Secret::new(text(&made["join_tokens"][REPLAYER])))
    }

    async fn make_key(&self) -> KeyId {
        let keygen = json!({"session_type": "keygen", "threshold_t": 2, "threshold_n": 2,
            "scheme": "ed25519"});
        let (session, token) = self.create(keygen).await;
        let address = format!("http://127.0.0.1:{}", self.ports[1]);
        let connection = Connection::grpc(Endpoint::new(&address, None).expect("an address"));
        let device = Device::new(self.keyring.clone(), connection, DeviceInfo::default());
        let ended = device.take_part(session, token).await.expect("it takes part");
        assert_eq!(ended.status, SessionStatus::Completed, "{:?}", ended.failure);
        ended.key_id().expect("a key")
    }

    async fn sign(&self, key: KeyId) -> (SessionId, JoinToken) {
        let sign = json!({"session_type": "sign", "key_id": key, "message": "cGF5",
            "expires_in_seconds": 10});
        self.create(sign).await
    }

    /// Joins an attempt, once it is that one's turn, and begins its run when all have.
    async fn begin(
        &self,
        (session, token): &(SessionId, JoinToken),
        attempt: u32,
        key: KeyId,
    ) -> Run {
        let (me, caller, sessions) = (self.keyring.party(), self.caller(), self.router.sessions());
        let compute = Compute::new(1, 1);
        let key = self.keyring.key(key, &compute).await.expect("a vault").expect("a share");
        let identity = Identity::from_secret(&Secret::new(SECRET));
        let shown = self.keyring.shown(Some(&key)).await.expect("a vault");
        let (handshake, secret) = make_handshake(&identity, *session, me, &shown);
        while sessions.status(&caller, *session, None).await.expect("it is there").attempt < attempt
        {
            tokio::task::yield_now().await;
        }
        let join = JoinSession {
            session_id: Some(*session),
            party_id: me.clone(),
            token: token.clone(),
            device: DeviceInfo::default(),
            handshake: Some(handshake),
            ready: true,
            awaiting_approval: false,
            attempt,
        };
        sessions.join(&caller, join).await.expect("it is asked to");
        let wait = Some((WaitFor::Start, Duration::from_secs(20)));
        let view = sessions.status(&caller, *session, wait).await.expect("it is there");
        assert_eq!((view.status, view.attempt), (SessionStatus::InProgress, attempt));
        let member = |seat: ParticipantView| Member {
            party_id: seat.party_id,
            handshake: seat.handshake.expect("all have shown theirs"),
        };
        let roster = view.participants.into_iter().map(member).collect();
        let task = Task::Sign {
            share: key.share.clone(),
            key: key.stored.record.key.clone(),
            made_by: key.stored.execution,
            input: view.ceremony.input().expect("it signs").clone(),
        };
        Run::new(&identity, secret, (*session, attempt), me, roster, task).expect("all is right")
    }

    async fn send(&self, session: SessionId, round: u16, payload: Bytes) {
        let request = RouteRequest {
            session_id: session,
            from_party: self.keyring.party().clone(),
            to_parties: vec![VICTIM.parse().expect("a name")],
            round: round.into(),
            message_type: "quorate".into(),
            payload,
            acknowledges: Vec::new(),
            patient: false,
        };
        // The session may be over by now: then nobody needs it.
        let _ = self.router.route(&self.caller(), request).await;
    }

    async fn messages(&self, session: SessionId) -> BoxStream<Result<Message>> {
        let me = self.keyring.party();
        let all = self.router.subscribe(&self.caller(), Some(session), me, Timestamp(0)).await;
        all.expect("the router is there")
    }

    async fn ended(&self, session: SessionId) -> SessionView {
        let wait = Some((WaitFor::End, Duration::from_secs(40)));
        let view = self.router.sessions().status(&self.caller(), session, wait).await;
        view.expect("it is there")
    }
}

async fn next(messages: &mut BoxStream<Result<Message>>) -> Message {
    messages.next().await.expect("the session goes on").expect("a message")
}

/// The rounds of all further messages, until the session ends.
async fn rounds(mut messages: BoxStream<Result<Message>>) -> Vec<i32> {
    let mut rounds = Vec::new();
    while let Some(Ok(message)) = messages.next().await {
        rounds.push(message.round);
    }
    rounds
}

#[tokio::test]
async fn a_commitment_is_answered_once_and_after_a_kill_never() {
    let mut world = World::start().await;
    let key = world.make_key().await;
    let victim: PartyId = VICTIM.parse().expect("a name");

    // What lives answers a commitment, however often it is sent, with one share.
    let signing = world.sign(key).await;
    let mut run = world.begin(&signing, 0, key).await;
    let mut messages = world.messages(signing.0).await;
    let ours = run.advance().expect("it begins").outgoing.remove(0);
    let theirs = next(&mut messages).await;
    assert_eq!((theirs.round, ours.round), (1, 1), "both commit to nonces");
    for _ in 0..3 {
        world.send(signing.0, 1, ours.payload.clone()).await;
    }
    let share = next(&mut messages).await;
    assert_eq!(share.round, 2);
    run.receive(&victim, &theirs.payload).expect("it is right");
    for outgoing in run.advance().expect("it goes on").outgoing {
        world.send(signing.0, 1, ours.payload.clone()).await;
        world.send(signing.0, outgoing.round, outgoing.payload).await;
    }
    run.receive(&victim, &share.payload).expect("it is right");
    let Some(Output::Signature(signature)) = run.advance().expect("it ends").output else {
        panic!("it signs");
    };
    let bytes = signature.bytes().to_vec();
    let outcome = PartyOutcome::Signature { bytes, recovery_id: signature.recovery_id() };
    let party_id = world.keyring.party().clone();
    let report = Report { session_id: signing.0, party_id, attempt: 0, outcome };
    world.router.sessions().complete(&world.caller(), report).await.expect("it verifies");
    assert_eq!(world.ended(signing.0).await.status, SessionStatus::Completed);
    assert_eq!(rounds(messages).await, [0_i32; 0], "no other share");

    // What was killed does not: neither where it is sent what it waited for, nor in the next attempt.
    let signing = world.sign(key).await;
    let mut run = world.begin(&signing, 0, key).await;
    let mut messages = world.messages(signing.0).await;
    let replayed = run.advance().expect("it begins").outgoing.remove(0).payload;
    let before = next(&mut messages).await;
    world.kill_victim().await;
    world.send(signing.0, 1, replayed.clone()).await;
    let mut again = world.begin(&signing, 1, key).await;
    again.advance().expect("it begins");
    let after = next(&mut messages).await;
    assert_eq!((before.round, after.round), (1, 1), "it commits to nonces anew");
    again.receive(&victim, &after.payload).expect("of this attempt");
    assert!(run.receive(&victim, &after.payload).is_err(), "and of no other");
    world.send(signing.0, 1, replayed).await;
    let ended = world.ended(signing.0).await;
    assert_eq!(ended.status, SessionStatus::Failed, "{:?}", ended.failure);
    assert_eq!(rounds(messages).await, [0_i32; 0], "no share for what was replayed");
}
