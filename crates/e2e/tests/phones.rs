//! Two terminals play two phones over the binary relay, which is killed in the middle.

use std::net::TcpListener;
use std::path::Path;
use std::process::Stdio;

use quorate_e2e::{Cluster, binary, certificate, last_json, quiet};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader};
use tokio::process::{Child, Command};

fn device(folder: &Path, arguments: &[&str]) -> Command {
    let mut command = Command::new(binary());
    command.args(["device", "--folder"]).arg(folder).args(arguments);
    quiet(command)
}

async fn answer(folder: &Path, arguments: &[&str]) -> (bool, Value) {
    last_json(device(folder, &[arguments, &["--json"]].concat())).await
}

async fn told(folder: &Path, arguments: &[&str]) -> Value {
    let (ok, answer) = answer(folder, arguments).await;
    assert!(ok, "{arguments:?}: {answer}");
    answer
}

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

/// Two devices, of both kinds of signers, in one room.
async fn paired(folder: &Path, relay: &str, scheme: &str) -> [std::path::PathBuf; 2] {
    let [a, b] = [folder.join("a"), folder.join("b")];
    told(&a, &["init", "--relay", relay]).await;
    let other = told(&b, &["init", "--relay", relay, "--signer", "p256"]).await;
    let room = told(&a, &["pair", text(&other["link"]), "--scheme", scheme]).await;
    told(&b, &["pair", text(&room["link"])]).await;
    [a, b]
}

