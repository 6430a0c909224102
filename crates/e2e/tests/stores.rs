//! Data folders: of the first version, without their log, and under a herd of keygens.

#![allow(clippy::print_stdout, reason = "people read what the long form has measured")]

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::time::{Duration, Instant};

use quorate_e2e::{Cluster, amount, binary, call, last_json, refused_start, root};
use serde_json::{Value, json};
use tokio::process::Command;

/// Copies a folder; its files are for their owner only, as a server leaves them.
fn copy(from: &Path, to: &Path) {
    std::fs::create_dir_all(to).expect("writable");
    for entry in std::fs::read_dir(from).expect("a folder") {
        let entry = entry.expect("readable");
        let (from, to) = (entry.path(), to.join(entry.file_name()));
        if from.is_dir() {
            copy(&from, &to);
        } else {
            std::fs::copy(&from, &to).expect("writable");
            let mode = std::fs::Permissions::from_mode(0o600);
            std::fs::set_permissions(&to, mode).expect("ours");
        }
    }
}

async fn create(cluster: &Cluster, body: &Value, key: Option<&str>) -> (u16, Value) {
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let mut request = reqwest::Client::new().post(url).json(body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    let answer = request.send().await.expect("an answer");
    let status = answer.status().as_u16();
    (status, answer.json().await.expect("JSON"))
}

async fn ended(cluster: &Cluster, session: &Value) -> Value {
    let id = session["session_id"].as_str().expect("an id");
    let path = format!("/api/v1/sessions/{id}?wait=end&wait_seconds=60");
    loop {
        let (status, view) = call("GET", &cluster.url("coordinator", &path), None).await;
        assert_eq!(status, 200, "{view}");
        if !matches!(view["status"].as_str(), Some("created" | "waiting" | "in_progress")) {
            return view;
        }
    }
}

async fn completed(cluster: &Cluster, body: &Value) -> Value {
    let (status, session) = create(cluster, body, None).await;
    assert_eq!(status, 201, "{session}");
    let view = ended(cluster, &session).await;
    assert_eq!(view["status"], "completed", "{view}");
    view
}

fn keygen(seconds: u64) -> Value {
    json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2,
        "expires_in_seconds": seconds})
}

fn sign(key: &Value, digest: &str) -> Value {
    json!({"session_type": "sign", "key_id": key, "message_hash": digest})
}

#[tokio::test]
async fn a_folder_of_the_first_version_opens_and_its_key_signs() {
    let folder = tempfile::tempdir().expect("a folder");
    let data = root().join("crates/e2e/tests/data");
    copy(&data.join("first-version"), &folder.path().join("data"));
    let facts = std::fs::read(data.join("first-version.json")).expect("committed");
    let facts: Value = serde_json::from_slice(&facts).expect("JSON");
    let cluster = Cluster::start(folder.path()).await;
    let get =
        async |service: &str, path: String| call("GET", &cluster.url(service, &path), None).await;

    let (_, keys) = get("coordinator", "/api/v1/keys".to_owned()).await;
    assert_eq!(keys["keys"][0]["key_id"], facts["key_id"], "{keys}");
    let (_, sessions) = get("coordinator", "/api/v1/sessions".to_owned()).await;
    let listed: Vec<_> = sessions["sessions"].as_array().expect("a list").iter().collect();
    assert_eq!(listed.len(), 2, "{sessions}");
    let session = facts["session_id"].as_str().expect("an id");
    let (_, old) = get("coordinator", format!("/api/v1/sessions/{session}")).await;
    assert_eq!((&old["status"], &old["signature"]), (&json!("completed"), &facts["signature"]));
    let account = facts["account_id"].as_str().expect("an id");
    let (_, account) = get("accounts", format!("/api/v1/accounts/{account}")).await;
    assert_eq!(account["username"], "old-user");

    let digest = "11".repeat(32);
    let repeated = create(&cluster, &sign(&facts["key_id"], &digest), Some("old-request")).await;
    assert_eq!((repeated.0, &repeated.1["session_id"]), (201, &facts["session_id"]));
    let other = "33".repeat(32);
    let (status, refused) =
        create(&cluster, &sign(&facts["key_id"], &other), Some("old-request")).await;
    assert_eq!((status, &refused["error"]), (422, &json!("idempotency_mismatch")));
    for pair in [[1, 2], [1, 3], [2, 3]] {
        let mut body = sign(&facts["key_id"], &"22".repeat(32));
        let party = |n: i32| json!({"party_id": format!("server-party-{n}")});
        body["participants"] = json!(pair.map(party));
        completed(&cluster, &body).await;
    }
    completed(&cluster, &keygen(60)).await;
    assert!(cluster.stop().await);
    let cluster = Cluster::start(folder.path()).await;
    completed(&cluster, &sign(&facts["key_id"], &digest)).await;
}

