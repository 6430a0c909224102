//! The gate, driven through its middleware.

use std::net::SocketAddr;

use axum::Extension;
use axum::body::Bytes;
use quorate_app::ManualClock;
use quorate_client::{Call, Credentials as _, PartyCredentials};
use quorate_engine::Identity;
use quorate_front_rest::Tickets as _;
use quorate_types::Timestamp;
use tower::ServiceExt as _;

use super::*;

const AUDIENCE: &str = "127.0.0.1:50052";
const TARGET: &str = "/api/v1/parties?online=true";
const BODY: &[u8] = b"{}";

struct Server {
    gate: Arc<Gate>,
    identity: Arc<Identity>,
    clock: Arc<ManualClock>,
    _store: tempfile::TempDir,
}

impl Server {
    async fn start() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let store = Arc::new(quorate_store::SqliteStore::open(folder.path()).unwrap());
        let clock = Arc::new(ManualClock::at(Timestamp(1_000_000)));
        let keys = Arc::new(ApiKeys::open(store, clock.clone()).await.unwrap());
        let identity = Arc::new(Identity::generate());
        let trusted = HashMap::from([("p".parse().unwrap(), identity.public())]);
        let edge = Arc::new(Edge::new(&["signer.test".into()], &[], None).unwrap());
        let gate = Gate::new(Some(keys), trusted, None, edge, clock.clone()).unwrap();
        Self { gate: Arc::new(gate), identity, clock, _store: folder }
    }

    fn credentials(&self) -> PartyCredentials {
        PartyCredentials::new("p".parse().unwrap(), self.identity.clone())
    }

    /// Credentials that hold a nonce of this server.
    fn challenged(&self) -> PartyCredentials {
        let credentials = self.credentials();
        assert!(credentials.take_nonce(AUDIENCE, self.gate.nonce().to_str().unwrap()));
        credentials
    }

    /// Sends a request; answers with whom the server took its sender for.
    async fn send(&self, request: Request) -> Response {
        let seen = |caller: Option<Extension<Caller>>,
                    error: Option<Extension<Error>>,
                    body: Bytes| async move {
            match (caller, error) {
                (Some(Extension(caller)), _) => format!("{caller:?} {}", body.len()),
                (None, Some(Extension(error))) => error.code.name().to_owned(),
                (None, None) => "nobody".to_owned(),
            }
        };
        let router = axum::Router::new()
            .fallback(seen)
            .layer(axum::middleware::from_fn_with_state(self.gate.clone(), identify));
        router.oneshot(request).await.unwrap()
    }

    async fn seen(&self, request: Request) -> String {
        let response = self.send(request).await;
        let bytes = axum::body::to_bytes(response.into_body(), 1 << 20).await.unwrap();
        String::from_utf8_lossy(&bytes).into_owned()
    }
}

fn call() -> Call<'static> {
    Call { audience: AUDIENCE, method: "POST", target: TARGET, body: Some(BODY) }
}

fn request(method: &str, target: &str, authorization: &str, body: &'static [u8]) -> Request {
    let mut request = Request::builder()
        .method(method)
        .uri(target)
        .header(AUTHORIZATION, authorization)
        .body(Body::from(body))
        .unwrap();
    let at: SocketAddr = AUDIENCE.parse().unwrap();
    request.extensions_mut().insert(AcceptedAt(at));
    request
}

fn grpc(path: &str, authorization: Option<&str>, body: Body) -> Request {
    let mut request =
        Request::builder().method("POST").uri(path).header("content-type", "application/grpc");
    if let Some(value) = authorization {
        request = request.header(AUTHORIZATION, value);
    }
    let mut request = request.body(body).unwrap();
    request.extensions_mut().insert(AcceptedAt(AUDIENCE.parse().unwrap()));
    request
}

/// A body that never ends.
fn endless() -> Body {
    Body::from_stream(futures_util::stream::pending::<std::io::Result<Bytes>>())
}

#[tokio::test]
async fn a_proof_serves_for_one_call() {
    let server = Server::start().await;
    let proof = server.challenged().authorization(&call());
    let first = server.seen(request("POST", TARGET, &proof, BODY)).await;
    assert_eq!(first, format!("Party(PartyId(\"p\")) {}", BODY.len()));
    let again = server.send(request("POST", TARGET, &proof, BODY)).await;
    assert!(again.headers().contains_key(NONCE), "with a nonce for another");
}

