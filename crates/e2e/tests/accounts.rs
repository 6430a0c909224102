//! Accounts off loopback, where nobody signs for a caller: each has an initiator of its own, or the
//! operators of the parties let the service ask for one key.

use std::path::Path;

use quorate_authority::{Action, AuthoritySecret, NamedHolder, Request, RequestedInput, Signers};
use quorate_e2e::{Cluster, api_key, initiator};
use quorate_types::{Digest, KeyId, PublicKey, Scheme, Secret, Threshold, Timestamp};
use quorate_wire::AuthorizationJson;
use serde_json::{Value, json};

const PARTIES: [&str; 3] = ["server-party-1", "server-party-2", "server-party-3"];

/// The account service of an installation that other machines reach.
struct Service {
    cluster: Cluster,
    api_key: String,
}

impl Service {
    async fn start(folder: &Path, flags: &[&str], api_key: &str) -> Self {
        let public = ["--no-relays", "--host", "0.0.0.0", "--insecure"];
        let cluster = Cluster::start_with(folder, &[&public, flags].concat()).await;
        Self { cluster, api_key: api_key.to_owned() }
    }

    async fn ask(&self, method: &str, path: &str, body: &Value) -> Value {
        let url = self.cluster.url("accounts", path);
        let method = method.parse().expect("an HTTP method");
        let request = reqwest::Client::new().request(method, url).bearer_auth(&self.api_key);
        let request = if body.is_null() { request } else { request.json(body) };
        request.send().await.expect("an answer").json().await.expect("JSON")
    }

    async fn account(&self, name: &str, more: &Value) -> String {
        let mut account = more.clone();
        account["username"] = json!(name);
        let account = self.ask("POST", "/api/v1/accounts", &account).await;
        account["id"].as_str().expect("an id").to_owned()
    }

    /// How a session ended that was asked for.
    async fn ended(&self, created: &Value) -> Value {
        let id = created["session_id"].as_str().unwrap_or_else(|| panic!("{created}"));
        let path = format!("/api/v1/mpc/sessions/{id}?wait=end&wait_seconds=60");
        self.ask("GET", &path, &Value::Null).await
    }

    /// Makes a key for an account, by a request that its initiator signs.
    async fn keygen(&self, account: &str, secret: &AuthoritySecret) -> Key {
        let holder =
            |name: &&str| NamedHolder { party_id: name.parse().expect("a name"), identity: None };
        let signed = sign(
            secret,
            Action::Keygen {
                scheme: Scheme::default(),
                threshold: Threshold::new(2, 3).expect("2 of 3"),
                holders: PARTIES.iter().map(holder).collect(),
                label: None,
            },
        );
        let body = json!({
            "threshold_n": 3, "threshold_t": 2, "account_id": account, "authorization": signed,
            "participants": PARTIES.map(|name| json!({"party_id": name})),
        });
        let made = self.ended(&self.ask("POST", "/api/v1/mpc/keygen", &body).await).await;
        assert_eq!(made["status"], "completed", "{made}");
        let text = |field: &str| made[field].as_str().expect("text").to_owned();
        Key { id: text("key_id"), public_key: text("public_key") }
    }

    async fn sign(&self, account: &str, digest: [u8; 32], signed: Option<Value>) -> Value {
        let mut body = json!({"account_id": account, "message_hash": hex::encode(digest)});
        if let Some(signed) = signed {
            body["authorization"] = signed;
        }
        self.ask("POST", "/api/v1/mpc/sign", &body).await
    }
}

struct Key {
    id: String,
    public_key: String,
}

fn sign(secret: &AuthoritySecret, action: Action) -> Value {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let now = Timestamp(i64::try_from(now.expect("after 1970").as_millis()).expect("before 2262"));
    let nonce = *uuid::Uuid::new_v4().as_bytes();
    let request =
        Request { action, expires_at: now.plus_seconds(600), nonce, purpose: "test".to_owned() };
    let signed = AuthorizationJson::from(secret.authorize(&request));
    serde_json::to_value(signed).expect("plain data")
}

