//! The command line as scripts see it: exit codes, and readers that go away.

use std::path::Path;
use std::process::{Output, Stdio};
use std::time::Duration;

use quorate_e2e::{Cluster, binary, call, quiet};
use serde_json::{Value, json};
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStderr, Command};

/// Runs the binary to its end.
async fn quorate(arguments: &[&str]) -> Output {
    let mut command = Command::new(binary());
    command.args(arguments);
    quiet(command).output().await.expect("the binary starts")
}

fn code(output: &Output) -> i32 {
    output.status.code().expect("it ended by itself")
}

fn stderr(output: &Output) -> String {
    String::from_utf8_lossy(&output.stderr).into_owned()
}

fn json_of(output: &Output) -> Value {
    let text = String::from_utf8_lossy(&output.stdout);
    let last = text.lines().last().unwrap_or_else(|| panic!("no answer: {}", stderr(output)));
    serde_json::from_str(last).expect("JSON")
}

fn grpc(cluster: &Cluster) -> String {
    format!("http://{}", cluster.address("coordinator", "grpc"))
}

/// The key, signature and session of a signature over "hello".
async fn signed(coordinator: &str) -> (Value, Value) {
    let at = ["--json", "--coordinator", coordinator];
    let made = quorate(&[&["keygen"][..], &at].concat()).await;
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let made = json_of(&made);
    let key = made["key_id"].as_str().expect("an id");
    let sign = ["sign", "--message", "hello", "--key", key];
    let signed = quorate(&[&sign[..], &at].concat()).await;
    assert_eq!(code(&signed), 0, "{}", stderr(&signed));
    (made, json_of(&signed))
}

#[tokio::test]
async fn exit_codes_say_how_a_command_ended() {
    let (cluster, folder) = Cluster::temporary().await;
    let coordinator = grpc(&cluster);
    let at = ["--json", "--coordinator", &coordinator];
    let run = async |arguments: &[&str]| quorate(&[arguments, &at].concat()).await;
    let (_, signature) = signed(&coordinator).await;
    let text = |name: &str| signature[name].as_str().expect(name).to_owned();
    let (key, value) = (text("public_key"), text("signature"));

    let verify = ["verify", "--json", "--public-key", &key, "--signature", &value, "--message"];
    let valid = quorate(&[&verify[..], &["hello"]].concat()).await;
    assert_eq!((code(&valid), &json_of(&valid)["valid"]), (0, &json!(true)));
    let other = quorate(&[&verify[..], &["other"]].concat()).await;
    assert_eq!((code(&other), &json_of(&other)["valid"]), (1, &json!(false)));
    assert!(other.stderr.is_empty(), "{}", stderr(&other));
    let nonsense = ["verify", "--public-key", &key, "--signature", "xyz", "--message", "hello"];
    assert_eq!(code(&quorate(&nonsense).await), 2);

    assert_eq!(code(&run(&["watch", &text("session_id")]).await), 0);
    let body = json!({"session_type": "keygen", "threshold_n": 2, "threshold_t": 2,
        "participants": [{"party_id": "nobody"}, {"party_id": "noone"}]});
    let (_, made) =
        call("POST", &cluster.url("coordinator", "/api/v1/sessions"), Some(&body)).await;
    let session = made["session_id"].as_str().expect("an id");
    let path = format!("/api/v1/sessions/{session}");
    assert_eq!(call("DELETE", &cluster.url("coordinator", &path), None).await.0, 200);
    assert_eq!(code(&run(&["watch", session]).await), 1, "closed");

    let missing = "00000000-0000-4000-8000-000000000001";
    assert_eq!(code(&run(&["watch", missing]).await), 3);
    assert_eq!(code(&run(&["keys", "show", missing]).await), 3);
    assert_eq!(code(&quorate(&["keygen", "--no-such-option"]).await), 2);
    assert_eq!(code(&run(&["keygen", "-t", "4", "-n", "3"]).await), 2);
    cluster.kill().await;
    assert_eq!(code(&run(&["keys"]).await), 5);
    drop(folder);
}

/// Runs the binary with an output that nobody reads from the start: how it ended, and what it wrote
/// on the other one.
async fn unread(arguments: &[&str]) -> (Option<i32>, String) {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(binary());
    command.args(arguments).stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped());
    let child = command.spawn().expect("the binary starts");
    let output = child.wait_with_output().await.expect("it ends");
    (output.status.code(), stderr(&output))
}

