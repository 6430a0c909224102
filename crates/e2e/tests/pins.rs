//! Whom a server party knows by name: peers that its operator names, and devices that it has made a
//! key with.

use std::path::Path;

use quorate_e2e::{Role, binary, free_ports, identity_in, last_json};
use serde_json::Value;
use tokio::process::Command;

async fn pins(data: &Path, more: &[&str]) -> (bool, Value) {
    let mut command = Command::new(binary());
    command.args(["party", "pins", "--json", "--id", "p", "--data"]).arg(data).args(more);
    last_json(command).await
}

#[tokio::test]
async fn named_peers_are_pinned_listed_and_dropped() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("party");
    let own = identity_in(&data, "p").await;
    assert_eq!(identity_in(&data, "p").await, own, "it is made once");
    let hex = "58".to_owned() + &"66".repeat(31);
    let peer = format!("server-party-2={hex}");
    let start = async |peer: &str| {
        let [http, grpc] = free_ports::<2>();
        Role::start(folder.path(), "party", [http, grpc], &["--id", "p", "--peer", peer]).await
    };
    drop(start(&peer).await);
    let (ok, listed) = pins(&data, &["list"]).await;
    assert!(ok && listed[0]["name"] == "server-party-2", "{listed}");
    assert_eq!((&listed[0]["identity"], &listed[0]["tenant"]), (&hex.into(), &Value::Null));

    let other = format!("server-party-2={}", "77".repeat(32));
    let mut command = Command::new(binary());
    command.args(["party", "--json", "--id", "p", "--peer", &other, "--data"]).arg(&data);
    let [http, grpc] = free_ports::<2>().map(|port| port.to_string());
    command.args(["--http-port", &http, "--grpc-port", &grpc]);
    let (ok, refused) = last_json(command).await;
    assert!(!ok && refused.to_string().contains("pins drop"), "{refused}");

    let (ok, dropped) = pins(&data, &["drop", "server-party-2"]).await;
    assert!(ok && dropped["dropped"] == 1, "{dropped}");
    let (ok, again) = pins(&data, &["drop", "server-party-2"]).await;
    assert!(!ok && again["error"] == "not_found", "{again}");
    drop(start(&other).await);
}

#[tokio::test]
async fn beyond_loopback_a_server_party_names_its_peers() {
    let folder = tempfile::tempdir().expect("a folder");
    let mut command = Command::new(binary());
    command.args(["party", "--json", "--host", "0.0.0.0", "--insecure", "--data"]);
    command.arg(folder.path());
    let (ok, refused) = last_json(command).await;
    assert!(!ok && refused["details"]["peer"].is_string(), "{refused}");
    let message = refused["message"].as_str().expect("a sentence");
    assert!(message.contains("--print-identity") && message.contains("--no-peers"), "{message}");
}