#[tokio::test]
async fn a_log_that_is_removed_after_a_kill_is_noticed() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path()).await;
    let key = completed(&cluster, &keygen(60)).await["key_id"].clone();
    completed(&cluster, &sign(&key, &"44".repeat(32))).await;
    cluster.kill().await;
    std::fs::remove_file(folder.path().join("data/quorate.db-wal")).expect("the log");
    let said = refused_start(folder.path(), &[]).await;
    assert!(said.contains("missing or older") && said.contains("--accept-loss"), "{said}");
    let cluster = Cluster::start_with(folder.path(), &["--accept-loss"]).await;
    // What the database has lost is in the vaults.
    completed(&cluster, &sign(&key, &"55".repeat(32))).await;
    completed(&cluster, &keygen(60)).await;
    assert!(cluster.stop().await);
    drop(Cluster::start(folder.path()).await);
}

#[tokio::test]
async fn keys_come_back_from_what_their_holders_list() {
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path()).await;
    let key = completed(&cluster, &keygen(60)).await["key_id"].clone();
    assert!(cluster.stop().await);
    let mut lists = Vec::new();
    for number in [1, 3] {
        let party = format!("server-party-{number}");
        let mut command = Command::new(binary());
        command.args(["party", "shares", "--json", "--id", &party, "--data"]);
        command.arg(folder.path().join("data")).arg("list");
        let (ok, shares) = last_json(command).await;
        assert!(ok, "{shares}");
        let list = folder.path().join(party);
        std::fs::write(&list, shares.to_string()).expect("writable");
        lists.push(list);
    }
    let restored = async || {
        let mut command = Command::new(binary());
        command.args(["keys", "restore", "--json", "--data"]).arg(folder.path().join("other"));
        command.args(&lists);
        last_json(command).await
    };
    assert_eq!(restored().await, (true, json!({ "restored": [key] })));
    assert_eq!(restored().await, (true, json!({ "restored": [] })));
}

/// 500 keygens at once in its long form.
#[tokio::test]
async fn a_herd_of_keygens_is_made_in_turn_while_others_sign() {
    let (herd, signatures) = (amount(8, 500), amount(20, 400));
    let limit = Duration::from_millis(amount(2_000, 500) as u64);
    let (cluster, _folder) = Cluster::temporary().await;
    let key = completed(&cluster, &keygen(60)).await["key_id"].clone();
    let body = keygen(600);
    let herd: Vec<_> = (0..herd).map(|_| create(&cluster, &body, None)).collect();
    let herd = futures_util::future::join_all(herd).await;
    let (herd, too_many): (Vec<_>, Vec<_>) = herd.into_iter().partition(|(code, _)| *code == 201);
    assert!(too_many.iter().all(|(status, _)| *status == 429), "{too_many:?}");
    let (status, refused) = create(&cluster, &keygen(20), None).await;
    assert_eq!((status, &refused["error"]), (429, &json!("rate_limited")), "{refused}");
    assert!(refused["details"]["retry_after"].as_u64().is_some_and(|s| s > 0), "{refused}");

    let mut took = Vec::new();
    for n in 0..signatures {
        let started = Instant::now();
        completed(&cluster, &sign(&key, &format!("{n:064x}"))).await;
        took.push(started.elapsed());
    }
    took.sort_unstable();
    let (p50, p95) = (took[took.len() / 2 - 1], took[took.len() * 95 / 100 - 1]);
    let admitted = herd.len();
    println!("beside {admitted} keygens: p50 {p50:?}, p95 {p95:?}; {} refused", too_many.len());
    assert!(p95 < limit, "beside {admitted} keygens: p50 {p50:?}, p95 {p95:?}");
    for (_, session) in &herd {
        let view = ended(&cluster, session).await;
        assert_eq!(view["status"], "completed", "{view}");
    }
}

