//! Devices that make keys and sign among themselves over a group relay on a real socket.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use common::{Identity, LONG, identity, request, yes};
use futures_util::{SinkExt as _, StreamExt as _};
use quorate_client::peers::{
    GroupCeremony, GroupOutcome, GroupSession, Invitation, KeyType, MessageSigner, Observer,
    Progress, VerifyingKey,
};
use quorate_front_jsonrpc::{Compat, Config, NotKept, Relay};
use quorate_ports::GroupStore;
use quorate_store::SqliteStore;
use quorate_types::*;
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};
use tempfile::TempDir;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::{Notify, mpsc};
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream};

/// A relay that can be stopped and started again on its port, with what it has kept.
struct Server {
    address: SocketAddr,
    folder: Option<TempDir>,
    config: Config,
    running: tokio::sync::Mutex<Option<(Relay, JoinHandle<()>)>>,
}

impl Server {
    async fn start(config: Config, folder: Option<TempDir>) -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let server = Self { address, folder, config, running: tokio::sync::Mutex::default() };
        *server.running.lock().await = Some(server.serve(listener).await);
        Arc::new(server)
    }

    async fn forgetful() -> Arc<Self> {
        Self::start(Config::default(), None).await
    }

    fn url(&self) -> String {
        format!("ws://{}/mpc", self.address)
    }

    async fn serve(&self, listener: TcpListener) -> (Relay, JoinHandle<()>) {
        let store: Arc<dyn GroupStore> = match &self.folder {
            None => Arc::new(NotKept),
            Some(folder) => loop {
                // The stopped relay lets go of it with its last task.
                match SqliteStore::open(folder.path()) {
                    Ok(store) => break Arc::new(store),
                    Err(_) => tokio::task::yield_now().await,
                }
            },
        };
        let relay = Relay::open(self.config.clone(), store).await.unwrap();
        let router = relay.router();
        let task = tokio::spawn(async move { axum::serve(listener, router).await.unwrap() });
        (relay, task)
    }

    async fn restart(&self) {
        let mut running = self.running.lock().await;
        let (relay, task) = running.take().unwrap();
        task.abort();
        let _ = task.await;
        relay.close().await;
        drop(relay);
        let listener = loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => break listener,
                Err(_) => tokio::task::yield_now().await,
            }
        };
        *running = Some(self.serve(listener).await);
    }
}

/// Passes bytes on until it is told to cut.
struct Proxy {
    address: SocketAddr,
    cut: Arc<Notify>,
}

impl Proxy {
    async fn start(target: SocketAddr) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let (address, cut) = (listener.local_addr().unwrap(), Arc::<Notify>::default());
        let cuts = Arc::clone(&cut);
        tokio::spawn(async move {
            while let Ok((mut near, _)) = listener.accept().await {
                let cuts = Arc::clone(&cuts);
                tokio::spawn(async move {
                    let mut far = TcpStream::connect(target).await.unwrap();
                    tokio::select! {
                        () = cuts.notified() => {}
                        _ = tokio::io::copy_bidirectional(&mut near, &mut far) => {}
                    }
                });
            }
        });
        Self { address, cut }
    }

    fn url(&self) -> String {
        format!("ws://{}/mpc", self.address)
    }
}

struct Device {
    session: GroupSession,
    id: PartyId,
    key: VerifyingKey,
    _folder: TempDir,
}

async fn device(url: &str, seed: u8, limit: Duration) -> Device {
    let types = [KeyType::Ed25519, KeyType::EcdsaP256Sec1];
    let Identity { signer, key, keyring, folder } =
        identity(types[usize::from(seed % 2)], seed).await;
    let session = GroupSession::new(url, signer, keyring).unwrap().with_limit(limit);
    Device { session, id: key.party_id(), key, _folder: folder }
}

async fn devices(url: &str) -> [Device; 3] {
    [device(url, 1, LONG).await, device(url, 2, LONG).await, device(url, 3, LONG).await]
}

/// Observer that say when a step is made: at the first one the device has its number.
fn telling<'a>(there: mpsc::Sender<()>) -> Observer<'a> {
    let progress = move |_| {
        let _ = there.try_send(());
    };
    Observer { progress: Box::new(progress), ..Observer::default() }
}

