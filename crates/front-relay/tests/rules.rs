//! The rules of asking and publishing, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod client;

use bytes::Bytes;
use client::{id, serve};
use futures_util::SinkExt as _;
use quorate_front_relay::Config;
use quorate_wire::relay::{ONE_RECEIVER, Ttl, ask, publish};
use tokio_tungstenite::tungstenite::Message;

#[tokio::test]
async fn a_question_waits_for_the_message() {
    let server = serve(Config::default()).await;
    let (mut a, mut b) = (server.client().await, server.client().await);
    a.ask(1, 10).await;
    a.assert_silent().await;
    let frame = b.publish(1, 10, 0x1234, b"body").await;
    assert_eq!(a.next().await, frame, "header, flags and all");
    b.assert_silent().await;
}

#[tokio::test]
async fn a_ready_message_is_delivered_at_once_and_stays() {
    let server = serve(Config::default()).await;
    let (mut a, mut b) = (server.client().await, server.client().await);
    let frame = b.publish(1, 10, 0, b"body").await;
    b.assert_silent().await;
    for _ in 0..2 {
        a.ask(1, 0).await;
        assert_eq!(a.next().await, frame);
    }
    b.ask(1, 10).await;
    assert_eq!(b.next().await, frame, "a publisher may ask for its own");
}

#[tokio::test]
async fn every_asker_gets_the_message() {
    let server = serve(Config::default()).await;
    let mut askers = Vec::new();
    for _ in 0..20 {
        let mut asker = server.client().await;
        asker.ask(1, 10).await;
        asker.assert_silent().await;
        askers.push(asker);
    }
    assert_eq!(server.relay.metrics().waiting, 20);
    let mut publisher = server.client().await;
    let frame = publisher.publish(1, 10, 0, &[7; 50_000]).await;
    for asker in &mut askers {
        assert_eq!(asker.next().await, frame);
    }
    let metrics = server.until("stored once", |m| m.deliveries == 20).await;
    assert_eq!((metrics.stored, metrics.waiting), (1, 0));
    assert!(metrics.held_bytes < 60_000, "one body for all");
}

#[tokio::test]
async fn the_first_message_wins() {
    let server = serve(Config::default()).await;
    let (mut a, mut b) = (server.client().await, server.client().await);
    let first = a.publish(1, 10, 0, b"first").await;
    a.assert_silent().await;
    b.publish(1, 10, 0, b"second").await;
    b.ask(1, 10).await;
    assert_eq!(b.next().await, first);
    assert_eq!(server.relay.metrics().first_wins, 1);
}

#[tokio::test]
async fn a_ttl_of_zero_reaches_waiters_and_is_not_stored() {
    let server = serve(Config::default()).await;
    let (mut a, mut b) = (server.client().await, server.client().await);
    a.ask(1, 10).await;
    a.assert_silent().await;
    let frame = b.publish(1, 0, 0, b"body").await;
    assert_eq!(a.next().await, frame);
    b.publish(2, 0, 0, b"body").await;
    b.ask(1, 0).await;
    b.ask(2, 0).await;
    b.assert_silent().await;
    let metrics = server.relay.metrics();
    assert_eq!((metrics.stored, metrics.waiting, metrics.held_bytes), (0, 0, 0));
}

#[tokio::test]
async fn expiry_comes_by_itself_and_frees_the_id() {
    let server = serve(Config::default()).await;
    let (mut a, mut b) = (server.client().await, server.client().await);
    b.publish(1, 1, 0, b"old").await;
    b.ask(2, 1).await;
    b.assert_silent().await;
    assert_eq!(server.relay.metrics().stored, 1);
    let metrics = server.until("expired", |m| m.stored == 0 && m.waiting == 0).await;
    assert_eq!((metrics.expired, metrics.asks_expired, metrics.held_bytes), (1, 1, 0));
    let new = a.publish(1, 10, 0, b"new").await;
    a.publish(2, 10, 0, b"late").await;
    a.assert_silent().await;
    b.ask(1, 10).await;
    assert_eq!(b.next().await, new, "and the late one went to nobody");
}