/// Signs and answers with the session and its signature, if that was told.
async fn told(cluster: &Cluster, key: &Value, digest: String) -> Option<(String, Value)> {
    let client = reqwest::Client::new();
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let created = client.post(url).json(&sign(key, &digest)).send().await.ok()?;
    let created: Value = created.json().await.ok()?;
    let id = created["session_id"].as_str()?.to_owned();
    let path = format!("/api/v1/sessions/{id}?wait=end&wait_seconds=20");
    let view = client.get(cluster.url("coordinator", &path)).send().await.ok()?;
    let view: Value = view.json().await.ok()?;
    (view["status"] == "completed").then(|| (id, view["signature"].clone()))
}

/// A disk that is full at one point or another: files may not grow beyond it.
#[tokio::test]
async fn a_disk_that_fills_takes_back_nothing_that_was_told() {
    let runs = u32::try_from(amount(5, 30)).expect("few");
    let folder = tempfile::tempdir().expect("a folder");
    let cluster = Cluster::start(folder.path()).await;
    let key = completed(&cluster, &keygen(60)).await["key_id"].clone();
    assert!(cluster.stop().await);
    let mut counted = 0;
    for run in 0..runs {
        // What a stop under load left in the log goes into the database at the next start.
        let length = |name: &str| {
            std::fs::metadata(folder.path().join("data").join(name)).map_or(0, |file| file.len())
        };
        let size = length("quorate.db") + length("quorate.db-wal");
        // In the 512-byte blocks of `ulimit`; a step of no page's size, so that each run is cut off
        // elsewhere.
        let blocks = size / 512 + 300 + u64::from(run) * 157;
        let limit = format!("ulimit -f {blocks}");
        let cluster = Cluster::start_limited(folder.path(), &limit).await;
        let mut signatures = Vec::new();
        for n in 0..100 {
            let digests = [0, 1, 2].map(|k| format!("{run:032x}{:032x}", 3 * n + k));
            let signing = digests.map(|digest| told(&cluster, &key, digest));
            let results = futures_util::future::join_all(signing).await;
            let full = results.iter().any(Option::is_none);
            signatures.extend(results.into_iter().flatten());
            if full {
                break;
            }
            assert!(n < 99, "the disk does not fill");
        }
        let (ready, said) = call("GET", &cluster.url("coordinator", "/ready"), None).await;
        assert_eq!(ready, 503, "run {run}: it lives and says so: {said}");
        cluster.kill().await;
        let cluster = Cluster::start(folder.path()).await;
        for (id, signature) in &signatures {
            let url = cluster.url("coordinator", &format!("/api/v1/sessions/{id}"));
            let (status, view) = call("GET", &url, None).await;
            assert_eq!(status, 200, "run {run}: {view}");
            let found = (&view["status"], &view["signature"]);
            assert_eq!(found, (&json!("completed"), signature), "run {run}: {view}");
        }
        counted += signatures.len();
        assert!(cluster.stop().await);
    }
    assert!(counted > 0, "nothing was signed before the disk was full");
}