/// Starts something on the first device; the second takes part.
async fn together(first: &Path, second: &Path, arguments: &[&str]) -> Value {
    let mut starting = device(first, arguments).arg("--json").spawn().expect("it starts");
    let mut lines = BufReader::new(starting.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("the link");
    let link: Value = serde_json::from_str(&line).expect("JSON");
    let theirs = told(second, &[arguments[0], text(&link["link"]), "--yes"]).await;
    let line = lines.next_line().await.expect("readable").expect("the result");
    let ours: Value = serde_json::from_str(&line).expect("JSON");
    assert_eq!(ours, theirs);
    ours
}

async fn sign(first: &Path, second: &Path, key: &str) -> Value {
    together(first, second, &["sign", "--key", key, "--message", "pay alice 5"]).await
}

async fn verified(signed: &Value) -> bool {
    let (key, signature) = (text(&signed["public_key"]), text(&signed["signature"]));
    let words = ["verify", "--public-key", key, "--signature", signature];
    let mut verify = Command::new(binary());
    verify.args(words).args(["--message", "pay alice 5"]);
    verify.stdout(Stdio::null()).status().await.expect("it starts").success()
}

#[tokio::test]
async fn two_phones_pair_make_a_key_and_sign_over_the_relay_of_up() {
    let (cluster, folder) = Cluster::temporary().await;
    let relay = text(&cluster.endpoints["relay"][0]).to_owned();
    let relay = format!("ws://{relay}/v1/msg-relay");
    let [a, b] = paired(folder.path(), &relay, "ecdsa-secp256k1").await;
    let (one, two) = tokio::join!(told(&a, &["keygen"]), told(&b, &["keygen"]));
    assert_eq!(one, two);
    let key = text(&one["key_id"]);
    for (first, second) in [(&a, &b), (&b, &a)] {
        assert!(verified(&sign(first, second, key).await).await);
    }

    let pass = folder.path().join("pass");
    std::fs::write(&pass, "correct horse battery").expect("writable");
    let (pass, file) =
        (pass.display().to_string(), folder.path().join("share").display().to_string());
    told(&a, &["export", "--key", key, "--passphrase-file", &pass, "--out", &file]).await;
    let (ok, again) = answer(&a, &["import", &file, "--passphrase-file", &pass]).await;
    assert_eq!((ok, &again["error"]), (false, &"conflict".into()));
    let (ok, alone) = answer(&a, &["keygen"]).await;
    assert_eq!((ok, &alone["error"]), (false, &"invalid_request".into()), "the room is left");
}

#[tokio::test]
async fn two_phones_make_an_ed25519_key_and_sign_messages() {
    let (cluster, folder) = Cluster::temporary().await;
    let relay = format!("ws://{}/v1/msg-relay", text(&cluster.endpoints["relay"][0]));
    let [a, b] = paired(folder.path(), &relay, "ed25519").await;
    let (one, two) = tokio::join!(told(&a, &["keygen"]), told(&b, &["keygen"]));
    assert_eq!(one, two);
    assert_eq!(text(&one["public_key"]).len(), 64);
    for (first, second) in [(&a, &b), (&b, &a)] {
        let signed = sign(first, second, text(&one["key_id"])).await;
        assert_eq!(signed["message_hash"], Value::Null);
        assert!(verified(&signed).await);
    }
}

#[tokio::test]
async fn phones_refresh_a_key_with_the_consent_of_both_and_sign_with_it() {
    let (cluster, folder) = Cluster::temporary().await;
    let relay = format!("ws://{}/v1/msg-relay", text(&cluster.endpoints["relay"][0]));
    for scheme in ["ed25519", "ecdsa-secp256k1"] {
        let [a, b] = paired(&folder.path().join(scheme), &relay, scheme).await;
        let (made, _) = tokio::join!(told(&a, &["keygen"]), told(&b, &["keygen"]));
        let key = text(&made["key_id"]);
        // Nobody has said yes at the second device: the first waits in vain.
        let start = ["refresh", "--json", "--limit", "5", "--key", &key[..8]];
        let mut starting = device(&a, &start).spawn().expect("it starts");
        let mut lines = BufReader::new(starting.stdout.take().expect("piped")).lines();
        let line = lines.next_line().await.expect("readable").expect("the link");
        let link: Value = serde_json::from_str(&line).expect("JSON");
        let (code, _, said) = typed(&b, &["refresh", text(&link["link"])], "y\n").await;
        assert!(code == Some(1) && said.contains("you declined"), "{said}");
        assert!(!starting.wait().await.expect("it ends").success());
        for (epoch, first, second) in [(1, &a, &b), (2, &b, &a)] {
            let refreshed = together(first, second, &["refresh", "--key", key]).await;
            assert_eq!(refreshed["epoch"], epoch, "{refreshed}");
            assert_eq!(refreshed["public_key"], made["public_key"]);
            let signed = sign(first, second, key).await;
            assert_eq!(signed["public_key"], made["public_key"]);
            assert!(verified(&signed).await);
        }
        let (ok, refused) = answer(&b, &["sign", text(&link["link"]), "--yes"]).await;
        assert_eq!((ok, &refused["error"]), (false, &"invalid_request".into()), "{refused}");
    }
}

/// The relay alone, on a port of its own; the documented one may be taken.
async fn relay(port: u16) -> Child {
    let mut relay = Command::new(binary())
        .args(["relay", "--only", "binary", "--json"])
        .env("LISTEN", format!("127.0.0.1:{port}"))
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .kill_on_drop(true)
        .spawn()
        .expect("it starts");
    let mut lines = BufReader::new(relay.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("it says where it listens");
    assert!(line.contains(&port.to_string()), "{line}");
    relay
}

/// Runs keygen and calls `at` once the device says that it waits for this round.
async fn keygen(folder: &Path, at: Option<tokio::sync::oneshot::Sender<()>>) -> bool {
    let mut running = device(folder, &["keygen"]).spawn().expect("it starts");
    let mut lines = BufReader::new(running.stderr.take().expect("piped")).lines();
    let mut at = at;
    while let Some(line) = lines.next_line().await.expect("readable") {
        if line.ends_with("round 2")
            && let Some(at) = at.take()
        {
            let _ = at.send(());
        }
    }
    running.wait().await.expect("it ends").success()
}

#[tokio::test]
async fn a_relay_that_is_killed_in_the_middle_costs_the_phones_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let held = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = held.local_addr().expect("bound").port();
    drop(held);
    let mut first = relay(port).await;
    let url = format!("ws://127.0.0.1:{port}/v1/msg-relay");
    let [a, b] = paired(folder.path(), &url, "ecdsa-secp256k1").await;
    let (reached, round) = tokio::sync::oneshot::channel();
    let restart = async {
        round.await.expect("round 2 comes");
        first.kill().await.expect("it can be killed");
        relay(port).await
    };
    let (one, two, _second) = tokio::join!(keygen(&a, Some(reached)), keygen(&b, None), restart);
    assert!(one && two);
    let keys = told(&a, &["show"]).await;
    let key = text(&keys["keys"][0]["key_id"]).to_owned();
    assert!(verified(&sign(&b, &a, &key).await).await);
}

#[tokio::test]
async fn a_relay_with_tls_is_met_by_who_trusts_its_certificate_only() {
    let folder = tempfile::tempdir().expect("a folder");
    let (cert, key) = certificate(folder.path());
    let flags = ["--tls-cert", &cert, "--tls-key", &key];
    let cluster = Cluster::start_with(folder.path(), &flags).await;
    let relay = format!("wss://{}/v1/msg-relay", text(&cluster.endpoints["relay"][0]));
    let [a, b] = paired(folder.path(), &relay, "ecdsa-secp256k1").await;
    let (ok, refused) = answer(&a, &["keygen"]).await;
    assert_eq!((ok, &refused["error"]), (false, &"unavailable".into()), "{refused}");
    let keygen = |folder: &Path| {
        let mut command = device(folder, &["keygen", "--json"]);
        command.env("SSL_CERT_FILE", &cert);
        last_json(command)
    };
    let (one, two) = tokio::join!(keygen(&a), keygen(&b));
    assert!(one.0 && one == two, "{one:?} {two:?}");
}

#[tokio::test]
async fn a_phone_that_nobody_meets_says_so_at_its_deadline() {
    let (cluster, folder) = Cluster::temporary().await;
    let relay = format!("ws://{}/v1/msg-relay", text(&cluster.endpoints["relay"][0]));
    let [a, _] = paired(folder.path(), &relay, "ecdsa-secp256k1").await;
    let (ok, alone) = answer(&a, &["keygen", "--limit", "1"]).await;
    assert_eq!((ok, &alone["error"]), (false, &"session_expired".into()), "{alone}");
    assert_eq!(alone["details"]["waiting_for"].as_array().map(Vec::len), Some(1));
}

/// Runs a device to its end with `input` on its standard input: its exit code and both outputs.
async fn typed(folder: &Path, arguments: &[&str], input: &str) -> (Option<i32>, String, String) {
    let mut command = device(folder, arguments);
    let mut child = command.stdin(Stdio::piped()).spawn().expect("it starts");
    let mut stdin = child.stdin.take().expect("piped");
    // It may end without reading.
    let _ = stdin.write_all(input.as_bytes()).await;
    drop(stdin);
    let output = child.wait_with_output().await.expect("it ends");
    let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn devices_are_called_by_their_names_and_declining_is_told_once() {
    let (cluster, folder) = Cluster::temporary().await;
    let relay = format!("ws://{}/v1/msg-relay", text(&cluster.endpoints["relay"][0]));
    let [a, b] = [folder.path().join("a"), folder.path().join("b")];
    let alice = told(&a, &["init", "--relay", &relay, "--name", "Alice's phone"]).await;
    let bob = told(&b, &["init", "--relay", &relay, "--name", "bob"]).await;
    let (_, shown, _) = typed(&a, &["pair", text(&bob["link"])], "").await;
    assert!(shown.contains("bob (device-") && shown.contains("show them this link"), "{shown}");
    let link = shown.lines().find(|line| line.starts_with("quorate:room")).expect("a link");
    let (_, shown, _) = typed(&b, &["pair", link], "").await;
    assert!(shown.contains("Alice's phone (device-"), "{shown}");
    assert!(!shown.contains("quorate:room"), "nobody is left to show it to: {shown}");
    let (one, _) = tokio::join!(told(&a, &["keygen"]), told(&b, &["keygen"]));
    let key = text(&one["key_id"]);

    let start = ["sign", "--json", "--key", &key[..8], "--message", "pay alice 5"];
    let mut starting = device(&a, &start).spawn().expect("it starts");
    let mut lines = BufReader::new(starting.stdout.take().expect("piped")).lines();
    let line = lines.next_line().await.expect("readable").expect("the link");
    let link: Value = serde_json::from_str(&line).expect("JSON");
    // Without a terminal there is nobody to say yes.
    let (code, _, said) = typed(&b, &["sign", text(&link["link"])], "y\n").await;
    assert_eq!(code, Some(1), "{said}");
    let asks = format!("Alice's phone ({}) asks for a signature", text(&alice["device"]));
    assert!(said.contains(&asks), "{said}");
    assert_eq!(said.matches("declined").count(), 1, "{said}");
    let output = starting.wait_with_output().await.expect("it ends");
    let refused: Value = serde_json::from_slice(&output.stderr).expect("JSON");
    assert_eq!(output.status.code(), Some(1));
    let message = format!("{} declined to sign this", text(&bob["device"]));
    let who = &refused["details"]["blame"]["party_id"];
    assert_eq!((text(&refused["message"]), who), (&*message, &bob["device"]));
}

#[tokio::test]
async fn an_export_overwrites_nothing_and_takes_its_passphrase_from_a_pipe() {
    let (cluster, folder) = Cluster::temporary().await;
    let relay = format!("ws://{}/v1/msg-relay", text(&cluster.endpoints["relay"][0]));
    let [a, b] = paired(folder.path(), &relay, "ecdsa-secp256k1").await;
    let (one, _) = tokio::join!(told(&a, &["keygen"]), told(&b, &["keygen"]));
    let file = folder.path().join("share").display().to_string();
    let export = ["export", "--key", text(&one["key_id"]), "--out", &file];
    let (code, _, said) = typed(&a, &export, "").await;
    assert!(code == Some(2) && said.contains("--passphrase-file"), "{said}");
    let (code, _, said) = typed(&a, &export, "correct horse battery\n").await;
    assert_eq!(code, Some(0), "{said}");
    let exported = std::fs::read(&file).expect("written");
    let (code, _, said) = typed(&a, &export, "correct horse battery\n").await;
    assert!(code == Some(2) && said.contains("exists"), "{said}");
    assert_eq!(std::fs::read(&file).expect("there"), exported);
    // The right passphrase opens it, only to find that the share is there.
    let (code, _, said) = typed(&a, &["import", &file], "correct horse battery\n").await;
    assert!(code == Some(1) && said.contains("conflict"), "{said}");
    let (code, _, said) = typed(&a, &["import", &file], "wrong horse battery\n").await;
    assert!(code != Some(1) && code != Some(0), "{said}");
}
