//! Delegates with real processes: a user has its share made in its absence, fetches it and signs.

use std::path::Path;

use dkls23_secp256k1::Party as Held;
use quorate_e2e::{Role, binary, free_ports, identity_in, initiator_of_roles, last_json, root};
use rusqlite::Connection;
use serde_json::{Value, json};
use tokio::process::Command;

/// Router, coordinator, two server parties and a delegate, each a process.
struct World {
    router: [u16; 2],
    coordinator: [u16; 2],
    delegate: Role,
    /// NAME=HEX of the server parties, and of the delegate.
    identities: Vec<String>,
    _others: Vec<Role>,
}

impl World {
    async fn start(folder: &Path) -> Self {
        let ports = free_ports::<10>();
        let pair = |at: usize| [ports[at], ports[at + 1]];
        let (router, coordinator) = (pair(0), pair(2));
        let router_url = format!("http://127.0.0.1:{}", router[1]);
        let coordinator_url = format!("http://127.0.0.1:{}", coordinator[1]);
        let to_coordinator = ["--coordinator", coordinator_url.as_str()];
        let to_router = ["--router", router_url.as_str()];
        let mut others = vec![
            Role::start(folder, "router", router, &to_coordinator).await,
            Role::start(folder, "coordinator", coordinator, &to_router).await,
        ];
        let mut identities = Vec::new();
        for (name, at) in [("alpha", 4), ("beta", 6)] {
            identities.push(identity_in(&folder.join(name).join("party"), name).await);
            let more = [&["--id", name][..], &to_router].concat();
            others.push(Role::start(&folder.join(name), "party", pair(at), &more).await);
        }
        let data = folder.join("delegate").join("party");
        identities.push(identity_in(&data, "delegate-1").await);
        let more = [&["--id", "delegate-1", "--role", "delegate"][..], &to_router].concat();
        let delegate = Role::start(&folder.join("delegate"), "party", pair(8), &more).await;
        Self { router, coordinator, delegate, identities, _others: others }
    }

    /// A command of a user, with what it is told of addresses.
    fn user(&self, folder: &Path, arguments: &[&str]) -> Command {
        let mut command = Command::new(binary());
        command.args(["user", "--json", "--folder"]).arg(folder).args(arguments);
        command.env("QUORATE_COORDINATOR", format!("http://127.0.0.1:{}", self.coordinator[1]));
        command.env("QUORATE_ROUTER", format!("http://127.0.0.1:{}", self.router[1]));
        command
    }

    /// Runs a command of a user, again while parties are still connecting.
    async fn must(&self, folder: &Path, arguments: &[&str]) -> Value {
        loop {
            let (done, answer) = last_json(self.user(folder, arguments)).await;
            match answer["error"].as_str() {
                None if done => return answer,
                Some("threshold_not_met" | "unavailable") => {}
                _ => panic!("{arguments:?}: {answer}"),
            }
        }
    }
}

#[tokio::test]
async fn a_user_has_a_key_made_by_a_delegate_fetches_its_share_and_signs_alone() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::start(folder.path()).await;
    for (scheme, kem) in [("ecdsa-secp256k1", "x25519"), ("ed25519", "p256")] {
        let user = folder.path().join(scheme);
        let made = world.must(&user, &["init", "--name", "alice", "--kem", kem]).await;
        assert_eq!(made["seal_key"]["kem"], kem);
        let keygen = ["keygen", "--delegate", "delegate-1", "--scheme", scheme];
        let key = world.must(&user, &keygen).await;
        let id = key["key_id"].as_str().expect("an id");
        let sign = ["sign", "--message", "hello", "--key", id];
        let (done, early) = last_json(world.user(&user, &sign)).await;
        assert!(!done && early["error"] == "not_found", "its share is not there yet: {early}");
        // The identities of the other holders are not noted here: it says so by its exit code.
        let (known, _) = last_json(world.user(&user, &["fetch"])).await;
        assert!(!known);
        assert_eq!(world.must(&user, &["fetch"]).await, json!([]), "nothing waits any more");
        let signed = world.must(&user, &sign).await;
        let signers = signed["signers"].as_array().expect("a list");
        assert!(signers.contains(&json!("alice")) && !signers.contains(&json!("delegate-1")));
        let mut verify = Command::new(binary());
        verify.args(["verify", "--json", "--message", "hello"]);
        verify.args(["--public-key", key["public_key"].as_str().expect("text")]);
        verify.args(["--signature", signed["signature"].as_str().expect("text")]);
        assert!(last_json(verify).await.0, "{signed}");
    }
}

