//! Parties that lie, speak for others or fall silent: refused by name, and nobody else is harmed.

use quorate_e2e::{Cluster, call};
use serde_json::{Value, json};

const GENERATOR: &str = "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";
const TWICE: &str = "02c6047f9441ed7d6d3045406e95c07cd85c778e4b8cef3ca7abac09b95c709ee5";

/// A keygen of named parties, all joined and ready.
async fn running(cluster: &Cluster, parties: &[&str]) -> (String, Value) {
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let participants: Vec<_> = parties.iter().map(|party| json!({"party_id": party})).collect();
    let body = json!({"session_type": "keygen", "threshold_n": parties.len(), "threshold_t": 2,
        "participants": participants});
    let (status, created) = call("POST", &url, Some(&body)).await;
    assert_eq!(status, 201, "{created}");
    let tokens = created["join_tokens"].clone();
    for party in parties {
        let body = json!({"join_token": tokens[party], "party_id": party, "ready": true});
        let (status, joined) = call("POST", &format!("{url}/join"), Some(&body)).await;
        assert_eq!(status, 200, "{joined}");
    }
    (created["session_id"].as_str().expect("an id").to_owned(), tokens)
}

async fn status(cluster: &Cluster, session: &str) -> Value {
    let path = format!("/api/v1/sessions/{session}?wait=end&wait_seconds=30");
    call("GET", &cluster.url("coordinator", &path), None).await.1
}

async fn report(cluster: &Cluster, session: &str, body: &Value) -> (u16, Value) {
    let path = format!("/api/v1/sessions/{session}/complete");
    call("POST", &cluster.url("coordinator", &path), Some(body)).await
}

#[tokio::test]
async fn a_lie_about_the_result_fails_the_session_and_names_both() {
    let (cluster, _folder) = Cluster::temporary().await;
    let (session, _) = running(&cluster, &["honest", "liar"]).await;
    let truth = json!({"party_id": "honest", "public_key": GENERATOR});
    assert_eq!(report(&cluster, &session, &truth).await.0, 200);
    let lie = json!({"party_id": "liar", "public_key": TWICE});
    let (code, body) = report(&cluster, &session, &lie).await;
    assert_eq!((code, &body["error"]), (410, &json!("session_expired")));
    let view = status(&cluster, &session).await;
    assert_eq!(
        (&view["status"], &view["failure"]["reason"]),
        (&json!("failed"), &json!("results_differ"))
    );
    assert_eq!(view["failure"]["parties"], json!(["honest", "liar"]));
}

#[tokio::test]
async fn strangers_and_impostors_are_refused_by_name() {
    let (cluster, _folder) = Cluster::temporary().await;
    let (session, tokens) = running(&cluster, &["a", "b"]).await;
    let messages = cluster.url("router", &format!("/api/v1/sessions/{session}/messages"));
    let from = |party: &str, to: &str| json!({"from_party": party, "to_parties": [to], "round": 1, "payload": "AA=="});
    let (code, body) = call("POST", &messages, Some(&from("stranger", "a"))).await;
    assert_eq!((code, &body["error"]), (403, &json!("forbidden")));
    let (code, body) = call("POST", &messages, Some(&from("a", "stranger"))).await;
    assert_eq!((code, &body["error"]), (404, &json!("not_found")));
    let stranger = json!({"party_id": "stranger", "public_key": GENERATOR});
    assert_eq!(report(&cluster, &session, &stranger).await.0, 403);
    let join = cluster.url("coordinator", "/api/v1/sessions/join");
    let anothers = json!({"join_token": tokens["b"], "party_id": "a"});
    let (code, body) = call("POST", &join, Some(&anothers)).await;
    assert_eq!((code, &body["error"]), (401, &json!("unauthorized")));
    let elsewhere = json!({"join_token": tokens["a"], "party_id": "a",
        "session_id": "550e8400-e29b-41d4-a716-446655440000"});
    assert_eq!(call("POST", &join, Some(&elsewhere)).await.0, 404);
    let (code, sent) = call("POST", &messages, Some(&from("a", "b"))).await;
    assert_eq!((code, &sent["success"]), (200, &json!(true)), "the honest are not harmed: {sent}");
}

#[tokio::test]
async fn a_silent_party_is_named_at_the_deadline() {
    let (cluster, _folder) = Cluster::temporary().await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let body = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2,
        "expires_in_seconds": 1, "participants": [{"party_id": "ghost"}]});
    let (code, created) = call("POST", &url, Some(&body)).await;
    assert_eq!(code, 201, "{created}");
    let id = created["session_id"].as_str().expect("an id");
    let view = status(&cluster, id).await;
    assert_eq!(view["status"], "expired");
    assert_eq!(view["failure"]["parties"], json!(["ghost"]), "{view}");
    let join = json!({"join_token": created["join_tokens"]["ghost"], "party_id": "ghost"});
    let (code, body) = call("POST", &format!("{url}/join"), Some(&join)).await;
    assert_eq!((code, &body["error"]), (410, &json!("session_expired")));
}

#[tokio::test]
async fn a_party_without_an_handshake_cannot_compute_with_servers() {
    let (cluster, _folder) = Cluster::temporary().await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let body = json!({"session_type": "keygen", "threshold_n": 2, "threshold_t": 2,
        "participants": [{"party_id": "plain"}, {"party_id": "server-party-1"}]});
    let (_, created) = call("POST", &url, Some(&body)).await;
    let join =
        json!({"join_token": created["join_tokens"]["plain"], "party_id": "plain", "ready": true});
    assert_eq!(call("POST", &format!("{url}/join"), Some(&join)).await.0, 200);
    let view = status(&cluster, created["session_id"].as_str().expect("an id")).await;
    assert_eq!(view["status"], "failed");
    let message = view["failure"]["message"].as_str().unwrap_or_default();
    assert!(message.contains("plain") && message.contains("handshake"), "{message}");
}

#[tokio::test]
async fn a_hundred_sessions_at_once_all_complete() {
    let (cluster, _folder) = Cluster::temporary().await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let keygen = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2});
    let (_, made) = call("POST", &url, Some(&keygen)).await;
    let key = made["session_id"].as_str().expect("an id").to_owned();
    assert_eq!(status(&cluster, &key).await["status"], "completed");
    let mut sessions = Vec::new();
    for n in 0..100 {
        let body =
            json!({"session_type": "sign", "key_id": key, "message_hash": format!("{n:064x}")});
        let (code, created) = call("POST", &url, Some(&body)).await;
        assert_eq!(code, 201, "{created}");
        sessions.push(created["session_id"].as_str().expect("an id").to_owned());
    }
    for session in sessions {
        let view = status(&cluster, &session).await;
        assert_eq!(view["status"], "completed", "{view}");
    }
}
