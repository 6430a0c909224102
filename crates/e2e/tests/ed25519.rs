//! Ed25519 keys over every way to use them: REST, accounts, the command line, phones.

use std::process::Stdio;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use ed25519_dalek::{Signature, VerifyingKey};
use quorate_e2e::{Cluster, amount, binary, call, last_json, root};
use quorate_testkit::Seeded;
use serde_json::{Value, json};
use tokio::io::AsyncWriteExt as _;
use tokio::process::Command;

fn verify(session: &Value, public_key: &Value, message: &[u8]) {
    let bytes = |value: &Value| hex::decode(value.as_str().expect("hex")).expect("hex");
    let key: [u8; 32] = bytes(public_key).try_into().expect("32 bytes");
    let key = VerifyingKey::from_bytes(&key).expect("a point");
    let signature = Signature::from_slice(&bytes(&session["signature"])).expect("64 bytes");
    key.verify_strict(message, &signature).expect("the signature verifies");
}

async fn ended(cluster: &Cluster, body: &Value) -> Value {
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let (status, session) = call("POST", &url, Some(body)).await;
    assert_eq!(status, 201, "{session}");
    let id = session["session_id"].as_str().expect("an id");
    let (_, ended) = call("GET", &format!("{url}/{id}?wait=end&wait_seconds=60"), None).await;
    assert_eq!(ended["status"], "completed", "{ended}");
    ended
}

fn keygen(scheme: &str) -> Value {
    json!({"session_type": "keygen", "threshold_n": 3, "threshold_t": 2, "scheme": scheme})
}

/// Verifies lines of key, signature and message in hex, and says how many there were.
const VERIFY: &str = "import sys\n\
    from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey as K\n\
    count = 0\n\
    for line in sys.stdin:\n\
    \x20   key, signature, message = (bytes.fromhex(text) for text in line.rstrip('\\n').split(','))\n\
    \x20   K.from_public_bytes(key).verify(signature, message)\n\
    \x20   count += 1\n\
    print(count)\n";

async fn python_verifies(lines: &[String]) {
    let python = std::env::var("QUORATE_PYTHON")
        .unwrap_or_else(|_| root().join("target/venv/bin/python").display().to_string());
    let mut verifier = Command::new(python);
    verifier.args(["-c", VERIFY]).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut verifier = verifier.spawn().expect("it starts");
    let mut stdin = verifier.stdin.take().expect("piped");
    stdin.write_all(lines.concat().as_bytes()).await.expect("it reads");
    drop(stdin);
    let output = verifier.wait_with_output().await.expect("it ends");
    assert!(output.status.success(), "they verify in Python, too");
    let counted = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(counted, lines.len().to_string());
}

#[tokio::test]
async fn messages_are_signed_over_rest_and_verify_elsewhere() {
    const SEED: u64 = 0x6564_3235;
    let mut seeded = Seeded(SEED);
    let mut lines = Vec::new();
    let (cluster, _folder) = Cluster::temporary().await;
    let key = ended(&cluster, &keygen("ed25519")).await;
    assert_eq!(key["public_key"].as_str().map(str::len), Some(64));
    for number in 0..amount(10, 1_000) {
        // Lengths on both sides of SHA-512's block, the empty message and the longest among them.
        let length = [0, 1, 63, 127, 128, 129, 1_000, 64 << 10][number % 8];
        let message: Vec<_> =
            (0..length).map(|_| u8::try_from(seeded.below(256)).expect("a byte")).collect();
        let body = json!({
            "session_type": "sign", "key_id": key["key_id"], "message": STANDARD.encode(&message),
        });
        let signed = ended(&cluster, &body).await;
        assert_eq!(signed["message"], STANDARD.encode(&message));
        assert!(signed.get("message_hash").is_none() && signed.get("recovery_id").is_none());
        verify(&signed, &key["public_key"], &message);
        let text = |value: &Value| value.as_str().expect("hex").to_owned();
        let (key, signature) = (text(&key["public_key"]), text(&signed["signature"]));
        lines.push(format!("{key},{signature},{}\n", hex::encode(&message)));
    }
    python_verifies(&lines).await;
}

