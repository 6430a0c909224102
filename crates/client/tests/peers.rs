//! Devices that make keys and sign among themselves over a binary relay on a real socket.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use common::{Identity, LONG, identity, request, yes};
use futures_util::{SinkExt as _, StreamExt as _};
use quorate_client::peers::{InstanceId, KeyType, Observer, Progress, RelaySession, VerifyingKey};
use quorate_front_relay::{Config, Relay};
use quorate_types::*;
use quorate_wire::relay::{Ttl, message_id, publish};
use tempfile::TempDir;
use tokio::net::TcpListener;
use tokio::task::JoinHandle;
use tokio_tungstenite::tungstenite::Message;

/// A relay that can be killed and started again on its port.
struct Server {
    address: SocketAddr,
    task: Mutex<JoinHandle<()>>,
}

impl Server {
    async fn start() -> Arc<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        Arc::new(Self { address, task: Mutex::new(serve(listener)) })
    }

    fn url(&self) -> String {
        format!("ws://{}/v1/msg-relay", self.address)
    }

    /// Forgets everything and breaks every connection.
    async fn restart(&self) {
        self.stop().await;
        *self.task.lock().unwrap() = serve(self.bind().await);
    }

    async fn stop(&self) {
        let old = std::mem::replace(&mut *self.task.lock().unwrap(), tokio::spawn(async {}));
        old.abort();
        let _ = old.await;
    }

    async fn bind(&self) -> TcpListener {
        loop {
            match TcpListener::bind(self.address).await {
                Ok(listener) => return listener,
                Err(_) => tokio::task::yield_now().await,
            }
        }
    }
}

fn serve(listener: TcpListener) -> JoinHandle<()> {
    tokio::spawn(async move {
        let relay = Relay::new(Config::default());
        let _closed = Closing(relay.clone());
        axum::serve(listener, relay.router()).await.unwrap();
    })
}

struct Closing(Relay);

impl Drop for Closing {
    fn drop(&mut self) {
        self.0.close();
    }
}

struct Device {
    session: RelaySession,
    key: VerifyingKey,
    _folder: TempDir,
}

async fn device(server: &Server, key_type: KeyType, seed: u8, limit: Duration) -> Device {
    let Identity { signer, key, keyring, folder } = identity(key_type, seed).await;
    let session = RelaySession::new(&server.url(), signer, keyring).unwrap();
    Device { session: session.with_limit(limit), key, _folder: folder }
}

async fn pair(server: &Server, limit: Duration) -> (Device, Device) {
    let first = device(server, KeyType::Ed25519, 1, limit).await;
    (first, device(server, KeyType::EcdsaP256Sec1, 2, limit).await)
}

async fn keygen(a: &Device, b: &Device, observer: &mut Observer<'_>) -> KeyRecord {
    let instance = a.session.random_instance_id();
    let mut others = Observer::default();
    let (one, two) = tokio::join!(
        a.session.keygen_p1(instance, &b.key, observer),
        b.session.keygen_p2(instance, &a.key, &mut others),
    );
    let (one, two) = (one.unwrap(), two.unwrap());
    assert_eq!((&one.public_key, one.key_id), (&two.public_key, two.key_id));
    one
}

