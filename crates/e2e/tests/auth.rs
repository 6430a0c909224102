//! `--auth required`: keys, scopes, tenants; parties still compute; unsafe addresses are refused.

use quorate_e2e::{Cluster, api_key, binary};
use serde_json::{Value, json};
use tokio::process::Command;

async fn ask(
    method: &str,
    url: &str,
    authorization: Option<&str>,
    body: Option<&Value>,
) -> (u16, Value) {
    let mut request = reqwest::Client::new().request(method.parse().expect("a method"), url);
    if let Some(value) = authorization {
        request = request.header("authorization", value);
    }
    if let Some(body) = body {
        request = request.json(body);
    }
    let answer = request.send().await.expect("an answer");
    (answer.status().as_u16(), answer.json().await.unwrap_or(Value::Null))
}

#[tokio::test]
async fn only_callers_with_the_right_key_get_in_and_tenants_do_not_see_each_other() {
    let folder = tempfile::tempdir().expect("a folder");
    let creator = api_key(folder.path(), &["--scope", "sessions", "--scope", "read"]).await;
    let reader = api_key(folder.path(), &["--scope", "read"]).await;
    let other = api_key(folder.path(), &["--scope", "sessions", "--tenant", "other"]).await;
    let bearer = |key: &str| format!("Bearer {key}");
    let cluster = Cluster::start_with(folder.path(), &["--auth", "required"]).await;
    let sessions = cluster.url("coordinator", "/api/v1/sessions");
    let keygen = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2});

    let (status, body) = ask("POST", &sessions, None, Some(&keygen)).await;
    assert_eq!((status, &body["error"]), (401, &json!("unauthorized")));
    for wrong in ["Bearer qk_0000000000000000_x", "Bearer", "Basic eA==", "Quorate-Party p 1 00"] {
        let (status, body) = ask("POST", &sessions, Some(wrong), Some(&keygen)).await;
        assert_eq!((status, &body["error"]), (401, &json!("unauthorized")), "{wrong}");
    }
    let (status, body) = ask("POST", &sessions, Some(&bearer(&reader)), Some(&keygen)).await;
    assert_eq!((status, &body["error"]), (403, &json!("forbidden")));

    let (status, created) = ask("POST", &sessions, Some(&bearer(&creator)), Some(&keygen)).await;
    assert_eq!(status, 201, "{created}");
    let id = created["session_id"].as_str().expect("an id");
    let end = format!("{sessions}/{id}?wait=end&wait_seconds=60");
    let (_, view) = ask("GET", &end, Some(&bearer(&reader)), None).await;
    assert_eq!(view["status"], "completed", "the parties prove themselves: {view}");
    let (status, _) = ask("GET", &end, Some(&bearer(&other)), None).await;
    assert_eq!(status, 404, "another tenant's session does not exist");
    let keys = cluster.url("coordinator", "/api/v1/keys");
    let (_, own) = ask("GET", &keys, Some(&bearer(&reader)), None).await;
    let (_, others) = ask("GET", &keys, Some(&bearer(&other)), None).await;
    assert_eq!(own["keys"].as_array().map(Vec::len), Some(1));
    assert_eq!(others["keys"].as_array().map(Vec::len), Some(0));
    let (status, _) = ask("GET", &cluster.url("router", "/health"), None, None).await;
    assert_eq!(status, 200, "health asks for nothing");
}

#[tokio::test]
async fn a_public_address_without_tls_is_refused_with_the_way_to_mend_it() {
    let folder = tempfile::tempdir().expect("a folder");
    let output = Command::new(binary())
        .args(["up", "--host", "0.0.0.0", "--ports", "ephemeral", "--data"])
        .arg(folder.path())
        .output()
        .await
        .expect("the binary starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains("--tls-cert") && text.contains("--insecure"), "{text}");
}

#[tokio::test]
async fn a_second_process_on_the_same_folder_is_refused() {
    let (_cluster, folder) = Cluster::temporary().await;
    let output = Command::new(binary())
        .args(["--json", "up", "--ports", "ephemeral", "--data"])
        .arg(folder.path().join("data"))
        .output()
        .await
        .expect("the binary starts");
    let error: Value = serde_json::from_slice(&output.stderr).expect("JSON on standard error");
    assert_eq!(error["error"], "unavailable");
    assert!(error["message"].as_str().is_some_and(|m| m.contains("another quorate process")));
}
