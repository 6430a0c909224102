//! The WebSockets against fake services, over a real connection.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use futures_util::{SinkExt, StreamExt};
use quorate_front_rest::router_routes;
use quorate_testkit::{Fake, MESSAGE, SESSION, message};
use quorate_types::{Caller, Error, ErrorCode};
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::net::TcpStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::{MaybeTlsStream, WebSocketStream, connect_async};
use tokio_util::sync::CancellationToken;

type Socket = WebSocketStream<MaybeTlsStream<TcpStream>>;

async fn serve(fake: Arc<Fake>) -> String {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router_routes(fake).layer(axum::Extension(Caller::Open));
    tokio::spawn(async move { axum::serve(listener, app).await });
    format!("ws://{address}")
}

async fn messages(fake: Arc<Fake>) -> Socket {
    let address = serve(fake).await;
    let path = format!("/api/v1/messages/subscribe?session_id={SESSION}&party_id=alice&after=5");
    connect_async(format!("{address}{path}")).await.unwrap().0
}

/// The next text frame, or the close code and reason as `{"close":…,"reason":…}`.
async fn next(socket: &mut Socket) -> Value {
    loop {
        match socket.next().await.unwrap().unwrap() {
            Message::Text(text) => return serde_json::from_str(&text).unwrap(),
            Message::Close(Some(frame)) => {
                let reason: Value = serde_json::from_str(&frame.reason).unwrap();
                return json!({"close": u16::from(frame.code), "reason": reason["error"]});
            }
            Message::Ping(_) => {}
            other => panic!("{other:?}"),
        }
    }
}

async fn say(socket: &mut Socket, frame: Value) {
    socket.send(Message::text(frame.to_string())).await.unwrap();
}

#[tokio::test]
async fn messages_come_in_order_and_a_stopping_server_closes_with_1012() {
    let fake = Fake::streaming((1..=40).map(|round| Ok(message(round))).collect(), false);
    let mut socket = messages(fake.clone()).await;
    for round in 1..=40 {
        let frame = next(&mut socket).await;
        assert_eq!((&frame["round"], &frame["round_number"]), (&json!(round), &json!(round)));
        assert_eq!(frame["payload"], "AAEC");
    }
    assert_eq!(next(&mut socket).await, json!({"close": 1012, "reason": "unavailable"}));
    assert_eq!(fake.seen().len(), 1);
    assert!(fake.seen()[0].ends_with("alice 5"), "{:?}", fake.seen());
}

#[tokio::test]
async fn a_stream_that_fails_closes_with_the_code_of_its_error() {
    let end = Err(Error::new(ErrorCode::SessionExpired, "it is over"));
    let mut socket = messages(Fake::streaming(vec![Ok(message(1)), end], true)).await;
    assert_eq!(next(&mut socket).await["round"], 1);
    assert_eq!(next(&mut socket).await, json!({"close": 1008, "reason": "session_expired"}));
}

#[tokio::test]
async fn acks_and_routes_are_carried_out_in_order_on_the_same_socket() {
    let fake = Fake::streaming(vec![], true);
    let mut socket = messages(fake.clone()).await;
    say(&mut socket, json!({"ack": MESSAGE})).await;
    for round in 1..=100 {
        let route = json!({"from_party": "alice", "round": round, "payload": "AAEC"});
        say(&mut socket, json!({"route": route})).await;
    }
    say(&mut socket, json!({"ack": MESSAGE, "success": false})).await;
    for _ in 1..=100 {
        let routed = json!({"routed": {"message_id": MESSAGE}});
        assert_eq!(next(&mut socket).await, routed);
    }
    // The answer to this one says that the ack before it has been carried out.
    say(&mut socket, json!({})).await;
    assert_eq!(next(&mut socket).await["error"]["error"], "invalid_request");
    let seen = fake.seen();
    assert_eq!(seen[1], format!("acknowledge alice {MESSAGE} true"));
    for round in 1..=100 {
        assert_eq!(seen[round + 1], format!("route alice {round} 3"));
    }
    assert_eq!(seen[102], format!("acknowledge alice {MESSAGE} false"));
}

#[tokio::test]
async fn refused_frames_are_answered_and_the_socket_stays_open() {
    let fake = Fake::streaming(vec![], true);
    let mut socket = messages(fake.clone()).await;
    for (frame, field) in [
        (json!({"acknowledge": MESSAGE}), "acknowledge"),
        (json!({"ack": "x"}), "ack"),
        (json!({"route": {"from_party": "bob", "payload": ""}}), "route.from_party"),
        (json!({"route": {"from_party": "alice"}}), "route.payload"),
        (
            json!({"route": {"from_party": "alice", "payload": "", "session_id": MESSAGE}}),
            "session_id",
        ),
    ] {
        say(&mut socket, frame.clone()).await;
        let answer = next(&mut socket).await;
        assert_eq!(answer["error"]["error"], "invalid_request");
        assert!(answer["error"]["details"][field].is_string(), "{frame}: {answer}");
    }
    assert_eq!(fake.seen().len(), 1);
}

