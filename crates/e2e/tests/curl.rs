//! The documented curl lines, word for word, on the documented ports.

use std::process::Stdio;

use quorate_e2e::binary;
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader};
use tokio::process::Command;

const CREATE: &str = r#"curl -X POST http://localhost:8080/api/v1/sessions \
-H "Content-Type: application/json" \
-d '{
"session_type": "keygen",
"threshold_n": 3,
"threshold_t": 2,
"participants": [
{"party_id": "party_0"},
{"party_id": "party_1"},
{"party_id": "party_2"}
]
}'"#;

const JOIN: &str = r#"curl -X POST http://localhost:8080/api/v1/sessions/join \
-H "Content-Type: application/json" \
-d '{
"join_token": "token-uuid-1",
"party_id": "party_0",
"device_type": "iOS",
"device_id": "device_001"
}'"#;

const STATUS: &str =
    "curl http://localhost:8080/api/v1/sessions/550e8400-e29b-41d4-a716-446655440000";

async fn shell(line: &str) -> Value {
    let output = Command::new("sh").args(["-c", line]).output().await.expect("a shell");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    serde_json::from_slice(&output.stdout).expect("JSON")
}

#[tokio::test]
async fn the_documented_curl_lines_work_on_the_documented_ports() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut server = Command::new(binary())
        .args(["up", "--json", "--data"])
        .arg(folder.path())
        .stdout(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .expect("the binary starts");
    let stdout = server.stdout.take().expect("piped");
    let ready = BufReader::new(stdout).lines().next_line().await.expect("readable");
    assert!(ready.is_some(), "the documented ports must be free for this test");

    let created = shell(CREATE).await;
    let (session, tokens) = (&created["session_id"], &created["join_tokens"]);
    assert!(created["expires_at"].is_i64() && tokens.as_object().is_some_and(|t| t.len() == 3));

    let refused = shell(JOIN).await;
    assert_eq!(refused["error"], "unauthorized");
    let line = JOIN.replace("token-uuid-1", tokens["party_0"].as_str().expect("a token"));
    let joined = shell(&line).await;
    assert_eq!((&joined["session_id"], &joined["party_index"]), (session, &Value::from(0)));
    assert_eq!(joined["status"], "joined");

    let unknown = shell(STATUS).await;
    assert_eq!(unknown["error"], "not_found");
    let id = session.as_str().expect("an id");
    let status = shell(&STATUS.replace("550e8400-e29b-41d4-a716-446655440000", id)).await;
    assert_eq!((&status["status"], &status["threshold_t"]), (&"waiting".into(), &2.into()));
    for port in [8080, 8081, 8082, 8083, 8084, 8085] {
        let health = shell(&format!("curl -s http://localhost:{port}/health")).await;
        assert_eq!(health["status"], "healthy", "{port}");
    }
}