#[tokio::test]
async fn a_key_signs_what_its_scheme_signs_and_nothing_else() {
    let (cluster, _folder) = Cluster::temporary().await;
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let [eddsa, ecdsa] = [keygen("ed25519"), keygen("ecdsa-secp256k1")];
    let (eddsa, ecdsa) = (ended(&cluster, &eddsa).await, ended(&cluster, &ecdsa).await);
    let hash = "07".repeat(32);
    let long = STANDARD.encode(vec![0; (64 << 10) + 1]);
    for (key, input, field) in [
        (&eddsa, json!({"message_hash": hash}), "message"),
        (&ecdsa, json!({"message": "cGF5"}), "message_hash"),
        (&eddsa, json!({"message": "cGF5", "message_hash": hash}), "message"),
        (&eddsa, json!({"message": long}), "message"),
        (&eddsa, json!({}), "message_hash"),
    ] {
        let mut body = json!({"session_type": "sign", "key_id": key["key_id"]});
        let fields = input.as_object().expect("an object").clone();
        body.as_object_mut().expect("an object").extend(fields);
        let (status, refused) = call("POST", &url, Some(&body)).await;
        assert_eq!((status, &refused["error"]), (400, &json!("invalid_request")), "{refused}");
        assert!(refused["details"].get(field).is_some(), "{field}: {refused}");
    }
}

#[tokio::test]
async fn an_account_signs_with_an_ed25519_key() {
    let (cluster, _folder) = Cluster::temporary().await;
    let accounts = |path: &str| cluster.url("accounts", path);
    let account = json!({"username": "alice", "email": "alice@example.com"});
    let (status, made) = call("POST", &accounts("/api/v1/accounts"), Some(&account)).await;
    assert_eq!(status, 201, "{made}");
    let id = &made["id"];
    let body = json!({"account_id": id, "threshold_n": 3, "threshold_t": 2, "scheme": "ed25519"});
    let (status, session) = call("POST", &accounts("/api/v1/mpc/keygen"), Some(&body)).await;
    assert_eq!(status, 201, "{session}");
    let session_url = |session: &Value| {
        let id = session["session_id"].as_str().expect("an id");
        accounts(&format!("/api/v1/mpc/sessions/{id}?wait=end&wait_seconds=60"))
    };
    let (_, key) = call("GET", &session_url(&session), None).await;
    assert_eq!(key["status"], "completed", "{key}");
    let body = json!({"account_id": id, "message": STANDARD.encode("pay alice 5")});
    let (status, session) = call("POST", &accounts("/api/v1/mpc/sign"), Some(&body)).await;
    assert_eq!(status, 201, "{session}");
    let (_, signed) = call("GET", &session_url(&session), None).await;
    verify(&signed, &key["public_key"], b"pay alice 5");
}

#[tokio::test]
async fn the_command_line_signs_and_python_verifies() {
    let (cluster, _folder) = Cluster::temporary().await;
    let coordinator = format!("http://{}", cluster.address("coordinator", "grpc"));
    let run = async |arguments: &[&str]| {
        let mut command = Command::new(binary());
        command.args(arguments).args(["--json", "--coordinator", &coordinator]);
        let (ok, answer) = last_json(command).await;
        assert!(ok, "{arguments:?}: {answer}");
        answer
    };
    let made = run(&["keygen", "--scheme", "ed25519"]).await;
    let key = made["public_key"].as_str().expect("hex");
    let id = made["key_id"].as_str().expect("an id");
    for name in [key, id, &id[..8]] {
        let signed = run(&["sign", "--key", name, "--message", "pay alice 5"]).await;
        assert_eq!((&signed["message_hash"], &signed["recovery_id"]), (&Value::Null, &Value::Null));
        verify(&signed, &made["public_key"], b"pay alice 5");
        let signature = signed["signature"].as_str().expect("hex");
        for (message, valid) in [("pay alice 5", true), ("pay alice 6", false)] {
            let words = ["verify", "-k", key, "-s", signature, "--message", message];
            let verified = Command::new(binary()).args(words).stdout(Stdio::null()).status().await;
            assert_eq!(verified.expect("it starts").success(), valid, "{message}");
        }
        let message = hex::encode("pay alice 5");
        python_verifies(&[format!("{key},{signature},{message}\n")]).await;
    }
    let mut refused = Command::new(binary());
    refused.args(["sign", "--key", id, "--digest", &"07".repeat(32), "--json"]);
    refused.args(["--coordinator", &coordinator]);
    let (ok, answer) = last_json(refused).await;
    assert!(!ok && answer.to_string().contains("signs the message itself"), "{answer}");
}

#[tokio::test]
async fn demo_shows_the_same_members_for_ed25519() {
    let demo = async |scheme: &str| {
        let mut command = Command::new(binary());
        command.args(["demo", "--json", "--scheme", scheme]);
        let (ok, told) = last_json(command).await;
        assert!(ok, "{told}");
        told
    };
    let (told, ecdsa) = (demo("ed25519").await, demo("ecdsa-secp256k1").await);
    let names = |value: &Value| -> Vec<_> {
        value.as_object().expect("an object").keys().cloned().collect()
    };
    assert_eq!(names(&told), names(&ecdsa));
    assert_eq!(told["message_hash"], Value::Null);
    verify(&told, &told["public_key"], told["message"].as_str().expect("text").as_bytes());
}
