//! A party's folder on a disk that somebody else can write to, that loses files, that decays.

use std::path::{Path, PathBuf};

use quorate_e2e::{Cluster, binary, call, last_json, refused_start};
use rusqlite::Connection;
use serde_json::{Value, json};

async fn ended(cluster: &Cluster, body: &Value) -> Value {
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let (status, made) = call("POST", &url, Some(body)).await;
    assert_eq!(status, 201, "{made}");
    let id = made["session_id"].as_str().expect("an id");
    let path = format!("/api/v1/sessions/{id}?wait=end&wait_seconds=60");
    call("GET", &cluster.url("coordinator", &path), None).await.1
}

async fn keygen(cluster: &Cluster) -> String {
    let body = json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2});
    let view = ended(cluster, &body).await;
    assert_eq!(view["status"], "completed", "{view}");
    view["session_id"].as_str().expect("an id").to_owned()
}

async fn sign(cluster: &Cluster, key: &str) -> Value {
    let signers = ["server-party-1", "server-party-2"];
    let participants = signers.map(|id| json!({"party_id": id, "device_info": {}}));
    ended(
        cluster,
        &json!({"session_type": "sign", "key_id": key, "participants": participants,
            "message_hash": "07".repeat(32)}),
    )
    .await
}

fn party(folder: &Path, file: &str) -> PathBuf {
    folder.join("data/server-party-1").join(file)
}

/// Changes the first party's vault behind its back.
fn change(folder: &Path, sql: &str) {
    let vault = Connection::open(party(folder, "vault.db")).expect("a vault");
    assert_eq!(vault.execute(sql, []).expect("a statement"), 1, "{sql}");
}

fn blob(id: &str) -> String {
    format!("x'{}'", id.replace('-', ""))
}

#[tokio::test]
async fn a_damaged_share_is_named_and_the_other_keys_sign() {
    let (cluster, folder) = Cluster::temporary().await;
    let (good, bad) = (keygen(&cluster).await, keygen(&cluster).await);
    assert!(cluster.stop().await);
    let sql = format!("UPDATE shares SET sealed = zeroblob(9999) WHERE key_id = {}", blob(&bad));
    change(folder.path(), &sql);
    let cluster = Cluster::start(folder.path()).await;
    assert_eq!(sign(&cluster, &good).await["status"], "completed");
    let failed = sign(&cluster, &bad).await;
    assert_eq!(failed["status"], "failed", "{failed}");
    let said = failed["failure"]["message"].as_str().expect("a message");
    assert!(said.contains("damaged") && said.contains(&bad), "{said}");
}

#[tokio::test]
async fn a_lost_secret_file_is_named_and_never_made_anew() {
    let (cluster, folder) = Cluster::temporary().await;
    let key = keygen(&cluster).await;
    assert!(cluster.stop().await);
    for lost in ["seal.key", "identity.key", "vault.db"] {
        let (file, kept) = (party(folder.path(), lost), folder.path().join("kept"));
        std::fs::rename(&file, &kept).expect("it was there");
        let said = refused_start(folder.path(), &[]).await;
        assert!(said.contains("server-party-1") && said.contains("backup"), "{lost}: {said}");
        if lost != "vault.db" {
            assert!(said.contains(lost) && !file.exists(), "{lost}: {said}");
        }
        std::fs::rename(&kept, &file).expect("it goes back");
    }
    let cluster = Cluster::start(folder.path()).await;
    assert_eq!(sign(&cluster, &key).await["status"], "completed");
}

#[tokio::test]
async fn a_row_that_was_deleted_from_a_vault_is_missed() {
    let (cluster, folder) = Cluster::temporary().await;
    let key = keygen(&cluster).await;
    assert!(cluster.stop().await);
    let sql = "DELETE FROM pins WHERE peer = 'server-party-2'";
    change(folder.path(), sql);
    let said = refused_start(folder.path(), &[]).await;
    assert!(said.contains("server-party-1 cannot start"), "{said}");
    assert!(said.contains("--accept-rollback"), "{said}");
    let cluster = Cluster::start_with(folder.path(), &["--accept-rollback"]).await;
    assert_eq!(sign(&cluster, &key).await["status"], "completed");
    assert!(cluster.stop().await);
    let cluster = Cluster::start(folder.path()).await;
    assert_eq!(sign(&cluster, &key).await["status"], "completed", "once is enough");
}

#[tokio::test]
async fn a_ledger_that_is_lost_or_put_back_is_missed() {
    let (cluster, folder) = Cluster::temporary().await;
    let key = keygen(&cluster).await;
    assert!(cluster.stop().await);
    let (file, kept) = (party(folder.path(), "ledger.db"), folder.path().join("kept"));
    std::fs::copy(&file, &kept).expect("it has a ledger");
    let cluster = Cluster::start(folder.path()).await;
    assert_eq!(sign(&cluster, &key).await["status"], "completed");
    assert!(cluster.stop().await);
    let refused = async || {
        let said = refused_start(folder.path(), &[]).await;
        let file = file.display().to_string();
        assert!(said.contains("server-party-1 cannot start") && said.contains(&file), "{said}");
        assert!(said.contains("--accept-rollback"), "{said}");
    };
    std::fs::copy(&kept, &file).expect("it is put back");
    refused().await;
    std::fs::remove_file(&file).expect("it was there");
    refused().await;
    let cluster = Cluster::start_with(folder.path(), &["--accept-rollback"]).await;
    assert_eq!(sign(&cluster, &key).await["status"], "completed");
    assert!(cluster.stop().await);
    let cluster = Cluster::start(folder.path()).await;
    assert_eq!(sign(&cluster, &key).await["status"], "completed", "once is enough");
}

async fn shares(folder: &Path, more: &[&str]) -> (bool, Value) {
    let mut command = tokio::process::Command::new(binary());
    command.args(["party", "shares", "--json", "--id", "server-party-1", "--data"]);
    last_json({
        command.arg(folder.join("data")).args(more);
        command
    })
    .await
}

#[tokio::test]
async fn only_its_operator_discards_a_share() {
    let (cluster, folder) = Cluster::temporary().await;
    let key = keygen(&cluster).await;
    let (ok, said) = shares(folder.path(), &["list"]).await;
    assert!(!ok && said.to_string().contains("another quorate process"), "{said}");
    assert!(cluster.stop().await);
    let (ok, listed) = shares(folder.path(), &["list"]).await;
    assert!(ok && listed[0]["key_id"] == *key && listed[0]["state"] == "active", "{listed}");
    assert_eq!(listed[0]["bans"], json!([]));
    let (ok, said) = shares(folder.path(), &["discard", &key]).await;
    assert!(!ok && said.to_string().contains("--yes"), "{said}");
    let (ok, said) = shares(folder.path(), &["discard", &key, "--yes"]).await;
    assert!(ok && said["discarded"] == true, "{said}");
    let (ok, said) = shares(folder.path(), &["discard", &key, "--yes"]).await;
    assert!(!ok && said["error"] == "not_found", "{said}");
    let cluster = Cluster::start(folder.path()).await;
    let failed = sign(&cluster, &key).await;
    let said = failed["failure"]["message"].as_str().expect("a message");
    assert!(said.contains("server-party-1 holds no share"), "{said}");
}