#[tokio::test]
async fn a_reader_that_goes_away_makes_no_command_panic() {
    let (cluster, folder) = Cluster::temporary().await;
    let coordinator = grpc(&cluster);
    let (_, signature) = signed(&coordinator).await;
    let text = |name: &str| signature[name].as_str().expect(name).to_owned();
    let (key, session) = (text("key_id"), text("session_id"));
    let (public_key, value) = (text("public_key"), text("signature"));
    let file = |name: &str| folder.path().join(name).display().to_string();
    let (data, device) = (file("other"), file("device"));
    let verify = ["verify", "-k", &public_key, "-s", &value, "--message", "hello"];
    let commands: [&[&str]; 11] = [
        &["completions", "bash"],
        &["--help"],
        &["demo"],
        &["keygen"],
        &["sign", "--key", &key, "--message", "hello"],
        &verify,
        &["keys"],
        &["sessions"],
        &["watch", &session],
        &["api-keys", "--data", &data, "create", "--scope", "read"],
        &["device", "--folder", &device, "init"],
    ];
    for command in commands {
        let asks = ["keygen", "sign", "keys", "sessions", "watch"].contains(&command[0]);
        let at: &[&str] = if asks { &["--coordinator", &coordinator] } else { &[] };
        for json in [&["--json"][..], &[]] {
            if command[0] == "device" {
                let _ = std::fs::remove_dir_all(Path::new(&device));
            }
            let (code, said) = unread(&[command, at, json].concat()).await;
            assert_eq!(code, Some(0), "{command:?} {json:?}: {said}");
            assert!(!said.contains("panicked"), "{command:?} {json:?}: {said}");
        }
    }
}

#[tokio::test]
async fn an_error_that_nobody_reads_keeps_its_exit_code() {
    let (reader, writer) = std::io::pipe().expect("a pipe");
    drop(reader);
    let mut command = Command::new(binary());
    command.args(["keys", "--coordinator", "http://127.0.0.1:1"]);
    let status = command.stderr(writer).status().await.expect("the binary starts");
    assert_eq!(status.code(), Some(5));
}

#[tokio::test]
async fn a_key_goes_by_the_beginning_of_its_id_address_or_public_key() {
    let (cluster, _folder) = Cluster::temporary().await;
    let coordinator = grpc(&cluster);
    let at = ["--json", "--coordinator", &coordinator];
    let (made, _) = signed(&coordinator).await;
    let names = ["key_id", "ethereum_address", "public_key"].map(|name| {
        let name = made[name].as_str().expect("text");
        [name.to_owned(), name[..10].to_owned()]
    });
    for name in names.as_flattened() {
        let sign = ["sign", "--message", "again", "--key", name];
        let done = quorate(&[&sign[..], &at].concat()).await;
        assert_eq!(code(&done), 0, "{name}: {}", stderr(&done));
        assert_eq!(json_of(&done)["key_id"], made["key_id"], "{name}");
        let shown = quorate(&[&["keys", "show", name][..], &at].concat()).await;
        assert_eq!(json_of(&shown)["key_id"], made["key_id"], "{name}");
    }
    for (name, ended) in [("0xffffffffff", 3), ("12345678", 3), ("xyz", 2), ("0x", 2)] {
        let sign = ["sign", "--message", "again", "--key", name, "--coordinator", &coordinator];
        let refused = quorate(&sign).await;
        assert_eq!(code(&refused), ended, "{name}: {}", stderr(&refused));
        assert!(stderr(&refused).contains("`quorate keys` lists them"), "{}", stderr(&refused));
    }
}

#[tokio::test]
async fn a_value_that_is_refused_has_no_error_code_in_its_sentence() {
    let lines: [&[&str]; 12] = [
        &["keygen", "--scheme", "nonsense"],
        &["keygen", "--party", "no name"],
        &["sign", "--key", "0000", "--message", "m", "--hash", "md5"],
        &["watch", "nonsense"],
        &["verify", "-k", "00", "-s", "00", "--digest", "00", "--scheme", "x"],
        &["up", "--trusted-proxy", "nonsense"],
        &["up", "--host", "nonsense"],
        &["party", "--id", "no name"],
        &["api-keys", "create", "--scope", "read", "--tenant", "no name"],
        &["device", "sign", "--key", "0000", "--message", "m", "--hash", "md5"],
        &["device", "init", "--relay", "nonsense"],
        &["group", "join", "nonsense"],
    ];
    for line in lines {
        let refused = quorate(line).await;
        let said = stderr(&refused);
        assert_eq!(code(&refused), 2, "{line:?}: {said}");
        assert!(said.contains("invalid value") && !said.contains("invalid_request"), "{said}");
    }
}

