//! A key that is frozen in the middle of its use, through the real binary.

use std::collections::BTreeMap;

use quorate_e2e::{Cluster, binary, call, last_json};
use serde_json::{Value, json};
use tokio::process::Command;
use tokio::sync::mpsc;

async fn ended(url: &str, body: &Value) -> Value {
    let (_, made) = call("POST", url, Some(body)).await;
    let Some(id) = made["session_id"].as_str() else { return made };
    call("GET", &format!("{url}/{id}?wait=end&wait_seconds=60"), None).await.1
}

async fn keys(cluster: &Cluster, arguments: &[&str]) -> (bool, Value) {
    let mut command = Command::new(binary());
    command.args(["--json", "keys"]).args(arguments).arg("--coordinator");
    command.arg(format!("http://{}", cluster.address("coordinator", "grpc")));
    last_json(command).await
}

/// What has become of each session.
async fn statuses(url: &str) -> BTreeMap<String, String> {
    let (_, page) = call("GET", &format!("{url}?limit=200"), None).await;
    let all = page["sessions"].as_array().expect("a page").iter();
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    all.map(|session| (text(&session["session_id"]), text(&session["status"]))).collect()
}

#[tokio::test]
async fn of_a_hundred_signatures_none_completes_once_their_key_is_frozen() {
    let (cluster, folder) = Cluster::temporary().await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let keygen = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2,
        "scheme": "ed25519"});
    let key = ended(&url, &keygen).await;
    let id = key["key_id"].as_str().expect("an id").to_owned();
    let sign = json!({"session_type": "sign", "key_id": id, "message": "cGF5"});
    let (done, mut all_done) = mpsc::unbounded_channel();
    for _ in 0..100 {
        let (url, sign, done) = (url.clone(), sign.clone(), done.clone());
        tokio::spawn(async move { done.send(ended(&url, &sign).await) });
    }
    drop(done);
    let mut views = Vec::new();
    for _ in 0..10 {
        views.extend(all_done.recv().await);
    }
    let (ok, frozen) = keys(&cluster, &["freeze", &id[..8], "--reason", "a phone is lost"]).await;
    assert!(ok && frozen["state"] == "frozen", "{frozen}");
    let at_once = statuses(&url).await;
    while let Some(view) = all_done.recv().await {
        views.push(view);
    }
    assert_eq!(statuses(&url).await, at_once, "whatever has not ended has ended with the freeze");
    let open = |status: &String| !["completed", "failed"].contains(&status.as_str());
    assert_eq!(at_once.values().filter(|status| open(status)).count(), 0, "{at_once:?}");
    let (mut completed, mut stopped, mut refused) = (0, 0, 0);
    for view in &views {
        match (view["status"].as_str(), view["error"].as_str()) {
            (Some("completed"), _) => completed += 1,
            (Some("failed"), _) if view["failure"]["reason"] == "key_frozen" => stopped += 1,
            (None, Some("key_frozen")) => refused += 1,
            _ => panic!("{view}"),
        }
    }
    assert_eq!(completed + stopped + refused, 100);
    assert!(completed >= 10, "{completed}");

    for kind in ["sign", "refresh"] {
        let mut body = json!({"session_type": kind, "key_id": id});
        if kind == "sign" {
            body["message"] = json!("cGF5");
        }
        let (status, refused) = call("POST", &url, Some(&body)).await;
        assert_eq!((status, &refused["error"]), (423, &json!("key_frozen")), "{refused}");
        assert!(refused["message"].as_str().is_some_and(|said| said.contains("a phone is lost")));
    }
    cluster.kill().await;
    let cluster = Cluster::start(folder.path()).await;
    let (_, listed) = keys(&cluster, &[]).await;
    assert_eq!(listed[0]["frozen"]["reason"], "a phone is lost", "{listed}");
    let url = cluster.url("coordinator", "/api/v1/sessions");
    assert_eq!(ended(&url, &sign).await["error"], "key_frozen");
    let (ok, free) = keys(&cluster, &["unfreeze", &id]).await;
    assert!(ok && free["state"] == "active" && free.get("frozen").is_none(), "{free}");
    assert_eq!(ended(&url, &sign).await["status"], "completed");
}
