//! Two tenants of one installation, in one process or with roles apart: everybody's credentials,
//! and whatever a request needs to find.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;

use base64::Engine as _;
use quorate_authority::AuthoritySecret;
use quorate_client::PartyCredentials;
use quorate_e2e::{Cluster, Role, api_key_in, free_ports, identity_in};
use quorate_engine::Identity;
use quorate_types::Secret;
use reqwest::Url;
use serde_json::{Value, json};

use crate::ask::{Credential, Outcome, rest};

/// secp256k1's generator: a key whose keygen is reported by hand.
pub(crate) const PUBLIC_KEY: &str =
    "0279be667ef9dcbbac55a06295ce870b07029bfcdb2dce28d959f2815b16f81798";

/// Who serves.
pub(crate) const SERVICES: [&str; 4] = ["coordinator", "router", "accounts", "party"];

/// Callers that hold API keys: their scopes and tenant.
const KEYS: [(&str, &[&str], &str); 6] = [
    ("sessions", &["sessions"], "acme"),
    ("read", &["read"], "acme"),
    ("accounts", &["accounts"], "acme"),
    ("party", &["party"], "acme"),
    ("evil", &["sessions", "read", "accounts", "party"], "evil"),
    ("system", &["system"], "acme"),
];

/// What a request finds, by the names that stand for it in the table.
pub(crate) type Facts = HashMap<&'static str, String>;

/// A running installation and its callers.
pub(crate) struct World {
    /// HTTP and gRPC addresses by service.
    bases: HashMap<&'static str, [String; 2]>,
    keys: HashMap<(&'static str, &'static str), String>,
    proofs: [PartyCredentials; 2],
    /// A key of the owner's devices.
    key: String,
    /// A key of the owner's that two server parties hold.
    held: String,
    made: std::cell::Cell<u32>,
    _running: Running,
}

/// Keeps the processes alive.
enum Running {
    One { _cluster: Box<Cluster> },
    Apart { _roles: Vec<Role> },
}

async fn keys_in(data: &Path) -> Vec<(&'static str, String)> {
    let mut keys = Vec::new();
    for (caller, scopes, tenant) in KEYS {
        let mut arguments = match scopes.contains(&"system") {
            true => Vec::new(),
            false => vec!["--tenant", tenant],
        };
        arguments.extend(scopes.iter().flat_map(|scope| ["--scope", scope]));
        keys.push((caller, api_key_in(data, &arguments).await));
    }
    keys
}

/// The parties that prove themselves: their identities, and the options that trust them.
fn devices() -> ([Arc<Identity>; 2], Vec<String>) {
    let identities = [(); 2].map(|()| Arc::new(Identity::generate()));
    let named = ["dev-1", "dev-3"].iter().zip(&identities);
    let trust = named.flat_map(|(name, identity)| {
        ["--trust".to_owned(), format!("{name}={}", hex::encode(identity.public()))]
    });
    let trust = trust.collect();
    (identities, trust)
}

impl World {
    /// Everything by `quorate up`.
    pub(crate) async fn in_one_process(folder: &Path) -> Self {
        let made = keys_in(&folder.join("data")).await;
        let keys = SERVICES.iter().flat_map(|service| {
            made.iter().map(|(caller, key)| ((*service, *caller), key.clone()))
        });
        let keys = keys.collect();
        let (identities, trust) = devices();
        let flags: Vec<_> =
            ["--auth", "required"].into_iter().chain(trust.iter().map(String::as_str)).collect();
        let cluster = Cluster::start_with(folder, &flags).await;
        let pair = |pair: &Value| {
            ["http", "grpc"].map(|kind| format!("http://{}", pair[kind].as_str().expect("text")))
        };
        let bases = SERVICES.map(|service| {
            let addresses = match service {
                "party" => &cluster.endpoints["parties"][0],
                _ => &cluster.endpoints[service],
            };
            (service, pair(addresses))
        });
        let running = Running::One { _cluster: Box::new(cluster) };
        Self::of(bases.into(), keys, identities, running).await
    }

    /// Each role in a process of its own.
    pub(crate) async fn with_roles_apart(folder: &Path) -> Self {
        let mut keys = HashMap::new();
        for service in SERVICES {
            for (caller, key) in keys_in(&folder.join(service)).await {
                keys.insert((service, caller), key);
            }
        }
        let (identities, trust) = devices();
        let ports = free_ports::<10>();
        let url = |port: usize| format!("http://127.0.0.1:{}", ports[port]);
        let (coordinator, router) = (url(1), url(3));
        let mut roles = Vec::new();
        let second = folder.join("second");
        let mut trust = trust;
        for (folder, name) in [(folder, "server-party-1"), (&second, "server-party-2")] {
            let identity = identity_in(&folder.join("party"), name).await;
            trust.extend(["--trust".to_owned(), identity]);
        }
        // The router first: the others connect to it.
        for (at, service) in [(2, "router"), (0, "coordinator"), (4, "accounts"), (6, "party")] {
            let mut flags = vec!["--auth", "required"];
            flags.extend(trust.iter().map(String::as_str));
            flags.extend(match service {
                "router" | "accounts" => ["--coordinator", coordinator.as_str()],
                _ => ["--router", router.as_str()],
            });
            let own = [ports[at], ports[at + 1]];
            roles.push(Role::start(folder, service, own, &flags).await);
        }
        let flags = ["--id", "server-party-2", "--router", &router];
        roles.push(Role::start(&second, "party", [ports[8], ports[9]], &flags).await);
        let bases = SERVICES.iter().enumerate();
        let bases = bases.map(|(at, service)| (*service, [url(2 * at), url(2 * at + 1)])).collect();
        Self::of(bases, keys, identities, Running::Apart { _roles: roles }).await
    }

