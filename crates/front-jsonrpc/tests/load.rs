//! Many clients at once, and one that does not read.
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use common::{Client, Server};
use futures_util::{SinkExt as _, StreamExt as _};
use quorate_front_jsonrpc::{Config, GroupLimits, NotKept, RelayLimits};
use serde_json::{Value, json};
use tokio_tungstenite::tungstenite::Message;

const CLIENTS: usize = 64;
const CALLS: u64 = 10_000;
const PARTIES: usize = 4;
/// Every second call is a broadcast to the three others.
const EVENTS: u64 = CALLS / 2 * (PARTIES as u64 - 1);

/// The call with this id, of a client with this number.
fn call(id: u64, place: &[Value; 2], number: usize) -> Value {
    let (group, session) = (&place[0], &place[1]);
    let (method, params) = match id % 10 {
        1 => ("Group.join", group.clone()),
        3 => ("Session.join", json!([group, session, "keygen"])),
        5 => ("Session.signup", json!([group, session, "keygen"])),
        7 => ("Nope.nope", json!([])),
        9 => ("Session.load", json!([group, session, "keygen", 0])),
        _ => {
            let body = json!({"id": id, "text": "x".repeat(100)});
            let message = json!({"round": 1, "sender": number, "uuid": "u", "body": body});
            ("Session.message", json!([group, session, "keygen", message]))
        }
    };
    json!({"jsonrpc": "2.0", "id": id, "method": method, "params": params})
}

/// Makes all calls without waiting for an answer, and reads at the same time.
async fn talk(client: Client, place: [Value; 2], number: usize) {
    let (mut out, mut back) = client.socket.split();
    let write = async {
        for id in 1..=CALLS {
            out.feed(Message::text(call(id, &place, number).to_string())).await.unwrap();
        }
        out.flush().await.unwrap();
    };
    let read = async {
        let (mut answered, mut events) = (0, 0);
        let mut last: HashMap<u64, u64> = HashMap::new();
        while answered < CALLS || events < EVENTS {
            let Message::Text(text) = back.next().await.unwrap().unwrap() else {
                continue;
            };
            let frame: Value = serde_json::from_str(&text).unwrap();
            if frame["id"] != 0 {
                answered += 1;
                assert_eq!(frame["id"], answered);
                let fails = matches!(answered % 10, 7 | 9);
                assert_eq!(frame.get("error").is_some(), fails, "{frame}");
            } else {
                events += 1;
                let message = &frame["result"][1];
                let (sender, id) = (message["sender"].as_u64(), message["body"]["id"].as_u64());
                let before = last.insert(sender.unwrap(), id.unwrap()).unwrap_or(0);
                assert_ne!(sender.unwrap(), number as u64);
                assert_eq!(id.unwrap(), before + 2, "in order, none lost, none twice");
            }
        }
    };
    tokio::join!(write, read);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_call_of_many_clients_is_answered_in_order() {
    let server = Server::strict().await;
    let mut talks = tokio::task::JoinSet::new();
    for _ in 0..CLIENTS / PARTIES {
        let (mut clients, group) = server.group(PARTIES, 1).await;
        let session = clients[0].ask("Session.create", json!([group, "keygen", null])).await;
        let place = [group, session["uuid"].clone()];
        for client in &mut clients[1..] {
            client.event("sessionCreate").await;
        }
        for client in &mut clients {
            client.ask("Session.signup", json!([place[0], place[1], "keygen"])).await;
        }
        for (number, mut client) in (1..).zip(clients) {
            client.event("sessionSignup").await;
            talks.spawn(talk(client, place.clone(), number));
        }
    }
    let all = async { while talks.join_next().await.transpose().unwrap().is_some() {} };
    tokio::time::timeout(Duration::from_secs(120), all).await.expect("no hang");
    let metrics = server.relay.metrics();
    assert!(metrics.events >= CLIENTS as u64 * EVENTS);
    assert!(metrics.latency.iter().sum::<u64>() > 0);
}

/// Every body is this large: the sockets' own buffers are full after a few MiB.
const BODY: usize = 256 << 10;
const BODIES: usize = 100;

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_reader_that_stalls_is_cut_and_resumes_and_the_others_feel_nothing() {
    let groups = GroupLimits { missed_bytes: 64 << 20, ..GroupLimits::default() };
    let limits = RelayLimits { queue_bytes: 1 << 20, groups, ..RelayLimits::default() };
    let server = Server::open(Config { limits, ..Config::default() }, Arc::new(NotKept)).await;
    let (mut clients, group) = server.group(3, 1).await;
    let session = clients[0].ask("Session.create", json!([group, "keygen", null])).await;
    let place = [group, session["uuid"].clone()];
    let token = clients[2].event_then_token().await;
    clients[1].event("sessionCreate").await;
    for client in &mut clients {
        client.ask("Session.signup", json!([place[0], place[1], "keygen"])).await;
    }
    for client in &mut clients {
        client.event("sessionSignup").await;
    }
    for at in 0..BODIES {
        let body = json!([at, "x".repeat(BODY)]);
        let message = json!({"round": 1, "sender": 1, "uuid": "u", "body": body});
        clients[0].ask("Session.message", json!([place[0], place[1], "keygen", message])).await;
        assert_eq!(clients[1].event("sessionMessage").await["body"][0], at);
    }
    let mut heard = 0;
    let code = loop {
        match clients[2].frame().await.unwrap() {
            Message::Text(_) => heard += 1,
            Message::Close(frame) => break u16::from(frame.unwrap().code),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(code, 1013);
    assert!(heard < BODIES);
    let mut back = server.client().await;
    let missed = back.call("Connection.resume", json!([token, 1 + heard])).await;
    let answer = back.json().await;
    assert_eq!((&answer["id"], &answer["result"]), (&json!(missed), &json!(BODIES - heard)));
    // It reads slowly again, but now the relay waits with what was missed until it is read.
    for at in heard..BODIES {
        assert_eq!(back.event("sessionMessage").await["body"][0], at);
    }
    clients[1].settle().await;
    let slow = server.relay.metrics().drops.iter().find(|(name, _)| *name == "slow").unwrap().1;
    assert_eq!(slow, 1);
}

trait EventThenToken {
    async fn event_then_token(&mut self) -> Value;
}

impl EventThenToken for Client {
    async fn event_then_token(&mut self) -> Value {
        self.event("sessionCreate").await;
        self.ask("Connection.token", json!([])).await
    }
}