fn signature(secret: &AuthoritySecret, key: &Key, digest: [u8; 32]) -> Value {
    let public_key = PublicKey(hex::decode(&key.public_key).expect("hex"));
    let action = Action::Sign {
        key_id: key.id.parse::<KeyId>().expect("an id"),
        epoch: 0,
        scheme: Scheme::default(),
        public_key,
        input: RequestedInput::Digest(Digest(digest)),
        path: Vec::new(),
        signers: Signers::Any,
    };
    sign(secret, action)
}

fn denied(answer: &Value, rule: &str) {
    assert_eq!(answer["error"], "policy_denied", "{answer}");
    assert!(answer["message"].as_str().expect("text").starts_with(rule), "{rule}: {answer}");
}

#[tokio::test]
async fn an_account_off_loopback_signs_what_its_initiator_has_signed() {
    let folder = tempfile::tempdir().expect("a folder");
    let scopes = ["--scope", "accounts", "--scope", "sessions"];
    let api_key = api_key(folder.path(), &scopes).await;
    let secret = |seed| AuthoritySecret::from_seed(&Secret::new([seed; 32]));
    let (alice, stranger) = (secret(1), secret(2));
    let (_, public) = initiator(folder.path(), "alice.pem", 1);
    let pinned = format!("alice={public}");
    let service = Service::start(folder.path(), &["--initiator", &pinned], &api_key).await;

    let account = service.account("alice", &json!({"initiatorKey": public})).await;
    let key = service.keygen(&account, &alice).await;
    let path = format!("/api/v1/accounts/{account}");
    let shown = service.ask("GET", &path, &Value::Null).await;
    assert_eq!(shown["initiatorKey"], public);
    assert_eq!(shown["publicKey"], key.public_key, "the threshold key, not the initiator's");
    denied(&service.sign(&account, [7; 32], None).await, "unsigned: ");
    let foreign = signature(&stranger, &key, [7; 32]);
    denied(&service.sign(&account, [7; 32], Some(foreign)).await, "initiator: ");
    let other = signature(&alice, &key, [8; 32]);
    denied(&service.sign(&account, [7; 32], Some(other)).await, "input: ");
    let asked = signature(&alice, &key, [7; 32]);
    let signed = service.ended(&service.sign(&account, [7; 32], Some(asked)).await).await;
    assert_eq!(signed["status"], "completed", "{signed}");

    // Through an account without an initiator nobody signs for the caller.
    let bare = service.account("bob", &json!({"publicKey": key.public_key})).await;
    let unsigned = service.ended(&service.sign(&bare, [7; 32], None).await).await;
    assert_eq!(unsigned["failure"]["reason"], "policy_denied", "{unsigned}");
    let spare = service.keygen(&account, &alice).await;
    assert!(service.cluster.stop().await);

    // Where the operators of the parties let the service ask for one key, it signs with that one.
    let (service_key, service_public) = initiator(folder.path(), "service.pem", 3);
    let policy = folder.path().join("policy.toml");
    let rules = format!(
        "version = 1\n[initiators]\nservice = \"{service_public}\"\n[keys.shared]\n\
         ids = [\"{}\"]\ninitiators = [\"service\"]\n[default]\ninitiators = [\"alice\"]\n",
        key.id
    );
    std::fs::write(&policy, rules).expect("writable");
    let policy = policy.display().to_string();
    let flags = ["--initiator", &pinned, "--policy", &policy, "--service-initiator", &service_key];
    let service = Service::start(folder.path(), &flags, &api_key).await;
    let signed = service.ended(&service.sign(&bare, [9; 32], None).await).await;
    assert_eq!(signed["status"], "completed", "{signed}");
    let other = service.account("carol", &json!({"publicKey": spare.public_key})).await;
    let refused = service.ended(&service.sign(&other, [9; 32], None).await).await;
    let told = refused["failure"]["message"].as_str().expect("text");
    assert!(told.contains(": initiator: "), "{told}");
}