/// Notes identities in a file.
async fn note(peers: &str, identities: &[String]) {
    let mut noted = Command::new(binary());
    noted.args(["peers", "add", "--json", "--peers", peers]).args(identities);
    assert!(last_json(noted).await.0);
}

#[tokio::test]
async fn a_user_signs_through_its_delegate_and_alone_in_turns() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::start(folder.path()).await;
    let peers = folder.path().join("peers.json");
    let peers = peers.to_str().expect("text");
    let initiator = initiator_of_roles();
    note(peers, &world.identities[..2]).await;
    for (scheme, kem) in [("ecdsa-secp256k1", "x25519"), ("ed25519", "p256")] {
        let user = folder.path().join(scheme);
        world.must(&user, &["init", "--name", "alice", "--kem", kem]).await;
        let keygen = ["keygen", "--delegate", "delegate-1", "--scheme", scheme];
        let key = world.must(&user, &keygen).await;
        world.must(&user, &["fetch", "--peers", peers]).await;
        let id = key["key_id"].as_str().expect("an id");
        let sign = ["sign", "--message", "hello", "--key", id, "--peers", peers];
        let through = [&sign[..], &["--initiator-key", &initiator, "--through"]].concat();
        if scheme == "ecdsa-secp256k1" {
            let unknown = [&through[..], &["delegate-1"]].concat();
            let (done, refused) = last_json(world.user(&user, &unknown)).await;
            assert!(!done && refused["details"]["through"].is_string(), "{refused}");
            note(peers, &world.identities[2..]).await;
        }
        let other = [&through[..], &["alpha"]].concat();
        let (done, refused) = last_json(world.user(&user, &other)).await;
        assert!(!done && refused["error"] == "not_found", "{refused}");
        let through = [&through[..], &["delegate-1"]].concat();
        let named = [&through[..], &["--party", "beta"]].concat();
        for arguments in [&through[..], &sign, &named, &sign, &through] {
            let signed = world.must(&user, arguments).await;
            let mut verify = Command::new(binary());
            verify.args(["verify", "--json", "--message", "hello"]);
            verify.args(["--public-key", key["public_key"].as_str().expect("text")]);
            verify.args(["--signature", signed["signature"].as_str().expect("text")]);
            assert!(last_json(verify).await.0, "{signed}");
            let signers = signed["signers"].as_array().expect("a list");
            let lent = arguments.contains(&"--through");
            assert_eq!(signers.contains(&json!("delegate-1")), lent, "{signed}");
        }
    }
    let store = Connection::open(folder.path().join("coordinator/quorate.db")).expect("its store");
    let kept: i64 =
        store.query_row("SELECT count(*) FROM lent_shares", [], |row| row.get(0)).expect("a table");
    assert_eq!(kept, 0, "a share goes with its session");
}

/// Notes which of the needles stand in these bytes, in one pass.
fn search(bytes: &[u8], needles: &[Vec<u8>], found: &mut [bool]) {
    let mut begins = [false; 256];
    needles.iter().for_each(|needle| begins[usize::from(needle[0])] = true);
    for (at, byte) in bytes.iter().enumerate() {
        if begins[usize::from(*byte)] {
            for (needle, found) in needles.iter().zip(&mut *found) {
                *found |= bytes[at..].starts_with(needle);
            }
        }
    }
}

/// Which of the needles stand in the memory of a process that can be read.
fn in_memory(pid: u32, needles: &[Vec<u8>]) -> Vec<bool> {
    use std::os::unix::fs::FileExt as _;
    let maps = std::fs::read_to_string(format!("/proc/{pid}/maps")).expect("its maps");
    let memory = std::fs::File::open(format!("/proc/{pid}/mem")).expect("its memory");
    let mut found = vec![false; needles.len()];
    for line in maps.lines() {
        let mut words = line.split_whitespace();
        let (range, rights) = (words.next().expect("a range"), words.next().expect("rights"));
        if !rights.starts_with("rw") || line.ends_with("[vvar]") {
            continue;
        }
        let (start, end) = range.split_once('-').expect("two ends");
        let number = |text| u64::from_str_radix(text, 16).expect("hex");
        let (start, end) = (number(start), number(end));
        let mut bytes = vec![0; usize::try_from(end - start).expect("it fits")];
        if memory.read_exact_at(&mut bytes, start).is_ok() {
            search(&bytes, needles, &mut found);
        }
    }
    found
}

/// Which of the needles stand in the files of a folder.
fn in_files(folder: &Path, needles: &[Vec<u8>], found: &mut [bool]) {
    for entry in std::fs::read_dir(folder).expect("a folder").flatten() {
        match entry.path().is_dir() {
            true => in_files(&entry.path(), needles, found),
            false => search(&std::fs::read(entry.path()).unwrap_or_default(), needles, found),
        }
    }
}

