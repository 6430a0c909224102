//! A key for Ed25519, made and used through the real binary, and verified by another library.

use ed25519_dalek::{Signature, VerifyingKey};
use quorate_e2e::{Cluster, call};
use serde_json::{Value, json};

/// Creates a session and waits for its end.
async fn run(cluster: &Cluster, request: Value) -> Value {
    let sessions = cluster.url("coordinator", "/api/v1/sessions");
    let (status, created) = call("POST", &sessions, Some(&request)).await;
    assert_eq!(status, 201, "{created}");
    let id = created["session_id"].as_str().expect("an id");
    let (status, ended) = call("GET", &format!("{sessions}/{id}?wait=end"), None).await;
    assert_eq!((status, &ended["status"]), (200, &"completed".into()), "{ended}");
    ended
}

fn bytes(value: &Value) -> Vec<u8> {
    hex::decode(value.as_str().expect("hex")).expect("hex")
}

#[tokio::test]
async fn an_ed25519_key_signs_messages_that_another_library_verifies() {
    let (cluster, _folder) = Cluster::temporary().await;
    let keygen = json!({
        "session_type": "keygen", "scheme": "ed25519", "threshold_n": 3, "threshold_t": 2,
    });
    let made = run(&cluster, keygen).await;
    let key = bytes(&made["public_key"]).try_into().expect("32 bytes");
    let key = VerifyingKey::from_bytes(&key).expect("a point");

    for (message, base64) in [(&b"pay"[..], "cGF5"), (b"", "")] {
        let sign = json!({ "session_type": "sign", "key_id": made["key_id"], "message": base64 });
        let signed = run(&cluster, sign).await;
        assert!(signed.get("recovery_id").is_none_or(Value::is_null), "{signed}");
        assert!(signed.get("message_hash").is_none_or(Value::is_null), "{signed}");
        let signature = Signature::from_slice(&bytes(&signed["signature"])).expect("64 bytes");
        key.verify_strict(message, &signature).expect("it verifies");
    }

    let sessions = cluster.url("coordinator", "/api/v1/sessions");
    let hash = json!({
        "session_type": "sign", "key_id": made["key_id"], "message_hash": "00".repeat(32),
    });
    let (status, refused) = call("POST", &sessions, Some(&hash)).await;
    assert_eq!((status, &refused["error"]), (400, &"invalid_request".into()), "{refused}");
    let text = refused["message"].as_str().expect("a text");
    assert!(text.contains("give message, not message_hash"), "{text}");
    assert!(cluster.stop().await);
}