fn key(made: GroupOutcome) -> KeyRecord {
    match made {
        GroupOutcome::Key(key) => key,
        GroupOutcome::Signature(_) => panic!("a key was wanted"),
    }
}

/// A key of so many signers, and its group. Its holders are in the order of the devices.
async fn keygen(
    devices: &[Device; 3],
    signers: i64,
    observer: &mut Observer<'_>,
) -> (KeyRecord, GroupId) {
    let [a, b, c] = devices;
    let threshold = Threshold::new(signers, 3).unwrap();
    let participation = a.session.keygen("ours", Scheme::default(), threshold).await.unwrap();
    let group = participation.invitation().group;
    let text = participation.invitation().to_string();
    let joined =
        async |device: &Device, after: Option<mpsc::Receiver<()>>, then: mpsc::Sender<()>| {
            if let Some(mut after) = after {
                after.recv().await.unwrap();
            }
            let participation = device.session.join(text.parse().unwrap()).await.unwrap();
            assert_eq!(
                *participation.ceremony(),
                GroupCeremony::Keygen { scheme: Scheme::default(), threshold }
            );
            key(participation.run(&mut telling(then)).await.unwrap())
        };
    let (first, second) = (mpsc::channel(1), mpsc::channel(1));
    let (third, _last) = mpsc::channel(1);
    let mut progress = std::mem::replace(&mut observer.progress, Box::new(|_| ()));
    let mut observer = Observer {
        progress: Box::new(move |stage| {
            let _ = first.0.try_send(());
            progress(stage);
        }),
        ..Observer::default()
    };
    let (one, two, three) = tokio::join!(
        participation.run(&mut observer),
        joined(b, Some(first.1), second.0),
        joined(c, Some(second.1), third),
    );
    let made = key(one.unwrap());
    for other in [&two, &three] {
        assert_eq!((&other.public_key, other.key_id), (&made.public_key, made.key_id));
        let address =
            |key: &KeyRecord| quorate_schemes::ethereum_address(key.scheme, &key.public_key);
        assert_eq!(address(other), address(&made));
    }
    assert_eq!(made.holders, [&a.id, &b.id, &c.id].map(PartyId::clone));
    (made, group)
}

fn check(key: &KeyRecord, made: Vec<GroupOutcome>) {
    let input = request().input();
    for made in made {
        let GroupOutcome::Signature(signature) = made else { panic!("a signature was wanted") };
        quorate_schemes::verify(key.scheme, &key.public_key, &input, &signature).unwrap();
    }
}

/// `first` has number 1: it invites when it is told that others are missing.
async fn sign(first: &Device, second: &Device, key: &KeyRecord, group: Option<GroupId>) {
    let participation = first.session.sign(group, key.key_id, request()).await.unwrap();
    let invitation = participation.invitation();
    let (there, mut is_there) = mpsc::channel(1);
    let mut observer = telling(there);
    let joined = async {
        is_there.recv().await.unwrap();
        let participation = second.session.join(invitation).await.unwrap();
        assert_eq!(*participation.ceremony(), GroupCeremony::Sign(key.key_id, request()));
        participation.run(&mut yes()).await
    };
    let (one, two) = tokio::join!(participation.run(&mut observer), joined);
    check(key, vec![one.unwrap(), two.unwrap()]);
}

/// A client that speaks in frames, of a kind that other software may be.
struct Raw(WebSocketStream<MaybeTlsStream<TcpStream>>);

impl Raw {
    async fn connect(server: &Server) -> Self {
        Self(tokio_tungstenite::connect_async(server.url()).await.unwrap().0)
    }

    async fn ask(&mut self, method: &str, params: Value) -> Value {
        let frame = json!({"jsonrpc": "2.0", "id": 1, "method": method, "params": params});
        self.0.send(Message::text(frame.to_string())).await.unwrap();
        loop {
            let Message::Text(text) = self.0.next().await.unwrap().unwrap() else { continue };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["id"] == 1 {
                assert_eq!(frame.get("error"), None, "{method}");
                return frame["result"].clone();
            }
        }
    }

