//! A party's proof of identity over real sockets: it serves for one call at one server, and a
//! WebSocket of a browser takes a ticket instead.

use std::sync::Arc;

use axum::body::Bytes;
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header::AUTHORIZATION};
use axum::response::{IntoResponse as _, Response};
use hyper_util::rt::{TokioExecutor, TokioIo};
use hyper_util::server::conn::auto;
use hyper_util::service::TowerToHyperService;
use quorate_client::{Call, Credentials as _, NONCE, PartyCredentials};
use quorate_e2e::{Cluster, Role, api_key, binary, free_ports, identity_in, last_json};
use quorate_engine::Identity;
use quorate_types::PartyId;
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::process::Command;
use tokio::sync::mpsc;
use tokio_tungstenite::tungstenite::Error as SocketError;

/// A call as a server received it.
struct Seen {
    path: String,
    authorization: String,
    body: Bytes,
}

/// A router that keeps what parties show it, and hands them the nonces of the server it robs.
#[derive(Clone)]
struct Thief {
    victim: String,
    seen: mpsc::UnboundedSender<Seen>,
}

async fn steal(State(thief): State<Thief>, request: Request) -> Response {
    let path = request.uri().path().to_owned();
    let shown = request.headers().get(AUTHORIZATION).and_then(|value| value.to_str().ok());
    let authorization = shown.unwrap_or_default().to_owned();
    if authorization.split(' ').count() == 2 {
        let asked = grpc_web(&thief.victim, &path, &authorization, Bytes::new()).await;
        let nonce = asked[NONCE].clone();
        let headers =
            [("content-type", "application/grpc"), ("grpc-status", "16"), ("grpc-message", "sign")];
        let mut answer = headers.into_response();
        answer.headers_mut().insert(NONCE, nonce);
        return answer;
    }
    let unary = !path.ends_with("/Link");
    let body = match unary {
        true => axum::body::to_bytes(request.into_body(), 1 << 20).await.unwrap_or_default(),
        false => Bytes::new(),
    };
    if unary && !authorization.is_empty() {
        let _ = thief.seen.send(Seen { path, authorization, body });
    }
    [("content-type", "application/grpc"), ("grpc-status", "14")].into_response()
}

impl Thief {
    /// Listens as a router would; answers with its address and what it sees.
    async fn start(victim: String) -> (String, mpsc::UnboundedReceiver<Seen>) {
        let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
        let url = format!("http://{}", listener.local_addr().expect("bound"));
        let (seen, receiver) = mpsc::unbounded_channel();
        let router = axum::Router::new().fallback(steal).with_state(Self { victim, seen });
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let service = TowerToHyperService::new(router.clone());
                tokio::spawn(async move {
                    let builder = auto::Builder::new(TokioExecutor::new());
                    let _ = builder.serve_connection(TokioIo::new(stream), service).await;
                });
            }
        });
        (url, receiver)
    }
}

/// A gRPC call in its HTTP/1.1 form, which has the same path and body: the answer's headers.
async fn grpc_web(server: &str, path: &str, authorization: &str, body: Bytes) -> HeaderMap {
    let request = reqwest::Client::new()
        .post(format!("{server}{path}"))
        .header("content-type", "application/grpc-web+proto")
        .header(AUTHORIZATION, authorization)
        .body(body);
    request.send().await.expect("an answer").headers().clone()
}

fn refused(answer: &HeaderMap) -> bool {
    answer.get("grpc-status").is_some_and(|status| status == "16")
}

#[tokio::test]
async fn a_router_cannot_use_a_proof_elsewhere() {
    let folder = tempfile::tempdir().expect("a folder");
    let own = folder.path().join("p");
    let trust = identity_in(&own.join("party"), "p").await;
    let flags = ["--auth", "required", "--trust", &trust];
    let cluster = Cluster::start_with(folder.path(), &flags).await;
    let victim = cluster.url("router", "");
    let (router, mut stolen) = Thief::start(victim.clone()).await;
    let [http, grpc] = free_ports::<2>();
    let more = ["--id", "p", "--router", router.as_str()];
    let _party = Role::start(&own, "party", [http, grpc], &more).await;
    let mut tried = 0;
    while tried < 2 {
        let Seen { path, authorization, body } = stolen.recv().await.expect("it calls");
        let answer = grpc_web(&victim, &path, &authorization, body).await;
        assert!(refused(&answer), "{path} with {authorization}: {answer:?}");
        tried += 1;
    }
}

