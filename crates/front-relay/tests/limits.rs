//! Bounds, close codes, slow readers, floods and the end, over real sockets.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

mod client;

use std::time::Duration;

use bytes::Bytes;
use client::{Client, Server, id, serve};
use futures_util::{SinkExt as _, StreamExt as _};
use prometheus_client::encoding::text::encode;
use prometheus_client::registry::Registry;
use quorate_front_relay::{Config, Metrics, bind_all};
use quorate_wire::relay::{Ttl, ask, publish};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;

fn small() -> Config {
    let mut config = Config::default();
    config.limits.message_bytes = 100_000;
    config.limits.connection_bytes = 250_000;
    config.limits.connection_ids = 10;
    config.limits.total_bytes = 500_000;
    config
}

async fn assert_serves(server: &Server) {
    let mut client = server.client().await;
    let frame = client.publish(9_999, 0, 0, b"x").await;
    client.ask(9_999, 2).await;
    client.assert_silent().await;
    let mut other = server.client().await;
    other.publish(9_999, 0, 0, b"x").await;
    assert_eq!(client.next().await, frame);
}

#[tokio::test]
async fn a_message_that_is_too_long_is_refused_with_1009() {
    let server = serve(small()).await;
    let mut client = server.client().await;
    client.publish(1, 10, 0, &[1; 100_000 - 36]).await;
    client.assert_silent().await;
    client.publish(2, 10, 0, &[1; 100_000 - 35]).await;
    let (code, reason) = client.closed().await;
    assert_eq!((code, reason.as_str()), (1009, "a message is longer than this relay takes"));
    assert_eq!(server.relay.metrics().too_large, 1);
    assert_eq!(server.relay.metrics().stored, 1, "what was stored before stays");
    assert_serves(&server).await;
}

#[tokio::test]
async fn what_was_answered_before_a_refusal_comes_before_the_close_frame() {
    let server = serve(small()).await;
    let mut client = server.client().await;
    let frame = client.publish(1, 10, 0, &[1; 90_000]).await;
    client.assert_silent().await;
    for message in
        (0..3).map(|_| ask(id(1), Ttl(1))).chain([publish(id(2), Ttl(1), 0, &[1; 99_990])])
    {
        client.socket.feed(Message::Binary(message)).await.unwrap();
    }
    client.socket.flush().await.unwrap();
    for _ in 0..3 {
        assert_eq!(client.next().await, frame);
    }
    assert_eq!(client.closed().await.0, 1009);
}

#[tokio::test]
async fn too_many_bytes_of_a_connection_are_refused_with_1013() {
    let server = serve(small()).await;
    let mut client = server.client().await;
    for n in 0..3 {
        client.publish(n, 10, 0, &[1; 90_000]).await;
    }
    assert_eq!(client.closed().await.0, 1013);
    assert_eq!(server.relay.metrics().over_limit, 1);
    assert_eq!(server.relay.metrics().stored, 2);
    assert_serves(&server).await;
}

#[tokio::test]
async fn too_many_ids_of_a_connection_are_refused_with_1013() {
    let server = serve(small()).await;
    let mut client = server.client().await;
    for n in 0..11 {
        client.ask(n, 10).await;
    }
    let (code, reason) = client.closed().await;
    assert_eq!((code, reason.contains("too many")), (1013, true), "{reason}");
    server.until("the questions went with it", |m| m.waiting == 0 && m.held_bytes == 0).await;
    assert_serves(&server).await;
}

const ADDRESS_IS_FULL: &str =
    "the connections of this address hold as much as they may; try again later";

#[tokio::test]
async fn a_full_relay_refuses_with_1013() {
    let server = serve(small()).await;
    // Two messages of one address, two of another and one of a third: no room for a sixth.
    for (number, from) in [(0, "127.0.0.1"), (2, "127.0.0.2"), (4, "127.0.0.3")] {
        let mut client = server.client_from(from).await;
        for n in number..number + 2 {
            client.publish(n, 2, 0, &[1; 90_000]).await;
        }
        if number == 4 {
            assert_eq!(client.closed().await, (1013, "the relay is full; try again later".into()));
        } else {
            client.assert_silent().await;
        }
    }
    server.until("everything is given back", |m| m.held_bytes == 0).await;
    assert_serves(&server).await;
}