    /// Returns when the relay has given its place up.
    async fn leave(mut self) {
        self.0.close(None).await.unwrap();
        while self.0.next().await.is_some() {}
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn three_devices_make_a_key_and_the_last_two_sign_in_the_same_group_and_in_a_new_one() {
    let server = Server::forgetful().await;
    let devices = devices(&server.url()).await;
    let (key, group) = keygen(&devices, 2, &mut Observer::default()).await;
    let [_, b, c] = &devices;
    sign(c, b, &key, Some(group)).await;
    sign(b, c, &key, None).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn number_and_index_and_key_index_may_all_differ() {
    let server = Server::forgetful().await;
    let devices = devices(&server.url()).await;
    let (key, _) = keygen(&devices, 3, &mut Observer::default()).await;
    let [a, b, c] = &devices;
    // Somebody takes number 1 and leaves, which is one place more than the key has holders.
    let mut other = Raw::connect(&server).await;
    let group = other.ask("Group.create", json!(["g", {"parties": 4, "threshold": 2}])).await;
    let group: GroupId = serde_json::from_value(group).unwrap();
    let participation = c.session.sign(Some(group), key.key_id, request()).await.unwrap();
    let invitation = participation.invitation();
    let Invitation { session, .. } = invitation;
    assert_eq!(other.ask("Session.signup", json!([group, session, "sign"])).await, 1);
    let (there, mut is_there) = mpsc::channel(1);
    let mut observer = telling(there);
    let others = async {
        is_there.recv().await.unwrap();
        other.leave().await;
        let joined = async |device: &Device| {
            device.session.join(invitation).await.unwrap().run(&mut yes()).await.unwrap()
        };
        tokio::join!(joined(a), joined(b))
    };
    let (one, (two, three)) = tokio::join!(participation.run(&mut observer), others);
    check(&key, vec![one.unwrap(), two, three]);
}

/// Observer that ask for a disturbance at every round.
fn disturbing<'a>(disturb: mpsc::UnboundedSender<()>) -> Observer<'a> {
    let progress = move |stage: Progress| {
        if matches!(stage, Progress::Round(_)) {
            let _ = disturb.send(());
        }
    };
    Observer { progress: Box::new(progress), approve: Box::new(|_, _| true) }
}

/// A key and a signature of the last two, where one device disturbs both in every round.
async fn disturbed(devices: &[Device; 3], disturb: &mpsc::UnboundedSender<()>) {
    let (key, _) = keygen(devices, 2, &mut disturbing(disturb.clone())).await;
    let [_, b, c] = devices;
    let participation = c.session.sign(None, key.key_id, request()).await.unwrap();
    let joined = b.session.join(participation.invitation()).await.unwrap();
    let (mut one, mut two) = (Observer::default(), disturbing(disturb.clone()));
    let (one, two) = tokio::join!(participation.run(&mut one), joined.run(&mut two));
    check(&key, vec![one.unwrap(), two.unwrap()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_is_restarted_in_every_round_does_not_stop_them() {
    let server = Server::start(Config::default(), Some(tempfile::tempdir().unwrap())).await;
    let devices = devices(&server.url()).await;
    let (disturb, mut disturbances) = mpsc::unbounded_channel();
    let restarts = tokio::spawn(async move {
        let mut count = 0;
        while disturbances.recv().await.is_some() {
            server.restart().await;
            count += 1;
        }
        count
    });
    disturbed(&devices, &disturb).await;
    drop(disturb);
    assert!(restarts.await.unwrap() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_that_are_cut_in_every_round_do_not_stop_them() {
    let server = Server::forgetful().await;
    let proxy = Proxy::start(server.address).await;
    let devices = devices(&proxy.url()).await;
    let (disturb, mut disturbances) = mpsc::unbounded_channel();
    let cut = Arc::clone(&proxy.cut);
    let cuts = tokio::spawn(async move {
        let mut count = 0;
        while disturbances.recv().await.is_some() {
            cut.notify_waiters();
            count += 1;
        }
        count
    });
    disturbed(&devices, &disturb).await;
    drop(disturb);
    assert!(cuts.await.unwrap() >= 4);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_place_that_was_given_up_before_the_start_is_taken_anew() {
    let config = Config { grace: Duration::ZERO, ..Config::default() };
    let server = Server::start(config, None).await;
    let proxy = Proxy::start(server.address).await;
    let [a, _, c] = &devices(&server.url()).await;
    let b = device(&proxy.url(), 2, LONG).await;
    let participation =
        a.session.keygen("ours", Scheme::default(), Threshold::new(2, 3).unwrap()).await.unwrap();
    let invitation = participation.invitation();
    let joined = b.session.join(invitation).await.unwrap();
    let (there, mut is_there) = mpsc::channel(1);
    let late = async {
        is_there.recv().await.unwrap();
        proxy.cut.notify_waiters();
        // It is told of a step again when it has its new place.
        is_there.recv().await.unwrap();
        c.session.join(invitation).await.unwrap().run(&mut Observer::default()).await
    };
    let (mut one, mut two) = (Observer::default(), telling(there));
    let (one, two, three) = tokio::join!(participation.run(&mut one), joined.run(&mut two), late);
    let keys = [one, two, three].map(|made| key(made.unwrap()));
    assert!(keys.iter().all(|key| key.public_key == keys[0].public_key));
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_comes_back_without_its_memory_is_reported() {
    let server = Server::forgetful().await;
    let a = device(&server.url(), 1, LONG).await;
    let threshold = Threshold::new(2, 2).unwrap();
    let participation = a.session.keygen("ours", Scheme::default(), threshold).await.unwrap();
    let (there, mut is_there) = mpsc::channel(1);
    let mut observer = telling(there);
    let restart = async {
        is_there.recv().await.unwrap();
        server.restart().await;
    };
    let (gone, ()) = tokio::join!(participation.run(&mut observer), restart);
    let gone = gone.unwrap_err();
    assert_eq!(gone.code, ErrorCode::Conflict);
    assert!(gone.message.contains("does not exist"), "{gone}");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_stays_alone_says_who_is_missing_at_its_deadline() {
    let server = Server::forgetful().await;
    let a = device(&server.url(), 1, Duration::from_secs(1)).await;
    let participation =
        a.session.keygen("ours", Scheme::default(), Threshold::new(2, 3).unwrap()).await.unwrap();
    let alone = participation.run(&mut Observer::default()).await.unwrap_err();
    assert_eq!(alone.code, ErrorCode::SessionExpired);
    let missing: Vec<_> = alone.details.waiting_for.iter().map(PartyId::as_str).collect();
    assert_eq!(missing, ["member-2", "member-3"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_agree_signs_nothing_and_the_other_is_told() {
    let server = Server::forgetful().await;
    let devices = devices(&server.url()).await;
    let (key, _) = keygen(&devices, 2, &mut Observer::default()).await;
    let [a, b, _] = &devices;
    let participation = a.session.sign(None, key.key_id, request()).await.unwrap();
    let joined = b.session.join(participation.invitation()).await.unwrap();
    let (mut none, mut no) = (Observer::default(), Observer::default());
    let (one, two) = tokio::join!(participation.run(&mut none), joined.run(&mut no));
    assert_eq!(two.unwrap_err().code, ErrorCode::Forbidden);
    let told = one.unwrap_err();
    assert_eq!(told.code, ErrorCode::Conflict);
    assert_eq!(told.details.blame.map(|blame| blame.party_id), Some(b.id.clone()));
}

#[tokio::test(flavor = "multi_thread")]
async fn what_does_not_fit_is_refused_before_it_begins() {
    let server = Server::forgetful().await;
    let devices = devices(&server.url()).await;
    let (key, _) = keygen(&devices, 2, &mut Observer::default()).await;
    let [a, ..] = &devices;
    let code = |refused: Result<_>| refused.map(|_: Invitation| ()).unwrap_err().code;
    let sign = async |device: &Device, group| {
        let participation = device.session.sign(group, key.key_id, request()).await;
        participation.map(|participation| participation.invitation())
    };
    let join = async |device: &Device, invitation| {
        device.session.join(invitation).await.map(|participation| participation.invitation())
    };
    // A group in which three sign, and the key takes two.
    let mut other = Raw::connect(&server).await;
    let group = other.ask("Group.create", json!(["g", {"parties": 4, "threshold": 2}])).await;
    let group: GroupId = serde_json::from_value(group).unwrap();
    assert_eq!(code(sign(a, Some(group)).await), ErrorCode::Conflict);
    // A session that does not say what to sign as a device does.
    let session = other.ask("Session.create", json!([group, "sign", "anything"])).await;
    let session = serde_json::from_value(session["uuid"].clone()).unwrap();
    assert_eq!(code(join(a, Invitation { group, session }).await), ErrorCode::Conflict);
    // A device that holds no share, and a session that is not there.
    let stranger = device(&server.url(), 9, LONG).await;
    let invitation = sign(a, None).await.unwrap();
    assert_eq!(code(join(&stranger, invitation).await), ErrorCode::NotFound);
    assert_eq!(code(sign(&stranger, None).await), ErrorCode::NotFound);
    let nowhere = Invitation { session, ..invitation };
    assert_eq!(code(join(a, nowhere).await), ErrorCode::Conflict);
    for text in ["", "a/b", &group.to_string()] {
        assert!(text.parse::<Invitation>().is_err());
    }
}

/// A key announcement as this device would write it for a number of this session.
async fn key_announcement(by: &dyn MessageSigner, to: Invitation, number: u16) -> Value {
    let instance = Sha256::new()
        .chain_update(b"quorate/group-instance/v1")
        .chain_update(to.group.0.as_bytes())
        .chain_update(to.session.0.as_bytes())
        .finalize();
    let place = [&instance[..], &[0; 8], &number.to_be_bytes(), &[0; 2]].concat();
    let length = u32::try_from(place.len()).unwrap().to_be_bytes();
    let signed = [b"quorate/peer-message/v2", &length[..], &place].concat();
    let message = STANDARD.encode(by.sign(&signed).await.unwrap());
    json!({"key_announcement": {"number": number, "key": by.verifying_key(), "proof": message}})
}

/// Numbers, and what somebody else says in their name.
async fn forgeries(to: Invitation, other: &VerifyingKey) -> Vec<(u16, Value)> {
    let own = identity(KeyType::Ed25519, 7).await;
    let mut bodies = Vec::new();
    for number in [1_u16, 2] {
        // By its own key, and by the other's with its own signature.
        let announced = key_announcement(own.signer.as_ref(), to, number).await;
        let mut forged = announced.clone();
        forged["key_announcement"]["key"] = json!(other);
        bodies.extend([(number, announced), (number, forged)]);
        let message = STANDARD.encode([7; 80]);
        let round = json!({"round": {"round": 1, "direct": false}});
        for slot in [json!("proposal"), json!("abort"), json!("confirmation"), round] {
            bodies.push((number, json!({"message": {"kind": slot, "sealed": message}})));
        }
    }
    bodies
}

#[tokio::test(flavor = "multi_thread")]
async fn messages_by_another_key_than_the_numbers_are_dropped() {
    // Here anybody in the group may speak in anybody's name.
    let config = Config { compat: Compat::Original, ..Config::default() };
    let server = Server::start(config, None).await;
    let devices = devices(&server.url()).await;
    let (key, _) = keygen(&devices, 2, &mut Observer::default()).await;
    let [a, b, _] = &devices;
    let participation = a.session.sign(None, key.key_id, request()).await.unwrap();
    let to = participation.invitation();
    let mut impostor = Raw::connect(&server).await;
    impostor.ask("Group.join", json!(to.group)).await;
    let bodies = forgeries(to, &b.key).await;
    let (there, mut is_there) = mpsc::channel(1);
    let (disturb, mut rounds) = mpsc::unbounded_channel();
    let mut progress = disturbing(disturb).progress;
    let progress = move |stage: Progress| {
        let _ = there.try_send(());
        progress(stage);
    };
    let mut observer = Observer { progress: Box::new(progress), ..Observer::default() };
    let mut attack = async || {
        for (sender, body) in &bodies {
            let message = json!({
                "round": 1, "sender": sender, "receiver": null, "uuid": to.session, "body": body,
            });
            impostor.ask("Session.message", json!([to.group, to.session, "sign", message])).await;
        }
    };
    let joined = async {
        is_there.recv().await.unwrap();
        // Before the start it counts for nothing, later it does not fit.
        attack().await;
        let participation = b.session.join(to).await.unwrap();
        let mut yes = yes();
        let attacks = async {
            while rounds.recv().await.is_some() {
                attack().await;
            }
            std::future::pending::<()>().await;
        };
        tokio::select! {
            made = participation.run(&mut yes) => made,
            () = attacks => unreachable!("it waits for ever"),
        }
    };
    let (one, two) = tokio::join!(participation.run(&mut observer), joined);
    check(&key, vec![one.unwrap(), two.unwrap()]);
}
