//! Connections that break and come back, also over a restart of the relay.
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use std::sync::{Arc, Weak};
use std::time::Duration;

use common::{Client, Server};
use quorate_front_jsonrpc::{Config, GroupLimits, NotKept, RelayLimits};
use quorate_store::SqliteStore;
use serde_json::{Value, json};

/// Three clients with tokens, signed up in a keygen session that has started.
async fn keygen(server: &Server) -> (Vec<Client>, [Value; 2], Vec<Value>) {
    let (mut clients, group) = server.group(3, 1).await;
    let mut tokens = Vec::new();
    for client in &mut clients {
        tokens.push(client.ask("Connection.token", json!([])).await);
    }
    let session = clients[0].ask("Session.create", json!([group, "keygen", null])).await;
    let place = [group, session["uuid"].clone()];
    for client in &mut clients[1..] {
        client.event("sessionCreate").await;
    }
    for client in &mut clients {
        client.ask("Session.signup", json!([place[0], place[1], "keygen"])).await;
    }
    for client in &mut clients {
        client.event("sessionSignup").await;
    }
    (clients, place, tokens)
}

fn words(place: &[Value; 2], sender: u16, body: usize) -> Value {
    let message = json!({"round": 1, "sender": sender, "uuid": "u", "body": body});
    json!([place[0], place[1], "keygen", message])
}

async fn heard(client: &mut Client, bodies: std::ops::Range<usize>) {
    for body in bodies {
        assert_eq!(client.event("sessionMessage").await["body"], body);
    }
    client.settle().await;
}

#[tokio::test]
async fn missed_events_come_once_each_and_in_order() {
    let server = Server::strict().await;
    let (mut clients, place, tokens) = keygen(&server).await;
    clients[0].ask("Session.message", words(&place, 1, 0)).await;
    heard(&mut clients[1], 0..1).await;
    clients.remove(1).leave().await;
    for body in 1..50 {
        clients[0].ask("Session.message", words(&place, 1, body)).await;
    }
    let mut back = server.client().await;
    assert_eq!(back.ask("Connection.resume", json!([tokens[1]])).await, 49);
    heard(&mut back, 1..50).await;
    // Its number is still its own.
    back.ask("Session.message", words(&place, 2, 7)).await;
    heard(&mut clients[0], 7..8).await;
    back.leave().await;
    let mut again = server.client().await;
    assert_eq!(again.ask("Connection.resume", json!([tokens[1]])).await, 0);
    again.settle().await;
}

