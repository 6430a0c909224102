//! A holder that cheats, with the real binary on both sides: its operator has changed its own share.

use std::path::Path;

use dkls23_secp256k1::Party as Held;
use quorate_e2e::{Role, binary, call, free_ports, identity_in, initiator_of_roles, last_json};
use quorate_engine::SealKey;
use quorate_types::Secret;
use rusqlite::{Connection, params};
use serde_json::{Value, json};
use tokio::process::Command;

const VICTIM: &str = "alpha";
const CHEAT: &str = "beta";
const DELEGATE: &str = "delegate-1";

/// What stands in a share's plain form before the library's own: version and tag of the scheme.
const FRONT: [u8; 2] = [2, 1];

async fn party(folder: &Path, name: &str, ports: [u16; 2], router: &str, more: &[&str]) -> Role {
    let more = [&["--id", name, "--router", router], more].concat();
    Role::start(&folder.join(name), "party", ports, &more).await
}

async fn ended(url: &str, body: &Value) -> Value {
    let (status, made) = call("POST", url, Some(body)).await;
    assert_eq!(status, 201, "{made}");
    let id = made["session_id"].as_str().expect("an id");
    call("GET", &format!("{url}/{id}?wait=end&wait_seconds=60"), None).await.1
}

/// Changes one of the two seeds of each base transfer in the cheat's share: what it sends in the
/// multiplication then fails the other's check.
fn tamper(folder: &Path) {
    let folder = folder.join(CHEAT).join("party").join(CHEAT);
    let secret = std::fs::read(folder.join("seal.key")).expect("its own seal key");
    let seal = SealKey::from_bytes(Secret::new(secret.try_into().expect("32 bytes")));
    let vault = Connection::open(folder.join("vault.db")).expect("its own vault");
    let (key, sealed): (Vec<u8>, Vec<u8>) = vault
        .query_row("SELECT key_id, sealed FROM shares", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("its share");
    let length = (CHEAT.len() as u64).to_be_bytes();
    let epoch = 0_u32.to_be_bytes();
    let context = [b"quorate/share/v1", &length[..], CHEAT.as_bytes(), &key, &epoch].concat();
    let plain = seal.open(&sealed, &context).expect("it opens");
    assert_eq!(plain[..2], FRONT);
    let mut held: Held = postcard::from_bytes(&plain[2..]).expect("the library's form");
    let (_, receiver) = held.mul_receivers.iter_mut().next().expect("the other holder");
    for seed in &mut receiver.ote_receiver.seeds0 {
        seed[0] ^= 1;
    }
    let plain = [&FRONT[..], &postcard::to_allocvec(&held).expect("plain data")].concat();
    let sealed = seal.seal(&plain, &context).expect("it seals");
    vault
        .execute("UPDATE shares SET sealed = ?1, sealed_hash = NULL", params![sealed])
        .expect("it is written");
}

#[tokio::test]
async fn a_cheat_is_banned_until_the_key_is_refreshed() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let ports = free_ports::<8>();
    let [router, coordinator] = [1, 3].map(|at| format!("http://127.0.0.1:{}", ports[at]));
    let to_coordinator = ["--coordinator", coordinator.as_str()];
    let _router = Role::start(folder, "router", [ports[0], ports[1]], &to_coordinator).await;
    let to_router = ["--router", router.as_str()];
    let _coordinator = Role::start(folder, "coordinator", [ports[2], ports[3]], &to_router).await;
    let peers = folder.join("peers.json").display().to_string();
    for name in [VICTIM, CHEAT] {
        let identity = identity_in(&folder.join(name).join("party"), name).await;
        let mut add = Command::new(binary());
        add.args(["--json", "peers", "add", &identity, "--peers", &peers]);
        assert!(last_json(add).await.0, "{identity}");
    }
    let mut victim = party(folder, VICTIM, [ports[4], ports[5]], &router, &[]).await;
    let mut cheat = party(folder, CHEAT, [ports[6], ports[7]], &router, &[]).await;
    let url = format!("http://127.0.0.1:{}/api/v1/sessions", ports[2]);
    let keygen = json!({"session_type": "keygen", "threshold_n": 2, "threshold_t": 2});
    let key = ended(&url, &keygen).await;
    assert_eq!(key["status"], "completed", "{key}");
    let id = key["key_id"].as_str().expect("an id");
    let participants = [VICTIM, CHEAT].map(|name| json!({"party_id": name}));
    let sign = json!({"session_type": "sign", "key_id": id, "message_hash": "07".repeat(32),
        "participants": participants});
    assert_eq!(ended(&url, &sign).await["status"], "completed");
    let keys = async |arguments: &[&str]| {
        let mut keys = Command::new(binary());
        keys.args(["--json", "keys"]).args(arguments).args([id, "--coordinator", &coordinator]);
        last_json(keys).await
    };

    cheat.process.kill().await.expect("it runs");
    tamper(folder);
    let cheat_ports = free_ports::<2>();
    let accept = ["--accept-rollback"];
    let _cheat = party(folder, CHEAT, cheat_ports, &router, &accept).await;
    let caught = ended(&url, &sign).await;
    assert_eq!(caught["failure"]["reason"], "party_cheated", "{caught}");
    assert_eq!(caught["failure"]["parties"], json!([CHEAT]), "{caught}");
    victim.process.kill().await.expect("it runs");
    let victim_ports = free_ports::<2>();
    let _victim = party(folder, VICTIM, victim_ports, &router, &[]).await;
    let (_, shown) = keys(&["show"]).await;
    assert_eq!((&shown["state"], &shown["epoch"]), (&json!("locked"), &json!(0)), "{shown}");
    let ban = &shown["bans"][0];
    assert_eq!((&ban["reporter"], &ban["party_id"]), (&json!(VICTIM), &json!(CHEAT)), "{shown}");
    let locked = ended(&url, &sign).await;
    let said = locked["failure"]["message"].as_str().expect("a message");
    assert!(said.contains("key_locked"), "also after a kill: {locked}");

    let (ok, refreshed) = keys(&["refresh", "--peers", &peers]).await;
    assert!(ok && refreshed["epoch"] == 1 && refreshed["verified"] == true, "{refreshed}");
    assert_eq!(refreshed["public_key"], key["public_key"], "{refreshed}");
    let (_, shown) = keys(&["show"]).await;
    assert_eq!((&shown["state"], &shown["epoch"]), (&json!("active"), &json!(1)), "{shown}");
    assert_eq!(shown["bans"][0]["epoch"], 0, "it belongs to the epoch before: {shown}");
    assert_eq!(ended(&url, &sign).await["status"], "completed", "the pair signs again");
}

