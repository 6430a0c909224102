//! Refreshes through the real binary: the key stays, epochs never mix, and a kill at any time leaves
//! one epoch that signs.

#![allow(clippy::print_stdout, reason = "a failing test shows its seed")]

use std::path::Path;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use quorate_e2e::{Cluster, Role, amount, binary, call, free_ports, last_json};
use quorate_testkit::Seeded;
use serde_json::{Value, json};
use tokio::process::Command;

/// Starts a session: the URL at which it is asked for.
async fn create(url: &str, body: &Value) -> String {
    loop {
        let (status, created) = call("POST", url, Some(body)).await;
        match created["error"].as_str() {
            None => return format!("{url}/{}", created["session_id"].as_str().expect("an id")),
            // A party that was killed comes back; until then the router does not name it.
            Some("threshold_not_met" | "unavailable") => tokio::task::yield_now().await,
            Some(_) => panic!("{status}: {created}"),
        }
    }
}

async fn ended(session: &str) -> Value {
    call("GET", &format!("{session}?wait=end&wait_seconds=60"), None).await.1
}

async fn run(url: &str, body: &Value) -> Value {
    ended(&create(url, body).await).await
}

async fn completed(url: &str, body: &Value) -> Value {
    let view = run(url, body).await;
    assert_eq!(view["status"], "completed", "{view}");
    view
}

fn keygen(scheme: &str) -> Value {
    json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2, "scheme": scheme})
}

fn refresh(key: &Value) -> Value {
    json!({"session_type": "refresh", "key_id": key["key_id"]})
}

/// A request that these parties sign something with the key.
fn signing(key: &Value, signers: [&str; 2]) -> Value {
    let participants = signers.map(|id| json!({"party_id": id}));
    let mut body = json!({
        "session_type": "sign", "key_id": key["key_id"], "participants": participants,
    });
    match key["scheme"].as_str() {
        Some("ed25519") => body["message"] = json!(STANDARD.encode("pay alice 5")),
        _ => body["message_hash"] = json!("07".repeat(32)),
    }
    body
}

const SERVERS: [&str; 3] = ["server-party-1", "server-party-2", "server-party-3"];
const PAIRS: [[usize; 2]; 3] = [[0, 1], [1, 2], [2, 0]];

/// Every pair of the parties signs with the key.
async fn every_pair_signs(url: &str, key: &Value, parties: [&str; 3]) {
    for pair in PAIRS {
        completed(url, &signing(key, pair.map(|at| parties[at]))).await;
    }
}

async fn shown(cluster: &Cluster, key: &Value) -> Value {
    let id = key["key_id"].as_str().expect("an id");
    call("GET", &cluster.url("coordinator", &format!("/api/v1/keys/{id}")), None).await.1
}

#[tokio::test]
async fn refreshed_keys_sign_in_their_next_epochs_and_stay_the_same() {
    let (cluster, _folder) = Cluster::temporary().await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    for scheme in ["ecdsa-secp256k1", "ed25519"] {
        let key = completed(&url, &keygen(scheme)).await;
        let refreshed = completed(&url, &refresh(&key)).await;
        for member in ["key_id", "public_key", "scheme"] {
            assert_eq!(refreshed[member], key[member], "{refreshed}");
        }
        let detail = shown(&cluster, &key).await;
        assert_eq!((&detail["epoch"], &detail["state"]), (&json!(1), &json!("active")), "{detail}");
        let states: Vec<_> = detail["epochs"].as_array().expect("epochs").iter().collect();
        assert_eq!(
            (&states[0]["state"], &states[1]["state"]),
            (&json!("retired"), &json!("active"))
        );
        assert!(
            states[1]["attestation"].is_object(),
            "its holders have signed the epoch: {detail}"
        );
        every_pair_signs(&url, &key, SERVERS).await;

        let mut command = Command::new(binary());
        let id = key["key_id"].as_str().expect("an id");
        command.args(["keys", "refresh", &id[..8], "--json", "--coordinator"]);
        command.arg(format!("http://{}", cluster.address("coordinator", "grpc")));
        let (ok, told) = last_json(command).await;
        assert!(ok && told["epoch"] == 2 && told["verified"] == true, "{told}");
        assert_eq!(told["public_key"], key["public_key"]);
        every_pair_signs(&url, &key, SERVERS).await;
    }
}

fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("an entry");
        std::fs::copy(entry.path(), to.join(entry.file_name())).expect("a file");
    }
}

#[tokio::test]
async fn a_party_that_is_put_back_to_the_epoch_before_signs_nothing_and_says_stale_epoch() {
    let (cluster, folder) = Cluster::temporary().await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let key = completed(&url, &keygen("ed25519")).await;
    assert!(cluster.stop().await);
    let (vault, kept) = (folder.path().join("data/server-party-1"), folder.path().join("kept"));
    copy(&vault, &kept);
    let cluster = Cluster::start(folder.path()).await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    completed(&url, &refresh(&key)).await;
    every_pair_signs(&url, &key, SERVERS).await;
    assert!(cluster.stop().await);
    std::fs::remove_dir_all(&vault).expect("it was there");
    copy(&kept, &vault);
    // The operator accepts the older vault: else its peers refuse it for that alone.
    let cluster = Cluster::start_with(folder.path(), &["--accept-rollback"]).await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    for other in [1, 2] {
        let view = run(&url, &signing(&key, [SERVERS[0], SERVERS[other]])).await;
        let said = view["failure"]["message"].as_str().unwrap_or_default();
        assert!(view["status"] == "failed" && said.contains("stale_epoch"), "{view}");
    }
    completed(&url, &signing(&key, [SERVERS[1], SERVERS[2]])).await;
}

const APART: [&str; 3] = ["alpha", "beta", "gamma"];

/// One of the parties, in a process of its own.
async fn party(folder: &Path, at: usize, ports: [u16; 2], router: &str) -> Role {
    let more = ["--id", APART[at], "--router", router];
    Role::start(&folder.join(APART[at]), "party", ports, &more).await
}

#[tokio::test]
async fn a_kill_of_any_holder_at_any_time_of_a_refresh_leaves_one_epoch_that_signs() {
    let folder = tempfile::tempdir().expect("a folder");
    let ports = free_ports::<10>();
    let [router, coordinator] = [1, 3].map(|at| format!("http://127.0.0.1:{}", ports[at]));
    let to_coordinator = ["--coordinator", coordinator.as_str()];
    let _router = Role::start(folder.path(), "router", [ports[0], ports[1]], &to_coordinator).await;
    let to_router = ["--router", router.as_str()];
    let _coordinator =
        Role::start(folder.path(), "coordinator", [ports[2], ports[3]], &to_router).await;
    let mut parties = Vec::new();
    for at in 0..3 {
        let own = [ports[4 + 2 * at], ports[5 + 2 * at]];
        parties.push(party(folder.path(), at, own, &router).await);
    }
    let url = format!("http://127.0.0.1:{}/api/v1/sessions", ports[2]);
    let key = completed(&url, &keygen("ed25519")).await;
    let seed = 20_261_127;
    println!("seed {seed}");
    let mut random = Seeded(seed);
    let (mut finished, mut failed) = (0, 0);
    for round in 0..amount(8, 200) {
        let mut body = refresh(&key);
        body["expires_in_seconds"] = json!(20);
        let session = create(&url, &body).await;
        tokio::time::sleep(random.millis(120)).await;
        let at = random.below(3);
        parties[at].process.kill().await.expect("it can be killed");
        let own = [ports[4 + 2 * at], ports[5 + 2 * at]];
        parties[at] = party(folder.path(), at, own, &router).await;
        let view = ended(&session).await;
        println!("round {round}: {} was killed: {}", APART[at], view["status"]);
        // Neither none of the epochs nor both: each pair agrees on one, whoever missed what.
        every_pair_signs(&url, &key, APART).await;
        if view["status"] == "completed" {
            finished += 1;
            continue;
        }
        failed += 1;
        // Whoever has kept a share of it and whoever has not: the next one is in nobody's way.
        completed(&url, &refresh(&key)).await;
        every_pair_signs(&url, &key, APART).await;
    }
    println!("{finished} refreshes were finished all the same, {failed} were not");
}
