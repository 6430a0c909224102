//! Every role in a process of its own, talking gRPC; the router dies and comes back, and the
//! coordinator in the middle of a keygen.

use quorate_e2e::{Role, call, free_ports};
use serde_json::{Value, json};

/// Asks until the parties are online and the session could be created.
async fn session(url: &str, body: &Value) -> Value {
    let created = loop {
        let (status, created) = call("POST", url, Some(body)).await;
        match created["error"].as_str() {
            None => break created,
            // Parties connect when the router is there; its answer takes a moment to be yes.
            Some("threshold_not_met" | "unavailable") => tokio::task::yield_now().await,
            Some(_) => panic!("{status}: {created}"),
        }
    };
    let id = created["session_id"].as_str().expect("an id");
    call("GET", &format!("{url}/{id}?wait=end&wait_seconds=60"), None).await.1
}

#[tokio::test]
async fn roles_apart_make_a_key_and_sign_and_a_restarted_router_or_coordinator_goes_on() {
    let folder = tempfile::tempdir().expect("a folder");
    let ports = free_ports::<10>();
    let router_url = format!("http://127.0.0.1:{}", ports[1]);
    let coordinator_url = format!("http://127.0.0.1:{}", ports[3]);
    let router_ports = [ports[0], ports[1]];
    let to_coordinator = ["--coordinator", coordinator_url.as_str()];
    let to_router = ["--router", router_url.as_str()];
    let mut router = Role::start(folder.path(), "router", router_ports, &to_coordinator).await;
    let coordinator_ports = [ports[2], ports[3]];
    let mut coordinator =
        Role::start(folder.path(), "coordinator", coordinator_ports, &to_router).await;
    let _accounts =
        Role::start(folder.path(), "accounts", [ports[4], ports[5]], &to_coordinator).await;
    let mut parties = Vec::new();
    for (name, at) in [("alpha", 6), ("beta", 8)] {
        let own = folder.path().join(name);
        let more = [&["--id", name][..], &to_router].concat();
        parties.push(Role::start(&own, "party", [ports[at], ports[at + 1]], &more).await);
    }
    let url = format!("http://127.0.0.1:{}/api/v1/sessions", ports[2]);
    let keygen = json!({"session_type": "keygen", "threshold_n": 2, "threshold_t": 2});
    let made = session(&url, &keygen).await;
    assert_eq!(made["status"], "completed", "{made}");
    let sign = |n: u8| json!({"session_type": "sign", "key_id": made["key_id"], "message_hash": format!("{n:064x}")});
    let signed = session(&url, &sign(1)).await;
    assert_eq!(signed["status"], "completed", "{signed}");

    let accounts = format!("http://127.0.0.1:{}/api/v1/accounts", ports[4]);
    let account = json!({"username": "alice", "publicKey": made["public_key"]});
    let (status, account) = call("POST", &accounts, Some(&account)).await;
    assert_eq!(status, 201, "{account}");

    router.process.kill().await.expect("it can be killed");
    let _router = Role::start(folder.path(), "router", router_ports, &to_coordinator).await;
    let signed = session(&url, &sign(2)).await;
    assert_eq!(signed["status"], "completed", "{signed}");

    let (status, begun) = call("POST", &url, Some(&keygen)).await;
    assert_eq!(status, 201, "{begun}");
    let begun = format!("{url}/{}", begun["session_id"].as_str().expect("an id"));
    let (_, running) = call("GET", &format!("{begun}?wait=start&wait_seconds=60"), None).await;
    assert_eq!(running["status"], "in_progress", "{running}");
    coordinator.process.kill().await.expect("it can be killed");
    let _coordinator =
        Role::start(folder.path(), "coordinator", coordinator_ports, &to_router).await;
    let (_, ended) = call("GET", &format!("{begun}?wait=end&wait_seconds=60"), None).await;
    assert_eq!(ended["status"], "completed", "the parties went on and reported: {ended}");
    let signed = session(&url, &sign(3)).await;
    assert_eq!(signed["status"], "completed", "{signed}");
}
