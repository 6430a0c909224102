//! A public address: TLS, required keys, and clients that check the certificate.

use quorate_e2e::{Cluster, api_key, binary, certificate, identity_in, initiator, last_json};
use serde_json::Value;
use tokio::process::Command;

/// Runs a command line against the coordinator; its answer is on one of both streams.
async fn quorate(url: &str, arguments: &[&str]) -> (bool, Value) {
    let mut command = Command::new(binary());
    command.args(arguments).args(["--json", "--coordinator", url]);
    last_json(command).await
}

#[tokio::test]
async fn a_public_server_is_reached_with_its_certificate_and_a_key_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = certificate(folder.path());
    let secret = api_key(folder.path(), &["--scope", "sessions", "--scope", "read"]).await;
    let (file, public) = initiator(folder.path(), "ops.pem", 3);
    let pinned = format!("ops={public}");
    let flags = ["--host", "0.0.0.0", "--tls-cert", &cert, "--tls-key", &key];
    let flags = [&flags[..], &["--initiator", &pinned]].concat();
    let peers = folder.path().join("peers.json").display().to_string();
    let mut add = Command::new(binary());
    add.args(["peers", "add", "--json", "--peers", &peers]);
    for name in ["server-party-1", "server-party-2", "server-party-3"] {
        add.arg(identity_in(&folder.path().join("data"), name).await);
    }
    assert!(last_json(add).await.0);
    let cluster = Cluster::start_with(folder.path(), &flags).await;
    let port = cluster.address("coordinator", "grpc").port();
    let url = format!("https://127.0.0.1:{port}");
    let trusted = ["--tls-ca", &cert, "--api-key", &secret];

    let (ok, refused) = quorate(&url, &[&["keygen"][..], &trusted].concat()).await;
    assert_eq!((ok, refused["error"].as_str()), (false, Some("policy_denied")), "{refused}");
    let signed = ["--initiator-key", &file];
    let trusted = [&trusted[..], &signed].concat();
    let parties = [1, 2, 3].map(|number| format!("--party=server-party-{number}"));
    let keygen = ["keygen", "--peers", &peers, &parties[0], &parties[1], &parties[2]];
    let (ok, made) = quorate(&url, &[&keygen[..], &trusted].concat()).await;
    assert!(ok && made["verified"] == true, "{made}");
    let wanted = ["sign", "--message", "hello", "--key"];
    let id = made["key_id"].as_str().expect("an id");
    let (ok, signed) = quorate(&url, &[&wanted[..], &[id], &trusted].concat()).await;
    assert!(ok && signed["signature"].is_string(), "{signed}");

    let (ok, refused) = quorate(&url, &["keys", "--tls-ca", &cert]).await;
    assert_eq!((ok, refused["error"].as_str()), (false, Some("unauthorized")), "{refused}");
    let elsewhere = tempfile::tempdir().expect("a folder");
    let other = certificate(elsewhere.path()).0;
    let (ok, refused) = quorate(&url, &["keys", "--tls-ca", &other, "--api-key", &secret]).await;
    assert_eq!((ok, refused["error"].as_str()), (false, Some("unavailable")), "{refused}");
    let plain = format!("http://127.0.0.1:{port}");
    let (ok, refused) = quorate(&plain, &["keys", "--api-key", &secret]).await;
    assert_eq!((ok, refused["error"].as_str()), (false, Some("unavailable")), "{refused}");
}