#[tokio::test]
async fn one_receiver_goes_to_exactly_one_asker() {
    let server = serve(Config::default()).await;
    let (mut a, mut b) = (server.client().await, server.client().await);
    let mut publisher = server.client().await;
    for client in [&mut a, &mut b] {
        client.ask(1, 10).await;
        client.assert_silent().await;
    }
    let first = publisher.publish(1, 10, ONE_RECEIVER, b"first").await;
    assert_eq!(a.next().await, first);
    b.assert_silent().await;
    let second = publisher.publish(1, 10, ONE_RECEIVER, b"second").await;
    assert_eq!(b.next().await, second);
    let third = publisher.publish(1, 10, ONE_RECEIVER, b"third").await;
    publisher.assert_silent().await;
    b.ask(1, 10).await;
    assert_eq!(b.next().await, third);
    a.ask(1, 10).await;
    a.assert_silent().await;
}

#[tokio::test]
async fn asking_twice_is_answered_once() {
    let server = serve(Config::default()).await;
    let (mut a, mut b) = (server.client().await, server.client().await);
    a.ask(1, 10).await;
    a.ask(1, 10).await;
    a.assert_silent().await;
    let frame = b.publish(1, 10, 0, b"body").await;
    assert_eq!(a.next().await, frame);
    a.assert_silent().await;
}

#[tokio::test]
async fn a_message_outlives_its_publisher_and_a_question_does_not() {
    let server = serve(Config::default()).await;
    let (mut a, mut b) = (server.client().await, server.client().await);
    let frame = b.publish(1, 10, 0, b"body").await;
    b.ask(2, 10).await;
    b.assert_silent().await;
    b.socket.close(None).await.unwrap();
    let metrics = server.until("gone", |m| m.connections == 1).await;
    assert_eq!((metrics.waiting, metrics.stored), (0, 1));
    a.ask(1, 10).await;
    assert_eq!(a.next().await, frame);
}

#[tokio::test]
async fn deliveries_keep_the_order_of_publishing() {
    let server = serve(Config::default()).await;
    let (mut a, mut b) = (server.client().await, server.client().await);
    for n in (0..1_000).rev() {
        a.ask(n, 10).await;
    }
    a.assert_silent().await;
    for n in 0..1_000 {
        let body = vec![1; if n % 50 == 0 { 40_000 } else { 20 }];
        b.socket.feed(Message::Binary(publish(id(n), Ttl(10), 0, &body))).await.unwrap();
    }
    b.socket.flush().await.unwrap();
    for n in 0..1_000 {
        assert_eq!(a.next().await[..32], id(n).0);
    }
}

#[tokio::test]
async fn short_frames_and_text_are_ignored() {
    let server = serve(Config::default()).await;
    let mut a = server.client().await;
    for length in [0, 1, 35] {
        a.send(Bytes::from(vec![1; length])).await;
    }
    a.socket.send(Message::text("hello")).await.unwrap();
    a.assert_silent().await;
    assert_eq!(server.relay.metrics().junk, 4);
    let frame = a.publish(1, 10, 0, b"body").await;
    a.ask(1, 10).await;
    assert_eq!(a.next().await, frame, "the connection stays open");
}

#[tokio::test]
async fn fragments_are_one_message() {
    use tokio_tungstenite::tungstenite::protocol::frame::Frame;
    use tokio_tungstenite::tungstenite::protocol::frame::coding::{Data, OpCode};
    let server = serve(Config::default()).await;
    let mut a = server.client().await;
    let frame = publish(id(1), Ttl(10), 0, &[5; 100]);
    let rows = [(0..10, Data::Binary, false), (10..60, Data::Continue, false)];
    for (part, kind, last) in rows.into_iter().chain([(60..136, Data::Continue, true)]) {
        let part = Frame::message(frame.slice(part), OpCode::Data(kind), last);
        a.socket.send(Message::Frame(part)).await.unwrap();
    }
    a.send(ask(id(1), Ttl(10))).await;
    assert_eq!(a.next().await, frame);
}