#[tokio::test]
async fn what_was_asked_before_leaving_is_done() {
    let fake = Fake::streaming(vec![], true);
    let mut socket = messages(fake.clone()).await;
    for _ in 0..50 {
        say(&mut socket, json!({"ack": MESSAGE})).await;
    }
    socket.close(None).await.unwrap();
    while let Some(Ok(_)) = socket.next().await {}
    assert_eq!(fake.seen().len(), 51);
}

#[tokio::test]
async fn a_refused_subscription_is_closed_with_the_reason() {
    let fake = Fake::refusing(Error::new(ErrorCode::Forbidden, "you are not of this session"));
    let mut socket = messages(fake).await;
    assert_eq!(next(&mut socket).await, json!({"close": 1008, "reason": "forbidden"}));
}

#[tokio::test]
async fn binary_and_oversized_frames_close_with_their_own_codes() {
    for (frame, code) in
        [(Message::binary(vec![1, 2, 3]), 1003), (Message::text("x".repeat((2 << 20) + 1)), 1009)]
    {
        let mut socket = messages(Fake::streaming(vec![], true)).await;
        socket.send(frame).await.unwrap();
        assert_eq!(next(&mut socket).await["close"], code);
    }
}

#[tokio::test]
async fn a_handshake_with_a_bad_query_is_refused_in_http() {
    let address = serve(Arc::default()).await;
    for (path, field) in [
        ("/api/v1/messages/subscribe?session_id=x&party_id=a", "session_id"),
        ("/api/v1/messages/subscribe", "party_id"),
        ("/api/v1/events/subscribe?party_id=a&event_types=party_left", "event_types"),
    ] {
        let error = connect_async(format!("{address}{path}")).await.unwrap_err();
        let tokio_tungstenite::tungstenite::Error::Http(response) = error else {
            panic!("{error}");
        };
        assert_eq!(response.status(), 400);
        let body: Value = serde_json::from_slice(response.body().as_ref().unwrap()).unwrap();
        assert!(body["details"][field].is_string(), "{body}");
    }
}

#[tokio::test]
async fn events_carry_the_subscribers_own_token_only() {
    let fake = Arc::new(Fake { open: true, ..Fake::default() });
    let address = serve(fake.clone()).await;
    let path = "/api/v1/events/subscribe?party_id=bob&event_types=session_created,party_ready";
    let (mut socket, _) = connect_async(format!("{address}{path}")).await.unwrap();
    let event = next(&mut socket).await;
    assert_eq!(event["event_type"], "session_created");
    assert_eq!(event["join_tokens"], json!({"bob": "token-bob"}));
    assert_eq!(event["selected_parties"], json!(["alice", "bob"]));
    assert_eq!(fake.seen(), ["subscribe_events bob [SessionCreated, PartyReady]"]);
}

#[tokio::test(start_paused = true)]
async fn own_pings_and_guessed_pongs_are_no_life() {
    let fake = Fake::streaming(vec![], true);
    let mut reads = messages(fake.clone()).await;
    let (seen, pings) = tokio::sync::watch::channel(0_u32);
    // To read on is to answer the ping before.
    let reading = tokio::spawn(async move {
        while let Some(Ok(Message::Ping(_))) = reads.next().await {
            seen.send_modify(|count| *count += 1);
        }
    });
    let mut silent = messages(fake).await;
    for step in 1..=20 {
        // It sends and never reads, so it does not know what our pings hold.
        let _ = silent.send(Message::Ping(b"mine".to_vec().into())).await;
        let _ = silent.send(Message::Pong(vec![0; 8].into())).await;
        tokio::time::sleep(std::time::Duration::from_secs(10)).await;
        // A runtime with work does not move the clock: bytes under way arrive in time.
        while *pings.borrow() < (step - 1) / 2 && !reading.is_finished() {
            tokio::task::yield_now().await;
        }
    }
    let mut ended = false;
    for _ in 0..100 {
        ended |= !matches!(silent.next().await, Some(Ok(_)));
    }
    assert!(ended, "it was cut");
    assert!(!reading.is_finished(), "who answers pings stays");
}

#[tokio::test]
async fn who_breaks_the_protocol_is_told_so() {
    // A reserved bit, and text that is not UTF-8; both masked with zeros.
    for (frame, code) in
        [(&[0xc1, 0x80, 0, 0, 0, 0][..], 1002), (&[0x81, 0x81, 0, 0, 0, 0, 0xff], 1007)]
    {
        let mut socket = messages(Fake::streaming(vec![], true)).await;
        let MaybeTlsStream::Plain(stream) = socket.get_mut() else { panic!("no TLS") };
        stream.write_all(frame).await.unwrap();
        assert_eq!(next(&mut socket).await, json!({"close": code, "reason": "invalid_request"}));
    }
}

#[tokio::test]
async fn a_service_that_stops_says_so_on_open_sockets() {
    let stop = CancellationToken::new();
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let app = router_routes(Fake::streaming(vec![], true))
        .layer(axum::Extension(Caller::Open))
        .layer(axum::Extension(stop.clone()));
    tokio::spawn(async move { axum::serve(listener, app).await });
    let url = format!("ws://{address}/api/v1/messages/subscribe?party_id=alice");
    let mut socket = connect_async(url).await.unwrap().0;
    stop.cancel();
    assert_eq!(next(&mut socket).await, json!({"close": 1012, "reason": "unavailable"}));
}
