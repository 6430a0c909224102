//! Signatures that finish: parties that are killed or frozen at any time are replaced.

#![allow(clippy::print_stderr, reason = "it says how slow the slowest was")]

use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use quorate_e2e::{Role, amount, call, free_ports};
use serde_json::{Value, json};
use tempfile::TempDir;

const NAMES: [&str; 3] = ["alpha", "beta", "gamma"];

/// A router, a coordinator and three parties, each a process of its own.
struct Installation {
    folder: TempDir,
    ports: [u16; 10],
    _services: [Role; 2],
    parties: Vec<Option<Role>>,
}

impl Installation {
    async fn start() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let ports = free_ports::<10>();
        let to_coordinator = format!("http://127.0.0.1:{}", ports[3]);
        let to_router = format!("http://127.0.0.1:{}", ports[1]);
        let (at, router) = (folder.path(), [ports[0], ports[1]]);
        let router = Role::start(at, "router", router, &["--coordinator", &to_coordinator]).await;
        let coordinator = [ports[2], ports[3]];
        let coordinator =
            Role::start(at, "coordinator", coordinator, &["--router", &to_router]).await;
        let mut all = Self { folder, ports, _services: [router, coordinator], parties: Vec::new() };
        for party in 0..NAMES.len() {
            let started = all.party(party).await;
            all.parties.push(Some(started));
        }
        all
    }

    async fn party(&self, party: usize) -> Role {
        let router = format!("http://127.0.0.1:{}", self.ports[1]);
        let ports = [self.ports[4 + 2 * party], self.ports[5 + 2 * party]];
        let more = ["--id", NAMES[party], "--router", &router];
        Role::start(&self.own(party), "party", ports, &more).await
    }

    fn own(&self, party: usize) -> PathBuf {
        self.folder.path().join(NAMES[party])
    }

    fn sessions(&self) -> String {
        format!("http://127.0.0.1:{}/api/v1/sessions", self.ports[2])
    }

    /// The id of a session that there are enough parties for.
    async fn create(&self, body: &Value) -> String {
        loop {
            let (status, created) = call("POST", &self.sessions(), Some(body)).await;
            match created["error"].as_str() {
                None => return created["session_id"].as_str().expect("an id").to_owned(),
                Some("threshold_not_met" | "unavailable") => tokio::task::yield_now().await,
                Some(_) => panic!("{status}: {created}"),
            }
        }
    }

    async fn end(&self, id: &str) -> Value {
        let url = format!("{}/{id}?wait=end&wait_seconds=60", self.sessions());
        call("GET", &url, None).await.1
    }

    /// A 2-of-3 key.
    async fn key(&self) -> String {
        let keygen = json!({"session_type": "keygen", "threshold_t": 2, "threshold_n": 3});
        let made = self.end(&self.create(&keygen).await).await;
        made["key_id"].as_str().unwrap_or_else(|| panic!("{made}")).to_owned()
    }

    /// Kills a party, if it runs, and waits until it has let go of its ports and its folder.
    async fn kill(&mut self, party: usize) {
        if let Some(mut role) = self.parties[party].take() {
            role.process.kill().await.expect("it can be killed");
        }
    }

    async fn restart(&mut self, party: usize) {
        self.kill(party).await;
        let started = self.party(party).await;
        self.parties[party] = Some(started);
    }

    fn pid(&self, party: usize) -> u32 {
        self.parties[party].as_ref().and_then(|role| role.process.id()).expect("it runs")
    }

    fn signal(&self, party: usize, signal: &str) {
        let pid = self.pid(party).to_string();
        let sent = Command::new("kill").args([signal, &pid]).status().expect("kill runs");
        assert!(sent.success());
    }

    /// Begins a signature, lets something happen to a party a moment later, and waits for the end.
    async fn sign_while(
        &self,
        key: &str,
        number: usize,
        happens: impl Future<Output = ()>,
    ) -> Value {
        let hash = format!("{number:064x}");
        let body = json!({"session_type": "sign", "key_id": key, "message_hash": hash});
        let id = self.create(&body).await;
        tokio::join!(self.end(&id), happens).0
    }
}

