//! gRPC over a real socket, with fake services behind it: calls, the link, refusals, gRPC-web.

#![allow(clippy::unwrap_used, reason = "a test's helpers panic as its tests do")]

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::{Request, Response};
use futures_util::StreamExt as _;
use futures_util::future::join_all;
use prost::Message as _;
use quorate_front_grpc::{Services, routes};
use quorate_ports::{Deliver as _, ReadMessages as _, ReadSession as _, TakePart as _};
use quorate_rpc::endpoint::Endpoint;
use quorate_rpc::proto::router::v1 as ro;
use quorate_rpc::proto::router::v1::link_answer::Answer;
use quorate_rpc::proto::router::v1::link_call::Call;
use quorate_rpc::proto::router::v1::message_router_client::MessageRouterClient;
use quorate_rpc::remote::{RemoteCoordinator, RemoteRouter};
use quorate_rpc::status::from_refusal;
use quorate_testkit::{Fake, MESSAGE, SESSION, message};
use quorate_types::*;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tonic::transport::Server;
use tonic::transport::server::TcpIncoming;
use tower::ServiceExt as _;

async fn app(fake: &Arc<Fake>, stop: &CancellationToken) -> axum::Router {
    let services = Services {
        coordinator: Some(fake.clone()),
        router: Some((fake.clone(), fake.clone())),
        api_keys: None,
        stop: stop.clone(),
    };
    routes(services).await.layer(axum::Extension(Caller::Open))
}

async fn serve(fake: &Arc<Fake>, stop: &CancellationToken) -> Endpoint {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let server = Server::builder().add_routes(app(fake, stop).await.into());
    tokio::spawn(server.serve_with_incoming(TcpIncoming::from(listener)));
    Endpoint::new(&url, None).unwrap()
}

async fn router(fake: &Arc<Fake>) -> RemoteRouter {
    RemoteRouter::new(serve(fake, &CancellationToken::new()).await)
}

fn party() -> PartyId {
    "alice".parse().unwrap()
}

fn route(round: i32) -> RouteRequest {
    RouteRequest {
        session_id: SESSION.parse().unwrap(),
        from_party: party(),
        to_parties: vec![],
        round,
        message_type: String::new(),
        payload: vec![1, 2, 3].into(),
        acknowledges: vec![],
        patient: false,
    }
}

#[tokio::test]
async fn every_refusal_arrives_whole_from_a_call_a_stream_and_the_link() {
    let caller = Caller::Open;
    for code in ErrorCode::ALL {
        let blame = Blame { party_id: party(), reason: "lied".into() };
        let refusal = Error::new(*code, "because").with_field("field").blaming(blame);
        let fake = Fake::refusing(refusal.clone());
        let endpoint = serve(&fake, &CancellationToken::new()).await;
        let coordinator = RemoteCoordinator::new(endpoint.clone());
        let router = RemoteRouter::new(endpoint);
        let session = SESSION.parse().unwrap();
        assert_eq!(coordinator.status(&caller, session, None).await.unwrap_err(), refusal);
        let pending = router.pending(&caller, session, &party(), Timestamp(0)).await;
        assert_eq!(pending.unwrap_err(), refusal);
        let stream = router.subscribe(&caller, None, &party(), Timestamp(0)).await;
        assert_eq!(stream.err(), Some(refusal.clone()));
        assert_eq!(router.route(&caller, route(1)).await.unwrap_err(), refusal);
        let ready = router.sessions().ready(&caller, session, &party()).await;
        assert_eq!(ready.unwrap_err(), refusal);
    }
}

#[tokio::test]
async fn calls_on_the_link_reach_the_service_in_their_order() {
    let fake = Arc::new(Fake::default());
    let router = router(&fake).await;
    let routed = join_all((0..500).map(|round| router.route(&Caller::Open, route(round)))).await;
    assert!(routed.into_iter().all(|id| id.unwrap().to_string() == MESSAGE));
    let expected: Vec<_> = (0..500).map(|round| format!("route alice {round} 3")).collect();
    let wrong = fake.seen().iter().zip(&expected).position(|(seen, expected)| seen != expected);
    assert_eq!((fake.seen().len(), wrong), (500, None));
}