async fn sign(a: &Device, b: &Device, key: &KeyRecord) {
    let instance = a.session.random_instance_id();
    let (mut none, mut yes) = (Observer::default(), yes());
    let (one, two) = tokio::join!(
        a.session.signgen_p1(instance, key.key_id, request(), &b.key, &mut none),
        b.session.signgen_p2(instance, key.key_id, &a.key, &mut yes),
    );
    let signature = one.unwrap();
    assert_eq!(signature, two.unwrap());
    let input = request().input();
    quorate_schemes::verify(key.scheme, &key.public_key, &input, &signature).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn two_devices_with_different_signers_make_a_key_and_either_starts_a_signature() {
    let server = Server::start().await;
    let (a, b) = pair(&server, LONG).await;
    let key = keygen(&a, &b, &mut Observer::default()).await;
    sign(&a, &b, &key).await;
    sign(&b, &a, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn three_devices_make_a_key_and_the_last_two_sign() {
    let server = Server::start().await;
    let (a, b) = pair(&server, LONG).await;
    let c = device(&server, KeyType::Ed25519, 3, LONG).await;
    let members = [a.key.clone(), b.key.clone(), c.key.clone()];
    let (instance, threshold) = (InstanceId::random(), Threshold::new(2, 3).unwrap());
    let [mut x, mut y, mut z] = [Observer::default(), Observer::default(), Observer::default()];
    let (one, two, three) = tokio::join!(
        a.session.keygen(instance, &members, Scheme::default(), threshold, &mut x),
        b.session.keygen(instance, &members, Scheme::default(), threshold, &mut y),
        c.session.keygen(instance, &members, Scheme::default(), threshold, &mut z),
    );
    let key = one.unwrap();
    for other in [two.unwrap(), three.unwrap()] {
        assert_eq!(other.public_key, key.public_key);
    }
    sign(&c, &b, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_relay_that_loses_its_memory_in_every_round_does_not_stop_them() {
    let server = Server::start().await;
    let (a, b) = pair(&server, LONG).await;
    let restarts = Mutex::new(Vec::new());
    let progress = |stage: Progress| {
        if matches!(stage, Progress::Round(_) | Progress::Confirming(_)) {
            let server = Arc::clone(&server);
            restarts.lock().unwrap().push(tokio::spawn(async move { server.restart().await }));
        }
    };
    let mut observer = Observer { progress: Box::new(progress), ..Observer::default() };
    let key = keygen(&a, &b, &mut observer).await;
    drop(observer);
    let restarts = restarts.into_inner().unwrap();
    assert!(restarts.len() >= 3);
    for restart in restarts {
        restart.await.unwrap();
    }
    sign(&b, &a, &key).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn junk_where_messages_belong_is_passed_over() {
    let server = Server::start().await;
    let (a, b) = pair(&server, LONG).await;
    let instance = a.session.random_instance_id();
    let (mut attacker, _) = tokio_tungstenite::connect_async(server.url()).await.unwrap();
    for (from, to) in [(&a.key, &b.key), (&b.key, &a.key)] {
        for attempt in 0..3_u64 {
            // Proposals, the end, and the first rounds to all and to the other.
            for base in [1, 2, 18, 19, 20, 21, 22, 23] {
                let to = (base >= 16 && base % 2 == 1).then(|| to.as_bytes());
                let tag = attempt << 32 | base;
                let id = message_id(tag, from.as_bytes(), to, &instance.0);
                let junk = publish(id, Ttl::from_secs(60), 0, b"junk");
                attacker.feed(Message::Binary(junk)).await.unwrap();
            }
        }
    }
    // The relay answers in order: when this has come back, all junk is in its place.
    attacker.send(Message::Ping(Vec::new().into())).await.unwrap();
    assert!(attacker.next().await.unwrap().unwrap().is_pong());
    let (mut x, mut y) = (Observer::default(), Observer::default());
    let (one, two) = tokio::join!(
        a.session.keygen_p1(instance, &b.key, &mut x),
        b.session.keygen_p2(instance, &a.key, &mut y),
    );
    assert_eq!(one.unwrap().public_key, two.unwrap().public_key);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_stays_alone_names_the_other_at_its_deadline() {
    let server = Server::start().await;
    let (a, b) = pair(&server, Duration::from_millis(300)).await;
    let instance = a.session.random_instance_id();
    let alone = a.session.keygen_p1(instance, &b.key, &mut Observer::default()).await.unwrap_err();
    assert_eq!(alone.code, ErrorCode::SessionExpired);
    assert_eq!(alone.details.waiting_for, [b.key.party_id()]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_device_that_does_not_agree_signs_nothing_and_the_other_is_told() {
    let server = Server::start().await;
    let (a, b) = pair(&server, LONG).await;
    let key = keygen(&a, &b, &mut Observer::default()).await;
    let instance = a.session.random_instance_id();
    let (mut x, mut y) = (Observer::default(), Observer::default());
    let (one, two) = tokio::join!(
        a.session.signgen_p1(instance, key.key_id, request(), &b.key, &mut x),
        b.session.signgen_p2(instance, key.key_id, &a.key, &mut y),
    );
    assert_eq!(two.unwrap_err().code, ErrorCode::Forbidden);
    let told = one.unwrap_err();
    assert_eq!(told.code, ErrorCode::Conflict);
    assert_eq!(told.details.blame.map(|blame| blame.party_id), Some(b.key.party_id()));
}

#[tokio::test(flavor = "multi_thread")]
async fn devices_that_want_different_things_say_so() {
    let server = Server::start().await;
    let (a, b) = pair(&server, LONG).await;
    let c = device(&server, KeyType::Ed25519, 3, LONG).await;
    let members = [a.key.clone(), b.key.clone(), c.key.clone()];
    let instance = InstanceId::random();
    let [mut x, mut y] = [Observer::default(), Observer::default()];
    let threshold = |t| Threshold::new(t, 3).unwrap();
    let (one, two) = tokio::join!(
        a.session.keygen(instance, &members, Scheme::default(), threshold(2), &mut x),
        b.session.keygen(instance, &members, Scheme::default(), threshold(3), &mut y),
    );
    for refused in [one.unwrap_err(), two.unwrap_err()] {
        assert_eq!(refused.code, ErrorCode::Conflict, "{refused}");
    }
}

#[tokio::test]
async fn a_relay_that_is_not_there_is_reported_at_once() {
    let server = Server::start().await;
    let (a, b) = pair(&server, LONG).await;
    server.stop().await;
    drop(server.bind().await);
    let instance = a.session.random_instance_id();
    let gone = a.session.keygen_p1(instance, &b.key, &mut Observer::default()).await.unwrap_err();
    assert_eq!(gone.code, ErrorCode::Unavailable);
}
