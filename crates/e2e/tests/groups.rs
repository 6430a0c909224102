//! Three terminals meet in a group over JSON-RPC, make a key, and two of them sign.

use std::path::{Path, PathBuf};

use quorate_e2e::{Cluster, binary, last_json, quiet};
use serde_json::Value;
use tokio::io::{AsyncBufReadExt as _, BufReader, Lines};
use tokio::process::{Child, ChildStdout, Command};

fn text(value: &Value) -> &str {
    value.as_str().expect("text")
}

struct Meeting {
    url: String,
    folder: PathBuf,
}

impl Meeting {
    fn command(&self, name: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(["group", "--json", "--url", &self.url, "--folder"]);
        command.arg(self.folder.join(name)).args(arguments);
        command
    }

    /// A device with its signer.
    async fn device(&self, name: &str, signer: &str) {
        let mut command = Command::new(binary());
        command.args(["device", "--json", "--folder"]).arg(self.folder.join(name));
        command.args(["init", "--signer", signer]);
        assert!(last_json(command).await.0);
    }

    /// Starts something: the process, and the invitation it shows.
    async fn start(&self, name: &str, arguments: &[&str]) -> (Started, String) {
        let mut process = quiet(self.command(name, arguments)).spawn().expect("it starts");
        let mut lines = BufReader::new(process.stdout.take().expect("piped")).lines();
        let first = lines.next_line().await.expect("readable").expect("an invitation");
        let first: Value = serde_json::from_str(&first).expect("JSON");
        let invitation = text(&first["invitation"]).to_owned();
        (Started { _process: process, lines }, invitation)
    }

    async fn join(&self, name: &str, invitation: &str) -> Value {
        let (ok, value) = last_json(self.command(name, &["join", invitation, "--yes"])).await;
        assert!(ok, "{name}: {value}");
        value
    }
}

struct Started {
    _process: Child,
    lines: Lines<BufReader<ChildStdout>>,
}

impl Started {
    async fn result(mut self) -> Value {
        let line = self.lines.next_line().await.expect("readable").expect("a result");
        serde_json::from_str(&line).expect("JSON")
    }
}

async fn verified(signed: &Value) -> bool {
    let (key, signature) = (text(&signed["public_key"]), text(&signed["signature"]));
    let mut verify = Command::new(binary());
    verify.args(["verify", "--json", "--public-key", key, "--signature", signature]);
    verify.args(["--message", "pay alice 5"]);
    last_json(verify).await.0
}

async fn meeting(cluster: &Cluster, folder: &Path) -> Meeting {
    let url = format!("ws://{}/mpc", text(&cluster.endpoints["jsonrpc"]));
    let meeting = Meeting { url, folder: folder.to_owned() };
    for (name, signer) in [("a", "ed25519"), ("b", "p256"), ("c", "ed25519")] {
        meeting.device(name, signer).await;
    }
    meeting
}

#[tokio::test]
async fn three_terminals_make_a_key_in_a_group_and_the_last_two_sign() {
    let (cluster, folder) = Cluster::temporary().await;
    let meeting = meeting(&cluster, folder.path()).await;
    let (first, invitation) = meeting.start("a", &["create", "-n", "3", "-t", "2"]).await;
    let (one, two, three) = tokio::join!(
        first.result(),
        meeting.join("b", &invitation),
        meeting.join("c", &invitation)
    );
    for other in [&two, &three] {
        assert_eq!(other["ethereum_address"], one["ethereum_address"]);
        assert_eq!(other["key_id"], one["key_id"]);
    }
    let key = text(&one["key_id"]);
    let words = ["sign", "--key", key, "--message", "pay alice 5"];
    let (starting, invitation) = meeting.start("c", &words).await;
    let (ours, theirs) = tokio::join!(starting.result(), meeting.join("b", &invitation));
    assert_eq!(ours, theirs);
    assert_eq!(ours["public_key"], one["public_key"]);
    assert!(verified(&ours).await);
}

#[tokio::test]
async fn the_holders_of_a_group_s_key_refresh_it_and_sign_with_the_new_shares() {
    let (cluster, folder) = Cluster::temporary().await;
    let meeting = meeting(&cluster, folder.path()).await;
    let make = ["create", "-n", "3", "-t", "2", "--scheme", "ed25519"];
    let (first, invitation) = meeting.start("a", &make).await;
    let (made, ..) = tokio::join!(
        first.result(),
        meeting.join("b", &invitation),
        meeting.join("c", &invitation)
    );
    let key = text(&made["key_id"]);
    // The last begins, and they come in another order than in the key.
    let (starting, invitation) = meeting.start("c", &["refresh", "--key", &key[..8]]).await;
    let (one, two, three) = tokio::join!(
        starting.result(),
        meeting.join("b", &invitation),
        meeting.join("a", &invitation)
    );
    for refreshed in [&one, &two, &three] {
        assert_eq!(refreshed["epoch"], 1, "{refreshed}");
        assert_eq!(refreshed["public_key"], made["public_key"]);
    }
    let words = ["sign", "--key", key, "--message", "pay alice 5"];
    let (starting, invitation) = meeting.start("c", &words).await;
    let (ours, theirs) = tokio::join!(starting.result(), meeting.join("a", &invitation));
    assert_eq!(ours, theirs);
    assert!(verified(&ours).await);
    // Without a terminal there is nobody to say yes.
    let (_waiting, invitation) = meeting.start("c", &["refresh", "--key", key]).await;
    let (ok, declined) = last_json(meeting.command("a", &["join", &invitation])).await;
    assert!(!ok && text(&declined["message"]).contains("you declined"), "{declined}");
}

#[tokio::test]
async fn a_group_in_which_somebody_is_missing_says_so_at_the_deadline() {
    let (cluster, folder) = Cluster::temporary().await;
    let meeting = meeting(&cluster, folder.path()).await;
    let (ok, alone) = last_json(meeting.command("a", &["create", "--limit", "1"])).await;
    assert_eq!((ok, &alone["error"]), (false, &"session_expired".into()), "{alone}");
}
