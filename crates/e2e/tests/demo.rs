//! The main job: one command makes a key and a signature that somebody else can verify.

use k256::ecdsa::signature::hazmat::PrehashVerifier;
use k256::ecdsa::{RecoveryId, Signature, VerifyingKey};
use serde_json::Value;
use tokio::process::Command;

#[tokio::test]
async fn demo_tells_the_story_in_its_order_and_what_to_do_next() {
    let output = Command::new(quorate_e2e::binary()).arg("demo").output().await.expect("it starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let order = ["parties ", "2 of 3", "made in ", "Hello, Quorate!", "signature ", "verified "];
    let mut rest = &*text;
    for part in order {
        let (_, after) = rest.split_once(part).unwrap_or_else(|| panic!("no {part:?} in {rest}"));
        rest = after;
    }
    let last = text.lines().last().expect("a line");
    assert!(last.starts_with("next: `quorate up`"), "{last}");
}

#[tokio::test]
async fn demo_signs_and_an_independent_verifier_accepts() {
    let output = Command::new(quorate_e2e::binary())
        .args(["demo", "--json"])
        .output()
        .await
        .expect("the binary starts");
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    let last: Value = serde_json::from_str(text.lines().last().expect("a line")).expect("JSON");
    let bytes = |name: &str| hex::decode(last[name].as_str().expect(name)).expect(name);
    let key = VerifyingKey::from_sec1_bytes(&bytes("public_key")).expect("a point");
    let signature = Signature::from_slice(&bytes("signature")).expect("r ‖ s");
    let digest = bytes("message_hash");
    key.verify_prehash(&digest, &signature).expect("the signature verifies");
    assert_eq!(signature.normalize_s(), signature, "low s");
    let id = last["recovery_id"].as_u64().and_then(|id| u8::try_from(id).ok()).expect("an id");
    let id = RecoveryId::from_byte(id).expect("0 to 3");
    assert_eq!(VerifyingKey::recover_from_prehash(&digest, &signature, id).expect("a key"), key);
    assert_eq!(last["threshold_t"], 2);
    assert_eq!(last["threshold_n"], 3);
    assert!(last["ethereum_address"].as_str().expect("an address").starts_with("0x"));
    assert!(last["keygen_ms"].as_f64().expect("a number") > 0.0);
}
