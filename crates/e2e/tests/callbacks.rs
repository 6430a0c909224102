//! What becomes of a signature whose parties ask a callback, for each way in which that answers.

use std::collections::BTreeSet;
use std::sync::{Arc, Mutex};

use axum::Router;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse as _, Response};
use axum::routing::post;
use base64::Engine as _;
use base64::prelude::BASE64_STANDARD;
use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use quorate_e2e::{Cluster, call};
use serde_json::{Value, json};
use tokio::net::TcpListener;

/// A party's question, once its signature has been verified.
struct Question {
    party: String,
    identity: String,
    body: Value,
}

/// The operator's service: it answers by the message that is to be signed.
#[derive(Default)]
struct Service {
    asked: Mutex<Vec<Question>>,
}

/// Verifies the signature of a question as the operations page says it is made.
fn verified(headers: &HeaderMap, body: &[u8]) -> Option<(String, String)> {
    let header = headers.get("quorate-signature")?.to_str().ok()?;
    let [party, identity, signature] = header.split(' ').collect::<Vec<_>>()[..] else {
        return None;
    };
    let key = hex::decode(identity).ok()?;
    let key = VerifyingKey::from_bytes(key.as_slice().try_into().ok()?).ok()?;
    let signature = Signature::from_slice(&hex::decode(signature).ok()?).ok()?;
    let signed = |body: &[u8]| [b"\x13quorate/callback/v1".as_slice(), body].concat();
    key.verify_strict(&signed(body), &signature).ok()?;
    let mut other = body.to_vec();
    other[1] ^= 1;
    assert!(key.verify_strict(&signed(&other), &signature).is_err(), "it is over the body");
    Some((party.to_owned(), identity.to_owned()))
}

async fn answer(State(service): State<Arc<Service>>, headers: HeaderMap, body: Bytes) -> Response {
    let Some((party, identity)) = verified(&headers, &body) else {
        return StatusCode::FORBIDDEN.into_response();
    };
    let body: Value = serde_json::from_slice(&body).expect("JSON");
    let message = hex::decode(body["message_hex"].as_str().expect("a message")).expect("hex");
    let before = {
        let mut asked = service.asked.lock().expect("unpoisoned");
        let session = &body["session_id"];
        let same = |other: &&Question| other.party == party && other.body["session_id"] == *session;
        let before = asked.iter().filter(same).count();
        asked.push(Question { party, identity, body });
        before
    };
    let decision = |word: &str| json!({"decision": word}).to_string();
    match message.as_slice() {
        b"approve" => decision("APPROVE").into_response(),
        b"reject" => decision("REJECT").into_response(),
        b"retry and approve" if before == 0 => decision("RETRY").into_response(),
        b"retry and approve" => decision("APPROVE").into_response(),
        b"retry and reject" if before == 0 => decision("RETRY").into_response(),
        b"retry and reject" => decision("REJECT").into_response(),
        b"no answer" => std::future::pending().await,
        b"another word" => decision("MAYBE").into_response(),
        b"no JSON" => "APPROVE".into_response(),
        b"too long" => (decision("APPROVE") + &" ".repeat(4 << 10)).into_response(),
        b"an error" => (StatusCode::BAD_GATEWAY, decision("APPROVE")).into_response(),
        b"elsewhere" => (StatusCode::TEMPORARY_REDIRECT, [("location", "/")]).into_response(),
        other => panic!("{other:?} was not asked for"),
    }
}

struct Scene {
    cluster: Cluster,
    key: String,
}

/// Runs a session: how it ended.
async fn run(cluster: &Cluster, request: &Value) -> Value {
    let url = cluster.url("coordinator", "/api/v1/sessions");
    let (status, session) = call("POST", &url, Some(request)).await;
    assert_eq!(status, 201, "{session}");
    let id = session["session_id"].as_str().expect("an id");
    call("GET", &format!("{url}/{id}?wait=end&wait_seconds=50"), None).await.1
}

impl Scene {
    async fn sign(&self, message: &str) -> Value {
        let message = BASE64_STANDARD.encode(message);
        let request = json!({"session_type": "sign", "key_id": self.key, "message": message});
        run(&self.cluster, &request).await
    }

    async fn refused(&self, message: &str, why: &str) {
        let ended = self.sign(message).await;
        assert_eq!(ended["failure"]["reason"], "policy_denied", "{message}: {ended}");
        let told = ended["failure"]["message"].as_str().expect("text");
        assert!(told.contains(": callback: ") && told.contains(why), "{message}: {told}");
    }
}

#[tokio::test]
async fn each_answer_of_a_callback_has_the_outcome_that_is_promised() {
    let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
    let address = listener.local_addr().expect("bound");
    let service = Arc::<Service>::default();
    let router = Router::new().route("/ask", post(answer)).with_state(service.clone());
    let serving = tokio::spawn(async move { axum::serve(listener, router).await });
    let folder = tempfile::tempdir().expect("a folder");
    let policy = folder.path().join("policy.toml");
    let rules = format!(
        "version = 1\n[keygen]\nunidentified_holders = true\n[default]\n\
         callback = {{ url = \"http://{address}/ask\", deadline_seconds = 3 }}\n"
    );
    std::fs::write(&policy, rules).expect("writable");
    let flags = ["--no-relays", "--policy", policy.to_str().expect("text")];
    let cluster = Cluster::start_with(folder.path(), &flags).await;
    let keygen = json!({
        "session_type": "keygen", "scheme": "ed25519", "threshold_n": 3, "threshold_t": 2,
    });
    let made = run(&cluster, &keygen).await;
    let key = made["key_id"].as_str().expect("a key").to_owned();
    let scene = Scene { cluster, key };

    for message in ["approve", "retry and approve"] {
        let ended = scene.sign(message).await;
        assert_eq!(ended["status"], "completed", "{message}: {ended}");
    }
    scene.refused("reject", "has rejected the request").await;
    scene.refused("retry and reject", "has rejected the request").await;
    scene.refused("no answer", "not answered within 3 seconds").await;
    scene.refused("another word", "APPROVE, REJECT nor RETRY").await;
    scene.refused("no JSON", "APPROVE").await;
    scene.refused("too long", "length limit exceeded").await;
    scene.refused("an error", "status 502").await;
    scene.refused("elsewhere", "status 307").await;
    serving.abort();
    assert!(serving.await.is_err(), "it is gone");
    scene.refused("approve", "refused").await;

    let url = scene.cluster.url("coordinator", &format!("/api/v1/keys/{}", scene.key));
    let (_, shown) = call("GET", &url, None).await;
    let asked = service.asked.lock().expect("unpoisoned");
    let identities = shown["epochs"][0]["attestation"]["identities"].as_array().expect("three");
    for Question { party, identity, body } in asked.iter() {
        let at = shown["holders"].as_array().expect("three").iter().position(|name| name == party);
        assert_eq!(identities[at.expect("a holder")], *identity, "{party} signs what it asks");
        assert_eq!((&body["party_id"], &body["key_id"]), (&json!(party), &json!(scene.key)));
        assert_eq!((&body["initiator"], &body["session_type"]), (&json!("local"), &json!("sign")));
    }
    let signers: BTreeSet<_> = asked.iter().map(|question| &question.party).collect();
    assert!(signers.len() >= 2, "each signer asks for itself: {signers:?}");
}
