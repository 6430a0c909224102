//! Every REST path against fake services: what they are asked and what comes back.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;
use std::time::Instant;

use async_trait::async_trait;
use axum::Router;
use axum::body::{Body, to_bytes};
use axum::http::{HeaderMap, Request, StatusCode};
use quorate_front_rest::*;
use quorate_ports::ManageApiKeys;
use quorate_testkit::{Fake, MESSAGE, SESSION};
use quorate_types::*;
use quorate_wire::{HeldKeyJson, KeyJson};
use serde_json::{Value, json};
use tower::ServiceExt;

/// The whole installation over one fake, with a caller that nobody checked.
fn app(fake: Arc<Fake>) -> Router {
    bare(fake).layer(axum::Extension(Caller::Open))
}

fn bare(fake: Arc<Fake>) -> Router {
    coordinator_routes(fake.clone())
        .merge(router_routes(fake.clone()))
        .merge(accounts_routes(fake))
        .merge(ticket_routes(Arc::new(OneTicket)))
        .merge(api_key_routes(Arc::new(OneKey)))
        .merge(common("quorate", &Service::ALL, Instant::now(), Readiness::at_once(Vec::new)))
        .merge(metrics_route(Arc::new(|caller| caller.may(Scope::Read).map(|()| "x 1\n".into()))))
}

/// Gives everybody the same ticket.
struct OneTicket;

impl Tickets for OneTicket {
    fn issue(&self, _: &Caller, _: Lapse) -> quorate_types::Result<Ticket> {
        Ok(Ticket { ticket: Secret::new("one".to_owned()), seconds: 30 })
    }
}

/// One API key, whatever is asked.
struct OneKey;

fn one_key() -> ApiKey {
    ApiKey {
        id: ApiKeyId([0xab; 8]),
        label: Some("billing".parse().unwrap()),
        tenant: Tenant::default(),
        scopes: vec![Scope::Read],
        created_at: Timestamp(1),
        expires_at: Some(Timestamp(3)),
        last_used_at: None,
        revoked: false,
    }
}

#[async_trait]
impl ManageApiKeys for OneKey {
    async fn create_api_key(
        &self,
        _: &Caller,
        new: NewApiKey,
    ) -> quorate_types::Result<MadeApiKey> {
        let NewApiKey { label, tenant, scopes, expires_at } = new;
        let key = ApiKey { label, tenant, scopes, expires_at, ..one_key() };
        Ok(MadeApiKey { secret: Secret::new("qk_abababababababab_x".to_owned()), key })
    }

    async fn api_keys(
        &self,
        _: &Caller,
        after: Option<ApiKeyId>,
    ) -> quorate_types::Result<Vec<ApiKey>> {
        Ok(if after.is_some() { vec![] } else { vec![one_key(); API_KEYS_PAGE] })
    }

    async fn revoke_api_key(&self, _: &Caller, id: ApiKeyId) -> quorate_types::Result<ApiKey> {
        Ok(ApiKey { id, revoked: true, ..one_key() })
    }
}

struct ApiResult {
    status: u16,
    headers: HeaderMap,
    body: Value,
}

async fn send(app: Router, request: Request<Body>) -> ApiResult {
    let response = app.oneshot(request).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 10 << 20).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    ApiResult { status: parts.status.as_u16(), headers: parts.headers, body }
}

fn request(method: &str, path: &str, body: impl Into<Body>) -> Request<Body> {
    let request = Request::builder().method(method).uri(path);
    request.header("content-type", "application/json").body(body.into()).unwrap()
}

async fn call(method: &str, path: &str, body: &str) -> (ApiResult, Vec<String>) {
    let fake = Arc::new(Fake::default());
    let answer = send(app(fake.clone()), request(method, path, body.to_owned())).await;
    (answer, fake.seen())
}

/// Checks the error body's shape and the one field it names, if any.
fn assert_refused(answer: &ApiResult, status: u16, code: &str, field: &str) {
    assert_eq!(answer.status, status, "{}", answer.body);
    assert_eq!(answer.body["error"], code, "{}", answer.body);
    assert!(!answer.body["message"].as_str().unwrap().is_empty());
    assert!(answer.body["details"]["retryable"].is_boolean());
    if !field.is_empty() {
        assert!(answer.body["details"][field].is_string(), "{field}: {}", answer.body);
    }
}