#[tokio::test]
async fn one_address_fills_half_of_the_relay_and_the_others_go_on() {
    let server = serve(small()).await;
    let mut first = server.client_from("127.0.0.2").await;
    for n in 0..2 {
        first.publish(n, u16::MAX, 0, &[1; 90_000]).await;
    }
    first.assert_silent().await;
    drop(first);
    server.until("it is gone", |m| m.connections == 0).await;
    let mut second = server.client_from("127.0.0.2").await;
    second.publish(2, u16::MAX, 0, &[1; 90_000]).await;
    assert_eq!(second.closed().await, (1013, ADDRESS_IS_FULL.into()), "what it left counts");
    let mut other = server.client().await;
    for n in 3..5 {
        other.publish(n, 10, 0, &[1; 90_000]).await;
    }
    other.assert_silent().await;
    assert_eq!(server.relay.metrics().stored, 4);
    assert_serves(&server).await;
}

/// The start of a message of 90 000 bytes, and most of its body.
async fn begin(client: &mut Client) {
    let head = [&[0x82, 0xff], &90_000_u64.to_be_bytes()[..], &[0; 4]].concat();
    client.stream().write_all(&head).await.unwrap();
    client.stream().write_all(&[1; 80_000]).await.unwrap();
}

#[tokio::test]
async fn messages_that_do_not_come_whole_are_bounded_too() {
    let mut config = small();
    config.limits.total_bytes = 260_000;
    let server = serve(config).await;
    let mut clients = Vec::new();
    for from in ["127.0.0.2", "127.0.0.1", "127.0.0.3"] {
        let mut client = server.client_from(from).await;
        begin(&mut client).await;
        let count = clients.len() as u64 + 1;
        server.until("it has come", |m| m.incoming_bytes == count * 80_000).await;
        clients.push(client);
    }
    // All together have no room for a fourth, and one address none for a second.
    let mut fourth = server.client_from("127.0.0.4").await;
    begin(&mut fourth).await;
    assert_eq!(fourth.closed().await, (1013, "the relay is full; try again later".into()));
    drop(clients.split_off(1));
    server.until("theirs is given back", |m| m.incoming_bytes == 80_000).await;
    let mut second = server.client_from("127.0.0.2").await;
    begin(&mut second).await;
    assert_eq!(second.closed().await, (1013, ADDRESS_IS_FULL.into()));
    assert_eq!(server.relay.metrics().over_limit, 2);
    drop(clients);
    server.until("everything is given back", |m| m.incoming_bytes == 0).await;
}

#[tokio::test]
async fn readers_of_one_address_that_stall_take_no_room_from_others() {
    let server = serve(Config { queue_total_bytes: 40 << 20, ..Config::default() }).await;
    let mut publisher = server.client().await;
    let mut slow = Vec::new();
    // Each of them could have 32 MiB waiting; together they have half of 40.
    while server.relay.metrics().slow_reader == 0 {
        assert!(slow.len() < 10, "the sockets' own buffers are not that large");
        let mut client = server.client_from("127.0.0.2").await;
        let ids = 70 * slow.len() as u32..;
        for n in ids.clone().take(70) {
            client.ask(n, 100).await;
        }
        client.assert_silent().await;
        for n in ids.take(70) {
            publisher.publish(n, 0, 0, &[1; 250_000]).await;
        }
        slow.push(client);
        let (all, each) = (70 * slow.len() as u64, 250_000 + 36 + 128);
        let rest = |m: &Metrics| m.slow_reader == 1 || m.deliveries + m.queued_bytes / each == all;
        let metrics = server.until("it waits or is cut", rest).await;
        assert!(metrics.queued_bytes <= 20 << 20);
    }
    assert!(slow.len() > 1, "one of them alone is within every bound");
    let (code, reason) = slow.last_mut().unwrap().closed().await;
    let crowded = "too much waits for the connections of this address to read it";
    assert_eq!((code, reason.as_str()), (1013, crowded));
    let mut good = server.client().await;
    good.ask(u32::MAX, 100).await;
    good.assert_silent().await;
    let frame = publisher.publish(u32::MAX, 0, 0, &[1; 250_000]).await;
    assert_eq!(good.next().await, frame);
}