    async fn of(
        bases: HashMap<&'static str, [String; 2]>,
        keys: HashMap<(&'static str, &'static str), String>,
        identities: [Arc<Identity>; 2],
        running: Running,
    ) -> Self {
        let [one, three] = identities;
        let proofs = [("dev-1", one), ("dev-3", three)]
            .map(|(name, identity)| PartyCredentials::new(name.parse().expect("a name"), identity));
        let made = std::cell::Cell::new(0);
        let (key, held) = (String::new(), String::new());
        let mut world = Self { bases, keys, proofs, key, held, made, _running: running };
        world.must("party", "GET", "/ready", None).await;
        let facts = world.fresh("running", "dev-2").await;
        for party in ["dev-1", "dev-2"] {
            let report = json!({"party_id": party, "public_key": PUBLIC_KEY});
            let path = format!("/api/v1/sessions/{}/complete", facts["$SESSION"]);
            world.must("coordinator", "POST", &path, Some(report)).await;
        }
        world.key.clone_from(&facts["$SESSION"]);
        world.held = world.real_key().await;
        world
    }

    /// A service's HTTP or gRPC address.
    pub(crate) fn base(&self, service: &str, grpc: bool) -> &str {
        &self.bases[service][usize::from(grpc)]
    }

    /// What a caller shows to a service.
    pub(crate) fn credential(&self, caller: &str, service: &str) -> Credential<'_> {
        match caller {
            "none" => Credential::Nothing,
            "wrong" => Credential::Key("qk_0000000000000000_x"),
            "dev-1" | "1-as-2" => Credential::Proof(&self.proofs[0]),
            "dev-3" => Credential::Proof(&self.proofs[1]),
            _ => {
                let name = if caller == "key-as-1" { "party" } else { caller };
                let held = self.keys.iter().find(|((at, who), _)| *at == service && *who == name);
                Credential::Key(held.expect("everybody has one").1)
            }
        }
    }

    /// As the owner of everything: what must succeed.
    async fn must(&self, service: &str, method: &str, path: &str, body: Option<Value>) -> Value {
        let url = Url::parse(&format!("{}{path}", self.base(service, false))).expect("a URL");
        let owner = match (service, path) {
            ("coordinator", "/api/v1/sessions") => "sessions",
            (_, "/api/v1/api-keys") => "system",
            ("accounts", _) => "accounts",
            _ => "system",
        };
        let body = body.map(|body| body.to_string()).unwrap_or_default();
        // Roles apart: they may still be connecting, and events are on their way.
        loop {
            let credential = self.credential(owner, service);
            let Outcome { code, text } = rest(method, &url, &credential, &body).await;
            match code.as_str() {
                "ok" => return serde_json::from_str(&text).unwrap_or(Value::Null),
                "503" => {}
                "404" if service == "router" => {}
                _ => panic!("{service} {path}: {code} {text}"),
            }
            tokio::task::yield_now().await;
        }
    }

    /// Makes what a request needs: a session of the owner's two devices in some state, and an
    /// account. `party` is who acts.
    pub(crate) async fn fresh(&self, state: &str, party: &'static str) -> Facts {
        self.made.set(self.made.get() + 1);
        let unique = format!("user-{}", self.made.get());
        let other = if party == "dev-1" { "dev-2" } else { "dev-1" };
        let mut facts = Facts::from([
            ("$PARTY", party.to_owned()),
            ("$OTHER", other.to_owned()),
            ("$UNIQUE", unique.clone()),
            ("$KEY", self.key.clone()),
            ("$HELD", self.held.clone()),
        ]);
        match state {
            "-" | "absent" | "api-key" => {}
            "account" => {
                let account = json!({"username": format!("{unique}-a"), "publicKey": PUBLIC_KEY});
                let account = self.must("accounts", "POST", "/api/v1/accounts", Some(account));
                let id = account.await["id"].as_str().expect("an id").to_owned();
                facts.insert("$ACCOUNT", id);
            }
            "delegated" | "handed" => self.delegated(state, &mut facts).await,
            _ => self.session(state, &mut facts).await,
        }
        facts
    }

    /// The id of a new API key of a service.
    pub(crate) async fn api_key(&self, service: &str) -> String {
        let new = json!({"scopes": ["read"]});
        let made = self.must(service, "POST", "/api/v1/api-keys", Some(new)).await;
        made["id"].as_str().expect("an id").to_owned()
    }

    /// Makes a key with two server parties.
    async fn real_key(&self) -> String {
        let keygen = json!({
            "session_type": "keygen", "threshold_n": 2, "threshold_t": 2,
            "participants": [{"party_id": "server-party-1"}, {"party_id": "server-party-2"}],
        });
        let made = self.must("coordinator", "POST", "/api/v1/sessions", Some(keygen)).await;
        let path = format!("/api/v1/sessions/{}", made["session_id"].as_str().expect("an id"));
        loop {
            let path = format!("{path}?wait=end&wait_seconds=60");
            let session = self.must("coordinator", "GET", &path, None).await;
            match session["status"].as_str() {
                Some("completed") => return session["key_id"].as_str().expect("a key").to_owned(),
                Some("failed" | "expired") => panic!("{session}"),
                _ => {}
            }
        }
    }

    /// A keygen that computes, in which the two devices take the seats of users; `handed`: it has
    /// completed, and the users' packages wait.
    async fn delegated(&self, state: &str, facts: &mut Facts) {
        let seat = |name: &str| {
            let base = format!("09{}", "00".repeat(31));
            let user = json!({"user_id": format!("user-{name}"), "seal_key": {"kem": "x25519", "key": base}});
            json!({"party_id": name, "on_behalf_of": user})
        };
        let keygen = json!({
            "session_type": "keygen", "threshold_n": 2, "threshold_t": 2,
            "participants": [seat("dev-1"), seat("dev-2")],
        });
        let made = self.must("coordinator", "POST", "/api/v1/sessions", Some(keygen)).await;
        let path = format!("/api/v1/sessions/{}", made["session_id"].as_str().expect("an id"));
        for party in ["dev-1", "dev-2"] {
            let join =
                json!({"join_token": made["join_tokens"][party], "party_id": party, "ready": true});
            self.must("coordinator", "POST", "/api/v1/sessions/join", Some(join)).await;
        }
        if state == "handed" {
            for (place, party) in [(0, "dev-1"), (1, "dev-2")] {
                let share = json!({"party_id": party, "party_index": place,
                    "public_key": PUBLIC_KEY, "encrypted_share": "eA=="});
                let to = format!("{path}/delegate-share");
                self.must("coordinator", "POST", &to, Some(share)).await;
                let report = json!({"party_id": party, "public_key": PUBLIC_KEY});
                let to = format!("{path}/complete");
                self.must("coordinator", "POST", &to, Some(report)).await;
            }
        }
        let acting = if facts["$PARTY"] == "dev-1" { "dev-1" } else { "dev-2" };
        let text = |value: &Value| value.as_str().expect("text").to_owned();
        facts.insert("$PLACE", if acting == "dev-1" { "0" } else { "1" }.to_owned());
        facts.insert("$FETCH", text(&made["fetch_tokens"][acting]));
        facts.insert("$SESSION", text(&made["session_id"]));
    }

    async fn session(&self, state: &str, facts: &mut Facts) {
        let keygen = json!({
            "session_type": "keygen", "threshold_n": 2, "threshold_t": 2,
            "participants": [{"party_id": "dev-1"}, {"party_id": "dev-2"}],
        });
        let made = self.must("coordinator", "POST", "/api/v1/sessions", Some(keygen)).await;
        let id = made["session_id"].as_str().expect("an id").to_owned();
        let holder = if facts["$PARTY"] == "dev-1" { "dev-1" } else { "dev-2" };
        let token = made["join_tokens"][holder].as_str().expect("a token").to_owned();
        facts.insert("$TOKEN", token);
        let request = made["authorization"]["request"].as_str().expect("the service signs");
        let request = quorate_wire::decode_base64(request).expect("base64");
        let approver = AuthoritySecret::from_seed(&Secret::new([5; 32]));
        let signature = approver.approve(&request).signature.0;
        facts.insert("$APPROVER", approver.public().to_string());
        facts.insert("$SIGNHEX", hex::encode(signature));
        facts.insert("$SIGN64", base64::engine::general_purpose::STANDARD.encode(signature));
        facts.insert("$SESSION", id.clone());
        if state == "created" {
            return;
        }
        for party in ["dev-1", "dev-2"] {
            let join = json!({"join_token": made["join_tokens"][party], "party_id": party});
            self.must("coordinator", "POST", "/api/v1/sessions/join", Some(join)).await;
        }
        if state == "running" {
            for party in ["dev-1", "dev-2"] {
                let ready = format!("/api/v1/sessions/{id}/parties/{party}/ready");
                self.must("coordinator", "PUT", &ready, None).await;
            }
        }
        if state == "message" {
            let path = format!("/api/v1/sessions/{id}/messages");
            for (from, to) in [("dev-1", "dev-2"), ("dev-2", "dev-1")] {
                let message = json!({
                    "from_party": from, "to_parties": [to], "round_number": 1,
                    "message_type": "x", "payload": "eA==",
                });
                let routed = self.must("router", "POST", &path, Some(message)).await;
                if to == holder {
                    let message = routed["message_id"].as_str().expect("an id").to_owned();
                    facts.insert("$MESSAGE", message);
                }
            }
        }
    }
}