#[tokio::test]
async fn the_link_carries_what_a_session_needs() {
    let fake = Arc::new(Fake::default());
    let (router, caller) = (router(&fake).await, Caller::Open);
    let session: SessionId = SESSION.parse().unwrap();
    let join = JoinSession {
        session_id: Some(session),
        party_id: party(),
        token: Secret::new("token".into()),
        device: DeviceInfo::default(),
        handshake: None,
        ready: false,
        awaiting_approval: false,
        attempt: 0,
    };
    let joined = router.sessions().join(&caller, join).await.unwrap();
    assert_eq!(joined.party_index, PartyIndex(1));
    let ready = router.sessions().ready(&caller, session, &party()).await.unwrap();
    assert_eq!((ready.ready, ready.total), (2, 3));
    let outcome = PartyOutcome::Key { public_key: vec![2; 33], attestation: None, epoch: None };
    let report = Report { session_id: session, party_id: party(), attempt: 0, outcome };
    assert_eq!(router.sessions().complete(&caller, report).await.unwrap().session_id, session);
    let pulse = router.heartbeat(&caller, &party()).await.unwrap();
    assert_eq!(pulse.server_time, Timestamp(9));
    let message_id = MESSAGE.parse().unwrap();
    let ack = Acknowledge { message_id, party_id: party(), session_id: session, success: false };
    router.acknowledge(&caller, ack).await.unwrap();
    let last = format!("acknowledge alice {MESSAGE} false");
    assert_eq!(fake.seen().last(), Some(&last));
}

#[tokio::test]
async fn a_call_that_is_none_is_refused_and_the_link_goes_on() {
    let (fake, stop) = (Arc::new(Fake::default()), CancellationToken::new());
    let mut client = MessageRouterClient::new(app(&fake, &stop).await);
    let beat = ro::HeartbeatRequest { party_id: "alice".into(), timestamp: 0 };
    let calls = [
        ro::LinkCall { id: 7, call: None },
        ro::LinkCall { id: 7, call: Some(Call::Heartbeat(beat)) },
    ];
    let answers = client.link(futures_util::stream::iter(calls)).await.unwrap().into_inner();
    let answers: Vec<_> = answers.map(|answer| answer.unwrap()).collect().await;
    let Some(Answer::Refusal(refusal)) = &answers[0].answer else { panic!("{answers:?}") };
    assert_eq!(from_refusal(refusal).code, ErrorCode::InvalidRequest);
    assert!(matches!(&answers[1], ro::LinkAnswer { id: 7, answer: Some(Answer::Heartbeat(_)) }));
}

#[tokio::test]
async fn a_stopping_server_ends_the_link_and_what_comes_later_may_be_tried_again() {
    let (fake, stop) = (Arc::new(Fake::default()), CancellationToken::new());
    let router = RemoteRouter::new(serve(&fake, &stop).await);
    router.route(&Caller::Open, route(1)).await.unwrap();
    stop.cancel();
    let late = router.route(&Caller::Open, route(2)).await.unwrap_err();
    assert_eq!(late.code, ErrorCode::Unavailable);
}

#[tokio::test]
async fn a_stream_brings_messages_and_ends_with_its_error() {
    let gone = Error::new(ErrorCode::SessionExpired, "over");
    let fake = Fake::streaming(vec![Ok(message(1)), Ok(message(2)), Err(gone.clone())], false);
    let router = router(&fake).await;
    let stream = router.subscribe(&Caller::Open, None, &party(), Timestamp(5)).await;
    let got: Vec<_> = stream.unwrap().map(|item| item.map(|message| message.round)).collect().await;
    assert_eq!(got, [Ok(1), Ok(2), Err(gone)]);
}

async fn web(app: axum::Router, frame: Vec<u8>) -> (Response<()>, Vec<u8>) {
    let request = Request::post("/mpc.router.v1.MessageRouter/Heartbeat")
        .header("content-type", "application/grpc-web+proto")
        .body(Body::from(frame))
        .unwrap();
    let (parts, body) = app.oneshot(request).await.unwrap().into_parts();
    (Response::from_parts(parts, ()), to_bytes(body, 1 << 16).await.unwrap().to_vec())
}

fn framed(flag: u8, message: &[u8]) -> Vec<u8> {
    let length = u32::try_from(message.len()).unwrap().to_be_bytes();
    [&[flag], &length[..], message].concat()
}

#[tokio::test]
async fn a_browser_may_speak_grpc_web() {
    let fake = Arc::new(Fake::default());
    let request = ro::HeartbeatRequest { party_id: "alice".into(), timestamp: 0 };
    let app = app(&fake, &CancellationToken::new()).await;
    let (response, body) = web(app, framed(0, &request.encode_to_vec())).await;
    assert_eq!(response.headers()["content-type"], "application/grpc-web+proto");
    let answer = ro::HeartbeatResponse { success: true, server_timestamp: 9, pending_messages: 1 };
    let expected = framed(0, &answer.encode_to_vec());
    assert_eq!(body[..expected.len()], expected);
    let trailers = String::from_utf8_lossy(&body[expected.len() + 5..]).into_owned();
    assert!(body[expected.len()] == 0x80 && trailers.contains("grpc-status:0"), "{trailers}");
}

#[tokio::test]
async fn without_a_caller_nothing_is_answered() {
    let fake = Arc::new(Fake::default());
    let services = Services { router: Some((fake.clone(), fake.clone())), ..Services::default() };
    let (response, _) = web(routes(services).await, framed(0, &[])).await;
    assert_eq!(response.headers()["grpc-status"], "16");
    assert!(fake.seen().is_empty());
}