#[tokio::test]
async fn a_client_that_counts_gets_exactly_the_rest() {
    let server = Server::strict().await;
    let (mut clients, place, tokens) = keygen(&server).await;
    for body in 0..10 {
        clients[0].ask("Session.message", words(&place, 1, body)).await;
    }
    // The relay has written all of them, and need not have noticed that the peer is gone.
    for body in 0..3 {
        assert_eq!(clients[1].event("sessionMessage").await["body"], body);
    }
    drop(clients.remove(1));
    let mut back = server.client().await;
    let seen = 2 + 3;
    assert_eq!(back.ask("Connection.resume", json!([tokens[1], seen])).await, 7);
    heard(&mut back, 3..10).await;
    let (code, message) =
        server.client().await.refused("Connection.resume", json!([tokens[1], 13])).await;
    assert_eq!((code, message.as_str()), (-32603, "only 12 events were sent to this place"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_breaks_again_and_again_misses_nothing() {
    const MESSAGES: usize = 2_000;
    let groups = GroupLimits { missed_events: MESSAGES + 1, ..GroupLimits::default() };
    let limits = RelayLimits { groups, ..RelayLimits::default() };
    let server = Server::open(Config { limits, ..Config::default() }, Arc::new(NotKept)).await;
    let (mut clients, place, tokens) = keygen(&server).await;
    let mut reader = clients.remove(1);
    let mut writer = clients.remove(0);
    let write = tokio::spawn(async move {
        for body in 0..MESSAGES {
            writer.ask("Session.message", words(&place, 1, body)).await;
        }
    });
    // The third client is not in the way, and the second one has seen two events.
    drop(clients);
    let mut body = 0;
    for turn in 0.. {
        for _ in 0..turn * 37 % 101 {
            if body < MESSAGES {
                assert_eq!(reader.event("sessionMessage").await["body"], body);
                body += 1;
            }
        }
        if body == MESSAGES {
            break;
        }
        reader = server.client().await;
        reader.ask("Connection.resume", json!([tokens[1], 2 + body])).await;
    }
    write.await.unwrap();
    reader.settle().await;
}

#[tokio::test]
async fn the_old_connection_of_a_resumed_place_is_closed() {
    let server = Server::strict().await;
    let (mut clients, place, tokens) = keygen(&server).await;
    let mut back = server.client().await;
    assert_eq!(back.ask("Connection.resume", json!([tokens[1], 2])).await, 0);
    assert_eq!(clients[1].closed().await, 1008);
    clients[0].ask("Session.message", words(&place, 1, 0)).await;
    heard(&mut back, 0..1).await;
    // Without counting, what the old connection has written is not sent again.
    let mut again = server.client().await;
    assert_eq!(again.ask("Connection.resume", json!([tokens[1]])).await, 0);
    assert_eq!(back.closed().await, 1008);
    again.settle().await;
}

#[tokio::test]
async fn a_place_is_nobodys_without_its_token_and_a_member_takes_no_second_one() {
    let server = Server::strict().await;
    let (mut clients, _, tokens) = keygen(&server).await;
    let mut stranger = server.client().await;
    assert_eq!(stranger.refused("Connection.resume", json!(["guess"])).await.0, -32001);
    let refusal = clients[0].refused("Connection.resume", json!([tokens[1]])).await;
    assert_eq!(refusal.0, -32603);
    // A new token ends the old one.
    let token = clients[2].ask("Connection.token", json!([])).await;
    assert_eq!(stranger.refused("Connection.resume", json!([tokens[2]])).await.0, -32001);
    clients.remove(2).leave().await;
    assert_eq!(stranger.ask("Connection.resume", json!([token])).await, 0);
}

#[tokio::test]
async fn a_place_is_kept_for_the_grace_time_and_not_longer() {
    let config = Config { grace: Duration::ZERO, ..Config::default() };
    for (config, kept) in [(Config::default(), true), (config, false)] {
        let server = Server::open(config, Arc::new(NotKept)).await;
        let (mut clients, place, _) = keygen(&server).await;
        clients.remove(1).leave().await;
        let mut late = server.client().await;
        if kept {
            assert_eq!(late.refused("Group.join", place[0].clone()).await.0, -32603);
            assert_eq!(late.closed().await, 1005);
        } else {
            while server.relay.metrics().tokens == 3 {
                tokio::task::yield_now().await;
            }
            late.ask("Group.join", place[0].clone()).await;
        }
    }
}

async fn gone(store: Weak<SqliteStore>) {
    let waiting = async {
        while store.upgrade().is_some() {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), waiting).await.unwrap();
}

#[tokio::test]
async fn places_numbers_and_sessions_survive_a_restart() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let server = Server::open(Config::default(), store.clone()).await;
    let (mut clients, place, tokens) = keygen(&server).await;
    let value = json!({"b": 1, "a": [2]});
    let sign = clients[0].ask("Session.create", json!([place[0], "sign", value])).await;
    clients[2].ask("Session.load", json!([place[0], sign["uuid"], "sign", 3])).await;
    let closed = async {
        for client in &mut clients {
            assert_eq!(client.closed().await, 1012);
        }
    };
    tokio::join!(server.close(), closed);
    let weak = Arc::downgrade(&store);
    drop((store, clients));
    gone(weak).await;

    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let server = Server::open(Config::default(), store).await;
    let mut clients = Vec::new();
    for token in &tokens {
        let mut client = server.client().await;
        // The relay has forgotten the count, and takes the client's.
        client.ask("Connection.resume", json!([token, 2])).await;
        clients.push(client);
    }
    let join = json!([place[0], sign["uuid"], "sign"]);
    assert_eq!(clients[1].ask("Session.join", join.clone()).await, sign);
    clients[1].ask("Session.load", json!([place[0], sign["uuid"], "sign", 1])).await;
    for client in &mut clients[1..] {
        assert_eq!(client.event("sessionLoad").await, sign["uuid"]);
    }
    clients[0].ask("Session.message", words(&place, 1, 5)).await;
    for client in &mut clients[1..] {
        heard(client, 5..6).await;
    }
    // New numbers do not meet old ones.
    let mut stranger = server.client().await;
    let (_, message) = stranger.refused("Session.join", join).await;
    assert!(message.starts_with("client 7 does not belong"), "{message}");
}

#[tokio::test]
async fn what_nobody_can_resume_is_not_kept() {
    let folder = tempfile::tempdir().unwrap();
    let store = Arc::new(SqliteStore::open(folder.path()).unwrap());
    let server = Server::open(Config::default(), store.clone()).await;
    let (mut clients, group) = server.group(2, 1).await;
    clients[0].ask("Session.create", json!([group, "sign", null])).await;
    assert_eq!(store.commits(), 0);
    clients[1].ask("Connection.token", json!([])).await;
    assert_eq!(store.commits(), 1);
    let (first, second) = clients.split_at_mut(1);
    tokio::join!(server.close(), first[0].closed(), second[0].closed());
    let server = Server::open(Config::default(), store).await;
    assert_eq!((server.relay.metrics().groups, server.relay.metrics().sessions), (1, 1));
}