/// A party that an installation trusts, and its router's address.
async fn trusted(folder: &std::path::Path) -> (Cluster, PartyId, Arc<Identity>) {
    let identity = Arc::new(Identity::generate());
    let trust = format!("p={}", hex::encode(identity.public()));
    let cluster = Cluster::start_with(folder, &["--auth", "required", "--trust", &trust]).await;
    (cluster, "p".parse().expect("a name"), identity)
}

async fn get(url: &str, authorization: &str) -> reqwest::Response {
    let request = reqwest::Client::new().get(url).header(AUTHORIZATION, authorization);
    request.send().await.expect("an answer")
}

#[tokio::test]
async fn a_proof_that_was_used_is_refused() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cluster, party, identity) = trusted(folder.path()).await;
    let audience = cluster.address("router", "http").to_string();
    let credentials = PartyCredentials::new(party, identity);
    let target = "/api/v1/parties?online=true";
    let call = Call { audience: &audience, method: "GET", target, body: Some(b"") };
    let url = cluster.url("router", target);
    let asked = get(&url, &credentials.authorization(&call)).await;
    assert_eq!(asked.status(), 401, "the first call is answered with a nonce");
    let nonce = asked.headers()[NONCE].to_str().expect("text").to_owned();
    assert!(credentials.take_nonce(&audience, &nonce));
    let proof = credentials.authorization(&call);
    assert_eq!(get(&url, &proof).await.status(), 200);
    assert_eq!(get(&url, &proof).await.status(), 401, "a replay");
    let proof = credentials.authorization(&call);
    let other = cluster.url("router", "/api/v1/parties");
    assert_eq!(get(&other, &proof).await.status(), 401, "another call");
    let coordinator = cluster.url("coordinator", target);
    assert_eq!(get(&coordinator, &proof).await.status(), 404, "no such path");
    let proof = credentials.authorization(&call);
    assert_eq!(get(&url, &proof).await.status(), 200, "what was refused used nothing up");
}

#[tokio::test]
async fn a_websocket_opens_with_a_ticket_once() {
    let folder = tempfile::tempdir().expect("a folder");
    let key = api_key(folder.path(), &["--scope", "party"]).await;
    let cluster = Cluster::start_with(folder.path(), &["--auth", "required"]).await;
    let tickets = cluster.url("router", "/api/v1/tickets");
    let post = reqwest::Client::new().post(&tickets);
    assert_eq!(post.try_clone().expect("no body").send().await.expect("it").status(), 401);
    let made = post.header(AUTHORIZATION, format!("Bearer {key}")).send().await.expect("it");
    assert_eq!(made.status(), 201);
    let made: Value = made.json().await.expect("JSON");
    let ticket = made["ticket"].as_str().expect("a ticket");
    let socket = cluster.url("router", "/api/v1/events/subscribe").replace("http:", "ws:");
    let open = |query: String| tokio_tungstenite::connect_async(format!("{socket}?{query}"));
    let status = |opened: Result<_, SocketError>| match opened {
        Ok(_) => 101,
        Err(SocketError::Http(response)) => response.status().as_u16(),
        Err(error) => panic!("{error}"),
    };
    assert_eq!(status(open("party_id=dev".into()).await.map(drop)), 401);
    let with = |ticket: &str| format!("party_id=dev&ticket={ticket}");
    assert_eq!(status(open(with(ticket)).await.map(drop)), 101);
    assert_eq!(status(open(with(ticket)).await.map(drop)), 401, "it served once");
    assert_eq!(status(open(with(&"0".repeat(64))).await.map(drop)), 401);
}

#[tokio::test]
async fn a_key_is_not_sent_in_clear_text_to_another_machine() {
    let ask = |more: &[&str]| {
        let mut command = Command::new(binary());
        command.args(["--json", "keys", "--coordinator", "http://192.0.2.1:50051"]);
        command.args(["--api-key", "qk_0_0"]).args(more);
        last_json(command)
    };
    let (ok, refused) = ask(&[]).await;
    assert!(!ok && refused["error"] == "invalid_request", "{refused}");
    let message = refused["message"].as_str().expect("a sentence");
    assert!(message.contains("--insecure") && message.contains("https"), "{message}");
}