/// The timeline of a session, for whoever reads a failure.
async fn story(all: &Installation, ended: &Value) -> String {
    let id = ended["session_id"].as_str().unwrap_or_default();
    let told = call("GET", &format!("{}/{id}/timeline", all.sessions()), None).await.1;
    format!("{ended}\n{told:#}")
}

#[tokio::test]
async fn a_party_that_freezes_or_dies_at_any_moment_costs_no_signature() {
    let mut all = Installation::start().await;
    let key = all.key().await;
    let rounds = amount(24, 600);
    let mut slowest = Duration::ZERO;
    let mut again = 0;
    for number in 1..=rounds {
        let party = number % NAMES.len();
        let delay = Duration::from_millis((number as u64 * 7) % 40);
        let freeze = number % 2 == 0;
        let begun = Instant::now();
        let ended = all
            .sign_while(&key, number, async {
                tokio::time::sleep(delay).await;
                all.signal(party, if freeze { "-STOP" } else { "-KILL" });
            })
            .await;
        let took = begun.elapsed();
        assert_eq!(ended["status"], "completed", "round {number}: {}", story(&all, &ended).await);
        slowest = slowest.max(took);
        again += usize::from(ended["replaced"].as_array().is_some_and(|all| !all.is_empty()));
        if freeze {
            all.signal(party, "-CONT");
        } else {
            all.restart(party).await;
        }
    }
    eprintln!("slowest {slowest:?}, with a replacement {again} of {rounds}");
    assert!(again > 0, "some were hit in the middle");
}

#[tokio::test]
async fn a_frozen_party_delays_one_signature_and_no_other() {
    let all = Installation::start().await;
    let key = all.key().await;
    for (frozen, name) in NAMES.into_iter().enumerate() {
        all.signal(frozen, "-STOP");
        let mut replaced = 0;
        for number in 1..=6 {
            let ended = all.sign_while(&key, 100 * frozen + number, async {}).await;
            assert_eq!(ended["status"], "completed", "{}", story(&all, &ended).await);
            let names = ended["replaced"].as_array().cloned().unwrap_or_default();
            assert!(names.iter().all(|one| one == name), "{ended}");
            replaced += names.len();
        }
        assert!(replaced <= 1, "it is chosen last until it is heard again");
        all.signal(frozen, "-CONT");
    }
}

#[tokio::test]
async fn a_named_party_that_is_away_is_replaced_only_where_the_request_says_so() {
    let mut all = Installation::start().await;
    let key = all.key().await;
    all.kill(0).await;
    let named = json!([{"party_id": "alpha"}, {"party_id": "beta"}]);
    let mut body = json!({
        "session_type": "sign", "key_id": key, "message_hash": "11".repeat(32),
        "participants": named, "expires_in_seconds": 2
    });
    let ended = all.end(&all.create(&body).await).await;
    assert_eq!(ended["status"], "expired", "{ended}");
    assert_eq!(ended["failure"]["parties"], json!(["alpha"]), "{ended}");
    body["replace"] = json!(true);
    body["expires_in_seconds"] = json!(60);
    let ended = all.end(&all.create(&body).await).await;
    assert_eq!(ended["status"], "completed", "{}", story(&all, &ended).await);
    assert_eq!(ended["replaced"], json!(["alpha"]));
    // Named, and restarted in the middle: it comes back by itself.
    all.restart(0).await;
    body["replace"] = json!(false);
    let mut again = false;
    for number in 0..amount(6, 60) {
        body["message_hash"] = json!(format!("{:064x}", 500 + number));
        let id = all.create(&body).await;
        tokio::time::sleep(Duration::from_millis(number as u64 % 12)).await;
        all.restart(0).await;
        let ended = all.end(&id).await;
        assert_eq!(ended["status"], "completed", "{}", story(&all, &ended).await);
        again |= ended["attempt"] != json!(0);
    }
    assert!(again, "one was hit in the middle");
}
