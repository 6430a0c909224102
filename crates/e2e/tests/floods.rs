//! Strangers that attack without pause a server that requires credentials: its memory stays, and an
//! honest caller's keys are made and sign meanwhile.

#![allow(clippy::print_stdout, reason = "people read what the long form has measured")]

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt as _};
use quorate_e2e::hostile::{connect, grpc, handshake, http2, resident};
use quorate_e2e::{Cluster, amount, api_key};
use reqwest::header::{AUTHORIZATION, HeaderMap};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Attackers at work at once.
const ATTACKERS: usize = 8;
/// What a server may grow by, in MiB.
const BUDGET: u64 = 64;

/// An owner with a key of its own.
struct Honest {
    client: reqwest::Client,
    sessions: String,
}

impl Honest {
    async fn completed(&self, request: &Value) -> Value {
        let created = self.client.post(&self.sessions).json(request).send().await;
        let created: Value = created.expect("an answer").json().await.expect("JSON");
        let id = created["session_id"].as_str().unwrap_or_else(|| panic!("{created}"));
        let path = format!("{}/{id}?wait=end&wait_seconds=60", self.sessions);
        let ended = timeout(Duration::from_secs(90), self.client.get(path).send()).await;
        let ended = ended.expect("in time").expect("an answer");
        let ended: Value = ended.json().await.expect("JSON");
        assert_eq!(ended["status"], "completed", "{ended}");
        ended
    }

    async fn make_key(&self) -> Value {
        let keygen = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2});
        self.completed(&keygen).await["key_id"].clone()
    }

    async fn sign(&self, key: &Value, digest: usize) {
        let hash = format!("{digest:064x}");
        let sign = json!({"session_type": "sign", "key_id": key, "message_hash": hash});
        self.completed(&sign).await;
    }
}

/// What one attacker does, once: to the gRPC address, the HTTP address, and the two relays.
type Attack = fn(Targets) -> BoxFuture<'static, ()>;

#[derive(Clone, Copy)]
struct Targets {
    grpc: SocketAddr,
    http: SocketAddr,
    jsonrpc: SocketAddr,
    relay: SocketAddr,
}

/// Writes for as long as somebody reads, and half a second beyond.
async fn pour(stream: &mut TcpStream, bytes: &[u8], times: usize) {
    for _ in 0..times {
        match timeout(Duration::from_millis(500), stream.write_all(bytes)).await {
            Ok(Ok(())) => {}
            _ => return,
        }
    }
}

/// A frame of a client's, masked with zeros.
fn frame(opcode: u8, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len()).expect("short").to_be_bytes();
    [&[0x80 | opcode, 0x80 | 126][..], &length, &[0; 4], payload].concat()
}

const ATTACKS: [(&str, Attack); 6] = [
    ("pings that nobody reads the answers of", |at| {
        async move {
            let mut stream = connect(at.jsonrpc).await;
            pour(&mut stream, handshake(at.jsonrpc, "/mpc").as_bytes(), 1).await;
            pour(
                &mut stream,
                &[0x89, 0x80 | 100].into_iter().chain([0; 104]).collect::<Vec<_>>().repeat(9_000),
                20,
            )
            .await;
        }
        .boxed()
    }),
    ("junk at the binary relay", |at| {
        async move {
            let mut stream = connect(at.relay).await;
            pour(&mut stream, handshake(at.relay, "/v1/msg-relay").as_bytes(), 1).await;
            pour(&mut stream, &frame(2, &[0xa5; 60_000]), 200).await;
        }
        .boxed()
    }),
    ("connections that ask nothing", |at| {
        async move {
            let mut silent = Vec::new();
            for _ in 0..50 {
                silent.push(connect(at.http).await);
            }
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
        .boxed()
    }),
    ("headers that never end", |at| {
        async move {
            let mut stream = connect(at.http).await;
            pour(&mut stream, b"GET /api/v1/keys HTTP/1.1\r\n", 1).await;
            pour(&mut stream, &b"X-Filler: 0123456789abcdef\r\n".repeat(1_000), 100).await;
        }
        .boxed()
    }),
    ("bodies of calls without a credential", |at| {
        async move {
            let mut client = http2(at.grpc, 0).await;
            for _ in 0..50 {
                let Ok(ready) = client.ready().await else { return };
                client = ready;
                let head = grpc(at.grpc, "/mpc.router.v1.MessageRouter/RouteMessage");
                let Ok((_answer, mut body)) = client.send_request(head, false) else { return };
                let _ = body.send_data(Bytes::from(vec![0; 1 << 20]), false);
            }
        }
        .boxed()
    }),
    ("wrong keys", |at| {
        async move {
            let url = format!("http://{}/api/v1/sessions", at.http);
            let client = reqwest::Client::new();
            for _ in 0..50 {
                let _ =
                    client.post(&url).bearer_auth("qk_0000000000000000_x").body("{}").send().await;
            }
        }
        .boxed()
    }),
];

#[tokio::test(flavor = "multi_thread")]
async fn strangers_cost_little_while_an_honest_key_signs() {
    let length = Duration::from_secs(amount(2, 30) as u64);
    let folder = tempfile::tempdir().expect("a folder");
    let key = api_key(folder.path(), &["--scope", "sessions", "--scope", "read"]).await;
    let cluster = Cluster::start_with(folder.path(), &["--auth", "required"]).await;
    let mut headers = HeaderMap::new();
    headers.insert(AUTHORIZATION, format!("Bearer {key}").parse().expect("text"));
    let client = reqwest::Client::builder().default_headers(headers).build().expect("a client");
    let honest = Honest { client, sessions: cluster.url("coordinator", "/api/v1/sessions") };
    let address = |value: &Value| value.as_str().expect("an address").parse().expect("host:port");
    let targets = Targets {
        grpc: cluster.address("router", "grpc"),
        http: cluster.address("coordinator", "http"),
        jsonrpc: address(&cluster.endpoints["jsonrpc"]),
        relay: address(&cluster.endpoints["relay"][0]),
    };
    let key = honest.make_key().await;
    for n in 0..amount(30, 1_000) {
        honest.sign(&key, n).await;
    }
    // What the honest work of a round takes by itself: a key, and a signature right behind it.
    let alone = honest.make_key().await;
    honest.sign(&alone, 0).await;
    let warm = resident(cluster.pid());
    for (name, attack) in ATTACKS {
        let before = resident(cluster.pid()).max(warm);
        let end = Instant::now() + length;
        let attackers: Vec<_> = (0..ATTACKERS)
            .map(|_| {
                tokio::spawn(async move {
                    while Instant::now() < end {
                        attack(targets).await;
                    }
                })
            })
            .collect();
        let (mut signed, mut most) = (0, 0);
        let made = honest.make_key().await;
        while Instant::now() < end || signed == 0 {
            honest.sign(&made, signed).await;
            signed += 1;
            most = most.max(resident(cluster.pid()));
        }
        for attacker in attackers {
            attacker.await.expect("an attacker does not fail");
        }
        let grown = most.saturating_sub(before);
        println!("{name}: {signed} signatures meanwhile, {grown} MiB more than {before}");
        assert!(grown <= BUDGET, "{name}: {grown} MiB more than {before}");
    }
}