const KEYGEN: &str = r#"{"session_type":"keygen","threshold_n":2,"threshold_t":2,
    "participants":[{"party_id":"alice"},{"party_id":"bob"}]}"#;

fn of_session(rest: &str) -> String {
    format!("/api/v1/sessions/{SESSION}{rest}")
}

#[tokio::test]
async fn create_answers_201_with_tokens_and_deadline() {
    let (answer, seen) = call("POST", "/api/v1/sessions", KEYGEN).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body["session_id"], SESSION);
    assert_eq!(answer.body["join_tokens"], json!({"alice": "token-alice", "bob": "token-bob"}));
    assert_eq!(answer.body["expires_at"], 1_703_145_600);
    assert_eq!(seen, ["create Open 2 None"]);
}

#[tokio::test]
async fn idempotency_key_reaches_the_service_and_is_bounded() {
    let fake = Arc::new(Fake::default());
    let with = |key: String| {
        let mut request = request("POST", "/api/v1/sessions", KEYGEN);
        request.headers_mut().insert("Idempotency-Key", key.parse().unwrap());
        request
    };
    send(app(fake.clone()), with("order-1".into())).await;
    assert_eq!(fake.seen(), [r#"create Open 2 Some("order-1")"#]);
    let answer = send(app(fake), with("x".repeat(256))).await;
    assert_refused(&answer, 400, "invalid_request", "Idempotency-Key");
}

#[tokio::test]
async fn join_answers_place_and_participants() {
    let body = r#"{"join_token":"t","party_id":"bob","device_type":"iOS","device_id":"d"}"#;
    let (answer, seen) = call("POST", "/api/v1/sessions/join", body).await;
    assert_eq!(answer.status, 200);
    assert_eq!(answer.body["party_index"], 1);
    assert_eq!(answer.body["participants"][0]["party_id"], "alice");
    assert_eq!(seen, ["join bob t"]);
}

#[tokio::test]
async fn ready_takes_any_of_no_body_empty_object_and_the_same_party() {
    for body in ["", "{}", r#"{"party_id":"alice"}"#] {
        let (answer, seen) = call("PUT", &of_session("/parties/alice/ready"), body).await;
        assert_eq!(
            answer.body,
            json!({"success": true, "all_ready": false, "ready_count": 2, "total_parties": 3})
        );
        assert_eq!(seen, ["ready alice"]);
    }
    let (answer, _) =
        call("PUT", &of_session("/parties/alice/ready"), r#"{"party_id":"bob"}"#).await;
    assert_refused(&answer, 400, "invalid_request", "party_id");
}

#[tokio::test]
async fn session_paths_ask_the_service_once() {
    let signature = "ab".repeat(64);
    let report = format!(r#"{{"party_id":"alice","signature":"{signature}","recovery_id":0}}"#);
    for (method, path, body, asked) in [
        ("POST", of_session("/start"), "", "start"),
        ("DELETE", of_session(""), "", "close"),
        ("GET", of_session(""), "", "status"),
        ("GET", of_session("/timeline"), "", "timeline"),
        ("POST", of_session("/complete"), report.as_str(), "complete alice Signature"),
        ("GET", "/api/v1/keys".into(), "", "keys 50"),
        ("GET", format!("/api/v1/keys/{SESSION}"), "", "key"),
    ] {
        let (answer, seen) = call(method, &path, body).await;
        assert_eq!(answer.status, 200, "{method} {path}: {}", answer.body);
        assert!(seen.len() == 1 && seen[0].starts_with(asked), "{seen:?}");
    }
}

#[tokio::test]
async fn long_poll_reaches_the_service_and_is_bounded() {
    let (_, seen) = call("GET", &of_session("?wait=end&wait_seconds=5"), "").await;
    assert_eq!(seen, [format!("status {SESSION} Some((End, 5s))")]);
    let (answer, _) = call("GET", &of_session("?wait=end&wait_seconds=61"), "").await;
    assert_refused(&answer, 400, "invalid_request", "wait_seconds");
    let path = format!("/api/v1/mpc/sessions/{SESSION}?wait=start");
    let (_, seen) = call("GET", &path, "").await;
    assert_eq!(seen, [format!("session {SESSION} Some((Start, 30s))")]);
}

#[tokio::test]
async fn a_full_page_names_the_next() {
    let (answer, seen) = call("GET", "/api/v1/sessions?limit=2&before=9", "").await;
    let next = answer.body["next"].as_str().unwrap().to_owned();
    assert_eq!(seen, [format!("list 9_{} 2", "0".repeat(32))], "milliseconds are a place too");
    let path = format!("/api/v1/sessions?limit=3&before={next}");
    let (answer, seen) = call("GET", &path, "").await;
    assert!(answer.body["next"].is_null());
    assert_eq!(seen, [format!("list {next} 3")], "a cursor comes back as it was given");
    let (answer, _) = call("GET", "/api/v1/sessions?before=x", "").await;
    assert_refused(&answer, 400, "invalid_request", "before");
    let (answer, _) = call("GET", "/api/v1/keys?limit=2", "").await;
    let next = answer.body["next"].as_str().unwrap().to_owned();
    let (_, seen) = call("GET", &format!("/api/v1/keys?before={next}"), "").await;
    assert_eq!(seen, [format!("keys {next} 50")]);
}

#[tokio::test]
async fn messages_are_routed_read_and_acknowledged() {
    let body = r#"{"from_party":"alice","to_parties":["bob"],"round":1,"payload":"AAEC"}"#;
    let (answer, seen) = call("POST", &of_session("/messages"), body).await;
    assert_eq!(answer.body, json!({"success": true, "message_id": MESSAGE}));
    assert_eq!(seen, ["route alice 1 3"]);

    let (answer, seen) = call("GET", &of_session("/messages?party_id=alice&after=4"), "").await;
    assert_eq!(
        answer.body["messages"][0],
        json!({
            "message_id": MESSAGE, "session_id": SESSION, "from_party": "bob",
            "is_broadcast": true, "round": 1, "round_number": 1, "message_type": "t",
            "payload": "AAEC", "timestamp": 1_703_145_600, "created_at": 1_703_145_600_500_i64,
        })
    );
    assert_eq!(seen, ["pending alice 4"]);

    let path = of_session(&format!("/messages/{MESSAGE}/ack"));
    let (answer, seen) = call("POST", &path, r#"{"party_id":"alice"}"#).await;
    assert_eq!(answer.body["success"], true);
    assert_eq!(seen, [format!("acknowledge alice {MESSAGE} true")]);

    let (answer, _) = call("GET", &of_session(&format!("/messages/{MESSAGE}")), "").await;
    assert_eq!(answer.body["deliveries"], json!([]));
}

#[tokio::test]
async fn parties_register_live_and_are_listed() {
    let (answer, _) =
        call("POST", "/api/v1/parties", r#"{"party_id":"p1","party_role":"persistent"}"#).await;
    assert_eq!(answer.body["registered_at"], 7);
    let (answer, seen) = call("POST", "/api/v1/parties/p1/heartbeat", "").await;
    assert_eq!(
        (&answer.body["server_timestamp"], &seen[..]),
        (&json!(9), &["heartbeat p1".into()][..])
    );
    let (_, seen) = call("GET", "/api/v1/parties?role=delegate&online=true", "").await;
    assert_eq!(seen, ["parties Some(Delegate) true"]);
    let (answer, _) = call("GET", "/api/v1/parties?role=boss", "").await;
    assert_refused(&answer, 400, "invalid_request", "role");
}

#[tokio::test]
async fn accounts_are_camel_case_and_switched_off_in_two_ways() {
    let (answer, _) = call("POST", "/api/v1/accounts", r#"{"username":"alice"}"#).await;
    assert_eq!(answer.status, 201);
    assert_eq!(answer.body["createdAt"], "2024-01-15T10:30:00Z");
    let one = format!("/api/v1/accounts/{MESSAGE}");
    for (method, path) in [("POST", format!("{one}/disable")), ("DELETE", one.clone())] {
        let (answer, seen) = call(method, &path, "").await;
        assert_eq!(answer.status, 200);
        assert_eq!(seen, [format!("update {MESSAGE} None Some(Disabled)")]);
    }
    for method in ["PUT", "PATCH"] {
        let (_, seen) = call(method, &one, r#"{"email":"a@b"}"#).await;
        assert_eq!(seen, [format!(r#"update {MESSAGE} Some("a@b") None"#)]);
    }
    let (answer, _) = call("GET", "/api/v1/accounts?limit=1", "").await;
    assert_eq!(answer.body["next"], MESSAGE);
}

#[tokio::test]
async fn mpc_sessions_start_waiting() {
    let (answer, seen) =
        call("POST", "/api/v1/mpc/keygen", r#"{"threshold_n":2,"threshold_t":2}"#).await;
    assert_eq!((answer.status, &answer.body["status"]), (201, &json!("waiting")));
    assert!(seen[0].starts_with("keygen None"));
    let body = format!(r#"{{"account_id":"{MESSAGE}","message_hash":"{}"}}"#, "8d".repeat(32));
    let (answer, _) = call("POST", "/api/v1/mpc/sign", &body).await;
    assert_eq!((answer.status, &answer.body["account_id"]), (201, &json!(MESSAGE)));
    let (answer, _) = call("GET", &format!("/api/v1/mpc/sessions/{SESSION}"), "").await;
    assert_eq!(answer.body["status"], "waiting");
    assert_eq!(answer.body["total_parties"], 2);
}

#[tokio::test]
async fn each_malformed_request_names_its_fault() {
    let create = "/api/v1/sessions";
    for (method, path, body, field) in [
        ("POST", create.into(), "{", ""),
        ("POST", create.into(), "", ""),
        ("POST", create.into(), "[]", ""),
        ("POST", create.into(), r#"{"session_type":1}"#, "session_type"),
        ("POST", create.into(), r#"{"session_type":"keygen","n":2}"#, "n"),
        ("GET", "/api/v1/sessions/not-a-uuid".into(), "", "session_id"),
        ("PUT", of_session("/parties/a%20b/ready"), "", "party_id"),
        ("PUT", of_session("/parties/%ff/ready"), "", "party_id"),
        ("GET", of_session(&format!("/messages/{MESSAGE}x")), "", "message_id"),
        ("GET", of_session("/messages"), "", "party_id"),
        ("GET", of_session("/messages?party_id=a&after=x"), "", "after"),
        ("GET", "/api/v1/sessions?limit=0".into(), "", "limit"),
        ("GET", "/api/v1/sessions?colour=red".into(), "", "colour"),
        ("GET", "/api/v1/accounts/acc-uuid-123".into(), "", "account_id"),
    ] {
        let (answer, seen) = call(method, &path, body).await;
        assert_refused(&answer, 400, "invalid_request", field);
        assert!(seen.is_empty(), "{path}: {seen:?}");
    }
}

#[tokio::test]
async fn unknown_paths_are_404_and_wrong_methods_405_with_allow() {
    let (answer, _) = call("GET", "/api/v2/sessions", "").await;
    assert_refused(&answer, 404, "not_found", "");
    for (path, allow) in [
        ("/api/v1/sessions/join", "POST"),
        ("/health", "GET,HEAD"),
        ("/api/v1/accounts", "POST,GET,HEAD"),
    ] {
        let (answer, _) = call("DELETE", path, "").await;
        // `join` is no UUID, but the path that takes one takes DELETE.
        assert_refused(&answer, 405, "method_not_allowed", "");
        assert_eq!(answer.headers["allow"], allow);
    }
}

#[tokio::test]
async fn a_body_needs_a_json_content_type() {
    for (kind, status) in [
        ("application/json", 201),
        ("Application/JSON; charset=utf-8", 201),
        ("application/problem+json", 201),
        ("application/x-www-form-urlencoded", 415),
        ("text/plain", 415),
    ] {
        let mut request = request("POST", "/api/v1/sessions", KEYGEN);
        request.headers_mut().insert("content-type", kind.parse().unwrap());
        let answer = send(app(Arc::default()), request).await;
        assert_eq!(answer.status, status, "{kind}");
        if kind.contains("form") {
            assert_refused(&answer, 415, "unsupported_media_type", "");
            assert!(answer.body["message"].as_str().unwrap().contains("curl"));
        }
    }
    let mut untyped = request("POST", "/api/v1/sessions", KEYGEN);
    untyped.headers_mut().remove("content-type");
    let answer = send(app(Arc::default()), untyped).await;
    assert_refused(&answer, 415, "unsupported_media_type", "");
}

#[tokio::test]
async fn bodies_over_their_bound_are_413() {
    let long = |size: usize| format!(r#"{{"username":"{}"}}"#, "x".repeat(size));
    let (answer, _) = call("POST", "/api/v1/accounts", &long(96 << 10)).await;
    assert_refused(&answer, 413, "message_too_large", "");
    let with =
        |size: usize| format!(r#"{{"from_party":"alice","payload":"{}"}}"#, "A".repeat(size));
    let mebibyte = (1 << 20) / 3 * 4;
    let (answer, seen) = call("POST", &of_session("/messages"), &with(mebibyte)).await;
    assert_eq!(answer.status, 200);
    assert_eq!(seen, [format!("route alice 0 {}", (1 << 20) - 1)]);
    let (answer, _) = call("POST", &of_session("/messages"), &with(2 << 20)).await;
    assert_refused(&answer, 413, "message_too_large", "");
}

#[tokio::test]
async fn without_a_caller_every_api_path_is_401_and_the_rest_is_open() {
    let fake = Arc::new(Fake::default());
    for path in ["/api/v1/sessions", "/api/v1/parties", "/api/v1/accounts"] {
        let answer = send(bare(fake.clone()), request("GET", path, "")).await;
        assert_refused(&answer, 401, "unauthorized", "");
        assert_eq!(answer.headers["www-authenticate"], "Bearer");
    }
    for path in ["/health", "/ready", "/openapi.json", "/docs"] {
        let answer = send(bare(fake.clone()), request("GET", path, "")).await;
        assert_eq!(answer.status, 200, "{path}");
    }
    assert!(fake.seen().is_empty());
}

#[tokio::test]
async fn every_code_of_a_service_becomes_its_status() {
    for code in ErrorCode::ALL {
        let fake = Fake::refusing(Error::new(*code, "because"));
        let answer = send(app(fake), request("GET", &of_session(""), "")).await;
        assert_refused(&answer, code.row().http, code.name(), "");
    }
}

#[tokio::test]
async fn a_panic_is_a_500_that_tells_nothing() {
    let (answer, _) = call("PUT", &of_session("/parties/panic/ready"), "").await;
    assert_refused(&answer, 500, "internal_error", "");
    assert!(!answer.body.to_string().contains("secret"));
}

#[tokio::test]
async fn health_says_name_version_and_uptime() {
    let (answer, _) = call("GET", "/health", "").await;
    assert_eq!(
        answer.body,
        json!({"status": "healthy", "service": "quorate",
            "version": env!("CARGO_PKG_VERSION"), "uptime": "0s"})
    );
}

struct Party;

#[async_trait]
impl PartyInfo for Party {
    async fn keys(&self, _: &Caller) -> quorate_types::Result<Vec<KeyJson>> {
        Ok(vec![])
    }

    async fn key(&self, _: &Caller, key: KeyId) -> quorate_types::Result<HeldKeyJson> {
        Err(Error::not_found("key", key))
    }

    fn unready(&self) -> Reasons {
        vec!["the router is away".into()]
    }
}

#[tokio::test]
async fn a_party_lists_its_keys_and_says_why_it_is_not_ready() {
    let app = || party_routes("server-party", Instant::now(), Arc::new(Party));
    let answer = send(app(), request("GET", "/ready", "")).await;
    assert_eq!(answer.status, 503);
    assert_eq!(answer.body["reasons"], json!(["the router is away"]));
    assert_eq!(answer.headers["retry-after"], "1");
    let answer = send(app(), request("GET", "/api/v1/keys", "")).await;
    assert_refused(&answer, 401, "unauthorized", "");
    let known = app().layer(axum::Extension(Caller::Open));
    let answer = send(known, request("GET", "/api/v1/keys", "")).await;
    assert_eq!(answer.body, json!({"keys": []}));
    let known = app().layer(axum::Extension(Caller::Open));
    let answer = send(known, request("GET", &format!("/api/v1/keys/{SESSION}"), "")).await;
    assert_refused(&answer, 404, "not_found", "");
}

#[tokio::test]
async fn a_ticket_is_given_with_its_life() {
    let (answer, _) = call("POST", "/api/v1/tickets", "").await;
    assert_eq!((answer.status, answer.body), (201, json!({"ticket": "one", "expires_in": 30})));
}

#[tokio::test]
async fn api_keys_are_made_listed_in_pages_and_revoked() {
    let body = r#"{"label":"ci","tenant":"acme","scopes":["sessions"],"expires_at":7}"#;
    let (made, _) = call("POST", "/api/v1/api-keys", body).await;
    assert_eq!(made.status, 201);
    let key = json!({
        "secret": "qk_abababababababab_x", "id": "qk_abababababababab", "label": "ci",
        "tenant": "acme", "scopes": ["sessions"], "created_at": 1, "expires_at": 7,
        "last_used_at": null, "revoked": false,
    });
    assert_eq!(made.body, key);
    let (first, _) = call("GET", "/api/v1/api-keys", "").await;
    assert_eq!(first.body["next"], "qk_abababababababab");
    assert!(first.body["api_keys"][0]["secret"].is_null());
    let next = "/api/v1/api-keys?after=qk_abababababababab";
    assert_eq!(call("GET", next, "").await.0.body, json!({"api_keys": []}));
    let (revoked, _) = call("DELETE", "/api/v1/api-keys/qk_0101010101010101", "").await;
    assert_eq!(revoked.body["revoked"], true);
    for (method, path, body, field) in [
        ("DELETE", "/api/v1/api-keys/qk_01", "", "id"),
        ("GET", "/api/v1/api-keys?after=x", "", "after"),
        ("POST", "/api/v1/api-keys", r#"{"scopes":["all"]}"#, "scopes[0]"),
        ("POST", "/api/v1/api-keys", r#"{"scopes":["read"],"label":"a b"}"#, "label"),
    ] {
        assert_refused(&call(method, path, body).await.0, 400, "invalid_request", field);
    }
}

#[tokio::test]
async fn every_documented_operation_is_routed() {
    let document = serde_json::to_value(openapi_document()).unwrap();
    let mut names = std::collections::BTreeSet::new();
    for (path, item) in document["paths"].as_object().unwrap() {
        for (method, operation) in item.as_object().unwrap() {
            let path = path.replace("{party_id}", "alice").replace("{session_id}", SESSION);
            let path = path.replace("{message_id}", MESSAGE).replace("{account_id}", MESSAGE);
            let (answer, _) = call(&method.to_uppercase(), &path, "").await;
            assert!(![404, 405].contains(&answer.status), "{method} {path}");
            assert!(names.insert(operation["operationId"].as_str().unwrap().to_owned()));
        }
    }
    assert_eq!(names.len(), 44);
}

#[tokio::test]
async fn document_is_openapi_31_and_served_per_service() {
    let (answer, _) = call("GET", "/openapi.json", "").await;
    assert_eq!(answer.body["openapi"], "3.1.0");
    assert!(answer.body["components"]["schemas"]["ErrorJson"].is_object());
    let only = common("x", &[Service::Router], Instant::now(), Readiness::at_once(Vec::new));
    let answer = send(only, request("GET", "/openapi.json", "")).await;
    assert!(answer.body["paths"]["/api/v1/parties"].is_object());
    assert!(answer.body["paths"]["/api/v1/accounts"].is_null());
}

#[tokio::test]
async fn docs_page_is_html_that_may_load_nothing() {
    let (answer, _) = call("GET", "/docs", "").await;
    assert_eq!(StatusCode::from_u16(answer.status).unwrap(), StatusCode::OK);
    assert!(answer.headers["content-type"].to_str().unwrap().starts_with("text/html"));
    let policy = answer.headers["content-security-policy"].to_str().unwrap();
    assert!(policy.contains("default-src 'none'"));
}
