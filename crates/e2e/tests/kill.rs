//! Kill -9 at random points: nothing acknowledged is lost, every session ends, every key signs.

use quorate_e2e::{Cluster, call};
use quorate_testkit::Seeded;
use serde_json::{Value, json};

/// Times the process is killed.
const KILLS: u64 = 50;
/// Kills that fall into a key generation; the others fall into signatures.
const KILLS_IN_KEYGEN: u64 = 10;
/// Seconds a session may take.
const DEADLINE: u64 = 15;

async fn keygen(cluster: &Cluster) -> Option<String> {
    let body = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2,
        "expires_in_seconds": DEADLINE});
    create(cluster, &body).await
}

async fn sign(cluster: &Cluster, key: &str, n: u64) -> Option<String> {
    let body = json!({"session_type": "sign", "key_id": key, "expires_in_seconds": DEADLINE,
        "message_hash": format!("{n:064x}")});
    create(cluster, &body).await
}

/// The id of a created session; `None` when the server was killed before it answered.
async fn create(cluster: &Cluster, body: &Value) -> Option<String> {
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let answer = reqwest::Client::new().post(url).json(body).send().await.ok()?;
    let status = answer.status();
    let body: Value = answer.json().await.ok()?;
    assert_eq!(status, 201, "{body}");
    Some(body["session_id"].as_str().expect("an id").to_owned())
}

async fn ended(cluster: &Cluster, session: &str) -> Value {
    let path = format!("/api/v1/sessions/{session}?wait=end&wait_seconds=60");
    let (status, view) = call("GET", &cluster.url("coordinator", &path), None).await;
    assert_eq!(status, 200, "an acknowledged session is lost: {view}");
    view
}

#[tokio::test]
async fn fifty_kills_lose_nothing_that_was_acknowledged() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut random = Seeded(20_240_607);
    let mut cluster = Cluster::start(folder.path()).await;
    let first = keygen(&cluster).await.expect("a session");
    assert_eq!(ended(&cluster, &first).await["status"], "completed");
    let (mut keys, mut completed, mut failed) = (vec![first.clone()], 0, 0);
    for round in 0..KILLS {
        let username = format!("user-{round}");
        let accounts = cluster.url("accounts", "/api/v1/accounts");
        let (status, account) = call("POST", &accounts, Some(&json!({"username": username}))).await;
        assert_eq!(status, 201, "{account}");
        let (work, span) = if round < KILLS_IN_KEYGEN {
            (keygen(&cluster).await, 2_000)
        } else {
            (sign(&cluster, &first, round).await, 25)
        };
        tokio::time::sleep(random.millis(span)).await;
        cluster.kill().await;
        cluster = Cluster::start(folder.path()).await;
        if let Some(session) = work {
            let view = ended(&cluster, &session).await;
            match view["status"].as_str() {
                Some("completed") => {
                    completed += 1;
                    if round < KILLS_IN_KEYGEN {
                        keys.push(session);
                    }
                }
                Some("failed") => {
                    failed += 1;
                    assert!(view["failure"]["message"].as_str().is_some_and(|m| !m.is_empty()));
                    assert_ne!(view["failure"]["reason"], "deadline_passed", "{view}");
                }
                other => panic!("{other:?}: {view}"),
            }
        }
        let id = account["id"].as_str().expect("an id");
        let url = cluster.url("accounts", &format!("/api/v1/accounts/{id}"));
        let (status, found) = call("GET", &url, None).await;
        assert_eq!((status, &found["username"]), (200, &json!(username)));
    }
    assert!(completed > 0, "{failed} sessions failed and none was finished after a restart");
    for (n, key) in (1_000..).zip(&keys) {
        let session = sign(&cluster, key, n).await.expect("a session");
        assert_eq!(ended(&cluster, &session).await["status"], "completed", "key {key} is unusable");
    }
    assert!(cluster.stop().await, "SIGTERM ends with success");
}