#[tokio::test]
async fn a_proof_serves_for_no_other_call() {
    let server = Server::start().await;
    let credentials = server.challenged();
    let sign = |call: &Call<'_>| credentials.authorization(call);
    let other = Arc::new(Identity::generate());
    let forger = PartyCredentials::new("p".parse().unwrap(), other);
    forger.take_nonce(AUDIENCE, server.gate.nonce().to_str().unwrap());
    let posing = PartyCredentials::new("q".parse().unwrap(), server.identity.clone());
    posing.take_nonce(AUDIENCE, server.gate.nonce().to_str().unwrap());
    credentials.take_nonce("evil.example:50052", server.gate.nonce().to_str().unwrap());
    credentials.take_nonce("127.0.0.1:50051", server.gate.nonce().to_str().unwrap());
    let elsewhere = Call { audience: "evil.example:50052", ..call() };
    let next_door = Call { audience: "127.0.0.1:50051", ..call() };
    let cases = [
        ("method", "PUT", TARGET, sign(&call()), BODY),
        ("path", "POST", "/api/v1/sessions?online=true", sign(&call()), BODY),
        ("query", "POST", "/api/v1/parties?online=false", sign(&call()), BODY),
        ("no query", "POST", "/api/v1/parties", sign(&call()), BODY),
        ("body", "POST", TARGET, sign(&call()), b"[]"),
        ("no body", "POST", TARGET, sign(&call()), b""),
        ("audience", "POST", TARGET, sign(&elsewhere), BODY),
        ("port", "POST", TARGET, sign(&next_door), BODY),
        ("key", "POST", TARGET, forger.authorization(&call()), BODY),
        ("name", "POST", TARGET, posing.authorization(&call()), BODY),
        ("bare", "POST", TARGET, server.credentials().authorization(&call()), BODY),
        ("version 1", "POST", TARGET, format!("Quorate-Party p 1000000 {}", "00".repeat(64)), BODY),
    ];
    for (what, method, target, proof, body) in cases {
        let seen = server.seen(request(method, target, &proof, body)).await;
        assert!(seen.contains("unauthorized"), "{what}: {seen}");
    }
}

#[tokio::test]
async fn another_servers_nonce_is_answered_with_one_of_ours() {
    let (server, other) = (Server::start().await, Server::start().await);
    let credentials = server.credentials();
    credentials.take_nonce(AUDIENCE, other.gate.nonce().to_str().unwrap());
    let refused = server.send(request("POST", TARGET, &credentials.authorization(&call()), BODY));
    let nonce = refused.await.headers()[NONCE].clone();
    assert!(credentials.take_nonce(AUDIENCE, nonce.to_str().unwrap()));
    let proof = credentials.authorization(&call());
    assert!(server.seen(request("POST", TARGET, &proof, BODY)).await.starts_with("Party"));
}

#[tokio::test]
async fn an_old_nonce_is_replaced_without_a_refusal() {
    let server = Server::start().await;
    let credentials = server.challenged();
    let send = || request("POST", TARGET, &credentials.authorization(&call()), BODY);
    assert!(!server.send(send()).await.headers().contains_key(NONCE));
    server.clock.advance(200_000);
    let answer = server.send(send()).await;
    assert!(answer.status().is_success() && answer.headers().contains_key(NONCE));
}

#[tokio::test]
async fn a_stream_of_calls_is_proven_by_its_opening() {
    let server = Server::start().await;
    let credentials = server.challenged();
    let path = "/mpc.router.v1.MessageRouter/Link";
    let opening = Call { audience: AUDIENCE, method: "POST", target: path, body: None };
    let proof = credentials.authorization(&opening);
    let taken = server.gate.find(&mut grpc(path, Some(&proof), endless()));
    let Ok(Found::Proven(proof)) = taken else { panic!("it is proven") };
    assert!(with_body(grpc(path, None, endless()), proof.body).await.is_ok(), "nothing is read");
}

#[tokio::test]
async fn a_call_without_a_key_is_refused_before_its_body() {
    let server = Server::start().await;
    let path = "/mpc.router.v1.MessageRouter/RouteMessage";
    for authorization in [None, Some("Quorate-Party p"), Some("Quorate-Party p x"), Some("x")] {
        let answer = server.send(grpc(path, authorization, endless())).await;
        assert_eq!(answer.headers()["grpc-status"], "16", "{authorization:?}");
        let asked = authorization == Some("Quorate-Party p");
        assert_eq!(answer.headers().contains_key(NONCE), asked, "{authorization:?}");
    }
}

#[tokio::test]
async fn a_ticket_opens_one_socket_and_nothing_else() {
    let server = Server::start().await;
    let tickets = server.gate.tickets();
    let issue =
        || tickets.issue(&Caller::Party("p".parse().unwrap()), Lapse::default()).unwrap().ticket;
    let handshake = |ticket: &str, upgrade: bool| {
        let uri = format!("/api/v1/events/subscribe?party_id=p&ticket={ticket}");
        let mut request = Request::builder().uri(uri);
        if upgrade {
            request = request.header(UPGRADE, "websocket");
        }
        request.body(Body::empty()).unwrap()
    };
    let ticket = issue();
    let open = || handshake(ticket.expose(), true);
    assert_eq!(server.seen(handshake(ticket.expose(), false)).await, "nobody", "no handshake");
    assert!(server.seen(open()).await.starts_with("Party"));
    assert_eq!(server.seen(open()).await, "unauthorized");
    let late = issue();
    server.clock.advance(30_001);
    assert_eq!(server.seen(handshake(late.expose(), true)).await, "unauthorized");
}

#[test]
fn trust_entries_are_name_and_key() {
    let key = "ab".repeat(32);
    assert_eq!(parse_identities("trust", &[format!("p={key}")]).unwrap().len(), 1);
    for bad in ["p", "p=", "p=zz", &format!("={key}")] {
        assert!(parse_identities("trust", &[(*bad).to_owned()]).is_err(), "{bad}");
    }
}