#[tokio::test]
async fn api_keys_takes_its_folder_behind_the_action_too() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = folder.path().join("d").display().to_string();
    let made = quorate(&["api-keys", "create", "--scope", "read,party", "--data", &data]).await;
    assert_eq!(code(&made), 0, "{}", stderr(&made));
    let listed = json_of(&quorate(&["api-keys", "--data", &data, "list", "--json"]).await);
    assert_eq!(listed.as_array().map(Vec::len), Some(1));
    assert_eq!(listed[0]["scopes"], serde_json::json!(["read", "party"]));
}

#[tokio::test]
async fn a_folder_that_is_not_there_is_named_and_not_made() {
    let folder = tempfile::tempdir().expect("a folder");
    let missing = folder.path().join("missing");
    let data = missing.display().to_string();
    let commands: [&[&str]; 6] = [
        &["api-keys", "list", "--data"],
        &["api-keys", "revoke", "qk_0000000000000000", "--data"],
        &["party", "shares", "list", "--data"],
        &["party", "pins", "list", "--data"],
        &["user", "fetch", "--folder"],
        &["device", "show", "--folder"],
    ];
    for command in commands {
        let refused = quorate(&[command, &[&data]].concat()).await;
        assert_eq!(code(&refused), 3, "{command:?}: {}", stderr(&refused));
        assert!(stderr(&refused).contains(&data), "{command:?}: {}", stderr(&refused));
        assert!(!missing.exists(), "{command:?}");
    }
}

/// A command that runs in the background, and the lines of its standard error.
fn running(arguments: &[&str]) -> (Child, Lines<BufReader<ChildStderr>>) {
    let mut command = Command::new(binary());
    command.args(arguments);
    let mut child = quiet(command).spawn().expect("the binary starts");
    let stderr = child.stderr.take().expect("piped");
    (child, BufReader::new(stderr).lines())
}

async fn signal(child: &Child, name: &str) {
    let pid = child.id().expect("it runs").to_string();
    let sent = Command::new("kill").args([name, &pid]).status().await.expect("kill runs");
    assert!(sent.success());
}

/// A keygen that waits for somebody who never comes, and its session.
async fn waiting_keygen(coordinator: &str) -> (Child, Lines<BufReader<ChildStderr>>, String) {
    let arguments = ["keygen", "-n", "2", "--party", "nobody", "--coordinator", coordinator];
    let (child, mut lines) = running(&arguments);
    let line = lines.next_line().await.expect("readable").expect("it names its session");
    let session = line.rsplit(' ').next().expect("an id").to_owned();
    (child, lines, session)
}

#[tokio::test]
async fn a_session_is_closed_by_its_command_and_by_interrupting_who_waits_for_it() {
    let (cluster, _folder) = Cluster::temporary().await;
    let coordinator = grpc(&cluster);
    let status = async |session: &str| {
        let path = format!("/api/v1/sessions/{session}");
        call("GET", &cluster.url("coordinator", &path), None).await.1["status"].clone()
    };
    let (mut child, _lines, session) = waiting_keygen(&coordinator).await;
    assert_ne!(status(&session).await, "failed");
    let closed = quorate(&["close", &session, "--coordinator", &coordinator]).await;
    assert_eq!(code(&closed), 0, "{}", stderr(&closed));
    assert_eq!(status(&session).await, "failed");
    assert_eq!(child.wait().await.expect("it ends").code(), Some(1));
    let again = quorate(&["close", "--coordinator", &coordinator, "nonsense"]).await;
    assert_eq!(code(&again), 2);

    let (mut child, mut lines, session) = waiting_keygen(&coordinator).await;
    signal(&child, "-INT").await;
    let line = lines.next_line().await.expect("readable").expect("it says what became of it");
    assert!(line.contains("interrupted") && line.contains(&session), "{line}");
    assert_eq!(child.wait().await.expect("it ends").code(), Some(1));
    assert_eq!(status(&session).await, "failed");
}

#[tokio::test]
async fn a_session_that_waits_for_people_does_not_hold_a_stop() {
    let folder = tempfile::tempdir().expect("a folder");
    // The grace is far longer than this test may take.
    let cluster = Cluster::start_with(folder.path(), &["--grace", "3600"]).await;
    let coordinator = grpc(&cluster);
    let (mut child, _lines, session) = waiting_keygen(&coordinator).await;
    let stopped = tokio::time::timeout(Duration::from_secs(60), cluster.stop()).await;
    assert!(stopped.expect("it stops before the grace is over"));
    assert_eq!(child.wait().await.expect("it ends").code(), Some(5));
    // It goes on after the start.
    let cluster = Cluster::start(folder.path()).await;
    let path = format!("/api/v1/sessions/{session}");
    let (_, view) = call("GET", &cluster.url("coordinator", &path), None).await;
    assert!(view["failure"].is_null() && view["session_id"] == session.as_str(), "{view}");
}
