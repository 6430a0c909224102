//! The routes of delegated shares against fake services.

#![allow(clippy::unwrap_used, reason = "a test may panic")]

use std::sync::Arc;

use axum::body::{Body, to_bytes};
use axum::http::Request;
use quorate_front_rest::coordinator_routes;
use quorate_testkit::{Fake, SESSION};
use quorate_types::{Caller, MAX_PACKAGE};
use serde_json::{Value, json};
use tower::ServiceExt as _;

const PATH: &str = "/api/v1/sessions/550e8400-e29b-41d4-a716-446655440000/delegate-share";

async fn call(
    method: &str,
    path: &str,
    token: Option<&str>,
    body: String,
) -> (u16, Value, Vec<String>) {
    let fake = Arc::new(Fake::default());
    let app = coordinator_routes(fake.clone()).layer(axum::Extension(Caller::Open));
    let mut request = Request::builder().method(method).uri(path);
    request = request.header("content-type", "application/json");
    if let Some(token) = token {
        request = request.header("Fetch-Token", token);
    }
    let response = app.oneshot(request.body(Body::from(body)).unwrap()).await.unwrap();
    let (parts, body) = response.into_parts();
    let bytes = to_bytes(body, 10 << 20).await.unwrap();
    let body = serde_json::from_slice(&bytes).unwrap_or(Value::Null);
    (parts.status.as_u16(), body, fake.seen())
}

fn share(package: &str) -> String {
    let key = format!("02{}", "11".repeat(32));
    json!({"party_id": "d", "party_index": 1, "public_key": key, "encrypted_share": package})
        .to_string()
}

#[tokio::test]
async fn a_share_of_the_greatest_size_is_handed_in_whole() {
    let package = "QUJD".repeat(MAX_PACKAGE / 3);
    let (status, body, seen) = call("POST", PATH, None, share(&package)).await;
    assert_eq!((status, body), (200, json!({"success": true})));
    assert!(seen[0].starts_with("submit d b\"ABCABC"), "{}", &seen[0][..40]);
    let (status, body, _) = call("POST", PATH, None, share("not base64!")).await;
    assert_eq!(status, 400);
    assert!(body["details"]["encrypted_share"].is_string(), "{body}");
}

#[tokio::test]
async fn a_share_is_fetched_and_confirmed_by_its_token() {
    let path = format!("{PATH}?party_id=d");
    let (status, body, seen) = call("GET", &path, Some("t0ken"), String::new()).await;
    assert_eq!((status, seen), (200, vec!["fetch d t0ken".to_owned()]));
    let fetched = json!({"session_id": SESSION, "party_id": "d", "user_id": "alice",
        "party_index": 1, "encrypted_share": "AQID"});
    assert_eq!(body, fetched);
    let (status, body, seen) = call("DELETE", &path, Some("t0ken"), String::new()).await;
    assert_eq!((status, body), (200, json!({"success": true})));
    assert_eq!(seen, ["confirm d t0ken"]);
}

#[tokio::test]
async fn without_its_token_nothing_is_asked() {
    for method in ["GET", "DELETE"] {
        for token in [None, Some(""), Some("x".repeat(256).as_str())] {
            let path = format!("{PATH}?party_id=d");
            let (status, body, seen) = call(method, &path, token, String::new()).await;
            assert_eq!((status, body["error"].as_str()), (401, Some("unauthorized")), "{body}");
            assert!(seen.is_empty());
        }
        let (status, body, _) = call(method, PATH, Some("t"), String::new()).await;
        assert_eq!(status, 400);
        assert!(body["details"]["party_id"].is_string(), "{body}");
    }
}