#[tokio::test]
async fn a_stalled_reader_is_cut_and_the_others_get_everything() {
    let config =
        Config { queue_bytes: 4 << 20, grace: Duration::from_secs(1), ..Config::default() };
    let server = serve(config).await;
    let (mut slow, mut good) = (server.client().await, server.client().await);
    let mut publisher = server.client().await;
    for n in 0..400 {
        slow.ask(n, 100).await;
        good.ask(n, 100).await;
    }
    slow.assert_silent().await;
    good.assert_silent().await;
    for n in 0..400 {
        let frame = publisher.publish(n, 0, 0, &[1; 60_000]).await;
        assert_eq!(good.next().await, frame);
    }
    let metrics = server.until("cut", |m| m.slow_reader == 1 && m.connections == 2).await;
    assert_eq!(metrics.waiting, 0);
    assert!(metrics.queued_bytes < 100_000, "no more than the message that had begun to leave");
    // What had left before it was cut still arrives; then the connection is over.
    let mut got = 0;
    while let Some(Ok(message)) = slow.socket.next().await {
        got += usize::from(message.is_binary());
    }
    assert!(got < 400, "{got}");
    publisher.assert_silent().await;
}

#[tokio::test]
async fn who_asks_for_much_and_reads_slowly_gets_all_of_it() {
    let config = Config { queue_bytes: 3 << 20, ..Config::default() };
    let server = serve(config).await;
    let (mut asker, mut publisher) = (server.client().await, server.client().await);
    for n in 0..300 {
        publisher.publish(n, 100, 0, &[1; 100_000]).await;
    }
    publisher.assert_silent().await;
    for n in 0..300 {
        asker.ask(n, 100).await;
    }
    for n in 0..300 {
        assert_eq!(asker.next().await[..32], id(n).0);
    }
    assert_eq!(server.relay.metrics().slow_reader, 0);
}

#[tokio::test]
async fn who_sends_much_before_it_reads_is_not_stuck() {
    let server = serve(Config::default()).await;
    let mut client = server.client().await;
    for n in 0..150 {
        client.ask(n, 100).await;
    }
    for n in 0..150 {
        client.publish(n, 0, 0, &[1; 100_000]).await;
    }
    for n in 0..150 {
        assert_eq!(client.next().await[..32], id(n).0);
    }
}

#[tokio::test]
async fn a_flood_is_given_back_when_its_ttl_is_over() {
    let mut config = Config::default();
    config.limits.connection_bytes = 1 << 30;
    let server = serve(config).await;
    let mut client = server.client().await;
    for n in 0..2_000 {
        let frame = publish(id(n), Ttl(1), 0, &[1; 64 << 10]);
        client.socket.feed(Message::Binary(frame)).await.unwrap();
    }
    client.socket.flush().await.unwrap();
    let metrics = server.until("expired", |m| m.publishes == 2_000 && m.held_bytes == 0).await;
    assert_eq!((metrics.expired, metrics.stored, metrics.queued_bytes), (2_000, 0, 0));
}

#[tokio::test]
async fn a_peer_that_answers_no_ping_is_cut() {
    let config = Config { ping_every: Duration::from_millis(50), ..Config::default() };
    let server = serve(config).await;
    let mut answers = server.client().await;
    let mut silent = server.client().await;
    server.until("both", |m| m.connections == 2).await;
    // A client answers pings while it is polled.
    let reading = tokio::spawn(async move { answers.message().await });
    server.until("one is cut", |m| m.connections == 1).await;
    tokio::time::sleep(Duration::from_millis(300)).await;
    assert_eq!(server.relay.metrics().connections, 1);
    reading.abort();
    while let Some(Ok(_)) = silent.socket.next().await {}
}

