//! What a person reads when a command does not reach its server: the address, the cause in words
//! and the way out.

use quorate_e2e::{Cluster, api_key, binary, certificate, free_ports, quiet};
use tokio::process::Command;

/// Runs a command line that fails: its exit code and what it says.
async fn refused(arguments: &[&str], environment: &[(&str, &str)]) -> (Option<i32>, String) {
    let mut command = Command::new(binary());
    command.args(arguments).envs(environment.iter().copied());
    let output = quiet(command).output().await.expect("the binary starts");
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

/// As [`refused`], for a list of the keys at `coordinator`.
async fn keys(coordinator: &str, more: &[&str]) -> (Option<i32>, String) {
    refused(&[&["keys", "--coordinator", coordinator], more].concat(), &[]).await
}

#[track_caller]
fn assert_says(answer: &(Option<i32>, String), code: i32, parts: &[&str]) {
    let (ended, text) = answer;
    assert_eq!(*ended, Some(code), "{text}");
    for part in parts {
        assert!(text.contains(part), "{text:?} does not say {part:?}");
    }
}

#[tokio::test]
async fn a_server_that_is_not_there_is_named_with_the_way_out() {
    let [free] = free_ports();
    let address = format!("127.0.0.1:{free}");
    let url = format!("http://{address}");
    let parts = [&*url, "no coordinator answers", "connection refused", "quorate up"];
    assert_says(&keys(&url, &[]).await, 5, &parts);
    assert_says(&keys(&address, &[]).await, 5, &parts);
    let unknown = keys("http://nosuch.invalid:50051", &[]).await;
    assert_says(&unknown, 5, &["http://nosuch.invalid:50051", "host name", "DNS"]);
    // Off loopback an address without a scheme is https.
    let unknown = keys("nosuch.invalid:50051", &[]).await;
    assert_says(&unknown, 5, &["https://nosuch.invalid:50051"]);
}

#[tokio::test]
async fn a_wrong_port_or_scheme_is_told_from_a_missing_server() {
    let (cluster, _folder) = Cluster::temporary().await;
    let router = format!("http://{}", cluster.address("router", "grpc"));
    let parts = [&*router, "not a coordinator", "50051"];
    assert_says(&keys(&router, &[]).await, 2, &parts);
    let relay = format!("http://{}", cluster.endpoints["jsonrpc"].as_str().expect("an address"));
    assert_says(&keys(&relay, &[]).await, 2, &[&*relay, "not a coordinator"]);
    let secure = format!("https://{}", cluster.address("coordinator", "grpc"));
    assert_says(&keys(&secure, &[]).await, 5, &[&*secure, "does not speak TLS", "http://"]);
    let plain = cluster.address("coordinator", "grpc").to_string();
    assert_says(&keys(&plain, &[]).await, 0, &[]);
}

#[tokio::test]
async fn tls_is_checked_with_the_systems_authorities_and_problems_are_told() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = certificate(folder.path());
    let secret = api_key(folder.path(), &["--scope", "read"]).await;
    let flags = ["--host", "0.0.0.0", "--tls-cert", &cert, "--tls-key", &key];
    let cluster = Cluster::start_with(folder.path(), &flags).await;
    let port = cluster.address("coordinator", "grpc").port();
    let (url, plain) = (format!("https://127.0.0.1:{port}"), format!("http://127.0.0.1:{port}"));
    assert_says(&keys(&plain, &[]).await, 5, &[&*plain, "https://"]);
    assert_says(&keys(&url, &[]).await, 5, &[&*url, "certificate", "--tls-ca"]);
    let unnamed = keys(&url, &["--tls-ca", &cert]).await;
    assert_says(&unnamed, 4, &["--api-key-file", "QUORATE_API_KEY"]);
    let ask = ["keys", "--coordinator", &url];
    let wrong = [("SSL_CERT_FILE", &*cert), ("QUORATE_API_KEY", "qk_0_0")];
    assert_says(&refused(&ask, &wrong).await, 4, &["unknown or revoked", "QUORATE_API_KEY"]);
    let system = [("SSL_CERT_FILE", &*cert), ("QUORATE_API_KEY", &*secret)];
    assert_says(&refused(&ask, &system).await, 0, &[]);
    let made = [&["keygen"][..], &ask[1..]].concat();
    let parts = ["needs the scope sessions"];
    assert_says(&refused(&made, &system).await, 4, &parts);
}

#[tokio::test]
async fn missing_parties_and_keys_are_told_in_the_words_of_the_command_line() {
    let (cluster, _folder) = Cluster::temporary().await;
    let url = format!("http://{}", cluster.address("coordinator", "grpc"));
    let at = ["--coordinator", &url];
    let four = refused(&[&["keygen", "-n", "4"][..], &at].concat(), &[]).await;
    assert_says(&four, 1, &["4 parties are needed and only 3 are available"]);
    let key = "00000000-0000-4000-8000-000000000001";
    let sign = ["sign", "--message", "m", "--key", key];
    let unknown = refused(&[&sign[..], &at].concat(), &[]).await;
    assert_says(&unknown, 3, &["does not exist"]);
    assert!(!unknown.1.contains("/api/"), "{}", unknown.1);
}