#[tokio::test]
async fn a_signed_keygen_of_known_holders_gives_the_user_a_verified_key() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::start(folder.path()).await;
    let peers = folder.path().join("peers.json");
    let peers = peers.to_str().expect("text");
    note(peers, &world.identities).await;
    let initiator = initiator_of_roles();
    let user = folder.path().join("alice");
    world.must(&user, &["init", "--name", "alice"]).await;
    let keygen = ["keygen", "--delegate", "delegate-1", "--scheme", "ed25519", "--peers", peers];
    let signed = ["--initiator-key", &initiator, "--party", "alpha", "--party", "beta"];
    let key = world.must(&user, &[&keygen[..], &signed].concat()).await;
    let fetched = world.must(&user, &["fetch", "--peers", peers]).await;
    assert_eq!(fetched[0]["key_id"], key["key_id"]);
    assert_eq!(fetched[0]["verified"], true, "{fetched}");
    let id = key["key_id"].as_str().expect("an id");
    let sign = ["sign", "--message", "hello", "--key", id, "--initiator-key", &initiator];
    world.must(&user, &[&sign[..], &["--party", "beta"]].concat()).await;
}

#[tokio::test]
async fn a_python_client_has_its_share_made_signs_through_its_delegate_and_that_keeps_nothing() {
    let folder = tempfile::tempdir().expect("a folder");
    let world = World::start(folder.path()).await;
    let python = std::env::var("QUORATE_PYTHON")
        .unwrap_or_else(|_| root().join("target/venv/bin/python").display().to_string());
    let (_, identity) = world.identities[2].split_once('=').expect("NAME=HEX");
    for (kem, scheme) in [("x25519", "ed25519"), ("p256", "ecdsa-secp256k1")] {
        let opened = folder.path().join(format!("{kem}.package"));
        let output = Command::new(&python)
            .arg(root().join("crates/e2e/python/delegate_client.py"))
            .arg(root().join("proto"))
            .arg(folder.path().join(format!("generated-{kem}")))
            .arg(format!("127.0.0.1:{}", world.router[1]))
            .arg(format!("127.0.0.1:{}", world.coordinator[0]))
            .args(["delegate-1", kem, scheme])
            .arg(&opened)
            .arg(initiator_of_roles())
            .arg(identity)
            .output()
            .await
            .unwrap_or_else(|error| panic!("{python}: {error}; `cargo xtask test` sets it up"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success(), "{said}");
        let package = std::fs::read(&opened).expect("the opened package");
        // Behind the version: the identity's secret; behind generation and facts the share, and of an
        // Ed25519 share its secret behind four bytes.
        let identity = &package[1..33];
        let facts = u32::from_be_bytes(package[41..45].try_into().expect("four bytes")) as usize;
        let share = &package[45 + facts..];
        let mut secrets = vec![identity.to_vec()];
        if scheme == "ed25519" {
            secrets.push(share[4..36].to_vec());
        } else {
            let held: Held = postcard::from_bytes(&share[2..]).expect("the library's form");
            let scalar = held.poly_point.to_bytes().to_vec();
            // As it is written, and as it stands in memory on this machine.
            secrets.push(scalar.iter().rev().copied().collect());
            secrets.push(scalar);
            for sender in held.mul_senders.values() {
                secrets.extend(sender.ote_sender.seeds.iter().take(1).map(|seed| seed.to_vec()));
            }
            assert!(secrets.len() > 3, "the transfers have secrets, too");
        }
        let data = folder.path().join("delegate");
        let none = vec![false; secrets.len()];
        let mut found = none.clone();
        in_files(&data, &secrets, &mut found);
        assert_eq!(found, none, "{scheme}: on the delegate's disk");
        in_files(folder.path(), &secrets, &mut found);
        assert!(found[0], "the search finds what is there");
        // A process that serves is closed to others than root.
        if rustix::process::getuid().is_root() {
            let all = vec![true; secrets.len()];
            assert_eq!(in_memory(std::process::id(), &secrets), all, "the search finds them here");
            let pid = world.delegate.process.id().expect("it runs");
            assert_eq!(in_memory(pid, &secrets), none, "{scheme}: in the delegate's memory");
        }
        let vault = data.join("party/delegate-1/vault.db");
        let vault = Connection::open(vault).expect("the delegate's vault");
        let count = |table: &str| -> i64 {
            let sql = format!("SELECT count(*) FROM {table}");
            vault.query_row(&sql, [], |row| row.get(0)).expect("a table")
        };
        assert_eq!((count("shares"), count("pins")), (0, 0));
    }
}