#[tokio::test]
async fn own_pings_guessed_pongs_and_dribbles_are_no_life() {
    let config = Config { ping_every: Duration::from_millis(50), ..Config::default() };
    let server = serve(config).await;
    let (mut pings, mut dribbles) = (server.client().await, server.client().await);
    let mut alive = server.client().await;
    let head = [&[0x82, 0xff], &90_000_u64.to_be_bytes()[..], &[0; 4]].concat();
    dribbles.stream().write_all(&head).await.unwrap();
    server.until("all", |m| m.connections == 3).await;
    // None of them reads. One sends whole messages, which are life.
    let sending = async {
        for n in 0.. {
            let _ = pings.socket.send(Message::Ping(Bytes::from_static(b"mine"))).await;
            let _ = pings.socket.send(Message::Pong(Bytes::from_static(&[0; 8]))).await;
            let _ = dribbles.stream().write_all(&[0; 8]).await;
            alive.publish(n, 1, 0, b"x").await;
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    tokio::select! {
        () = sending => {}
        _ = server.until("two are cut", |m| m.connections == 1) => {}
    }
}

#[tokio::test]
async fn a_stop_delivers_what_waits_and_closes_with_1012() {
    let server = serve(Config::default()).await;
    let mut client = server.client().await;
    let frame = client.publish(1, 10, 0, &[1; 50_000]).await;
    client.ask(1, 10).await;
    server.until("asked", |m| m.asks == 1).await;
    server.stop.cancel();
    assert_eq!(client.next().await, frame);
    assert_eq!(client.closed().await, (1012, "the relay stops; connect again".into()));
    drop(client);
    server.run.await.unwrap();
    assert_eq!(server.relay.metrics().connections, 0);
    let url = format!("ws://{}/v1/msg-relay", server.address);
    let refused = tokio_tungstenite::connect_async(url).await.unwrap_err();
    assert!(refused.to_string().contains("503"), "{refused}");
}

#[tokio::test]
async fn plain_requests_are_answered() {
    let server = serve(Config::default()).await;
    let rows = [
        ("GET / HTTP/1.1", "200 OK", "ok"),
        ("GET /v1/msg-relay HTTP/1.1", "400 Bad Request", "WebSocket"),
        ("GET /nothing HTTP/1.1", "404 Not Found", ""),
    ];
    for (line, status, body) in rows {
        let mut stream = TcpStream::connect(server.address).await.unwrap();
        let request = format!("{line}\r\nhost: x\r\norigin: http://a\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
        assert!(answer.contains("access-control-allow-origin: *"), "{answer}");
        assert!(answer.contains(body), "{answer}");
    }
}

#[tokio::test]
async fn a_peer_that_breaks_the_protocol_is_told_with_1002() {
    let server = serve(Config::default()).await;
    let mut client = server.client().await;
    client.stream().write_all(&[0x82, 0x01, 0]).await.unwrap();
    assert_eq!(client.closed().await, (1002, "a client's frames are masked".into()));
}

#[tokio::test]
async fn an_address_that_cannot_be_bound_is_left_out() {
    let first = bind_all("127.0.0.1:0 127.0.0.1:0").await.unwrap();
    assert_eq!(first.len(), 2);
    let taken = first[0].local_addr().unwrap();
    let rest = bind_all(&format!("{taken} no-such-host.invalid:1 127.0.0.1:0")).await.unwrap();
    assert_eq!(rest.len(), 1);
    let none = bind_all(&taken.to_string()).await.unwrap_err();
    assert!(none.message.contains(&taken.to_string()), "{none}");
    assert!(bind_all(" ").await.is_err());
}

#[tokio::test]
async fn the_metrics_count_what_happened() {
    let server = serve(Config::default()).await;
    let mut client = server.client().await;
    client.ask(1, 10).await;
    client.publish(1, 10, 0, b"body").await;
    client.next().await;
    client.send(Bytes::from_static(b"short")).await;
    client.assert_silent().await;
    let metrics = server.until("counted", |m| m.deliveries == 1).await;
    let counts = (metrics.asks, metrics.publishes, metrics.stored, metrics.junk);
    assert_eq!(counts, (1, 1, 1, 1));
    assert_eq!((metrics.bytes_out, metrics.latency.iter().sum::<u64>()), (40, 1));
    let mut registry = Registry::with_prefix("quorate");
    server.relay.register_metrics(&mut registry);
    let mut text = String::new();
    encode(&mut text, &registry).unwrap();
    assert!(text.contains("quorate_relay_connections 1\n"), "{text}");
    assert!(text.contains("quorate_relay_drops_total{reason=\"junk\"} 1\n"), "{text}");
}
