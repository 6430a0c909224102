//! Devices in processes of their own make a key with a server party and sign with it.

use std::path::Path;

use quorate_e2e::{Cluster, beside_test, call};
use serde_json::{Value, json};
use tokio::process::Command;

/// One device's part in one session; the session as the device saw it end.
async fn device(
    cluster: &Cluster,
    folder: &Path,
    party: &str,
    created: &Value,
    transport: &str,
) -> Value {
    let router = |protocol| format!("http://{}", cluster.address("router", protocol));
    let coordinator = format!("http://{}", cluster.address("coordinator", "http"));
    let mut command = Command::new(beside_test("QUORATE_DEVICE_EXAMPLE", "examples/device"));
    command.arg(folder.join(party)).arg(party);
    command.arg(created["session_id"].as_str().expect("an id"));
    command.arg(created["join_tokens"][party].as_str().expect("a token"));
    match transport {
        "grpc" => command.args(["grpc", &router("grpc")]),
        _ => command.args(["ws", &router("http"), &coordinator]),
    };
    let output = command.output().await.expect("the device starts");
    let text = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{party}: {text}");
    serde_json::from_slice(&output.stdout).expect("JSON")
}

async fn create(cluster: &Cluster, service: &str, path: &str, body: &Value) -> Value {
    let (status, created) = call("POST", &cluster.url(service, path), Some(body)).await;
    assert_eq!(status, 201, "{created}");
    created
}

#[tokio::test]
async fn user_server_and_recovery_make_a_key_and_user_and_server_sign_over_both_transports() {
    let (cluster, folder) = Cluster::temporary().await;
    let accounts = |body| {
        let cluster = &cluster;
        async move { create(cluster, "accounts", "/api/v1/accounts", &body).await }
    };
    let parties = |names: &[&str]| -> Vec<Value> {
        names.iter().map(|name| json!({"party_id": name, "device_type": "iOS"})).collect()
    };
    for (user, recovery, name) in [("ws", "grpc", "alice"), ("grpc", "ws", "bob")] {
        let account = accounts(json!({"username": name})).await;
        let data = folder.path().join(name);
        let keygen = json!({"account_id": account["id"], "threshold_n": 3, "threshold_t": 2,
            "participants": parties(&["user_device", "server-party-1", "recovery_party"])});
        // Another user's devices are others: their names are their own.
        let keygen: Value = serde_json::from_str(
            &keygen
                .to_string()
                .replace("user_device", &format!("{name}_device"))
                .replace("recovery_party", &format!("{name}_recovery")),
        )
        .expect("JSON");
        let created = create(&cluster, "accounts", "/api/v1/mpc/keygen", &keygen).await;
        assert_eq!(created["status"], "waiting");
        let (device_name, recovery_name) = (format!("{name}_device"), format!("{name}_recovery"));
        let (one, two) = tokio::join!(
            device(&cluster, &data, &device_name, &created, user),
            device(&cluster, &data, &recovery_name, &created, recovery),
        );
        assert_eq!((&one["status"], &two["status"]), (&json!("completed"), &json!("completed")));
        assert_eq!(one["public_key"], two["public_key"]);

        let sign = json!({"account_id": account["id"],
            "message_hash": "8dcd9f3511659638d5c33938ddb7fee9bb63533b94a97c7467d3fd36abbdca81",
            "participants": parties(&[&device_name, "server-party-1"])});
        let created = create(&cluster, "accounts", "/api/v1/mpc/sign", &sign).await;
        let signed = device(&cluster, &data, &device_name, &created, user).await;
        assert_eq!(signed["status"], "completed", "{signed}");
        let path = format!("/api/v1/mpc/sessions/{}", created["session_id"].as_str().expect("id"));
        let (_, session) = call("GET", &cluster.url("accounts", &path), None).await;
        assert_eq!(
            (&session["completed_parties"], &session["total_parties"]),
            (&json!(2), &json!(2))
        );
        verify(&one["public_key"], &session);
    }
}

fn verify(public_key: &Value, session: &Value) {
    use k256::ecdsa::signature::hazmat::PrehashVerifier as _;
    let bytes = |value: &Value| hex::decode(value.as_str().expect("hex")).expect("hex");
    let key = k256::ecdsa::VerifyingKey::from_sec1_bytes(&bytes(public_key)).expect("a key");
    let signature = k256::ecdsa::Signature::from_slice(&bytes(&session["signature"]));
    let digest = "8dcd9f3511659638d5c33938ddb7fee9bb63533b94a97c7467d3fd36abbdca81";
    key.verify_prehash(&hex::decode(digest).expect("hex"), &signature.expect("r ‖ s"))
        .expect("the signature verifies");
}
