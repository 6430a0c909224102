//! Pings, a disk that fails, and a disk that is slow.
#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod common;

use std::sync::{Arc, Mutex};
use std::time::Duration;

use async_trait::async_trait;
use common::Server;
use futures_util::SinkExt as _;
use quorate_front_jsonrpc::{Config, NotKept};
use quorate_ports::groups::KeptGroups;
use quorate_ports::{Commit, GroupStore, GroupWrite};
use quorate_types::{Error, Result};
use serde_json::json;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::sync::oneshot;
use tokio_tungstenite::tungstenite::Message;

/// A store whose commits are settled by the test.
#[derive(Default)]
struct Slow(Mutex<Vec<oneshot::Sender<Result<()>>>>);

impl Slow {
    fn settle(&self, result: &Result<()>) {
        for commit in self.0.lock().unwrap().drain(..) {
            let _ = commit.send(result.clone());
        }
    }

    fn waiting(&self) -> usize {
        self.0.lock().unwrap().len()
    }
}

#[async_trait]
impl GroupStore for Slow {
    fn submit_groups(&self, _: Vec<GroupWrite>) -> Commit {
        let (done, result) = oneshot::channel();
        self.0.lock().unwrap().push(done);
        Commit::new(async { result.await.unwrap() })
    }

    async fn groups(&self) -> Result<KeptGroups> {
        Ok(KeptGroups::default())
    }
}

#[tokio::test]
async fn nothing_is_told_before_it_is_durable_and_order_is_kept() {
    let store = Arc::new(Slow::default());
    let server = Server::open(Config::default(), store.clone()).await;
    let (mut clients, group) = server.group(2, 1).await;
    let token = clients[0].call("Connection.token", json!([])).await;
    let create = clients[0].call("Session.create", json!([group, "keygen", null])).await;
    let again = clients[0].call("Group.join", group.clone()).await;
    for client in &mut clients {
        // A pong overtakes what waits for the disk.
        client.settle().await;
    }
    assert_eq!(store.waiting(), 2);
    store.settle(&Ok(()));
    for id in [token, create, again] {
        assert_eq!(clients[0].json().await["id"], id);
    }
    clients[1].event("sessionCreate").await;
}

#[tokio::test]
async fn who_was_promised_what_the_disk_lost_is_sent_away() {
    let store = Arc::new(Slow::default());
    let server = Server::open(Config::default(), store.clone()).await;
    let (mut clients, group) = server.group(2, 1).await;
    clients[0].call("Connection.token", json!([])).await;
    clients[0].settle().await;
    store.settle(&Err(Error::unavailable("the disk failed")));
    assert_eq!(clients[0].closed().await, 1011);
    // Who was promised nothing stays.
    clients[1].ask("Group.join", group).await;
}