#[tokio::test]
async fn a_cheat_that_a_delegates_seat_finds_has_no_second_try_also_after_a_kill() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    let ports = free_ports::<8>();
    let [router, coordinator] = [1, 3].map(|at| format!("http://127.0.0.1:{}", ports[at]));
    let to_coordinator = ["--coordinator", coordinator.as_str()];
    let _router = Role::start(folder, "router", [ports[0], ports[1]], &to_coordinator).await;
    let to_router = ["--router", router.as_str()];
    let _coordinator = Role::start(folder, "coordinator", [ports[2], ports[3]], &to_router).await;
    let mut cheat = party(folder, CHEAT, [ports[4], ports[5]], &router, &[]).await;
    let peers = folder.join("peers.json").display().to_string();
    let identity = identity_in(&folder.join(DELEGATE).join("party"), DELEGATE).await;
    let mut add = Command::new(binary());
    add.args(["--json", "peers", "add", &identity, "--peers", &peers]);
    assert!(last_json(add).await.0);
    let role = ["--role", "delegate"];
    let mut delegate = party(folder, DELEGATE, [ports[6], ports[7]], &router, &role).await;
    let user = async |arguments: &[&str]| loop {
        let mut command = Command::new(binary());
        command.args(["user", "--json", "--folder"]).arg(folder.join("alice")).args(arguments);
        command.env("QUORATE_COORDINATOR", &coordinator).env("QUORATE_ROUTER", &router);
        let (done, answer) = last_json(command).await;
        // Parties connect when the router is there.
        if !matches!(answer["error"].as_str(), Some("threshold_not_met" | "unavailable")) {
            break (done, answer);
        }
    };
    assert!(user(&["init", "--name", "alice"]).await.0);
    let (made, key) = user(&["keygen", "--delegate", DELEGATE, "-t", "2", "-n", "2"]).await;
    assert!(made, "{key}");
    user(&["fetch", "--peers", &peers]).await;
    let id = key["key_id"].as_str().expect("an id");
    let initiator = initiator_of_roles();
    let through = ["sign", "--message", "hello", "--key", id, "--peers", &peers];
    let through = [&through[..], &["--initiator-key", &initiator, "--through", DELEGATE]].concat();
    let (signed, signature) = user(&through).await;
    assert!(signed, "{signature}");

    cheat.process.kill().await.expect("it runs");
    tamper(folder);
    let accept = ["--accept-rollback"];
    let _cheat = party(folder, CHEAT, free_ports::<2>(), &router, &accept).await;
    let (signed, caught) = user(&through).await;
    assert!(!signed && caught["details"]["blame"]["party_id"] == CHEAT, "{caught}");
    assert_eq!(caught["details"]["blame"]["reason"], "party_cheated", "{caught}");
    delegate.process.kill().await.expect("it runs");
    let vault = folder.join(DELEGATE).join("party").join(DELEGATE).join("vault.db");
    let (peer, evidence): (String, Vec<u8>) = Connection::open(vault)
        .expect("the delegate's vault")
        .query_row("SELECT peer, evidence FROM bans", [], |row| Ok((row.get(0)?, row.get(1)?)))
        .expect("the ban was on the disk when it was told");
    assert!(peer == CHEAT && !evidence.is_empty());
    let _delegate = party(folder, DELEGATE, free_ports::<2>(), &router, &role).await;
    let (signed, locked) = user(&through).await;
    let said = locked["message"].as_str().expect("a message");
    assert!(!signed && said.contains("key_locked"), "in another seat, after a kill: {locked}");
}
