//! Requests, policies and approvals through the real binary.

use std::time::Duration;

use quorate_e2e::{Cluster, binary, call, initiator, last_json};
use serde_json::{Value, json};
use tokio::process::Command;

struct Asked<'a> {
    coordinator: &'a str,
}

impl Asked<'_> {
    async fn run(&self, arguments: &[&str]) -> (bool, Value) {
        let mut command = Command::new(binary());
        command.args(arguments).args(["--json", "--coordinator", self.coordinator]);
        last_json(command).await
    }
}

fn denied(answer: &Value, rule: &str) {
    assert_eq!(answer["error"], "policy_denied", "{answer}");
    let message = answer["message"].as_str().expect("text");
    assert!(message.contains(&format!(": {rule}: ")), "{rule}: {message}");
}

#[tokio::test]
async fn a_policy_is_read_again_and_a_session_waits_for_approvals() {
    let folder = tempfile::tempdir().expect("a folder");
    let (stranger, _) = initiator(folder.path(), "stranger.pem", 1);
    let (approver, alice) = initiator(folder.path(), "alice.pem", 2);
    let policy = folder.path().join("policy.toml");
    let rules = format!(
        "version = 1\n[approvers]\nalice = \"{alice}\"\n[keygen]\nunidentified_holders = true\n\
         [default]\n"
    );
    std::fs::write(&policy, &rules).expect("writable");
    let flags = ["--no-relays", "--policy", policy.to_str().expect("text")];
    let cluster = Cluster::start_with(folder.path(), &flags).await;
    let coordinator = format!("http://{}", cluster.address("coordinator", "grpc"));
    let asked = Asked { coordinator: &coordinator };
    let (made, key) = asked.run(&["keygen", "--scheme", "ed25519", "--label", "cold"]).await;
    assert!(made && key["label"] == "cold", "{key}");
    let key = key["key_id"].as_str().expect("an id").to_owned();

    // What comes unsigned is signed by the local initiator; a stranger's is refused by its name.
    let sign = ["sign", "--key", &key, "--message", "pay alice 5"];
    let (signed, answer) = asked.run(&sign).await;
    assert!(signed, "{answer}");
    let foreign = [&sign[..], &["--initiator-key", &stranger]].concat();
    denied(&asked.run(&foreign).await.1, "unknown_initiator");

    // A request signed beforehand serves once.
    let local = folder.path().join("data/initiator.pem").display().to_string();
    let file = folder.path().join("request.json").display().to_string();
    let ahead = ["request", "sign", "--key", &key, "--message", "hello", "--out", &file];
    let (written, answer) = asked.run(&[&ahead[..], &["--initiator-key", &local]].concat()).await;
    assert!(written, "{answer}");
    assert!(asked.run(&["request", "send", &file]).await.0);
    denied(&asked.run(&["request", "send", &file]).await.1, "nonce");

    let listed = asked.run(&["keys"]).await.1;
    let shown = asked.run(&["keys", "show", &key]).await.1;
    assert_eq!((&listed[0]["label"], &shown["label"]), (&json!("cold"), &json!("cold")));
    let two_words = ["keygen", "--scheme", "ed25519", "--label", "two words"];
    assert!(!asked.run(&two_words).await.0, "a label is one word");

    // From the next SIGHUP on, alice is asked about keys of that label.
    let wanted = format!(
        "{rules}[keys.cold]\nlabels = [\"cold\"]\n\
         approvals = {{ needed = 1, of = [\"alice\"] }}\n"
    );
    std::fs::write(&policy, wanted).expect("writable");
    let pid = cluster.pid().to_string();
    let hung_up = Command::new("kill").args(["-HUP", &pid]).status().await.expect("kill runs");
    assert!(hung_up.success());
    let request = json!({"session_type": "sign", "key_id": key, "message": "cGF5"});
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let session = loop {
        let (_, session) = call("POST", &url, Some(&request)).await;
        let id = session["session_id"].as_str().expect("an id").to_owned();
        let url = format!("{url}/{id}?wait=end&wait_seconds=1");
        // A session that came before the policy was read again is signed at once.
        let (_, session) = call("GET", &url, None).await;
        if session["status"] == "awaiting_approval" {
            break id;
        }
        assert_eq!(session["status"], "completed", "{session}");
    };
    let (approved, answer) = asked.run(&["approve", &session, "--approver-key", &approver]).await;
    assert!(approved, "{answer}");
    let url = format!("{url}/{session}?wait=end&wait_seconds=30");
    let ended = tokio::time::timeout(Duration::from_secs(60), call("GET", &url, None)).await;
    let (_, ended) = ended.expect("an answer");
    assert_eq!(ended["status"], "completed", "{ended}");
    assert_eq!(ended["authorization"]["approvals"].as_array().map(Vec::len), Some(1));
}

#[tokio::test]
async fn an_initiator_that_is_pinned_counts_instead_of_the_local_one() {
    let folder = tempfile::tempdir().expect("a folder");
    let (file, ops) = initiator(folder.path(), "ops.pem", 3);
    let pinned = format!("ops={ops}");
    let cluster =
        Cluster::start_with(folder.path(), &["--no-relays", "--initiator", &pinned]).await;
    let coordinator = format!("http://{}", cluster.address("coordinator", "grpc"));
    let asked = Asked { coordinator: &coordinator };
    denied(&asked.run(&["keygen"]).await.1, "unknown_initiator");

    let signed = ["--initiator-key", &file];
    let parties = [1, 2, 3].map(|number| format!("--party=server-party-{number}"));
    let keygen = ["keygen", "--scheme", "ed25519", &parties[0], &parties[1], &parties[2]];
    let (ok, key) = asked.run(&[&keygen[..], &signed].concat()).await;
    assert!(ok && key["verified"] == true, "{key}");
    let refresh = ["keys", "refresh", key["key_id"].as_str().expect("an id")];
    denied(&asked.run(&refresh).await.1, "unknown_initiator");
    let (ok, refreshed) = asked.run(&[&refresh[..], &signed].concat()).await;
    assert!(ok && refreshed["epoch"] == 1 && refreshed["verified"] == true, "{refreshed}");
    let sign = ["sign", "--key", refresh[2], "--message", "pay alice 5"];
    denied(&asked.run(&sign).await.1, "unknown_initiator");
    let (ok, signature) = asked.run(&[&sign[..], &signed].concat()).await;
    assert!(ok, "{signature}");
    let public_key = key["public_key"].as_str().expect("hex");
    let whole = ["sign", "--key", public_key, "--message", "pay alice 5"];
    let (ok, signature) = asked.run(&[&whole[..], &signed].concat()).await;
    assert!(ok, "{signature}");
}