#[tokio::test]
async fn a_client_is_not_read_from_while_many_of_its_notifications_wait_for_the_disk() {
    let store = Arc::new(Slow::default());
    let server = Server::open(Config::default(), store.clone()).await;
    let (mut clients, group) = server.group(2, 1).await;
    clients[0].call("Connection.token", json!([])).await;
    clients[0].settle().await;
    store.settle(&Ok(()));
    clients[0].json().await;
    for _ in 0..100 {
        clients[0].notify("Session.create", json!([group, "sign", null])).await;
    }
    while store.waiting() < 16 {
        tokio::task::yield_now().await;
    }
    clients[1].settle().await;
    assert_eq!(store.waiting(), 16);
    let done = clients[0].call("Group.join", group).await;
    let drain = async {
        loop {
            store.settle(&Ok(()));
            tokio::task::yield_now().await;
        }
    };
    tokio::select! {
        () = drain => {}
        answer = clients[0].json() => assert_eq!(answer["id"], done),
    }
    assert_eq!(server.relay.metrics().sessions, 100);
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_gone() {
    let config = Config { ping: Duration::from_millis(20), ..Config::default() };
    let server = Server::open(config, Arc::new(NotKept)).await;
    // Nobody reads from this client, so it answers nothing.
    let _silent = server.client().await;
    let mut lively = server.client().await;
    while server.relay.metrics().connections == 2 {
        lively.refused("Nope", json!([])).await;
    }
    assert!(server.relay.metrics().drops.contains(&("gone", 1)));
}

#[tokio::test]
async fn own_pings_and_guessed_pongs_are_no_life() {
    let config = Config { ping: Duration::from_millis(20), ..Config::default() };
    let server = Server::open(config, Arc::new(NotKept)).await;
    let mut silent = server.client().await;
    let mut lively = server.client().await;
    while server.relay.metrics().connections == 2 {
        // It sends and never reads, so it does not know what our pings hold.
        let _ = silent.socket.send(Message::Ping(b"mine".to_vec().into())).await;
        let _ = silent.socket.send(Message::Pong(vec![0; 16].into())).await;
        lively.refused("Nope", json!([])).await;
    }
    assert!(server.relay.metrics().drops.contains(&("gone", 1)));
}

#[tokio::test]
async fn a_frame_that_dribbles_is_cut() {
    // Long enough for the lively client to answer a ping however busy the machine is.
    let config = Config { ping: Duration::from_millis(500), ..Config::default() };
    let server = Server::open(config, Arc::new(NotKept)).await;
    let mut lively = server.client().await;
    let mut slow = hostile(&server).await;
    // A masked text frame of 512 KiB.
    slow.write_all(&[0x81, 0xff, 0, 0, 0, 0, 0, 8, 0, 0, 0, 0, 0, 0]).await.unwrap();
    while server.relay.metrics().connections == 2 {
        let _ = slow.write_all(b"x").await;
        lively.refused("Nope", json!([])).await;
    }
    assert!(server.relay.metrics().drops.contains(&("gone", 1)));
}

#[tokio::test]
async fn who_breaks_the_protocol_is_told_so() {
    let server = Server::strict().await;
    // A reserved bit, and text that is not UTF-8; both masked with zeros.
    for (frame, code) in
        [(&[0xc1, 0x80, 0, 0, 0, 0][..], 1002), (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007)]
    {
        let mut stream = hostile(&server).await;
        stream.write_all(frame).await.unwrap();
        let mut head = [0; 4];
        stream.read_exact(&mut head).await.unwrap();
        assert_eq!(head[0], 0x88, "a close frame");
        assert_eq!(u16::from_be_bytes([head[2], head[3]]), code);
    }
}

/// A connection to `/mpc` without a client's rules.
async fn hostile(server: &Server) -> TcpStream {
    let mut stream = TcpStream::connect(server.address).await.unwrap();
    let handshake = "GET /mpc HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\n\
         Upgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\r\n";
    stream.write_all(handshake.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"\r\n\r\n") {
        answer.push(stream.read_u8().await.unwrap());
    }
    stream
}

#[tokio::test]
async fn a_pong_frees_what_has_arrived() {
    let config = Config { ping: Duration::from_millis(20), ..Config::default() };
    let server = Server::open(config, Arc::new(NotKept)).await;
    for round in 0.. {
        let (mut clients, group) = server.group(2, 1).await;
        let token = clients[1].ask("Connection.token", json!([])).await;
        clients[0].ask("Session.create", json!([group, "keygen", null])).await;
        clients[1].event("sessionCreate").await;
        // Longer from round to round, until there was a ping among them.
        for _ in 0..1 << round {
            clients[1].refused("Nope", json!([])).await;
        }
        let mut back = server.client().await;
        let id = back.call("Connection.resume", json!([token, 0])).await;
        let answer = back.json().await;
        assert_eq!(answer["id"], id);
        if answer["error"]["message"].as_str().is_some_and(|text| text.starts_with("more events")) {
            return;
        }
        assert_eq!(answer["result"], 1, "{answer}");
    }
}
